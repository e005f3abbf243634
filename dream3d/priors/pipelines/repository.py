"""Which of a repository's files are read: safetensors, never pickles, and of each folder one precision."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import PurePosixPath

from dream3d.errors import ModelError

PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth")
UNREAD = ("*non_ema*", "safety_checker/*", "*openvino_*")
"""Parts nobody reads; OpenVINO's .bin are no pickles."""
PART = re.compile(r"(unet|transformer|vae|text_encoder|text_encoder_\d|image_encoder)/|")
"""Folders whose weights are read, or the top of a part on its own; repositories have others, for other programs."""
VARIANT = re.compile(r"\.(fp16|bf16)(?:-\d+-of-\d+)?\.safetensors$")
"""Ends the name of weights in 16 bits beside others, in one file or several."""
UNWANTED = (
    *UNREAD,
    *(
        f"*.{kind}{rest}"
        for kind in ("fp16", "bf16")
        for rest in (
            ".safetensors",
            "-*.safetensors",
        )
    ),
)
"""What is not fetched where a repository's files are not known: also its variants."""


def folder_variant(names: Iterable[str]) -> str | None:
    """Of one folder's files: "fp16" or "bf16" where weights come in that precision alone, None for plain ones."""
    weights = [name for name in names if name.endswith(".safetensors") and "non_ema" not in name]
    kinds = {found[1] if (found := VARIANT.search(name)) else None for name in weights}
    return None if None in kinds or not kinds else max(kind for kind in kinds if kind)


def unwanted(names: Sequence[str]) -> list[str]:
    """Patterns of files not to fetch: of a folder its plain weights stay, or one variant where there are no others."""
    chosen = {folder: folder_variant(held) for folder, held in _folders(names).items()}
    variants = [(name, found[1]) for name in names if (found := VARIANT.search(name))]
    return [*UNREAD, *(name for name, kind in variants if chosen[_folder(name)] != kind)]


def check_readable(
    repo_id: str, names: Sequence[str], allowed: Sequence[str], others: tuple[str, ...] = ()
) -> None:
    """Refuse a repository some part of which has no safetensors, before anything of it is fetched.

    Args:
        repo_id: owner/name.
        names: its files.
        allowed: patterns of what will be fetched.
        others: ids to name instead.

    Raises:
        ModelError: says what is there, why pickles are not read, and what to do.
    """
    read = [name for name in names if not any(fnmatch(name, pattern) for pattern in UNREAD)]
    lacking = {
        folder: pickles
        for folder, held in _folders(read).items()
        if PART.fullmatch(folder)
        and any(fnmatch(f"{folder}x.safetensors", pattern) for pattern in allowed)
        and not any(name.endswith(".safetensors") for name in held)
        and (pickles := pickled(held))
    }
    whole = any(name.endswith(".safetensors") for name in read)
    if whole and "model_index.json" not in names:
        lacking = {}  # a part on its own, beside which much else may lie
    elif not whole and not lacking and any(fnmatch("x/x.safetensors", one) for one in allowed):
        lacking = {"": pickles} if (pickles := pickled(read)) else {}
    if lacking:
        raise refused(repo_id, [name for held in lacking.values() for name in held], others)


def pickled(names: Iterable[str]) -> list[str]:
    """Those that are pickles."""
    return [name for name in names if any(fnmatch(name, pattern) for pattern in PICKLES)]


def refused(where: object, pickles: Sequence[str], others: tuple[str, ...] = ()) -> ModelError:
    """Why pickles are not read, and what to do."""
    more = f" and {len(pickles) - 2} more" if len(pickles) > 2 else ""
    other = f" ({' or '.join(others)})" if others else ""
    return ModelError(
        f"{where} has these weights as pickles only: {', '.join(pickles[:2])}{more}. To read a pickle is to run code "
        f"of whoever wrote it, so none is ever loaded: take a repository with .safetensors{other}, or load this one in "
        "diffusers on a machine you can lose, `save_pretrained` it, and give that directory"
    )


def _folder(name: str) -> str:
    """With its slash; empty at the top."""
    parent = str(PurePosixPath(name).parent)
    return "" if parent == "." else f"{parent}/"


def _folders(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_folder(name), []).append(name)
    return found
