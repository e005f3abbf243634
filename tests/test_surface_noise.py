"""Noise that lies on the object: white and of unit variance in every view, the same at the same surface point."""

import functools
import math

import pytest
import torch

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.errors import ConfigError
from dream3d.noise_sources import SurfaceNoise
from dream3d.scenes.base import SCENES
from dream3d.schedules import constant
from dream3d.surface_noise import Cells, Seen, gather_noise, hashed_normals, surface_cells

SIZE, RADIUS = 16, 0.8


def ball(cameras: CameraBatch) -> Seen:
    """A ball's exact depth."""
    origin, direction = cameras.rays()
    along = -(origin * direction).sum(-1, keepdim=True)
    inside = along**2 - (origin.square().sum(-1, keepdim=True) - RADIUS**2)
    hit = inside > 0.0
    distance = along - inside.clamp(min=0.0).sqrt()
    forward = cameras.c2w[:, None, None, :3, 2]
    depth = distance * (direction * forward).sum(-1, keepdim=True)
    return Seen(torch.where(hit, depth, 0.0), hit.float(), cameras)


def noise(seen: Seen, seed: int = 0, progress: float = 0.0, rate: float = 0.0) -> torch.Tensor:
    source = SurfaceNoise(rate=constant(rate))
    shape = (len(seen.cameras), 4, SIZE, SIZE)
    return source(shape, progress, seed, torch.Generator().manual_seed(1), seen)


VIEWS = ball(orbit_cameras([0.0, 12.0, 180.0], 10.0, size=64))


