"""Where splats start from: balls, spheres, cubes and point clouds."""

import math

import pytest
import torch

from dream3d.cameras import orbit_cameras
from dream3d.errors import AssetError, ConfigError
from dream3d.scenes.conversions.points_splats import points_to_splats
from dream3d.scenes.splats import SplatsConfig, start_positions
from renderers.splats import render_splats


def generator():
    return torch.Generator().manual_seed(0)


def test_starts_have_their_shapes():
    ball, _ = start_positions("sphere", 4000, generator())
    shell, _ = start_positions("surface", 4000, generator())
    cube, spacing = start_positions("random", 4096, generator())
    assert ball.norm(dim=1).max() <= 1.0 + 1e-6
    assert ball.norm(dim=1).median() == pytest.approx(math.sqrt(0.5), abs=0.03)
    assert (shell.norm(dim=1) - 1.0).abs().max() < 1e-5
    assert cube.abs().max() <= 1.0 and cube.norm(dim=1).max() > 1.3
    # Uniform: each axis has the variance of [-1, 1], which is one third.
    assert (cube.var(dim=0) - 1 / 3).abs().max() < 0.03
    assert spacing == pytest.approx(2.0 / 16)


@pytest.mark.parametrize("init", ["sphere", "surface", "random"])
def test_a_scene_starts_with_what_was_asked_for(init):
    config = SplatsConfig(count=50, max_count=60, init=init, init_radius=0.4)
    scene = config.create(generator(), torch.device("cpu"))
    positions, spacing = start_positions(init, 50, generator())
    assert torch.equal(scene.splats.means.detach(), 0.4 * positions)
    expected = math.log(0.8 * 0.4 * spacing)
    assert scene.splats.log_scales.detach().mean() == pytest.approx(expected, abs=1e-4)


def test_points_become_splats_as_wide_as_their_gaps():
    axis = 0.1 * torch.arange(5.0)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    colors = grid / 0.4
    splats = points_to_splats(grid, colors, opacity=0.9)
    assert splats.log_scales.exp().numpy() == pytest.approx(0.1, abs=1e-5)
    out = render_splats(splats, orbit_cameras([0.0], size=32))
    image = out.rgb[0] / out.alpha[0].clamp_min(1e-3)
    solid = out.alpha[0, ..., 0] > 0.9
    columns = torch.nonzero(solid.any(dim=0)).squeeze(1)
    row = int(torch.nonzero(solid.any(dim=1)).squeeze(1).float().mean())
    # Red grows with x, to the right.
    assert image[row, columns[-2], 0] > image[row, columns[1], 0] + 0.3


def test_few_points_and_points_on_one_another():
    assert points_to_splats(torch.zeros(1, 3)).log_scales.exp()[0, 0] == pytest.approx(0.1)
    twice = points_to_splats(torch.zeros(2, 3))
    assert torch.isfinite(twice.log_scales).all()


def test_bad_clouds_are_refused():
    with pytest.raises(AssetError, match="empty"):
        points_to_splats(torch.zeros(0, 3))
    with pytest.raises(AssetError, match="not finite"):
        points_to_splats(torch.full((2, 3), math.nan))
    with pytest.raises(ConfigError, match=r"expected \[N, 3\]"):
        points_to_splats(torch.zeros(4, 3), torch.zeros(3, 3))
    with pytest.raises(ConfigError, match="choose an opacity"):
        points_to_splats(torch.zeros(4, 3), opacity=1.0)
