"""Point cloud -> splats: round ones, as wide as the gaps between points (Kerbl et al. 2023, section 5.1)."""

import math

import torch
from jaxtyping import Float
from scipy.spatial import KDTree
from torch import Tensor

from dream3d.errors import AssetError, ConfigError
from renderers.splats import SplatData
from renderers.splats_sh import rgb_to_sh

NEIGHBOURS = 3
"""A splat's standard deviation is the mean distance to this many nearest points."""
NARROWEST = 1e-4
"""For points that lie on one another, world units."""


def points_to_splats(
    points: Float[Tensor, "N 3"],
    colors: Float[Tensor, "N 3"] | None = None,
    opacity: float = 0.1,
    lone_scale: float = 0.1,
) -> SplatData:
    """One splat a point.

    Args:
        points: in the world; outside [-1, 1]^3 is allowed.
        colors: in [0, 1]; None is grey.
        opacity: of each, in (0, 1).
        lone_scale: standard deviation of a point without neighbours, world units.

    Raises:
        ConfigError: shapes that do not fit, or an opacity or scale that is not one.
        AssetError: no points, or some that are not finite.
    """
    n = len(points)
    if points.shape != (n, 3) or (colors is not None and colors.shape != (n, 3)):
        raise ConfigError(
            f"points are {list(points.shape)} and colours "
            f"{None if colors is None else list(colors.shape)}; expected [N, 3] both"
        )
    if not 0.0 < opacity < 1.0 or not lone_scale > 0.0:
        raise ConfigError(
            f"opacity is {opacity} and lone_scale {lone_scale}; choose an opacity in (0, 1), a positive scale"
        )
    if n == 0 or not torch.isfinite(points).all():
        raise AssetError("the point cloud is empty or holds points that are not finite")
    scale = torch.full((n,), lone_scale)
    if n > 1:
        count = min(NEIGHBOURS, n - 1)
        found = points.detach().cpu().double().numpy()
        distance, _ = KDTree(found).query(found, k=count + 1)  # the nearest is the point itself
        scale = torch.from_numpy(distance[:, 1:].mean(axis=1)).float().clamp_min(NARROWEST)
    rgb = torch.full((n, 3), 0.5) if colors is None else colors.clamp(0.0, 1.0).float()
    return SplatData(
        points.float(),
        scale.log().to(points.device)[:, None].repeat(1, 3),
        torch.tensor([1.0, 0.0, 0.0, 0.0], device=points.device).repeat(n, 1),
        torch.full((n,), math.log(opacity / (1.0 - opacity)), device=points.device),
        sh=rgb_to_sh(rgb.to(points.device))[:, None],
    )
