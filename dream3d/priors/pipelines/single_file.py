"""Stable Diffusion checkpoints that are one file: all weights under the names of the original training code.

Such a file says nothing of its configuration and has no tokenizer: both come from a directory in diffusers' layout of
the same kind of model, whose weights are not needed. diffusers renames the weights; that each finds its place is
checked here.
"""

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import safe_open

from dream3d.errors import ModelError
from dream3d.priors.latent.components import quiet_libraries, read_json
from dream3d.priors.pipelines.parts import check_safetensors, refuse_gaps
from dream3d.priors.pipelines.repository import PICKLES

PREDICTIONS = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon"}
"""What a file's `modelspec.prediction_type` may say, in diffusers' words."""


@dataclass(frozen=True)
class Family:
    """One kind of model that comes as a single file.

    Attributes:
        name: for people.
        pipeline: its class in diffusers.
        role: of the model in `models.toml` whose configuration fits.
        texts: where the text encoders' weights are, by part.
    """

    name: str
    pipeline: str
    role: str
    texts: dict[str, str]


FAMILIES = (
    Family(
        "Stable Diffusion 1.x",
        "StableDiffusionPipeline",
        "stable-diffusion",
        {"text_encoder": "cond_stage_model.transformer."},
    ),
    Family(
        "Stable Diffusion 2.x",
        "StableDiffusionPipeline",
        "stable-diffusion-2",
        {"text_encoder": "cond_stage_model.model."},
    ),
    Family(
        "Stable Diffusion XL",
        "StableDiffusionXLPipeline",
        "sdxl",
        {
            "text_encoder": "conditioner.embedders.0.transformer.",
            "text_encoder_2": "conditioner.embedders.1.model.",
        },
    ),
)
NETWORK, CODEC = "model.diffusion_model.", "first_stage_model."


def is_single_file(model: str) -> bool:
    """Whether `prior.model` names one file, by its ending."""
    return f"*{Path(model).suffix}" in ("*.safetensors", *PICKLES)


def checkpoint_family(file: Path) -> Family:
    """What kind of model a file holds, told by the names of its weights.

    Raises:
        ModelError: no such file, not safetensors, cut short, or another kind of model.
    """
    if not file.is_file():
        raise ModelError(f"there is no file {file}; check prior.model")
    if file.suffix != ".safetensors":
        raise ModelError(
            f"{file} is not a .safetensors file; others can run code when read and are refused. Take the model's "
            ".safetensors, or convert it on a machine you can lose"
        )
    check_safetensors(file)
    keys = _keys(file)
    if any(key.startswith(NETWORK) for key in keys):
        for family in FAMILIES:
            if all(any(k.startswith(prefix) for k in keys) for prefix in family.texts.values()):
                return family
    first = keys[0] if keys else "nothing"
    raise ModelError(
        f"{file} is no whole checkpoint of a kind known here (it holds {first}, ...); a single file may be one of "
        f"{', '.join(family.name for family in FAMILIES)}, with network and text encoders under the original names. "
        "A LoRA goes to prior.loras, a codec to prior.vae; other models are read from diffusers directories"
    )


def load_single(cls: Any, folder: Path, dtype: torch.dtype, file: Path) -> Any:
    """A network configured by `folder`, with its weights from `file`, every one accounted for.

    Args:
        cls: of the network.
        folder: holds its `config.json`; the name says which part it is: unet, vae, text_encoder or text_encoder_2.
        dtype: of the weights.
        file: the checkpoint.

    Raises:
        ModelError: weights are missing, left over or of another size, or the part is not in the file.
    """
    part, family = folder.name, checkpoint_family(file)
    prefix = {"unet": NETWORK, "vae": CODEC, **family.texts}.get(part)
    tensors = {} if prefix is None else _read(file, prefix)
    if not tensors:
        remedy = "; give one as prior.vae" if part == "vae" else ""
        raise ModelError(f"{file} holds no {part}{remedy}")
    try:
        # Without memory for weights that are about to be replaced; accelerate comes with PEFT.
        with quiet_libraries(), init_empty_weights():
            if issubclass(cls, _transformers_model()):
                module = cls(cls.config_class.from_pretrained(folder, local_files_only=True))
            else:
                module = cls.from_config(cls.load_config(folder, local_files_only=True))
        report = _fill(module, _renamed(part, str(prefix), tensors, module))
    except Exception as error:  # diffusers' renaming fails on a strange layout in its own ways
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"the {part} of {file} does not fit the configuration in {folder}: {reason[:300]}; give a prior.config "
            f"of the same kind of model ({family.name})"
        ) from error
    refuse_gaps(report, f"the {part} weights of {file}, read with the configuration in {folder},")
    return module.to(dtype).eval().requires_grad_(False)


