"""Reading and writing a diffusers-format directory, part by part, without the pipeline classes.

`model_index.json` names the class of each part. Only classes on the list below are read, so that a directory cannot
choose code to run, and nothing is ever fetched: a directory is local or it is an error.
"""

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.modeling_utils import ModelMixin
from safetensors.torch import save_file
from transformers.utils import logging as transformers_logging

from dream3d.errors import ModelError
from dream3d.priors.latent.camera_encoder import CameraEncoder
from dream3d.priors.latent.multiview import enable_joint_views

LIBRARIES = (
    "diffusers",
    "transformers",
    "dream3d.priors.latent.codec",
    "dream3d.priors.latent.camera_encoder",
)
"""Where the classes named in a model_index.json may come from."""
REQUIRED = ("tokenizer", "text_encoder", "unet", "vae", "scheduler")
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
MODULES = ("text_encoder", "unet", "vae", "camera_encoder")


@dataclass
class Components:
    """The parts of one text-to-image model.

    Attributes:
        tokenizer: words to ids, padded to its `model_max_length`.
        text_encoder: ids to embeddings; its first output is [B, L, D].
        unet: the network; reads embeddings by cross-attention.
        vae: images in [-1, 1] to latents and back; `AutoencoderKL` or a `PatchCodec`.
        scheduler: only its `alphas_cumprod` and `prediction_type` are used.
        camera_encoder: cameras to tokens appended to the text's; None for a text-only model.
    """

    tokenizer: Any
    text_encoder: Any
    unet: UNet2DConditionModel
    vae: Any
    scheduler: Any
    camera_encoder: CameraEncoder | None = None

    def __post_init__(self) -> None:
        if self.camera_encoder is not None:
            enable_joint_views(self.unet)

    def modules(self) -> dict[str, torch.nn.Module]:
        """The parts with weights, by their folder's name."""
        parts = {name: getattr(self, name) for name in MODULES}
        return {name: part for name, part in parts.items() if part is not None}

    def to(self, device: torch.device) -> "Components":
        """Move every part with weights, in place."""
        for module in self.modules().values():
            module.to(device)
        return self


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No progress bars of transformers' own on the terminal for the length of a block."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model directory.

    Raises:
        ModelError: missing, unreadable or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot read {path.name} of the model at {path.parent}: {error}; restore the directory"
        ) from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object; restore the directory")
    return content


def _part_class(entry: object, name: str, directory: Path) -> type:
    if not (isinstance(entry, list) and len(entry) == 2 and entry[0] in LIBRARIES):
        raise ModelError(
            f"model_index.json of {directory} names {entry!r} as its {name}; "
            f"allowed are classes of {', '.join(LIBRARIES)}"
        )
    found = getattr(importlib.import_module(entry[0]), str(entry[1]), None)
    if not isinstance(found, type):
        raise ModelError(
            f"{name} of {directory} is a {entry[1]}, which this version of {entry[0]} lacks"
        )
    return found


def _read_module(part: Any, directory: Path, name: str, dtype: torch.dtype) -> torch.nn.Module:
    """One network with every weight accounted for; a library's default is to fill gaps at random."""
    with quiet_libraries():
        module, report = part.from_pretrained(
            directory / name,
            local_files_only=True,
            use_safetensors=True,
            torch_dtype=dtype,
            output_loading_info=True,
        )
    problems = [
        f"{len(report[kind])} {kind.replace('_', ' ')}"
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if any("position_ids" not in str(key) for key in report.get(kind, ()))
    ]
    if problems:
        raise ModelError(f"the {name} weights of {directory} do not fit it: {', '.join(problems)}")
    return module.eval().requires_grad_(False)


def load_components(
    directory: Path, device: torch.device, dtype: torch.dtype = torch.float32
) -> Components:
    """Read every part of a diffusers-format directory.

    Args:
        directory: holds model_index.json and one folder per part.
        device: where the networks go.
        dtype: of their weights, whatever the files hold.

    Raises:
        ModelError: a part is missing, damaged, of an unknown class, or its weights do not fit.
    """
    index = read_json(directory / "model_index.json")
    missing = [name for name in REQUIRED if name not in index]
    if missing:
        raise ModelError(f"model_index.json of {directory} lacks {', '.join(missing)}")
    parts: dict[str, Any] = {}
    for name in (*REQUIRED, "camera_encoder"):
        if index.get(name) in (None, [None, None]):
            continue
        part = _part_class(index[name], name, directory)
        try:
            if name in MODULES:
                parts[name] = _read_module(part, directory, name, dtype)
            else:
                parts[name] = part.from_pretrained(directory / name, local_files_only=True)  # type: ignore[attr-defined]
        except ModelError:
            raise
        except (
            Exception
        ) as error:  # the libraries raise OSError, ValueError, KeyError, SafetensorError, ...
            reason = str(error).strip().splitlines()
            raise ModelError(
                f"cannot read the {name} of the model at {directory}: "
                f"{reason[0] if reason else type(error).__name__}; restore the directory"
            ) from error
    return Components(**parts).to(device)


def save_tokenizer_lists(directory: Path) -> None:
    """Beside tokenizer.json, the vocabulary and merge lists that transformers 4 reads."""
    model = read_json(directory / "tokenizer.json")["model"]
    (directory / "vocab.json").write_text(json.dumps(model["vocab"]) + "\n", "utf-8")
    lines = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n", "utf-8")


def save_components(
    components: Components, directory: Path, dtype: torch.dtype = torch.float16
) -> None:
    """Write every part into an existing, empty directory, weights as safetensors of `dtype`.

    The networks are left as they are.
    """
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline"}
    components.tokenizer.save_pretrained(directory / "tokenizer")
    save_tokenizer_lists(directory / "tokenizer")
    components.scheduler.save_pretrained(directory / "scheduler")
    for name, part in components.modules().items():
        weights = {
            key: value.detach().to("cpu", dtype).contiguous()
            for key, value in part.state_dict().items()
        }
        with quiet_libraries():
            if isinstance(part, ModelMixin):
                # Where a model was read from is nobody's business who gets it.
                part.register_to_config(_name_or_path="")
                part.save_config(directory / name)
                save_file(weights, directory / name / WEIGHTS_NAME, metadata={"format": "pt"})
            else:
                # transformers 4 and 5 both read CLIP's weights under this prefix, 5 alone without.
                prefixed = {
                    f"text_model.{key.removeprefix('text_model.')}": weights[key] for key in weights
                }
                part.save_pretrained(directory / name, state_dict=prefixed)  # type: ignore[operator]
    for name in (*REQUIRED, "camera_encoder"):
        part = getattr(components, name)
        if part is not None:
            module = type(part).__module__
            library = module if module in LIBRARIES else module.split(".")[0]
            index[name] = [library, type(part).__name__]
    for unused in ("safety_checker", "feature_extractor", "image_encoder"):
        index[unused] = [None, None]
    index["requires_safety_checker"] = False
    (directory / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
