"""Closed forms of the laboratory's numbers."""

import math

import pytest
import torch

from dream3d.cameras import orbit_cameras
from dream3d.evaluation.geometry import (
    carve,
    carving_cameras,
    chamfer,
    f_score,
    grid_points,
    overlap,
    project,
    silhouette_iou,
    surface_points,
)
from dream3d.evaluation.images import frechet_distance, psnr, saturation
from dream3d.evaluation.statistics import wilson
from dream3d.world.parts import Part
from dream3d.world.render import trace
from dream3d.world.solid import pack


def test_two_spheres_overlap_as_computed_by_hand() -> None:
    """Two balls of radius r at distance d share a lens of pi (4r + d)(2r - d)^2 / 12."""
    points = grid_points(96)
    r, d = 0.6, 0.5
    a = (points - torch.tensor([d / 2, 0.0, 0.0])).norm(dim=-1) < r
    b = (points + torch.tensor([d / 2, 0.0, 0.0])).norm(dim=-1) < r
    lens = math.pi * (4 * r + d) * (2 * r - d) ** 2 / 12
    union = 2 * 4 / 3 * math.pi * r**3 - lens
    assert overlap(a, b) == pytest.approx(lens / union, abs=0.005)
    assert overlap(a, a) == 1.0
    assert overlap(a, torch.zeros_like(a)) == 0.0


def test_grid_fills_its_cube_evenly() -> None:
    points = grid_points(4, extent=1.0)
    assert points.shape == (64, 3)
    assert sorted({round(x, 6) for x in points[:, 0].tolist()}) == [-0.75, -0.25, 0.25, 0.75]


def test_chamfer_of_shifted_points_is_the_shift() -> None:
    points = grid_points(6)  # cells are 0.37 wide: the nearest neighbour of a small shift is itself
    moved = points + torch.tensor([0.03, 0.0, 0.04])
    assert chamfer(points, moved) == pytest.approx(0.05, abs=1e-6)
    assert chamfer(points, points) == 0.0
    assert chamfer(points, points[:0]) == math.inf


def test_f_score_steps_at_its_distance() -> None:
    points = grid_points(6)
    shift = torch.tensor([0.04, 0.0, 0.0])
    assert f_score(points, points + shift, distance=0.041) == 1.0
    assert f_score(points, points + shift, distance=0.039) == 0.0
    # Half of one set found, all of the other: precision 1/2, recall 1.
    far = torch.cat([points, points + 10.0])
    assert f_score(far, points, distance=0.01) == pytest.approx(2 / 3)


def test_silhouette_counts_half_covered_pixels() -> None:
    a, b = torch.zeros(2, 4, 4, 1), torch.zeros(2, 4, 4, 1)
    a[:, :2], b[:, 1:3] = 1.0, 0.6
    assert silhouette_iou(a, b) == pytest.approx(1 / 3)
    b[0, 1:3] = 0.4
    assert silhouette_iou(a, b) == pytest.approx(1 / 6)


def test_projection_agrees_with_rays() -> None:
    cameras = orbit_cameras([0.0, 70.0], [10.0, -5.0], size=(12, 16))
    origins, directions = cameras.rays()
    pixel, depth = project((origins + 2.5 * directions).reshape(2, -1, 3)[1], cameras)
    row, column = torch.meshgrid(torch.arange(12) + 0.5, torch.arange(16) + 0.5, indexing="ij")
    expected = torch.stack([column, row], dim=-1).reshape(-1, 2)
    torch.testing.assert_close(pixel[1], expected, atol=1e-3, rtol=0.0)
    assert (depth[1] > 0).all()


def test_carving_a_true_object_finds_its_volume_and_surface() -> None:
    cameras = carving_cameras()
    solid = pack([Part("ellipsoid", (0.7, 0.7, 0.7), "red")])
    traced = trace(solid, cameras, samples=1)
    depth, alpha = torch.from_numpy(traced.depth), torch.from_numpy(traced.alpha)
    points = grid_points(48)
    inside = carve(depth, alpha, cameras, points)
    assert overlap(inside, points.norm(dim=-1) < 0.7) > 0.93
    surface = surface_points(depth, alpha, cameras)
    torch.testing.assert_close(
        surface.norm(dim=-1), torch.full((len(surface),), 0.7), atol=1e-4, rtol=0.0
    )


def test_carving_empty_views_leaves_nothing() -> None:
    cameras = carving_cameras(size=16)
    empty = torch.zeros(len(cameras), 16, 16, 1)
    assert not carve(empty, empty, cameras, grid_points(8)).any()


def test_psnr_of_a_constant_error() -> None:
    image = torch.full((2, 4, 4, 3), 0.5)
    assert psnr(image, image + 0.1) == pytest.approx(20.0, abs=1e-4)
    assert psnr(image, image) == 100.0


def test_saturation_looks_only_at_the_object() -> None:
    rgb, alpha = torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 1)
    rgb[0, 0, 0], alpha[0, 0, 0] = torch.tensor([0.45, 0.09, 0.0]), 0.9
    assert saturation(rgb, alpha) == pytest.approx(0.5)
    assert saturation(rgb, torch.zeros_like(alpha)) == 0.0


def test_frechet_distance_of_shifted_and_scaled_gaussians() -> None:
    """With diagonal covariances it is |shift|^2 + sum (s_a - s_b)^2."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4000, 3, generator=generator)
    assert frechet_distance(features, features) == pytest.approx(0.0, abs=1e-6)
    shifted = features + torch.tensor([1.0, 2.0, 0.0])
    assert frechet_distance(features, shifted) == pytest.approx(5.0, abs=1e-4)
    spread = torch.diag(torch.cov(features.T)).sqrt()
    scaled = features * torch.tensor([3.0, 1.0, 1.0])
    expected = (2.0 * spread[0]) ** 2 + (2.0 * features[:, 0].mean()) ** 2
    assert frechet_distance(features, scaled) == pytest.approx(float(expected), rel=0.01)


def test_wilson_interval_by_hand() -> None:
    """90 of 100 at 95 %: Wilson 1927 gives [0.8256, 0.9448]."""
    share = wilson(90, 100)
    assert share.value == 0.9
    assert (share.low, share.high) == pytest.approx((0.8256, 0.9448), abs=5e-5)
    assert wilson(0, 50).low == pytest.approx(0.0, abs=1e-12)
    assert wilson(50, 50).high == pytest.approx(1.0)
    assert wilson(0, 50).high == pytest.approx(3.8415 / 53.8415, abs=1e-5)
    with pytest.raises(ValueError, match="n > 0"):
        wilson(0, 0)
