"""gsplat as the rasteriser of splats (Ye et al. 2024), on NVIDIA GPUs: not run on one yet, tested against its API only.

Its conventions are ours where it matters (pixel centres at +0.5, low-pass 0.3, alpha cut at 1/255, premultiplied, wxyz
quaternions); it clamps alpha at 0.999 where we do at 0.99, so opaque splats differ by up to a hundredth.
"""

import torch
from gsplat import rasterization  # pyright: ignore[reportMissingImports]
from gsplat.cuda._backend import _C as kernels  # pyright: ignore[reportMissingImports]
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.errors import ConfigError
from renderers.splats_data import (
    LOG_SCALE_MAX,
    LOG_SCALE_MIN,
    LOW_PASS,
    RasterSettings,
    SplatData,
)

if (
    kernels is None
):  # or an error above: its wheel on PyPI brings sources, which it compiles when it is first imported
    raise ImportError("it has no kernels and found no CUDA compiler to make them")


def center_depth(splats: SplatData, cameras: CameraBatch) -> Float[Tensor, "B N 1"]:
    """The z-depth of every splat's centre in every view."""
    forward = cameras.w2c[:, 2]
    return (splats.means @ forward[:, :3].T + forward[:, 3]).T[..., None]


def rasterize(
    splats: SplatData,
    features: Float[Tensor, "V N C"],
    cameras: CameraBatch,
    settings: RasterSettings,
    screen_offset: Float[Tensor, "B N 2"] | None,
) -> tuple[Float[Tensor, "B H W C1"], Float[Tensor, "B H W 1"], Float[Tensor, "B N"]]:
    """Premultiplied features with z-depth as a last channel, alpha, and pixel radii (0: not seen).

    `features` have V = 1 (the same from everywhere) or V = B. gsplat takes no screen offset, so that must be zero; what
    `backward` would add to its gradient is added to `screen_offset.grad`.

    Raises:
        ConfigError: a screen offset that is not zero.
    """
    views, n = len(cameras), len(splats)
    colors = torch.cat([features.expand(views, -1, -1), center_depth(splats, cameras)], dim=-1)
    if n == 0:
        empty = colors.new_zeros(views, cameras.height, cameras.width, colors.shape[-1])
        return empty + colors.sum(), empty[..., :1], colors.new_zeros(views, 0)
    if screen_offset is not None and bool((screen_offset != 0).any()):
        raise ConfigError("screen_offset is not zero; backend 'gsplat' only takes its gradient")
    image, alpha, meta = rasterization(
        means=splats.means,
        quats=splats.quaternions,
        scales=splats.log_scales.clamp(LOG_SCALE_MIN, LOG_SCALE_MAX).exp(),
        opacities=splats.opacity_logits.sigmoid(),
        colors=colors,
        viewmats=cameras.w2c,
        Ks=cameras.K,
        width=cameras.width,
        height=cameras.height,
        near_plane=settings.near,
        eps2d=LOW_PASS,
        packed=False,
        rasterize_mode="antialiased" if settings.antialias else "classic",
    )
    if screen_offset is not None and screen_offset.requires_grad and meta["means2d"].requires_grad:
        meta["means2d"].register_hook(lambda grad: _accumulate(screen_offset, grad))
    radii = meta["radii"].to(image)
    # Since 1.5 there are two radii a splat, along x and y.
    return image, alpha, radii.amax(dim=-1) if radii.ndim == 3 else radii


def _accumulate(offset: Tensor, grad: Tensor) -> None:
    offset.grad = grad.clone() if offset.grad is None else offset.grad + grad
