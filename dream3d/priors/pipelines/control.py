"""A ControlNet (Zhang et al. 2023): a second encoder that looks at a picture of the view and corrects the network."""

from dataclasses import dataclass
from typing import Any

import torch

from dream3d.errors import ModelError
from dream3d.priors.latent.components import read_json
from dream3d.priors.pipelines.control_branches import (
    ControlBranch,
    ControlSettings,
    FluxBranch,
    SD3Branch,
)
from dream3d.priors.pipelines.parts import load_part
from dream3d.priors.pipelines.pictures import image_tensor, read_image
from dream3d.priors.pipelines.table import PipelineRow


@dataclass(frozen=True)
class Kind:
    """One of diffusers' ControlNet classes.

    Attributes:
        branch: how it corrects.
        shared: what its configuration must have in common with the network's.
        fixed: what its configuration must say; anything else is not read here.
    """

    branch: type[ControlBranch]
    shared: tuple[str, ...]
    fixed: dict[str, Any]


KINDS = {
    "ControlNetModel": Kind(
        ControlBranch,
        (
            *("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim"),
            *("addition_embed_type", "projection_class_embeddings_input_dim"),
        ),
        {},
    ),
    "SD3ControlNetModel": Kind(
        SD3Branch,
        ("in_channels", "patch_size", "attention_head_dim", "num_attention_heads"),
        {"extra_conditioning_channels": 0},
    ),
    "FluxControlNetModel": Kind(
        FluxBranch,
        (
            *("in_channels", "attention_head_dim", "num_attention_heads"),
            *("joint_attention_dim", "pooled_projection_dim"),
        ),
        {"num_mode": None, "conditioning_embedding_channels": None},
    ),
}
"""By class name, as `PipelineRow.control` has it."""


def open_control(
    settings: ControlSettings, row: PipelineRow, network: Any, dtype: torch.dtype
) -> ControlBranch:
    """The ControlNet of `settings` on the CPU, after seeing that it was made for a network like this one.

    Raises:
        ModelError: this pipeline takes none, there is none, of another class or for another kind of network.
    """
    import diffusers

    if not row.control:
        raise ModelError(f"a {row.pipeline} takes no ControlNet here; leave prior.controlnet empty")
    path = settings.directory / "config.json"
    name = read_json(path).get("_class_name") if path.is_file() else "no network"
    if name != row.control:
        raise ModelError(
            f"{settings.directory} holds {name}; prior.controlnet of a {row.pipeline} takes the directory of a "
            f"{row.control}"
        )
    kind = KINDS[row.control]
    control = load_part(getattr(diffusers, row.control), settings.directory, dtype)
    for key in kind.shared:
        own, wanted = control.config.get(key), network.config.get(key)
        if _plain(own) != _plain(wanted):
            raise ModelError(
                f"the ControlNet in {settings.directory} was made for another kind of model: its {key} is {own}, this "
                f"{row.pipeline}'s is {wanted}"
            )
    for key, wanted in kind.fixed.items():
        if control.config.get(key) != wanted:
            raise ModelError(
                f"the ControlNet in {settings.directory} is of a kind that is not read here: its {key} is "
                f"{control.config.get(key)}, expected {wanted}. Choose one for {settings.shows} alone"
            )
    if control.config.get("guidance_embeds") and not network.config.get("guidance_embeds"):
        raise ModelError(
            f"the ControlNet in {settings.directory} is told the guidance scale and this {row.pipeline} is not; choose "
            "one that was trained for it"
        )
    if control.config.get("use_pos_embed") is False:
        # Stable Diffusion 3.5's own look at places as their network does.
        control.pos_embed = control._get_pos_embed_from_transformer(network).to(dtype)
        control.pos_embed.requires_grad_(False)
    fixed = None
    if settings.image is not None:
        fixed = image_tensor(read_image(settings.image, "prior.control_image"))
    return kind.branch(control, row, settings, fixed)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value
