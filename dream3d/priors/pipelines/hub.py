"""From a model's id to a directory on this machine: downloads, and says plainly why one is not possible."""

import difflib
import re
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from dream3d.errors import ModelError
from dream3d.priors.model_list import alternatives, model_list, roles
from dream3d.priors.pipelines.repository import UNWANTED, check_readable, unwanted

CARD = "README.md"
"""Tells, at its head, the licence."""
WANTED = ("*.json", "*.txt", "*.model", "*.jinja", CARD)


@runtime_checkable
class Fetch(Protocol):
    """`huggingface_hub.snapshot_download`, or a test's stand-in."""

    def __call__(self, repo_id: str, **options: Any) -> str:
        """The directory the files of `repo_id` are in."""
        ...


PATIENCE = 10.0
"""Seconds the hub is given for its first answer."""


def download(repo_id: str, **options: Any) -> str:
    """`huggingface_hub.snapshot_download`, which by itself waits without end for a hub that never answers.

    Of folders whose weights come in 16 bits alone, these are fetched.

    Raises:
        ModelError: some weights are pickles only; nothing is fetched then.
    """
    from huggingface_hub import errors, model_info, snapshot_download

    try:
        info = model_info(repo_id, revision=options.get("revision"), timeout=PATIENCE)
    except errors.HfHubHTTPError:
        pass  # an answer; the download will meet it too, and may do with what is here already
    except Exception:  # the transport's own, offline mode: what is on this machine has to do
        return snapshot_download(repo_id, **options, local_files_only=True)
    else:
        names = [file.rfilename for file in info.siblings or ()]
        check_readable(repo_id, names, options["allow_patterns"], alternatives(repo_id))
        options["ignore_patterns"] = unwanted(names)
    return snapshot_download(repo_id, **options)


def _like(name: str) -> str:
    """A question about the listed ids or roles that look most like `name`; empty where none does."""
    known = [*roles(), *(entry.id for entry in model_list())]
    close = difflib.get_close_matches(name, dict.fromkeys(known), n=2, cutoff=0.75)
    return f" Did you mean {' or '.join(close)}?" if close and name not in close else ""


def is_directory(source: str) -> bool:
    """Whether `source` means a place on this machine: it is there, or it is written as a path."""
    path = Path(source).expanduser()
    return path.exists() or source.startswith((".", "/", "~", "\\")) or path.is_absolute()


def check_source(source: str, setting: str) -> None:
    """Refuse what is neither a directory that is there nor the form of an id; asks no hub.

    Raises:
        ModelError: names the setting.
    """
    if is_directory(source):
        path = Path(source).expanduser()
        if not path.is_dir():
            raise ModelError(
                f"{setting}: there is no directory {path}; give a model's directory or its id, owner/name"
            )
        return
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source, re.ASCII):
        raise ModelError(
            f"{setting} is '{source}'; give a directory, an id of the form owner/name, or a role that "
            f"`dream3d models list` names.{_like(source)}"
        )


def model_directory(
    source: str,
    revision: str = "",
    fetch: Fetch | None = None,
    alternatives: tuple[str, ...] = (),
    whole: bool = False,
    weights: bool = True,
    only: tuple[str, ...] = (),
    setting: str = "prior.model",
) -> Path:
    """Where the files of a model are; downloads them first if `source` is an id that is not here yet.

    Args:
        source: a directory, or an id on the Hugging Face hub ("owner/name").
        revision: a branch, tag or commit; empty for the main branch.
        fetch: what downloads; None for the hub's own client.
        alternatives: ids to name when this one cannot be had. They are never taken by themselves.
        whole: also weights at the top, as a part on its own has; of a pipeline only its folders' are fetched.
        only: patterns of the files to fetch instead.
        setting: what named it, for messages.
        weights: False leaves them out: configurations and tokenizers alone.

    Raises:
        ModelError: gated, missing, no network, or a directory that is not there; with the remedy.
    """
    check_source(source, setting)
    if is_directory(source):
        return Path(source).expanduser()
    fetch = cast(Fetch, download) if fetch is None else fetch
    files = [*WANTED, "*.safetensors" if whole else "*/*.safetensors"] if weights else [*WANTED]
    try:
        return Path(
            fetch(
                source,
                revision=revision or None,
                allow_patterns=list(only) or files,
                ignore_patterns=list(UNWANTED),
            )
        )
    except ModelError:
        raise
    except Exception as error:  # the client raises its own, the transport's and the system's errors
        raise hub_error(source, error, alternatives, setting) from error


def local_adapter(source: str) -> Path | None:
    """An IP-Adapter's file on this machine; None of an address on the hub that has the form of one.

    Raises:
        ModelError: none or several files in a directory; or no such form.
    """
    if is_directory(source):
        path = Path(source).expanduser()
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        if len(files) != 1:
            names = ", ".join(file.name for file in files) or "none"
            raise ModelError(f"{path} should hold one .safetensors file, it has {names}; name one")
        return files[0]
    if not re.fullmatch(r"[\w.-]+/[\w.-]+/.+\.safetensors", source, re.ASCII):
        raise ModelError(
            f"prior.ip_adapter is '{source}'; give a .safetensors file, owner/name/folder/file.safetensors, or the "
            "role ip-adapter"
        )
    return None


def adapter_file(source: str) -> Path:
    """An IP-Adapter's file, its image encoder's folder beside it; of an id only these two are fetched.

    Args:
        source: a file, a directory with one .safetensors file, or an id and a path in it: owner/name/folder/file.

    Raises:
        ModelError: as `model_directory` and `local_adapter`.
    """
    if (file := local_adapter(source)) is not None:
        return file
    owner, name, inside = source.split("/", 2)
    folder = inside.rpartition("/")[0]
    beside = f"{folder}/image_encoder" if folder else "image_encoder"
    only = (inside, f"{beside}/*.json", f"{beside}/*.safetensors", CARD)
    return model_directory(f"{owner}/{name}", only=only, setting="prior.ip_adapter") / inside


def hub_error(
    source: str,
    error: Exception,
    alternatives: tuple[str, ...] = (),
    setting: str = "prior.model",
) -> ModelError:
    """What a failed download means, and what to do."""
    from huggingface_hub import errors

    other = f" Others for the same purpose: {', '.join(alternatives)}." if alternatives else ""
    local = f"or give a local directory ({setting}=/path/to/it)"
    if isinstance(error, errors.LocalEntryNotFoundError):
        answer = error.__cause__  # the client says so too where the hub is there but busy
        error = answer if isinstance(answer, errors.HfHubHTTPError) else error
    if isinstance(error, errors.GatedRepoError):
        return ModelError(
            f"{source} is gated: accept its licence at https://huggingface.co/{source}, log in with "
            f"`hf auth login`, and run again, {local}.{other}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(
            f"{source} has no such revision; leave prior.revision empty for its main branch"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelError(
            f"{source} does not exist on the hub, or is private: check the spelling, {local}.{_like(source)}{other}"
        )
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return ModelError(
            f"{source} is not on this machine and the hub cannot be reached: connect (or unset HF_HUB_OFFLINE), "
            f"run `hf download {source}` where there is a network and copy it, {local}.{other}"
        )
    if isinstance(error, OSError) and not isinstance(error, errors.HfHubHTTPError):
        if error.errno == 28:
            return ModelError(
                f"no room for {source}: free some space, or set HF_HOME to a larger disk"
            )
        return ModelError(
            f"{source} cannot be downloaded ({error}): check the network, {local}.{other}"
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ModelError(f"{source} cannot be downloaded ({reason}): try again later, {local}.{other}")