@functools.cache
def many(count: int = 60) -> torch.Tensor:
    """[seeds, views, channels, pixels]; 16 channels, so that few seeds are many samples."""
    cells = surface_cells(VIEWS, SIZE, SIZE, 8, 0.5 * SIZE * 8 * 0.25)
    background = torch.randn(count, 3, 16, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    drawn = [
        gather_noise(cells, hashed_normals(cells.key, seed, 0, 16), background[seed])
        for seed in range(count)
    ]
    return torch.stack(drawn).flatten(3)


def sets(cells: Cells, view: int) -> dict[int, set[int]]:
    """The cells each pixel of a view owns."""
    found: dict[int, set[int]] = {}
    for key, pixel, owned in zip(
        cells.key[view].tolist(),
        cells.pixel[view].tolist(),
        cells.owned[view].tolist(),
        strict=True,
    ):
        if owned:
            found.setdefault(pixel, set()).add(key)
    return found


def test_hashed_noise_is_unit_gaussian_and_without_pattern() -> None:
    key = torch.arange(200_000).reshape(1, -1)  # neighbours, the worst case for a hash
    x = hashed_normals(key, 3, 0, 4)[0]
    assert x.mean(1).abs().max() < 0.01 and (x.std(1) - 1.0).abs().max() < 0.01
    assert ((x**4).mean(1) - 3.0).abs().max() < 0.1
    assert (torch.corrcoef(x) - torch.eye(4)).abs().max() < 0.01
    for lag in (1, 2, 1 << 10):
        assert (x[:, lag:] * x[:, :-lag]).mean(1).abs().max() < 0.01
    for other in (hashed_normals(key, 4, 0, 4)[0], hashed_normals(key, 3, 1, 4)[0]):
        assert (x * other).mean(1).abs().max() < 0.01


def test_no_cell_has_two_owners_in_a_view() -> None:
    cells = surface_cells(VIEWS, SIZE, SIZE, 8, 16.0)
    for view in range(3):
        owned = list(sets(cells, view).values())
        assert len(owned) > 60
        assert sum(map(len, owned)) == len(set().union(*owned))


def test_it_is_white_and_of_unit_variance_within_a_view() -> None:
    x = many()[:, 0].transpose(0, 1).reshape(-1, SIZE * SIZE)  # channels and seeds as samples
    assert abs(x.mean().item()) < 0.01 and abs(x.var().item() - 1.0) < 0.02
    covariance = x.T @ x / len(x)
    off = covariance - torch.diag(covariance.diag())
    # Of 1000 samples a correlation of nothing has deviation 0.03.
    assert off.square().mean().sqrt() < 0.035 and off.abs().max() < 0.2


def test_views_correlate_by_the_cells_they_share() -> None:
    cells = surface_cells(VIEWS, SIZE, SIZE, 8, 0.5 * SIZE * 8 * 0.25)
    first, second, behind = (sets(cells, view) for view in range(3))
    x = many()
    expected, found = [], []
    for p, mine in first.items():
        q, theirs = max(second.items(), key=lambda item: len(mine & item[1]))
        shared = len(mine & theirs)
        if shared:
            expected.append(shared / math.sqrt(len(mine) * len(theirs)))
            found.append((x[:, 0, :, p] * x[:, 1, :, q]).mean().item())
    expected, found = torch.tensor(expected), torch.tensor(found)
    assert len(expected) > 40 and expected.max() > 0.6 and expected.mean() > 0.3
    assert (expected - found).abs().mean() < 0.05
    assert torch.corrcoef(torch.stack([expected, found]))[0, 1] > 0.95
    assert not set().union(*first.values()) & set().union(*behind.values())


def test_the_same_view_has_the_same_noise_at_every_moment_unless_it_drifts() -> None:
    assert torch.equal(noise(VIEWS, progress=0.1), noise(VIEWS, progress=0.9))
    assert not torch.allclose(noise(VIEWS, 0), noise(VIEWS, 1))
    a, b = noise(VIEWS, 0, 0.2, 2.0), noise(VIEWS, 0, 0.5, 2.0)
    covered = (surface_mask() > 0)[:, None].expand_as(a)
    assert math.isclose((a * b)[covered].mean().item(), math.exp(-0.6), abs_tol=0.1)
    assert math.isclose(a[covered].var().item(), 1.0, abs_tol=0.1)


def surface_mask() -> torch.Tensor:
    cells = surface_cells(VIEWS, SIZE, SIZE, 8, 0.5 * SIZE * 8 * 0.25)
    count = torch.zeros(3, SIZE * SIZE).scatter_add(1, cells.pixel, cells.owned.float())
    return count.reshape(3, SIZE, SIZE)


def test_a_view_too_near_starves_and_falls_back_to_the_screens_noise() -> None:
    near = orbit_cameras([0.0], 0.0, distance=0.85, size=64)
    x = torch.stack([noise(ball(near), seed) for seed in range(10)])
    assert math.isclose(x.var().item(), 1.0, abs_tol=0.05)


@pytest.mark.parametrize("name", SCENES.names())
def test_every_scene_carries_it_from_view_to_view(name: str) -> None:
    """Beside the true overlap of a small turn: what depth and coverage of each renderer leave of it."""
    generator = torch.Generator().manual_seed(0)
    scene = SCENES[name].tiny().create(generator, torch.device("cpu"))
    cameras = orbit_cameras([0.0, 0.0, 3.0], 10.0, size=32)
    with torch.no_grad():
        output = scene.render(cameras)
    x = noise(Seen(output.depth, output.alpha, cameras))
    assert torch.isfinite(x).all() and math.isclose(x.var().item(), 1.0, abs_tol=0.15)
    solid = torch.nn.functional.adaptive_avg_pool2d(output.alpha.permute(0, 3, 1, 2), SIZE) > 0.9
    covered = solid.all(0).expand(4, -1, -1)
    if covered.sum() > 100:
        same, turned = ((x[0] * x[i])[covered].mean().item() for i in (1, 2))
        assert math.isclose(same, 1.0, abs_tol=0.25)
        # A canvas turns with its camera, so its points are others.
        assert turned > 0.25 or name == "canvas"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "noise.samples is 0"),
        ({"cells_per_sample": 0.0}, "noise.cells_per_sample is 0"),
        ({"background": "foo"}, "noise.background is"),
        ({"rate": constant(-1.0)}, "noise.rate is -1"),
    ],
)
def test_settings_outside_their_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SurfaceNoise(**settings)
