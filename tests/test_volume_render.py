"""Volume renderer: closed forms, gradients, agreement of backends, conventions, bad input."""

import math

import pytest
import torch

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.errors import ConfigError, NumericsError
from renderers.volume import composite, field_normals, march, render_volume
from renderers.volume_data import RAYS_AT_ONCE

BACKENDS = ("torch", "numba")
DOUBLE = torch.float64


class Shape:
    """A field given by a function from points to density, coloured by position."""

    def __init__(self, density, channels=3, dtype=torch.float32):
        self.function, self.channels, self.like = density, channels, torch.zeros(1, dtype=dtype)

    def density(self, points, backend="auto"):
        return self.function(points)

    def __call__(self, points, backend="auto"):
        columns = [0.5 + 0.5 * points[:, i % 3] for i in range(self.channels)]
        return self.density(points), torch.stack(columns, dim=1)


def ball(radius=0.6, density=200.0, centre=(0.0, 0.0, 0.0)):
    return lambda p: density * ((p - torch.tensor(centre).to(p)).norm(dim=1) < radius)


def random_rays(count, seed=0, dtype=torch.float32):
    """Rays from a shell around the cube to points inside it; every fourth looks away."""
    g = torch.Generator().manual_seed(seed)
    origins = 3.0 * torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1)
    directions = torch.nn.functional.normalize(
        1.2 * torch.rand(count, 3, generator=g) - 0.6 - origins, dim=1
    )
    directions[3::4] *= -1.0
    return origins.to(dtype), directions.to(dtype)


def random_samples(counts, channels, dtype=torch.float32, seed=0):
    """Density, features, lengths and starts of rays with these numbers of samples."""
    g = torch.Generator().manual_seed(seed)
    start = torch.tensor([0, *counts]).cumsum(0)
    n = int(start[-1])
    density = 20.0 * torch.rand(n, generator=g) ** 3
    length = 0.01 + 0.05 * torch.rand(n, generator=g)
    features = torch.randn(n, channels, generator=g)
    return density.to(dtype), features.to(dtype), length.to(dtype), start


