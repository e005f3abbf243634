"""A diffusers directory's parts, each strictly: every weight accounted for, safetensors only, known classes only."""

import importlib
import importlib.util
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch

from dream3d.errors import ModelError
from dream3d.priors.latent.components import quiet_libraries, read_json
from dream3d.priors.pipelines.repository import folder_variant, pickled, refused
from dream3d.priors.pipelines.table import ROWS, PipelineRow

LIBRARIES = ("diffusers", "transformers")
"""Where the classes named in a model_index.json may come from."""


def pipeline_row(directory: Path) -> PipelineRow:
    """The row of the pipeline a directory holds.

    Raises:
        ModelError: no model there, another kind of pipeline, or a diffusers too old for it.
    """
    import diffusers

    if not (directory / "model_index.json").is_file():
        raise ModelError(
            f"{directory} holds no diffusers pipeline: it has no model_index.json. Give the directory that "
            "`save_pretrained` wrote, or a model id such as stable-diffusion-v1-5/stable-diffusion-v1-5"
        )
    name = read_json(directory / "model_index.json").get("_class_name")
    row = ROWS.get(str(name))
    if row is None:
        raise ModelError(
            f"{directory} holds a {name}, which is not supported; supported are {', '.join(ROWS)}"
        )
    if not hasattr(diffusers, row.pipeline):
        raise ModelError(
            f"{row.pipeline} needs diffusers {row.since} or newer, this is {diffusers.__version__}: "
            "pip install -U diffusers"
        )
    missing = [name for name in row.needs if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(
            f"a {row.pipeline} needs {', '.join(missing)}: pip install 'dream3d[models]'"
        )
    return row


def part_class(index: dict[str, Any], name: str, directory: Path) -> type | None:
    """The class of one part; None where the pipeline goes without it.

    Raises:
        ModelError: a class from elsewhere, or one this version of the library lacks.
    """
    entry = index.get(name)
    if entry is None or entry == [None, None]:
        return None
    if not (isinstance(entry, list) and len(entry) == 2 and entry[0] in LIBRARIES):
        raise ModelError(
            f"model_index.json of {directory} names {entry!r} as its {name}; allowed are classes of "
            f"{' and '.join(LIBRARIES)} (code in a model's directory is not run)"
        )
    library = importlib.import_module(entry[0])
    found = getattr(library, str(entry[1]), None)
    if not (isinstance(found, type) and hasattr(found, "from_pretrained")):
        raise ModelError(
            f"{name} of {directory} is a {entry[1]}, which {entry[0]} {library.__version__} lacks: "
            f"pip install -U {entry[0]}"
        )
    return found


def check_weights(folder: Path) -> None:
    """Refuse a folder whose weights are pickles, missing or cut short, before any library opens them.

    Raises:
        ModelError: says which file and what to do.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        if pickles := pickled(sorted(path.name for path in folder.iterdir())):
            raise refused(folder, pickles)
        raise ModelError(f"{folder} has no .safetensors weights; restore it or download it again")
    for path in files:
        check_safetensors(path)


def check_file(file: Path, what: str, setting: str) -> None:
    """Refuse a user's file that is not there, could run code, or is cut short.

    Raises:
        ModelError: names the setting.
    """
    if not file.is_file():
        raise ModelError(f"there is no {what} file {file}; {setting} takes .safetensors files")
    if file.suffix != ".safetensors":
        raise ModelError(
            f"{file} ({setting}) is not a .safetensors file; others can run code when read and are refused"
        )
    check_safetensors(file)


def check_safetensors(path: Path) -> None:
    """Refuse a safetensors file that is shorter than its header says, as a broken download leaves it.

    Raises:
        ModelError: with the sizes.
    """
    remedy = "delete it and download it again"
    with path.open("rb") as file:
        first = file.read(8)
        length = int.from_bytes(first, "little")
        size = path.stat().st_size
        if len(first) < 8 or length > size - 8 or length > 100_000_000:
            hint = " (a Git LFS pointer?)" if first.startswith(b"version") else ""
            raise ModelError(f"{path} is not a whole safetensors file{hint}; {remedy}")
        try:
            header = json.loads(file.read(length))
            end = max(
                (v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"), default=0
            )
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ModelError(f"{path} is not a whole safetensors file; {remedy}") from error
    if size != 8 + length + end:
        raise ModelError(
            f"{path} has {size} of {8 + length + end} bytes: half-downloaded; {remedy}"
        )


def load_part(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A network with every weight accounted for, or a tokenizer or scheduler.

    Raises:
        ModelError: damaged, of another kind, or weights missing or left over.
    """
    name = folder.name
    if not folder.is_dir() or not any(folder.iterdir()):
        # The libraries would look for it on the hub.
        raise ModelError(
            f"{folder.parent} lacks its folder {name}; restore the directory or download it again"
        )
    try:
        if not issubclass(cls, torch.nn.Module):
            return cls.from_pretrained(folder, local_files_only=True)
        check_weights(folder)
        with quiet_libraries():
            module, report = cast(Any, cls).from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                torch_dtype=dtype,
                variant=folder_variant(path.name for path in folder.iterdir()),
                output_loading_info=True,
            )
    except ModelError:
        raise
    except (
        Exception
    ) as error:  # the libraries raise OSError, ValueError, KeyError, SafetensorError, ...
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"cannot read the {name} at {folder}: {reason}; restore the directory"
        ) from error
    refuse_gaps(report, f"the {name} weights of {folder.parent}")
    return module.eval().requires_grad_(False)


def refuse_gaps(report: dict[str, Any], what: str) -> None:
    """Libraries fill missing weights at random and drop those left over; here both are errors.

    Raises:
        ModelError: names the first of them.
    """
    problems = []
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = [str(key) for key in report.get(kind, ()) if "position_ids" not in str(key)]
        if keys:
            problems.append(f"{len(keys)} {kind.replace('_', ' ')} ({keys[0]}, ...)")
    if problems:
        raise ModelError(f"{what} do not fit it: {'; '.join(problems)}")


def open_text_pipeline(
    directory: Path,
    row: PipelineRow,
    dtype: torch.dtype,
    load: Callable[[Any, Path, torch.dtype], Any] = load_part,
) -> Any:
    """A pipeline that can only embed prompts: its text encoders and tokenizers, nothing else, on the CPU.

    Raises:
        ModelError: as `load_part`.
    """
    index = read_json(directory / "model_index.json")
    given: dict[str, Any] = {}
    for name in inspect.signature(pipeline_class(row).__init__).parameters:
        if name.startswith(("text_encoder", "tokenizer")):
            part = part_class(index, name, directory)
            given[name] = None if part is None else load(part, directory / name, dtype)
    return partial_pipeline(row, index, given)


def pipeline_class(row: PipelineRow) -> Any:
    """diffusers' class."""
    import diffusers

    return getattr(diffusers, row.pipeline)


def partial_pipeline(row: PipelineRow, index: dict[str, Any], given: dict[str, Any]) -> Any:
    """A pipeline of some parts only, for the methods that need no others.

    Args:
        row: of its class.
        index: model_index.json, whose scalars are settings.
        given: the parts.
    """
    cls, given = pipeline_class(row), dict(given)
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        if name == "self" or name in given:
            continue
        if name == "requires_safety_checker":
            given[name] = False
        elif name in index and not isinstance(index[name], list):
            given[name] = index[name]
        elif parameter.default is inspect.Parameter.empty:
            given[name] = None
    return cls(**given)
