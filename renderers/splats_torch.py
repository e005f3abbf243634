"""The readable reference: 3D Gaussian splatting in plain torch, by autograd, for any float type and device."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch
from renderers.splats_data import (
    ALPHA_CUT,
    ALPHA_MAX,
    FRUSTUM_MARGIN,
    LOG_SCALE_MAX,
    LOG_SCALE_MIN,
    LOW_PASS,
    TRANSMITTANCE_CUT,
    RasterSettings,
    SplatData,
)

TILE = 16


@dataclass(frozen=True)
class ProjectedSplats:
    """The splats one camera can see, nearest first.

    Attributes:
        index: their positions among all N.
        center: projected centres in pixels.
        conic: inverse screen covariance (xx, xy, yy) in 1/px^2.
        opacity, depth: opacity in (0, 1), and the centre's z-depth.
        extent: half-size in pixels of the box in which alpha >= 1/255.
    """

    index: Tensor
    center: Float[Tensor, "M 2"]
    conic: Float[Tensor, "M 3"]
    opacity: Float[Tensor, " M"]
    depth: Float[Tensor, " M"]
    extent: Float[Tensor, "M 2"]


def rotation_matrices(quaternions: Float[Tensor, "N 4"]) -> Float[Tensor, "N 3 3"]:
    """Rotations of wxyz quaternions of any length (zero length: the identity)."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=-1).unbind(dim=-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def covariances(splats: SplatData) -> Float[Tensor, "N 3 3"]:
    """World-space covariance of every splat."""
    scales = splats.log_scales.clamp(LOG_SCALE_MIN, LOG_SCALE_MAX).exp()
    axes = rotation_matrices(splats.quaternions) * scales[:, None, :]
    return axes @ axes.transpose(1, 2)


def screen_covariance(
    point: Float[Tensor, "N 3"],
    covariance: Float[Tensor, "N 3 3"],
    cameras: CameraBatch,
    b: int,
) -> Float[Tensor, "N 2 2"]:
    """Covariance in px^2 after the local affine approximation of the projection, before the low-pass.

    `point` holds centres in camera coordinates (z > 0), `covariance` is in the world.
    """
    K = cameras.K[b]
    x, y, z = point.unbind(dim=-1)
    slopes = []
    for axis, size, coordinate in ((0, cameras.width, x), (1, cameras.height, y)):
        margin = FRUSTUM_MARGIN * size / K[axis, axis]
        low = -K[axis, 2] / K[axis, axis] - margin
        high = (size - K[axis, 2]) / K[axis, axis] + margin
        slopes.append(torch.minimum(torch.maximum(coordinate / z, low), high))
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([K[0, 0] / z, zero, -K[0, 0] * slopes[0] / z], dim=-1),
            torch.stack([zero, K[1, 1] / z, -K[1, 1] * slopes[1] / z], dim=-1),
        ],
        dim=-2,
    )
    affine = jacobian @ cameras.w2c[b, :3, :3]
    return affine @ covariance @ affine.transpose(1, 2)


def project(
    splats: SplatData,
    cameras: CameraBatch,
    b: int,
    settings: RasterSettings,
    screen_offset: Tensor | None,
) -> ProjectedSplats:
    """Camera `b`'s view of the splats: those in front of it and opaque enough to matter, nearest first."""
    w2c = cameras.w2c[b]
    point = splats.means @ w2c[:3, :3].T + w2c[:3, 3]
    opacity = splats.opacity_logits.sigmoid()
    index = torch.nonzero((point[:, 2] > settings.near) & (opacity > ALPHA_CUT)).squeeze(1)
    index = index[torch.argsort(point[index, 2].detach(), stable=True)]
    point, opacity = point[index], opacity[index]

    world = covariances(splats)[index]
    sharp = screen_covariance(point, world, cameras, b)
    cov = sharp + LOW_PASS * torch.eye(2).to(sharp)
    if settings.antialias:
        opacity = (
            opacity * (torch.linalg.det(sharp) / torch.linalg.det(cov)).clamp_min(1e-12).sqrt()
        )
        visible = opacity > ALPHA_CUT
        index, point, opacity, world, cov = (
            v[visible] for v in (index, point, opacity, world, cov)
        )
    xx, xy, yy = cov[:, 0, 0], cov[:, 0, 1], cov[:, 1, 1]
    conic = torch.stack([yy, -xy, xx], dim=-1) / (xx * yy - xy * xy)[:, None]
    K = cameras.K[b]
    center = point[:, :2] / point[:, 2:] * torch.stack([K[0, 0], K[1, 1]]) + K[:2, 2]
    if screen_offset is not None:
        center = center + screen_offset[b, index]
    # alpha >= 1/255 is an ellipse d^T conic d <= 2 log(255 opacity); its box follows from the covariance's diagonal.
    reach = 2.0 * torch.log(opacity.detach() / ALPHA_CUT)
    extent = torch.sqrt(reach[:, None] * torch.stack([xx, yy], dim=-1).detach())
    return ProjectedSplats(index, center, conic, opacity, point[:, 2], extent)