@pytest.mark.parametrize("backend", BACKENDS)
def test_five_samples_by_hand(backend):
    # Optical depths log 2, 0, log 4 on one ray; none on the second; log 5 and a wall on the third.
    density = torch.tensor([math.log(2.0) / 0.5, 0.0, math.log(4.0) / 0.25, math.log(5.0), 1e4])
    length = torch.tensor([0.5, 0.5, 0.25, 1.0, 1.0])
    features = torch.tensor([[1.0, 0.0], [9.0, 9.0], [0.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
    # Transmittances 1, 1/2, 1/2, 1/8: weights 1/2, 0, 3/8. Then 1, 1/5, 0: weights 4/5, 1/5.
    image, alpha = composite(density, features, length, torch.tensor([0, 3, 3, 5]), backend)
    assert image[0].tolist() == pytest.approx([0.5, 0.375], abs=1e-6)
    assert image[1].tolist() == [0.0, 0.0]
    assert image[2].tolist() == pytest.approx([1.6, 0.6], abs=1e-6)
    assert alpha.tolist() == pytest.approx([0.875, 0.0, 1.0], abs=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_and_transmittance_sum_to_one(backend):
    density, _, length, start = random_samples([7, 0, 40, 1], 1)
    weights, alpha = composite(density, torch.ones(len(density), 1), length, start, backend)
    through = torch.stack(
        [
            torch.exp(-(density * length)[start[r] : start[r + 1]].sum())
            for r in range(len(start) - 1)
        ]
    )
    assert (alpha + through - 1.0).abs().max() < 2e-6
    assert (weights[:, 0] + through - 1.0).abs().max() < 2e-6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.9])
def test_lengths_sum_to_the_way_through_the_cube(backend, jitter):
    """Hence the transmittance of a homogeneous cube is exp(-density length) at any step."""
    origins, directions = random_rays(200)
    samples = march(origins, directions, None, 0.07, torch.full((200,), jitter), backend)
    one, other = (-1 - origins) / directions, (1 - origins) / directions
    enter = torch.minimum(one, other).amax(1).clamp_min(0)
    length = (torch.maximum(one, other).amin(1) - enter).clamp_min(0)
    length[3::4] = 0.0  # these look away
    _, alpha = composite(
        torch.full((len(samples),), 0.8), samples.points, samples.length, samples.start, backend
    )
    assert (1.0 - alpha - torch.exp(-0.8 * length)).abs().max() < 1e-5
    assert (samples.points.abs() <= 1.0 + 1e-5).all()
    assert torch.equal(samples.ray, samples.ray.sort().values)
    along = origins[samples.ray] + samples.t[:, None] * directions[samples.ray]
    assert (along - samples.points).abs().max() < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_transmittance_of_a_homogeneous_ball(backend):
    cameras = orbit_cameras([30.0], [20.0], size=33)
    out = render_volume(Shape(ball(0.6, 3.0)), cameras, step=0.004, backend=backend)
    origins, directions = cameras.rays()
    closest = (origins * directions).sum(-1)
    chord = 2.0 * (0.36 - (origins.square().sum(-1) - closest**2)).clamp_min(0).sqrt()
    assert (1.0 - out.alpha[..., 0] - torch.exp(-3.0 * chord)).abs().max() < 0.02


def test_occupancy_leaves_out_what_it_says_and_nothing_else():
    g = torch.Generator().manual_seed(2)
    occupied = torch.rand(8, 8, 8, generator=g) < 0.3
    origins, directions = random_rays(300)
    jitter = torch.rand(300, generator=g)
    everything = march(origins, directions, None, 0.05, jitter, "numba")
    cell = ((everything.points + 1) * 4).long().clamp(0, 7)
    expected = everything.points[occupied[tuple(cell.unbind(1))]]
    for backend in BACKENDS:
        some = march(origins, directions, occupied, 0.05, jitter, backend)
        assert torch.equal(some.points, expected)
        assert torch.equal(
            (some.start[1:] - some.start[:-1]), torch.bincount(some.ray, minlength=300)
        )
    nothing = march(origins, directions, torch.zeros(4, 4, 4, dtype=torch.bool), 0.05, jitter)
    assert len(nothing) == 0 and (nothing.start == 0).all()


@pytest.mark.parametrize("rays", [0, 1, 257])
def test_marching_agrees_between_backends(rays):
    origins, directions = random_rays(rays)
    directions[1::7] = torch.tensor([0.0, 0.0, -1.0])  # parallel to faces
    jitter = torch.rand(rays, generator=torch.Generator().manual_seed(1))
    for step in (0.03, 2.0):
        ours = march(origins, directions, None, step, jitter, "numba")
        theirs = march(origins, directions, None, step, jitter, "torch")
        assert torch.equal(ours.start, theirs.start) and torch.equal(ours.ray, theirs.ray)
        for name in ("points", "t", "length"):
            difference = (getattr(ours, name) - getattr(theirs, name)).abs()
            assert difference.numel() == 0 or difference.max() < 1e-5, name


def differentiate(backend, dtype, counts, channels):
    density, features, length, start = random_samples(counts, channels, dtype)
    inputs = [density.requires_grad_(), features.requires_grad_()]
    outputs = composite(density, features, length, start, backend)
    g = torch.Generator().manual_seed(7)
    cotangents = [torch.randn(o.shape, generator=g).to(dtype) for o in outputs]
    return [*outputs, *torch.autograd.grad(outputs, inputs, cotangents)]


@pytest.mark.parametrize(
    ("counts", "channels"),
    [([1], 1), ([5], 3), ([0, 3, 0, 0, 96, 1, 0], 3), ([20] * 300, 4), ([0, 0], 3), ([7] * 9, 12)],
)
def test_compositing_agrees_between_backends(counts, channels):
    ours = differentiate("numba", torch.float32, counts, channels)
    theirs = differentiate("torch", DOUBLE, counts, channels)
    for value, reference in zip(ours[:2], theirs[:2], strict=True):
        assert reference.numel() == 0 or (value - reference).abs().max() <= 1e-5
    for value, reference in zip(ours[2:], theirs[2:], strict=True):
        assert (value - reference).norm() <= 1e-4 * reference.norm() + 1e-9


def test_reference_gradients_match_finite_differences():
    density, features, length, start = random_samples([3, 0, 4], 2, DOUBLE)
    inputs = density.requires_grad_(), features.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda d, f: composite(d, f, length, start, "torch"), inputs, atol=1e-6
    )


def test_results_do_not_depend_on_the_number_of_threads():
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            origins, directions = random_rays(500)
            samples = march(origins, directions, None, 0.1, torch.full((500,), 0.3), "numba")
            found.append([samples.points, *differentiate("numba", torch.float32, [9] * 100, 3)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_ball_has_its_silhouette_depth_and_normals(backend):
    cameras = orbit_cameras([0.0, 70.0], [0.0, 30.0], size=48)
    # Soft at the rim, so that there is a slope to take normals from.
    field = Shape(lambda p: (600.0 * (0.6 - p.norm(dim=1))).clamp(0.0, 300.0))
    out = render_volume(field, cameras, step=0.01, normals="finite", backend=backend)
    origins, directions = cameras.rays()
    closest = (origins * directions).sum(-1)
    root = 0.36 - (origins.square().sum(-1) - closest**2)
    disc, shown = root > 0, out.alpha[..., 0] > 0.5
    assert (disc & shown).sum() / (disc | shown).sum() > 0.95
    # Optical depth 300 s^2 at s under the surface: light comes from sqrt(pi / 1200) under it on average.
    assert out.depth[0, 24, 24, 0] == pytest.approx(2.6 + math.sqrt(math.pi / 1200), abs=0.01)
    assert out.normal is not None and out.backward_normals is not None
    point = origins + (-closest - root.clamp_min(0).sqrt())[..., None] * directions
    inner = root > 0.1
    agreement = (out.normal * point / 0.6).sum(-1)[inner]
    assert agreement.min() > 0.97
    assert out.backward_normals[inner].max() < 0.05


def test_a_picture_is_the_same_in_groups_of_rays_as_in_one(monkeypatch):
    field = Shape(lambda p: (60.0 * (0.6 - p.norm(dim=1))).clamp(0.0, 30.0))
    cameras = orbit_cameras([0.0, 70.0], size=12)
    whole = render_volume(field, cameras, step=0.05, generator=torch.Generator().manual_seed(0))
    monkeypatch.setitem(RAYS_AT_ONCE, "cpu", 37)  # divides neither a row nor a view
    parts = render_volume(field, cameras, step=0.05, generator=torch.Generator().manual_seed(0))
    for name in ("rgb", "alpha", "depth"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


def test_left_stays_left_and_up_stays_up():
    def centre(mean, azimuth):
        field = Shape(ball(0.2, 50.0, mean))
        alpha = render_volume(field, orbit_cameras([azimuth], size=32)).alpha[0, ..., 0]
        grid = torch.arange(32) + 0.5
        return ((alpha.sum(0) * grid).sum() / alpha.sum()).item(), (
            (alpha.sum(1) * grid).sum() / alpha.sum()
        ).item()

    assert centre((0.5, 0.0, 0.0), 0.0)[0] > 20  # +X is right of the centre, seen from the front
    assert centre((0.5, 0.0, 0.0), 180.0)[0] < 12
    assert centre((0.0, 0.0, 0.5), 90.0)[0] < 12  # from +X the front is on the left
    assert centre((0.0, 0.5, 0.0), 0.0)[1] < 12  # up is a smaller row
    # Colours too: red grows with x, green with y.
    image = render_volume(Shape(ball()), orbit_cameras([0.0], size=32)).rgb[0]
    assert image[16, 22, 0] > image[16, 10, 0] + 0.1
    assert image[10, 16, 1] > image[22, 16, 1] + 0.1


def test_normals_of_both_kinds_agree():
    def density(p):
        return 5.0 * torch.exp(-3.0 * (p * torch.tensor([1.0, 2.0, 0.5]).to(p)).square().sum(1))

    field = Shape(density, dtype=DOUBLE)
    points = torch.rand(50, 3, dtype=DOUBLE) - 0.5
    analytic = field_normals(field, points, "analytic")
    finite = field_normals(field, points, "finite")
    assert (analytic * finite).sum(1).min() > 0.999
    assert ((analytic * points).sum(1) > 0).all()


def look_away() -> CameraBatch:
    """A camera whose back is turned to the origin."""
    camera = orbit_cameras([0.0], size=16)
    c2w = camera.c2w.clone()
    c2w[:, :3, 0] *= -1
    c2w[:, :3, 2] *= -1
    return CameraBatch(
        c2w, camera.K, 16, 16, camera.azimuth_deg, camera.elevation_deg, camera.distance
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("normals", ["none", "analytic", "finite"])
def test_nothing_to_see(backend, normals):
    weight = torch.ones((), requires_grad=True)
    field = Shape(lambda p: weight * p.square().sum(1), channels=5)
    out = render_volume(field, look_away(), normals=normals, backend=backend)
    assert out.rgb.shape == (1, 16, 16, 5) and (out.normal is None) == (normals == "none")
    for image in (out.rgb, out.alpha, out.depth, out.normal):
        assert image is None or (image == 0).all()
    (grad,) = torch.autograd.grad(out.rgb.sum() + out.depth.sum(), weight)
    assert grad == 0


def test_samples_are_shifted_only_by_the_generator_passed():
    field, cameras = Shape(ball(0.5, 4.0)), orbit_cameras([0.0], size=16)

    def image(seed):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return render_volume(field, cameras, step=0.2, generator=generator).rgb

    assert torch.equal(image(None), image(None)) and torch.equal(image(3), image(3))
    assert not torch.equal(image(3), image(4)) and not torch.equal(image(3), image(None))


def test_bad_input_is_refused():
    cameras, field = orbit_cameras([0.0], size=8), Shape(ball())
    with pytest.raises(ConfigError, match="choose one of auto"):
        render_volume(field, cameras, backend="tensorflow")
    with pytest.raises(ConfigError, match=r"needs float32, got torch\.float64"):
        render_volume(Shape(ball(), dtype=DOUBLE), cameras, backend="numba")
    with pytest.raises(ConfigError, match="normals is 'pretty'"):
        render_volume(field, cameras, normals="pretty")  # type: ignore[arg-type]
    for step in (0.0, -1.0, math.nan, 1e-6, 9.0):
        with pytest.raises(ConfigError, match="choose a length"):
            render_volume(field, cameras, step=step)
    with pytest.raises(ConfigError, match=r"occupancy grid is torch\.float32"):
        render_volume(field, cameras, torch.ones(4, 4, 4))
    with pytest.raises(ConfigError, match="render at most"):
        render_volume(field, orbit_cameras([0.0], size=8).resized(100_000, 100_000))
    with pytest.raises(NumericsError, match=r"density is not finite at \d+ of \d+ samples"):
        render_volume(Shape(lambda p: torch.where(p[:, 0] > 0.5, math.nan, 1.0)), cameras)
    density, features, length, start = random_samples([2, 3], 3)
    with pytest.raises(ConfigError, match="do not fit"):
        composite(density[:4], features, length, start)
    with pytest.raises(ConfigError, match="do not fit"):
        march(torch.zeros(4, 3), torch.zeros(5, 3), None, 0.1, torch.zeros(4))
