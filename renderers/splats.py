"""Render 3D Gaussian splats: elliptical weighted averaging, front to back (Zwicker et al. 2001, Kerbl et al. 2023).

Two backends share one definition to the letter: a readable torch reference (any device, any float type) and a fast
numba one (CPU, float32); on an NVIDIA GPU gsplat is used where it is installed, and Warp where it is not. A splat's
footprint ends exactly where its alpha falls under 1/255, so tiles are only a matter of speed and never of the result.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.errors import ConfigError
from renderers.backends import choose_backend
from renderers.splats_data import (
    ALPHA_CUT,
    RasterSettings,
    SplatData,
    SplatRenderOutput,
    check_splats,
)
from renderers.splats_depth import plane_depth, surface_planes
from renderers.splats_sh import sh_colors
from renderers.volume_data import check_views

__all__ = ["SplatData", "SplatRenderOutput", "render_splats", "splat_normals"]

FASTEST = ("numba", "gsplat", "warp", "torch")
COVERED = 0.5 * ALPHA_CUT
"""The cut-off makes any alpha that is not zero at least 1/255: dividing by no less than this changes nothing else."""
NEAR = 0.1
"""Splats whose centre is nearer to the camera plane than this (world units) are not drawn."""


def render_splats(
    splats: SplatData,
    cameras: CameraBatch,
    backend: str = "auto",
    normals: bool = False,
    near: float = NEAR,
    antialias: bool = False,
    depth_at: float = 0.0,
    screen_offset: Float[Tensor, "B N 2"] | None = None,
) -> SplatRenderOutput:
    """Differentiable images of `splats` from every camera.

    Args:
        splats: parameters; gradients reach every one of them (cameras get none).
        cameras: B views; colours of degree > 0 spherical harmonics depend on them.
        backend: "auto", "numba" (CPU, float32), "torch", or "gsplat" (not run yet) or "warp" (NVIDIA, float32).
        normals: also render world-space normals: each splat's shortest axis, turned toward the camera.
        near: nearest depth drawn, > 0.
        antialias: make a splat cover the same area at every image size, instead of at least a pixel.
        depth_at: 0 takes depth at the splats' centres, which costs nothing. Splats are seen well before their centres,
            though, and a tilted disc at another depth in every pixel: with a number > 0 depth is that of the visible
            surface, so many standard deviations before the densest point on the pixel's ray (2.75 is a good number; see
            `renderers.splats_depth`).
        screen_offset: added to the projected centres, in pixels. Pass zeros that require a gradient and read `.grad`
            after the backward pass: the loss gradient by screen position, which drives density control.

    Returns:
        Premultiplied colour, alpha, alpha-normalised z-depth, optional normals, and the splats' pixel radii.

    Raises:
        ConfigError: shapes, dtypes or devices disagree, absurd sizes, or the backend cannot run.
        NumericsError: a splat parameter is not finite.
    """
    check_splats(splats)
    check_views(cameras)
    cameras = cameras.to(splats.means.device, splats.means.dtype)
    if screen_offset is not None and screen_offset.shape != (len(cameras), len(splats), 2):
        raise ConfigError(
            f"screen_offset has shape {list(screen_offset.shape)}; expected {[len(cameras), len(splats), 2]}"
        )
    name = "torch" if backend == "auto" and splats.means.dtype != torch.float32 else backend
    name = choose_backend("splats", name, splats.means.device.type, FASTEST)
    if name != "torch" and splats.means.dtype != torch.float32:
        raise ConfigError(
            f"splat backend '{name}' needs float32, got {splats.means.dtype}; use backend 'torch'"
        )

    if splats.sh is not None:
        features = sh_colors(splats.sh, splats.means, cameras.position)
    else:
        assert splats.features is not None  # check_splats has seen to it
        features = splats.features[None]
    channels = features.shape[-1]
    if normals:
        facing = splat_normals(splats, cameras)
        features = torch.cat([features.expand(len(cameras), -1, -1), facing], dim=-1)
    if depth_at > 0.0:
        planes = surface_planes(splats, cameras, depth_at, near)
        features = torch.cat([features.expand(len(cameras), -1, -1), planes], dim=-1)

    settings = RasterSettings(near, antialias)
    image, depth, alpha, radii = _rasterize(
        name, splats, features, cameras, settings, screen_offset
    )
    if depth_at > 0.0:
        depth = plane_depth(image[..., -3:], cameras) / alpha.clamp_min(COVERED)
    facing = image[..., channels : channels + 3]
    normal = torch.nn.functional.normalize(facing, dim=-1) if normals else None
    # A slice costs its gradient a copy of the picture.
    rgb = image if image.shape[-1] == channels else image[..., :channels]
    return SplatRenderOutput(rgb, alpha, depth, normal, radii)


def _rasterize(
    name: str,
    splats: SplatData,
    features: Float[Tensor, "V N C"],
    cameras: CameraBatch,
    settings: RasterSettings,
    screen_offset: Float[Tensor, "B N 2"] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Premultiplied features, alpha-normalised z-depth, alpha, and pixel radii (0: not seen)."""
    if name == "numba":
        # Slices and divisions of whole pictures would be a good part of what threads cannot share there.
        from renderers.splats_numba import rasterize_apart

        return rasterize_apart(splats, features, cameras, settings, screen_offset)
    if name == "gsplat":
        from renderers.splats_gsplat import rasterize
    elif name == "warp":
        from renderers.splats_warp import rasterize
    else:
        from renderers.splats_torch import rasterize
    image, alpha, radii = rasterize(splats, features, cameras, settings, screen_offset)
    return image[..., :-1], image[..., -1:] / alpha.clamp_min(COVERED), alpha, radii


def splat_normals(splats: SplatData, cameras: CameraBatch) -> Float[Tensor, "B N 3"]:
    """Each splat's shortest axis in the world, turned toward each camera."""
    from renderers.splats_torch import rotation_matrices

    shortest = splats.log_scales.argmin(dim=-1)[:, None, None].expand(-1, 3, 1)
    axis = rotation_matrices(splats.quaternions).gather(2, shortest).squeeze(-1)
    toward = cameras.position[:, None] - splats.means[None]
    away = (toward * axis).sum(dim=-1, keepdim=True) < 0
    return torch.where(away, -axis, axis)
