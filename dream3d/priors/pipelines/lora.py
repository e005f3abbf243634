"""A user's LoRA files, merged into the weights they belong to; every update must find its place."""

from pathlib import Path
from typing import Any

from dream3d.errors import ModelError
from dream3d.priors.pipelines.parts import check_file
from dream3d.priors.pipelines.table import PipelineRow

NAME = "user"


def read_lora(row: PipelineRow, file: Path, network: Any) -> tuple[dict[str, Any], Any]:
    """Updates by part ("unet.", "text_encoder.", ...) in diffusers' names, and their alphas, from any common layout.

    Raises:
        ModelError: no such file, not safetensors, cut short, or made for another kind of model.
    """
    import diffusers

    check_file(file, "LoRA", "prior.loras")
    pipeline: Any = getattr(diffusers, row.pipeline)
    if not hasattr(pipeline, "lora_state_dict"):
        raise ModelError(f"a {row.pipeline} takes no LoRA; leave prior.loras empty")
    try:
        found = pipeline.lora_state_dict(
            str(file.parent),
            weight_name=file.name,
            use_safetensors=True,
            local_files_only=True,
            unet_config=network.config,
        )
    except Exception as error:  # each layout's converter fails in its own way
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{file} is not a LoRA for a {row.pipeline}: {reason}") from error
    state, alphas = found if isinstance(found, tuple) else (found, None)
    allowed = (f"{row.network}.", "text_encoder.", "text_encoder_2.")
    strange = [key for key in state if not key.startswith(allowed)]
    if strange or not state:
        what = f"it updates {strange[0]}" if strange else "it is empty"
        raise ModelError(f"{file} is not a LoRA for a {row.pipeline}: {what}")
    return state, alphas


def merge_lora(network: Any, row: PipelineRow, file: Path, scale: float) -> None:
    """Add `scale` times a LoRA to the weights of `network`, which is a plain network again afterwards.

    Raises:
        ModelError: as `read_lora`; also an update that finds no layer of its name or size.
    """
    from peft.utils import get_peft_model_state_dict

    state, alphas = read_lora(row, file, network)
    prefix = f"{row.network}."
    own = {key: value for key, value in state.items() if key.startswith(prefix)}
    if not own:
        return
    try:
        network.load_lora_adapter(
            dict(own), prefix=row.network, network_alphas=alphas, adapter_name=NAME
        )
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{file} does not fit this {row.pipeline}: {reason[:300]}") from error
    placed = len(get_peft_model_state_dict(network, adapter_name=NAME))
    wanted = sum(not key.endswith(".alpha") for key in own)
    if placed != wanted:
        network.unload_lora()
        raise ModelError(
            f"{file} does not fit this {row.pipeline}: {placed} of its {wanted} updates find a layer; "
            "take a LoRA made for this very kind of model"
        )
    network.fuse_lora(lora_scale=scale, adapter_names=[NAME])
    network.unload_lora()


def load_text_lora(pipeline: Any, row: PipelineRow, file: Path, scale: float, network: Any) -> None:
    """The part of a LoRA that belongs to text encoders, onto those of `pipeline`; nothing where it has none.

    Raises:
        ModelError: it does not fit, or the installed transformers and PEFT do not go together.
    """
    state, alphas = read_lora(row, file, network)
    for name in ("text_encoder", "text_encoder_2"):
        if any(key.startswith(f"{name}.") for key in state):
            try:
                type(pipeline).load_lora_into_text_encoder(
                    dict(state),
                    network_alphas=alphas,
                    text_encoder=getattr(pipeline, name),
                    prefix=name,
                    lora_scale=scale,
                )
            except Exception as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise ModelError(
                    f"the {name} part of {file} cannot be loaded: {reason[:200]}"
                ) from error
