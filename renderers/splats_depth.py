"""Where the surface of splats is seen: a depth for every pixel, not one for every splat.

In the local affine approximation a splat is a Gaussian in (column, row, z-depth). Along the ray of one pixel it is then
a Gaussian too, whose densest point lies on a plane through the splat's centre (RaDe-GS, Zhang et al. 2024), and whose
width is that of the splat along the ray: small for a disc seen from the front, whatever its radius. Both are linear in
the pixel, so three more channels render them with any backend.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch
from renderers.splats_data import LOG_SCALE_MAX, LOG_SCALE_MIN, LOW_PASS, SplatData
from renderers.splats_torch import rotation_matrices


def surface_planes(
    splats: SplatData, cameras: CameraBatch, depth_at: float, near: float
) -> Float[Tensor, "B N 3"]:
    """Of every splat in every view: z-depth of its surface in the principal point's pixel, and its slopes.

    The surface lies `depth_at` standard deviations (along the ray through the centre) before the densest point. The
    low-pass filter is part of the splat here, which keeps the slope of a disc seen edge-on finite.

    Args:
        splats: their colours are not looked at.
        cameras: of the splats' dtype and device.
        depth_at: standard deviations, >= 0.
        near: splats nearer than this are not drawn; their values are finite and mean nothing.

    Returns:
        (depth, slope by column, slope by row), slopes in world units per pixel.
    """
    w2c, K = cameras.w2c, cameras.K
    point = torch.einsum("bij,nj->bni", w2c[:, :3, :3], splats.means) + w2c[:, None, :3, 3]
    x, y, z = point[..., 0], point[..., 1], point[..., 2].clamp_min(near)
    scales = splats.log_scales.clamp(LOG_SCALE_MIN, LOG_SCALE_MAX).exp()
    # Own axes in camera coordinates; columns are axes.
    axes = torch.einsum("bij,njk->bnik", w2c[:, :3, :3], rotation_matrices(splats.quaternions))
    focal = torch.stack([K[:, 0, 0], K[:, 1, 1]], dim=-1)[:, None]  # [B, 1, 2]
    center = focal * torch.stack([x / z, y / z], dim=-1)  # from the principal point
    # How column, row and depth change along each own axis, times the splat's size along it.
    u = (focal[..., 0] / z)[..., None] * (axes[..., 0, :] - (x / z)[..., None] * axes[..., 2, :])
    v = (focal[..., 1] / z)[..., None] * (axes[..., 1, :] - (y / z)[..., None] * axes[..., 2, :])
    u, v, d = (row * scales for row in (u, v, axes[..., 2, :]))
    uu, uv, vv = (u * u).sum(-1) + LOW_PASS, (u * v).sum(-1), (v * v).sum(-1) + LOW_PASS
    ud, vd = (u * d).sum(-1), (v * d).sum(-1)
    det = uu * vv - uv * uv
    slope = torch.stack([vv * ud - uv * vd, uu * vd - uv * ud], dim=-1) / det[..., None]
    # A step t along the ray (x, y, z) is sum_k (t a_k . ray / s_k)^2 deviations squared from the centre.
    ray = torch.stack([x, y, z], dim=-1)
    deviations = torch.einsum("bnik,bni->bnk", axes, ray) / scales
    depth = z - depth_at * z / deviations.norm(dim=-1).clamp_min(1e-12)
    return torch.cat([(depth - (slope * center).sum(-1))[..., None], slope], dim=-1)


def plane_depth(planes: Float[Tensor, "B H W 3"], cameras: CameraBatch) -> Float[Tensor, "B H W 1"]:
    """What rendered planes say at each pixel: depth + slopes times the way from the principal point."""
    columns = torch.arange(cameras.width).to(planes) + 0.5 - cameras.K[:, None, None, 0, 2]
    rows = torch.arange(cameras.height).to(planes)[:, None] + 0.5 - cameras.K[:, None, None, 1, 2]
    depth = planes[..., 0] + planes[..., 1] * columns + planes[..., 2] * rows
    return depth[..., None]
