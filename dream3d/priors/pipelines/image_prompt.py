"""A picture as a prompt (IP-Adapter, Ye et al. 2023): attention to a few tokens that an image encoder made of it.

The encoder looks at the picture once, the tokens are made once, and both the encoder and the projection are let go;
what stays is one more attention per layer of the network. The tokens travel with the text (see `packing`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from dream3d.errors import ModelError
from dream3d.priors.latent.components import quiet_libraries
from dream3d.priors.pipelines.parts import check_file, load_part, partial_pipeline
from dream3d.priors.pipelines.pictures import read_image
from dream3d.priors.pipelines.table import PipelineRow


@dataclass(frozen=True)
class ImagePrompt:
    """What is needed to prompt with a picture.

    Attributes:
        image: the picture's file.
        weights: the adapter's .safetensors file.
        encoder: directory of the CLIPVisionModelWithProjection it was trained with.
        scale: strength beside the words.
    """

    image: Path
    weights: Path
    encoder: Path
    scale: float = 0.6


def add_image_prompt(
    network: Any, row: PipelineRow, prompt: ImagePrompt, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "2 N D"]:
    """Give `network`, on the CPU, the adapter's attention; returns the tokens of no picture and of the picture.

    Args:
        network: a U-Net; it wants a pair of text and image tokens from then on.
        row: of its pipeline.
        prompt: picture, adapter and encoder.
        device: where the encoder looks at the picture.
        dtype: of the weights.

    Raises:
        ModelError: a file is missing, damaged, or made for another kind of model.
    """
    if not row.adapters:
        raise ModelError(f"a {row.pipeline} takes no IP-Adapter here; leave prior.ip_adapter empty")
    image = read_image(prompt.image, "prior.image_prompt")
    state = read_adapter(prompt.weights)
    _check_fit(state, network, row, prompt.weights)
    encoder = open_encoder(prompt.encoder, state["image_proj"], dtype)
    pipeline = partial_pipeline(
        row, {}, {row.network: network, "image_encoder": encoder.to(device)}
    )
    try:
        with quiet_libraries(), torch.no_grad():
            pipeline.load_ip_adapter(state, subfolder="", weight_name="")
            pipeline.set_ip_adapter_scale(prompt.scale)
            seen = pipeline.prepare_ip_adapter_image_embeds([image], None, device, 1, True)
            tokens = network.encoder_hid_proj([part.to("cpu", dtype) for part in seen])[0]
    except Exception as error:  # a layout nobody foresaw
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{prompt.weights} does not fit this {row.pipeline}: {reason[:300]}"
        ) from error
    network.encoder_hid_proj = None  # its work is done; the tokens are given from now on
    network.eval().requires_grad_(False)
    return tokens.flatten(1, -2).float().to(device)


def read_adapter(file: Path) -> dict[str, dict[str, Tensor]]:
    """The weights of an IP-Adapter: "image_proj" and "ip_adapter".

    Raises:
        ModelError: no such file, not safetensors, cut short, or no IP-Adapter of a known kind.
    """
    check_file(file, "IP-Adapter", "prior.ip_adapter")
    state: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, value in load_file(file).items():
        part, _, name = key.partition(".")
        if part not in state:
            raise ModelError(f"{file} is no IP-Adapter: it holds {key}")
        state[part][name] = value
    projection = state["image_proj"]
    if not any(name in projection for name in ("proj.weight", "latents", "proj.3.weight")):
        raise ModelError(
            f"{file} is no IP-Adapter of a kind known here (plain, plus, full face; face-id needs a face recogniser)"
        )
    return state


def _check_fit(
    state: dict[str, dict[str, Tensor]], network: Any, row: PipelineRow, file: Path
) -> None:
    """Refuse an adapter with another number or width of layers than the network's.

    Raises:
        ModelError: says what it has and what is wanted.
    """
    own = state["ip_adapter"]
    layers = sum(name.endswith("attn2.processor") for name in network.attn_processors)
    wanted = {f"{1 + 2 * i}.to_{x}_ip.weight" for i in range(layers) for x in "kv"}
    if set(own) != wanted:
        raise ModelError(
            f"{file} has {len(own)} attention weights, this {row.pipeline} takes {len(wanted)}: made for another kind "
            "of model"
        )
    width = network.config["cross_attention_dim"]
    found = own["1.to_k_ip.weight"].shape[1]
    if found != width:
        raise ModelError(
            f"{file} is for another kind of model: its tokens have {found} channels, this {row.pipeline}'s {width}"
        )


def open_encoder(directory: Path, projection: dict[str, Tensor], dtype: torch.dtype) -> Any:
    """The image encoder, after seeing that it is the one the adapter was trained with, as far as widths tell.

    Raises:
        ModelError: there is none, or of another width.
    """
    import transformers

    if not (directory / "config.json").is_file():
        raise ModelError(
            f"there is no image encoder at {directory}; give prior.image_encoder, the directory of the "
            "CLIPVisionModelWithProjection the adapter was trained with"
        )
    encoder: Any = load_part(transformers.CLIPVisionModelWithProjection, directory, dtype)
    plain = "proj.weight" in projection
    name = next(n for n in ("proj.weight", "proj_in.weight", "proj.0.weight") if n in projection)
    wanted = projection[name].shape[1]
    found = encoder.config.projection_dim if plain else encoder.config.hidden_size
    if found != wanted:
        raise ModelError(
            f"the image encoder at {directory} makes {found} channels, the adapter wants {wanted}: take the encoder it "
            "was trained with (prior.image_encoder)"
        )
    return encoder
