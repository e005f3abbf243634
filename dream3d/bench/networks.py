"""Networks of Stable Diffusion 2.1's shape with random weights: a prior like a user's, and the plain way beside it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dream3d.cameras import orbit_cameras
from dream3d.priors.pipelines.acceleration import PLAIN, Acceleration
from dream3d.priors.pipelines.prior import PipelineParts, PipelinePrior, frozen
from dream3d.priors.pipelines.table import STABLE_DIFFUSION
from dream3d.priors.pipelines.text import TextEmbedder
from dream3d.scenes.base import Scene

CFG_SCALE = 7.5
TOKENS = 77


@dataclass(frozen=True)
class Shape:
    """Sizes of the networks.

    Attributes:
        name: for the record.
        channels, heads: of the U-Net's levels.
        codec: channels of the codec's levels.
        text: width of the text embedding.
        pixels: side of a picture.
    """

    name: str
    channels: tuple[int, ...]
    heads: tuple[int, ...]
    codec: tuple[int, ...]
    text: int
    pixels: int


FULL = Shape(
    "full: Stable Diffusion 2.1, 512 pixels",
    (320, 640, 1280, 1280),
    (5, 10, 20, 20),
    (128, 256, 512, 512),
    1024,
    512,
)
REDUCED = Shape(
    "reduced: a tenth as wide, 64 pixels (a CPU); the full size was not run",
    (32, 64, 128, 128),
    (1, 2, 4, 4),
    (32, 32, 64, 64),
    64,
    64,
)


class RandomText:
    """Takes the place of a pipeline's text encoder: noise that depends on the prompt alone."""

    config: ClassVar[dict[str, Any]] = {}

    def __init__(self, width: int) -> None:
        self.width = width

    def encode_prompt(
        self, prompt: list[str], device: torch.device, **options: Any
    ) -> tuple[Tensor, None]:
        """One embedding a prompt, as diffusers' Stable Diffusion answers."""
        del options
        rows = [
            torch.randn(TOKENS, self.width, generator=torch.Generator().manual_seed(len(text)))
            for text in prompt
        ]
        return torch.stack(rows).to(device), None


def unet_of(shape: Shape) -> Any:
    """A U-Net of Stable Diffusion 2.1's layout: 865 million parameters at full size."""
    from diffusers import UNet2DConditionModel

    deeper = len(shape.channels) - 1
    settings: dict[str, Any] = {
        "down_block_types": (*("CrossAttnDownBlock2D",) * deeper, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * deeper),
        "sample_size": shape.pixels // 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": shape.channels,
        "attention_head_dim": shape.heads,
        "cross_attention_dim": shape.text,
        "use_linear_projection": True,
    }
    return frozen(UNet2DConditionModel(**settings))


def codec_of(shape: Shape) -> Any:
    """An autoencoder of Stable Diffusion's layout."""
    from diffusers import AutoencoderKL

    levels = len(shape.codec)
    settings: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": shape.codec,
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": shape.pixels,
        "scaling_factor": 0.18215,
    }
    return frozen(AutoencoderKL(**settings))


def scheduler_of() -> Any:
    """Stable Diffusion's noise levels."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )


def random_prior(
    shape: Shape, device: torch.device, dtype: torch.dtype, acceleration: Acceleration = PLAIN
) -> PipelinePrior:
    """The adapter a user's Stable Diffusion gets, over random weights made on `device`."""
    network, codec = _made(shape, device, dtype)
    text = TextEmbedder(STABLE_DIFFUSION, lambda: RandomText(shape.text), device)
    parts = PipelineParts(STABLE_DIFFUSION, network, codec, scheduler_of(), text)
    return PipelinePrior(parts, device, shape.pixels, acceleration=acceleration)


def _made(shape: Shape, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    torch.manual_seed(0)
    with torch.device(device):
        network, codec = unet_of(shape), codec_of(shape)
    # Not ModelMixin's own `to`, which advises about precisions.
    return nn.Module.to(network, dtype), nn.Module.to(codec, dtype)


class PlainStep:
    """The same step as published code makes it: eager diffusers in one precision, the U-Net without gradient.

    One batched call of both prompts, a sample of the codec's posterior, the gradient put into a mean squared error;
    memory layout, attention and kernels as diffusers chooses them.

    Args:
        shape: of the networks.
        device: of everything.
        dtype: of the networks.
        scene: what is optimised, rendered by this program.
        views: per step.
    """

    def __init__(
        self, shape: Shape, device: torch.device, dtype: torch.dtype, scene: Scene, views: int
    ) -> None:
        self.network, self.codec = _made(shape, device, dtype)
        self.scheduler, self.shape = scheduler_of(), shape
        self.scene, self.views, self.device, self.dtype = scene, views, device, dtype
        self.tokens = torch.randn(2 * views, TOKENS, shape.text, device=device, dtype=dtype)
        self.levels = self.scheduler.alphas_cumprod.to(device)
        self.optimizer = torch.optim.Adam(scene.parameters().values(), lr=1e-3)

    def __call__(self) -> None:
        """One step."""
        azimuth = (360.0 * torch.rand(self.views)).tolist()
        cameras = orbit_cameras(azimuth, 15.0, size=self.shape.pixels).to(self.device)
        background = torch.rand(self.views, 1, 1, 3, device=self.device)
        images = self.scene.render(cameras).over(background)
        signal = (images.permute(0, 3, 1, 2) * 2.0 - 1.0).to(self.dtype)
        scaling = self.codec.config["scaling_factor"]
        z = self.codec.encode(signal).latent_dist.sample() * scaling
        with torch.no_grad():
            t = torch.randint(20, 981, (self.views,), device=self.device)
            noise = torch.randn_like(z)
            noisy = self.scheduler.add_noise(z, noise, t)
            both = self.network(
                torch.cat([noisy] * 2), torch.cat([t] * 2), encoder_hidden_states=self.tokens
            ).sample
            empty, text = both.chunk(2)
            predicted = empty + CFG_SCALE * (text - empty)
            weight = (1.0 - self.levels[t]).reshape(-1, 1, 1, 1)
            grad = torch.nan_to_num(weight * (predicted - noise))
            target = (z - grad).detach()
        loss = 0.5 * nn.functional.mse_loss(z.float(), target.float(), reduction="sum") / self.views
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def tera_flops(shape: Shape) -> dict[str, float]:
    """Counted on tensors without data, of one sample, in 1e12: U-Net, U-Net with backward, encoder with backward."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network, codec = unet_of(shape), codec_of(shape)
        side = shape.pixels // 8
        z, t = torch.zeros(1, 4, side, side), torch.zeros(1, dtype=torch.long)
        tokens = torch.zeros(1, TOKENS, shape.text)
        image = torch.zeros(1, 3, shape.pixels, shape.pixels)
    counts = {}
    for name, backward, call, x in (
        ("unet", False, lambda z: network(z, t, tokens).sample, z),
        ("unet_train", True, lambda z: network(z, t, tokens).sample, z),
        ("encoder_train", True, lambda x: codec.encode(x).latent_dist.mode(), image),
    ):
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
            answer = call(x.requires_grad_(backward))
            if backward:
                answer.sum().backward()
        counts[name] = counter.get_total_flops() / 1e12
    return counts


def floor_tera_flops(counts: dict[str, float], guidance: str, views: int) -> float:
    """What a step cannot do without: encoding, both prompts, and for VSD the companion asked and trained."""
    one = counts["encoder_train"] + 2.0 * counts["unet"]
    if guidance == "vsd":
        one += counts["unet"] + counts["unet_train"]
    return views * one
