"""ControlNets at work: each kind of network is corrected in its own places, as diffusers' pipelines of that kind do.

U-Nets are corrected where their skip connections are, by a ControlNet that looks at pixels; transformers after each
block (every so many, where the ControlNet has fewer), by one that looks at the picture's latents.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from dream3d.controls import Control
from dream3d.priors.pipelines.call import to_layout
from dream3d.priors.pipelines.codec import LatentCodec
from dream3d.priors.pipelines.table import PipelineRow


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
    """A loaded ControlNet of a U-Net.

    Attributes:
        network: diffusers' model, frozen, on its device.
        row: of the pipeline it goes with.
        settings: how it is used.
        fixed: the user's picture, or None.
    """

    network: Any
    row: PipelineRow
    settings: ControlSettings
    fixed: Float[Tensor, "1 3 H W"] | None = None
    _known: Tensor | None = field(default=None, repr=False)

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
        codec: LatentCodec,
    ) -> dict[str, Any]:
        """Further arguments of the network.

        Args:
            given: its arguments otherwise.
            t: noise levels.
            picture: of each view.
            size: side in pixels of what the network looks at.
            codec: of the pipeline.

        Raises:
            ValueError: no picture where one is needed.
        """
        seen = self.seen(len(t), picture, size, codec).to(given[self.row.names[0]])
        return self.answer(given, seen, self.weight(t))

    def answer(
        self, given: dict[str, Any], seen: Float[Tensor, "B C h w"], weight: Float[Tensor, " B"]
    ) -> dict[str, Any]:
        """What the ControlNet says to what it has `seen`, times `weight`; see `corrections`."""
        down, middle = self.network(controlnet_cond=seen, **given)
        weight = weight.to(middle).reshape(-1, 1, 1, 1)
        return {
            "down_block_additional_residuals": [weight * part for part in down],
            "mid_block_additional_residual": weight * middle,
        }

    def seen(
        self,
        count: int,
        picture: Float[Tensor, "B H W 3"] | None,
        size: int,
        codec: LatentCodec,
    ) -> Float[Tensor, "B C h w"]:
        """What the ControlNet looks at for `count` samples; of a fixed picture it is made once.

        Raises:
            ValueError: no picture where one is needed.
        """
        with torch.no_grad():
            if self.fixed is not None:
                if self._known is None:
                    self._known = self.read(resampled(self.fixed, size), codec)
                return self._known.expand(count, -1, -1, -1)
            if picture is None:
                raise ValueError(f"this prior's ControlNet needs a {self.settings.shows} picture")
            return self.read(resampled(picture.permute(0, 3, 1, 2), size), codec)

    def read(
        self, picture: Float[Tensor, "B 3 H W"], codec: LatentCodec
    ) -> Float[Tensor, "B C h w"]:
        """A picture in [0, 1] as the ControlNet takes it."""
        del codec
        return picture

    def weight(self, t: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Factor of the corrections at noise levels t."""
        done = 1.0 - t
        return self.settings.scale * ((done >= self.settings.start) & (done <= self.settings.end))


class SD3Branch(ControlBranch):
    """A ControlNet of Stable Diffusion 3 and 3.5."""

    def read(
        self, picture: Float[Tensor, "B 3 H W"], codec: LatentCodec
    ) -> Float[Tensor, "B C h w"]:
        z = codec.encode(2.0 * picture - 1.0)
        # Those that were trained without the pooled prompt were also trained on latents that are not shifted.
        bare = self.network.config["force_zeros_for_pooled_projection"]
        return z + codec.shift * codec.factor if bare else z

    def answer(
        self, given: dict[str, Any], seen: Float[Tensor, "B C h w"], weight: Float[Tensor, " B"]
    ) -> dict[str, Any]:
        asked, config = {**given, "controlnet_cond": seen}, self.network.config
        if config["force_zeros_for_pooled_projection"]:
            asked["pooled_projections"] = torch.zeros_like(given["pooled_projections"])
        if config["joint_attention_dim"] is None:
            asked["encoder_hidden_states"] = None
        weight = weight.to(seen).reshape(-1, 1, 1)
        blocks = self.network(**asked)[0]
        return {"block_controlnet_hidden_states": [weight * part for part in blocks]}


class FluxBranch(ControlBranch):
    """A ControlNet of FLUX.1."""

    def read(
        self, picture: Float[Tensor, "B 3 H W"], codec: LatentCodec
    ) -> Float[Tensor, "B C h w"]:
        return codec.encode(2.0 * picture - 1.0)

    def answer(
        self, given: dict[str, Any], seen: Float[Tensor, "B C h w"], weight: Float[Tensor, " B"]
    ) -> dict[str, Any]:
        asked = {**given, "controlnet_cond": to_layout(self.row, seen)}
        if not self.network.config["guidance_embeds"]:
            asked["guidance"] = None
        weight = weight.to(seen).reshape(-1, 1, 1)
        blocks, single = (
            None if parts is None else [weight * part for part in parts]
            for parts in self.network(**asked)
        )
        return {"controlnet_block_samples": blocks, "controlnet_single_block_samples": single}


def resampled(picture: Float[Tensor, "B 3 h w"], size: int) -> Float[Tensor, "B 3 H W"]:
    """The same picture, `size` pixels a side."""
    if picture.shape[-2:] == (size, size):
        return picture
    return interpolate(picture, (size, size), mode="bilinear", antialias=True, align_corners=False)