def file_scheduler(scheduler: Any, file: Path) -> Any:
    """The scheduler with what the file itself says of the prediction, where it says anything.

    Files made by newer trainers carry it in their metadata, or as an empty weight called `v_pred` (and `ztsnr` for a
    last noise level without signal). Everything else is as in the configuration.
    """
    with safe_open(file, framework="pt") as opened:
        metadata, keys = opened.metadata() or {}, set(opened.keys())
    said = PREDICTIONS.get(str(metadata.get("modelspec.prediction_type")))
    told: dict[str, Any] = {}
    if "v_pred" in keys or said:
        told["prediction_type"] = "v_prediction" if "v_pred" in keys else said
    if (
        "ztsnr" in keys
        and "rescale_betas_zero_snr" in inspect.signature(type(scheduler)).parameters
    ):
        told["rescale_betas_zero_snr"] = True
    return type(scheduler).from_config(scheduler.config, **told) if told else scheduler


def check_configuration(directory: Path, family: Family) -> None:
    """Refuse a `prior.config` of another pipeline than the file's.

    Raises:
        ModelError: names both.
    """
    path = directory / "model_index.json"
    name = read_json(path).get("_class_name") if path.is_file() else "no pipeline"
    if name != family.pipeline:
        raise ModelError(
            f"prior.config is {directory}, which holds {name}; a {family.name} file needs the configuration of a "
            f"{family.pipeline}"
        )


def _keys(file: Path) -> list[str]:
    with file.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    return sorted(key for key in header if key != "__metadata__")


def _read(file: Path, prefix: str) -> dict[str, torch.Tensor]:
    with safe_open(file, framework="pt") as opened:
        return {key: opened.get_tensor(key) for key in _keys(file) if key.startswith(prefix)}


def _transformers_model() -> type:
    from transformers import PreTrainedModel

    return PreTrainedModel


def _renamed(
    part: str, prefix: str, tensors: dict[str, torch.Tensor], module: Any
) -> dict[str, torch.Tensor]:
    """The weights under the names `module` knows them by."""
    from diffusers.loaders import single_file_utils as original

    if part == "unet":
        return original.convert_ldm_unet_checkpoint(tensors, module.config)
    if part == "vae":
        return original.convert_ldm_vae_checkpoint(tensors, module.config)
    if prefix.endswith(".model."):
        weights = original.convert_open_clip_checkpoint(module, tensors, prefix=prefix)
    else:
        weights = original.convert_ldm_clip_checkpoint(tensors)
    # transformers 5 has CLIPTextModel without the level `text_model`.
    if any(key.startswith("text_model.") for key in module.state_dict()):
        return weights
    return {key.removeprefix("text_model."): value for key, value in weights.items()}


def _fill(module: torch.nn.Module, weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Load `weights`; returns what was missing, left over, or of another size."""
    own = module.state_dict()
    wrong = [key for key in own if key in weights and weights[key].shape != own[key].shape]
    fitting = {key: value for key, value in weights.items() if key not in wrong}
    missing, unexpected = module.load_state_dict(fitting, strict=False, assign=True)
    return {
        "missing_keys": [key for key in missing if key not in wrong],
        "unexpected_keys": unexpected,
        "mismatched_keys": wrong,
    }