def blend(
    seen: ProjectedSplats,
    features: Float[Tensor, "M C"],
    columns: Float[Tensor, " w"],
    rows: Float[Tensor, " h"],
) -> tuple[Float[Tensor, "P C"], Float[Tensor, "P 1"]]:
    """Composite sorted splats front to back at the pixel centres columns x rows: premultiplied features and alpha."""
    # The quadratic form is taken apart into what depends on the column, on the row, and their product, so that only
    # its sum has the size of all pixels.
    x = (columns - seen.center[:, :1])[:, None]  # [M, 1, w]
    y = (rows - seen.center[:, 1:])[:, :, None]  # [M, h, 1]
    a, b, c = (column[:, None, None] for column in seen.conic.unbind(dim=-1))
    power = torch.addcmul(-0.5 * c * y * y - 0.5 * a * x * x, -b * y, x).flatten(1)  # [M, P]
    alpha = (seen.opacity[:, None] * power.exp()).clamp(max=ALPHA_MAX)
    alpha = alpha * (alpha >= ALPHA_CUT)
    ahead = torch.cumprod(1.0 - torch.cat([torch.zeros_like(alpha[:1]), alpha[:-1]]), dim=0)
    weight = alpha * ahead * (ahead >= TRANSMITTANCE_CUT)  # [M, P]
    return weight.T @ features, weight.sum(dim=0)[:, None]


def rasterize(
    splats: SplatData,
    features: Float[Tensor, "V N C"],
    cameras: CameraBatch,
    settings: RasterSettings,
    screen_offset: Float[Tensor, "B N 2"] | None,
) -> tuple[Float[Tensor, "B H W C1"], Float[Tensor, "B H W 1"], Float[Tensor, "B N"]]:
    """Premultiplied features with z-depth as a last channel, alpha, and pixel radii (0: not seen).

    `features` have V = 1 (the same from everywhere) or V = B.
    """
    height, width, like = cameras.height, cameras.width, splats.means
    radii = torch.zeros(len(cameras), len(splats)).to(like)
    images, alphas = [], []
    for b in range(len(cameras)):
        seen = project(splats, cameras, b, settings, screen_offset)
        values = features[b if features.shape[0] > 1 else 0][seen.index]
        values = torch.cat([values, seen.depth[:, None]], dim=-1)
        radii[b, seen.index] = seen.extent.amax(dim=-1)
        rows = []
        for top in range(0, height, TILE):
            row = []
            for left in range(0, width, TILE):
                corner, size = (left, top), (min(TILE, width - left), min(TILE, height - top))
                row.append(_tile(seen, values, corner, size))
            rows.append(torch.cat(row, dim=1))
        image = torch.cat(rows, dim=0)
        images.append(image[..., :-1])
        alphas.append(image[..., -1:])
    return torch.stack(images), torch.stack(alphas), radii


def _tile(
    seen: ProjectedSplats,
    values: Float[Tensor, "M C"],
    corner: tuple[int, int],
    size: tuple[int, int],
) -> Float[Tensor, "h w C1"]:
    """One tile's features and, last, its alpha; only the splats whose box reaches it take part."""
    low = torch.tensor(corner).to(values) + 0.5
    high = low + torch.tensor(size).to(values) - 1.0
    center = seen.center.detach()
    # A thousandth of a pixel of slack: rounding must not decide which splats are looked at.
    reach = seen.extent * 1.001 + 1e-3
    hit = ((center + reach >= low) & (center - reach <= high)).all(dim=-1).nonzero().squeeze(1)
    part = ProjectedSplats(*(value[hit] for value in vars(seen).values()))
    if len(hit) == 0:
        # Still a function of the inputs, so that an image without splats can be differentiated too.
        return values.new_zeros(size[1], size[0], values.shape[1] + 1) + values[hit].sum()
    columns, rows = (
        torch.arange(count).to(values) + start for count, start in zip(size, low, strict=True)
    )
    feature, alpha = blend(part, values[hit], columns, rows)
    return torch.cat([feature, alpha], dim=-1).reshape(size[1], size[0], -1)
