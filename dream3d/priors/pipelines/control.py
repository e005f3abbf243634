"""A ControlNet (Zhang et al. 2023): a second encoder that looks at a picture of the view and corrects the network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from dream3d.controls import Control
from dream3d.errors import ModelError
from dream3d.priors.latent.components import read_json
from dream3d.priors.pipelines.parts import load_part
from dream3d.priors.pipelines.pictures import image_tensor, read_image
from dream3d.priors.pipelines.table import PipelineRow

SHARED = (
    *("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim"),
    *("addition_embed_type", "projection_class_embeddings_input_dim"),
)
"""What a ControlNet's configuration must have in common with the network's."""


@dataclass(frozen=True)
class ControlSettings:
    """Which ControlNet, and how it is used.

    Attributes:
        directory: of its weights, as `save_pretrained` writes them.
        shows: what the picture of each view shows.
        image: a file that is shown instead for every view; None to render the picture.
        scale: factor of the corrections.
        start, end: share of the way from noise to picture between which it corrects; noise level t is 1 - t on the way.
    """

    directory: Path
    shows: Control = "depth"
    image: Path | None = None
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0


@dataclass
class ControlBranch:
    """A loaded ControlNet.

    Attributes:
        network: diffusers' ControlNetModel, frozen, on its device.
        settings: how it is used.
        fixed: the user's picture, or None.
    """

    network: Any
    settings: ControlSettings
    fixed: Float[Tensor, "1 3 H W"] | None = None

    @property
    def wants(self) -> Control:
        """The picture of each view that must come with a condition."""
        return "" if self.fixed is not None else self.settings.shows

    def corrections(
        self,
        given: dict[str, Any],
        t: Float[Tensor, " B"],
        picture: Float[Tensor, "B H W 3"] | None,
        size: int,
    ) -> dict[str, Any]:
        """Further arguments of the U-Net.

        Args:
            given: its arguments otherwise.
            t: noise levels.
            picture: of each view.
            size: side in pixels of what the network looks at.

        Raises:
            ValueError: no picture where one is needed.
        """
        if self.fixed is not None:
            seen = self.fixed.expand(len(t), -1, -1, -1)
        elif picture is not None:
            seen = picture.permute(0, 3, 1, 2)
        else:
            raise ValueError(f"this prior's ControlNet needs a {self.settings.shows} picture")
        seen = resampled(seen, size).to(given["sample"])
        down, middle = self.network(controlnet_cond=seen, **given)
        done = 1.0 - t
        active = (done >= self.settings.start) & (done <= self.settings.end)
        weight = (self.settings.scale * active).to(middle).reshape(-1, 1, 1, 1)
        return {
            "down_block_additional_residuals": [weight * part for part in down],
            "mid_block_additional_residual": weight * middle,
        }


def resampled(picture: Float[Tensor, "B 3 h w"], size: int) -> Float[Tensor, "B 3 H W"]:
    """The same picture, `size` pixels a side."""
    if picture.shape[-2:] == (size, size):
        return picture
    return interpolate(picture, (size, size), mode="bilinear", antialias=True, align_corners=False)


def open_control(
    settings: ControlSettings, row: PipelineRow, network: Any, dtype: torch.dtype
) -> ControlBranch:
    """The ControlNet of `settings` on the CPU, after seeing that it was made for a network like this one.

    Raises:
        ModelError: this pipeline takes none, there is none, of another class or for another kind of network.
    """
    import diffusers

    if not row.adapters:
        raise ModelError(f"a {row.pipeline} takes no ControlNet here; leave prior.controlnet empty")
    path = settings.directory / "config.json"
    name = read_json(path).get("_class_name") if path.is_file() else "no network"
    if name != "ControlNetModel":
        raise ModelError(
            f"{settings.directory} holds {name}; prior.controlnet takes the directory of a ControlNetModel"
        )
    control = load_part(diffusers.ControlNetModel, settings.directory, dtype)
    for key in SHARED:
        own, wanted = control.config.get(key), network.config.get(key)
        if (list(own) if isinstance(own, tuple | list) else own) != (
            list(wanted) if isinstance(wanted, tuple | list) else wanted
        ):
            raise ModelError(
                f"the ControlNet in {settings.directory} was made for another kind of model: its {key} is {own}, this "
                f"{row.pipeline}'s is {wanted}"
            )
    fixed = None
    if settings.image is not None:
        fixed = image_tensor(read_image(settings.image, "prior.control_image"))
    return ControlBranch(control, settings, fixed)
