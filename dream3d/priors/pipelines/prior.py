"""A diffusers pipeline as a `Prior`: what differs between pipelines is read from its row of the table."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from dream3d.companion import Companion
from dream3d.diffusion import (
    NoiseSchedule,
    Prediction,
    PredictionKind,
    RectifiedFlowSchedule,
    TableSchedule,
)
from dream3d.errors import ModelError
from dream3d.priors.base import Condition, Prior
from dream3d.priors.pipelines.acceleration import PLAIN, Acceleration, Accelerator
from dream3d.priors.pipelines.call import arguments, from_layout, model_time
from dream3d.priors.pipelines.codec import LatentCodec
from dream3d.priors.pipelines.control_branches import ControlBranch
from dream3d.priors.pipelines.recording import Function
from dream3d.priors.pipelines.table import PipelineRow
from dream3d.priors.pipelines.text import Words

KINDS: dict[str, PredictionKind] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
"""diffusers' `prediction_type` in this package's words."""


@dataclass(frozen=True)
class ScaledFlowSchedule(NoiseSchedule):
    """Straight paths to noise of another scale: alpha = 1 - t, sigma = scale t (PRXPixel: 2)."""

    scale: float

    def alpha(self, t: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        return 1.0 - t

    def sigma(self, t: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        return self.scale * t


@dataclass
class PipelineParts:
    """What is loaded of a pipeline.

    Attributes:
        row: of its class.
        network: the denoising network, frozen, in evaluation mode, on its device.
        vae: the codec, or None.
        scheduler: only its tables and configuration are read.
        text: embeds prompts.
        settings: the scalars of model_index.json.
        control: a ControlNet, or None.
    """

    row: PipelineRow
    network: Any
    vae: Any
    scheduler: Any
    text: Words
    settings: dict[str, Any] = field(default_factory=dict)
    control: ControlBranch | None = None


def _schedule(parts: PipelineParts, device: torch.device) -> tuple[NoiseSchedule, PredictionKind]:
    """The noise levels the network knows, and what its output means.

    Raises:
        ModelError: the scheduler does not fit the pipeline.
    """
    row, scheduler = parts.row, parts.scheduler
    if row.output != "scheduler":
        if row.output == "x0":
            return ScaledFlowSchedule(float(parts.settings.get("noise_scale", 1.0))), "x0"
        return RectifiedFlowSchedule(), "flow"
    kind = KINDS.get(scheduler.config.get("prediction_type", "epsilon"))
    table = getattr(scheduler, "alphas_cumprod", None)
    if kind is None or table is None:
        raise ModelError(
            f"{type(scheduler).__name__} with prediction_type '{scheduler.config.get('prediction_type')}' does not "
            f"belong to a {row.pipeline}; expected a discrete schedule that predicts {', '.join(KINDS)}"
        )
    return TableSchedule(table.float().to(device)), kind


class PipelinePrior(Prior):
    """Adapter over the parts of one pipeline.

    Text encoders may be far larger than the network, so all of a run's prompts are best embedded in one call.

    Args:
        parts: loaded and on `device`.
        device: of the networks.
        resolution: side in pixels of the images the prior looks at; 0 for what the network was trained at.
        guidance_embedding: for networks that take their guidance scale as an input.
        chunk: samples per network call at most; 0 for all at once.
        acceleration: of the network's calls and the codec's encoder.

    Raises:
        ModelError: the parts do not belong together, or the resolution does not fit the codec.
    """

    def __init__(
        self,
        parts: PipelineParts,
        device: torch.device,
        resolution: int = 0,
        guidance_embedding: float = 3.5,
        chunk: int = 0,
        acceleration: Acceleration | Accelerator = PLAIN,
    ) -> None:
        self.parts = parts
        self.row = parts.row
        self.network = parts.network
        self.device = device
        self.guidance_embedding = guidance_embedding
        self.chunk = self._usual_chunk = chunk
        self.control = "" if parts.control is None else parts.control.wants
        self.codec = LatentCodec(parts.vae, parts.row.norm)
        self.kind: PredictionKind
        self.schedule, self.kind = _schedule(parts, device)
        self.table = self.schedule if isinstance(self.schedule, TableSchedule) else None
        self.dtype = next(parts.network.parameters()).dtype
        self.image_size = resolution or self._native()
        patch = parts.network.config.get("patch_size")
        patch = 2 if self.row.layout in ("packed", "list") else patch
        step = self.codec.downscale * (patch if isinstance(patch, int) else 1)
        if self.image_size % step:
            raise ModelError(
                f"prior.resolution is {self.image_size}; a {self.row.pipeline} takes multiples of {step}"
            )
        side = self.image_size // self.codec.downscale
        self.latent_shape = (self._channels(), side, side)
        if self.codec.channels not in (None, self.latent_shape[0]):
            raise ModelError(
                f"the codec makes {self.codec.channels} channels and the network of this {self.row.pipeline} takes "
                f"{self.latent_shape[0]}: give prior.vae one for this kind of model, or leave it empty"
            )
        self._accelerate(
            acceleration
            if isinstance(acceleration, Accelerator)
            else Accelerator(acceleration, device)
        )

    def _accelerate(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        network, codec = accelerator.network(self.network), accelerator.codec
        self._ask = self.recorded("network", lambda **given: network(**given)[0])
        self._latents: Function = self._encoded
        if self.parts.vae is not None:
            codec(self.parts.vae)
            self._latents = accelerator.call("codec", self._latents)

    embeds_ahead = True

    def check_prompt(self, prompt: str) -> None:
        """An open vocabulary takes any prompt."""

    def embed(self, prompts: list[str]) -> Float[Tensor, "B L D"]:
        """All the pipeline's text encoders say, packed (see `packing`)."""
        return self.parts.text.embed(prompts).to(self.device)

    def avoided(self, tokens: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Without the picture, where one goes with the prompt."""
        return self.parts.text.without_image(tokens)

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """The mean of the codec's posterior, normalised as the network was trained; differentiable."""
        return self._latents(images=images)

    def _encoded(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        signal = images.permute(0, 3, 1, 2) * 2.0 - 1.0
        size = (self.image_size, self.image_size)
        if signal.shape[-2:] != size:
            signal = interpolate(signal, size, mode="bilinear", antialias=True, align_corners=False)
        return self.codec.encode(signal)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B H W 3"]:
        """Images clamped to [0, 1]."""
        with torch.no_grad():
            signal = self.codec.decode(latents)
        return (signal.permute(0, 2, 3, 1) * 0.5 + 0.5).clamp(0.0, 1.0)

    def ask_at_once(self, samples: int) -> None:
        """See `Prior.ask_at_once`."""
        self.chunk = samples or self._usual_chunk

    def predict(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Prediction:
        """The network at z_t, in chunks if so configured.

        Raises:
            ValueError: the condition has cameras; a text-to-image pipeline takes none.
        """
        with torch.no_grad():
            if not self.chunk or len(z_t) <= self.chunk:
                return self.output(z_t, t, condition)
            step = self.chunk
            values = [
                self.output(z_t[i : i + step], t[i : i + step], condition[i : i + step]).value
                for i in range(0, len(z_t), step)
            ]
            return self._prediction(torch.cat(values), z_t, t)

    def output(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Prediction:
        """As `predict`, in one call, with gradient to whatever in the network asks for it."""
        return self.output_of(self._ask, z_t, t, condition)

    def output_of(
        self,
        ask: Function,
        z_t: Float[Tensor, "B C h w"],
        t: Float[Tensor, " B"],
        condition: Condition,
    ) -> Prediction:
        """As `output`, with `ask` in the network's place: its keyword arguments in, its answer out."""
        text = self.parts.text.read(condition.tokens)
        z = self.accelerator.image(z_t.to(self.dtype))
        config = self.network.config
        told = model_time(self.row, config, self.table, t)
        given = arguments(self.row, config, z, told, text, self.guidance_embedding, self.image_size)
        given |= self.of_views(given[self.row.names[2]], condition)
        if self.parts.control is not None:
            shown = (condition.control, self.image_size, self.codec)
            given |= self.parts.control.corrections(given, t, *shown)
        if text.image is not None:
            words = self.row.names[2]
            given[words] = (given[words], [text.image.to(self.dtype)])
        value = from_layout(self.row, ask(**given), z_t)
        value = value.to(z_t.dtype)
        return self._prediction(-value if self.row.output == "-flow" else value, z_t, t)

    def of_views(self, words: Any, condition: Condition) -> dict[str, object]:
        """Further arguments of the network, which tell it of the views; `words` is what it is told otherwise.

        Raises:
            ValueError: the condition has cameras; a text-to-image pipeline takes none.
        """
        del words
        if condition.cameras is not None:
            raise ValueError(f"{self.row.pipeline} takes no cameras; use conditioning=text")
        return {}

    def recorded(
        self, name: str, function: Function, parameters: Sequence[Tensor] = ()
    ) -> Function:
        """Something asked of this prior's network, recorded if its own calls are; see `recording`."""
        # The networks of the layout "list" answer with one, and of prompts of any length.
        if self.row.layout == "list":
            return function
        return self.accelerator.call(name, function, parameters)

    def companion(self, rank: int, seed: int, name: str = "companion") -> Companion:
        """Low-rank updates of the network's attention; see `lora_companion`."""
        from dream3d.priors.latent.lora_companion import LoraCompanion

        return LoraCompanion(self, rank, seed, name)

    def _prediction(self, value: Tensor, z_t: Tensor, t: Tensor) -> Prediction:
        alpha, sigma = self.schedule.levels(t, z_t)
        return Prediction(value, self.kind, z_t, alpha, sigma)

    def _native(self) -> int:
        """What the network's configuration says it was trained at, else the row."""
        side = self.network.config.get("sample_size")
        if isinstance(side, int):
            return side * self.codec.downscale
        side = self.parts.settings.get("default_sample_size")
        return side if isinstance(side, int) else self.row.native

    def _channels(self) -> int:
        channels = self.network.config["in_channels"]
        return int(channels) // 4 if self.row.layout == "packed" else int(channels)


def frozen(module: nn.Module) -> nn.Module:
    """In evaluation mode, asking for no gradient."""
    return module.eval().requires_grad_(False)
