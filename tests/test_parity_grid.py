"""Every fast backend against its torch reference: forward to 1e-5, backward by random cotangents to 1e-4.

The reference runs in float64, the fast backend in float32. A pixel may fall on either side of a cut-off (alpha 1/255,
transmittance 1e-4) by rounding: such pixels must be rare, and no cotangent points at them.
"""

import itertools

import pytest
import torch

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.errors import ConfigError
from renderers.hash_grid import HashGridLayout, encode, geometric_layout
from renderers.splats import SplatData, render_splats
from renderers.volume import composite, march, render_volume

FORWARD, BACKWARD = 1e-5, 1e-4
MOST_FLIPPED = 2e-3
"""Share of pixels that rounding may put on the other side of a cut-off."""
DOUBLE = torch.float64


@pytest.fixture(params=["numba", "warp"])
def fast(request):
    """A fast backend. Warp's kernels run on its CPU device here, for real; on a GPU nothing has run yet."""
    pytest.importorskip(request.param)
    return request.param


def cloud(n, channels=3, sh=0, seed=0, scale=-3.0):
    g = torch.Generator().manual_seed(seed)
    color = {"features": torch.rand(n, channels, generator=g)}
    if sh:
        color = {"sh": 0.4 * torch.randn(n, sh, 3, generator=g)}
    return SplatData(
        0.45 * torch.randn(n, 3, generator=g),
        scale + 0.4 * torch.randn(n, 3, generator=g),
        torch.randn(n, 4, generator=g),
        1.5 * torch.randn(n, generator=g),
        **color,
    )


def away(cameras: CameraBatch) -> CameraBatch:
    """The same cameras turned round."""
    c2w = cameras.c2w.clone()
    c2w[:, :3, [0, 2]] *= -1
    return CameraBatch(
        c2w, cameras.K, cameras.height, cameras.width,
        cameras.azimuth_deg, cameras.elevation_deg, cameras.distance,
    )  # fmt: skip


def images_of(out):
    found = [out.rgb, out.alpha, out.depth * out.alpha]
    return torch.cat(found if out.normal is None else [*found, out.normal * out.alpha], dim=-1)


def assert_parity(fast, splats, cameras, **options):
    sides = []
    for backend, dtype in ((fast, torch.float32), ("torch", DOUBLE)):
        values = {k: v.to(dtype).requires_grad_() for k, v in splats.tensors().items()}
        out = render_splats(SplatData(**values), cameras.to("cpu", dtype), backend, **options)
        sides.append((values, images_of(out)))
    (our_values, ours), (their_values, theirs) = sides
    # Depth is in world units of a few: its error is relative.
    apart = ((ours - theirs).abs() > FORWARD * theirs.abs().clamp_min(1.0)).any(dim=-1)
    assert apart.float().mean() <= MOST_FLIPPED, (ours - theirs).abs().max()
    g = torch.Generator().manual_seed(11)
    cotangent = torch.randn(theirs.shape, generator=g) * ~apart[..., None]
    grads = [
        torch.autograd.grad(image, list(values.values()), cotangent.to(image), allow_unused=True)
        for values, image in sides
    ]
    for name, a, b in zip(our_values, *grads, strict=True):
        if b is None:
            continue
        assert torch.isfinite(a).all(), name
        assert (a - b).norm() <= BACKWARD * b.norm() + 1e-6, (name, (a - b).norm() / b.norm())
    return ours, their_values


SPLAT_GRID = [
    *itertools.product((1, 2, 150), ((1, 1), (16, 16), (33, 50)), (1, 3, 4, 9), (1,)),
    (400, (64, 64), 3, 3),
    (400, (15, 17), 12, 2),
]


@pytest.mark.parametrize(("n", "size", "channels", "views"), SPLAT_GRID)
def test_splats_over_sizes_channels_and_batches(fast, n, size, channels, views):
    cameras = orbit_cameras([10.0 + 97.0 * i for i in range(views)], 15.0, size=size)
    assert_parity(fast, cloud(n, channels), cameras)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
@pytest.mark.parametrize("normals", [False, True])
def test_splats_with_harmonics_normals_and_filters(fast, antialias, coefficients, normals):
    cameras = orbit_cameras([0.0, 120.0], 25.0, size=24)
    options = {"antialias": antialias, "normals": normals, "depth_at": 2.75}
    assert_parity(fast, cloud(60, sh=coefficients), cameras, **options)


@pytest.mark.parametrize("n", [0, 30])
def test_splats_that_nobody_sees(fast, n):
    cameras = orbit_cameras([0.0, 90.0], size=20)
    image, _ = assert_parity(fast, cloud(n), cameras if n == 0 else away(cameras))
    assert (image == 0).all()


DEGENERATE = {
    "dust": (-90.0, -90.0, -90.0),
    "dots": (-9.0, -9.0, -9.0),
    "fog": (2.0, 2.0, 2.0),
    "sheets": (-0.5, -0.5, -9.0),
    "needles": (-0.5, -7.0, -7.0),
}


@pytest.mark.parametrize("shape", DEGENERATE)
def test_splats_of_degenerate_scales(fast, shape):
    splats = cloud(30)
    splats.log_scales[:] = torch.tensor(DEGENERATE[shape])
    splats.opacity_logits[:3] = torch.tensor([60.0, -60.0, 8.0])
    if shape == "fog":  # the same everywhere, so that all pixels would be at the cut-off together
        splats.opacity_logits[:] = -2.0
    assert_parity(fast, splats, orbit_cameras([0.0, 77.0], size=40))


def samples(counts, channels, seed=0, thick=20.0):
    g = torch.Generator().manual_seed(seed)
    start = torch.tensor([0, *counts]).cumsum(0)
    n = int(start[-1])
    density = thick * torch.rand(n, generator=g) ** 3
    return density, torch.randn(n, channels, generator=g), 0.05 * torch.rand(n, generator=g), start


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 8, 13])
@pytest.mark.parametrize("counts", [[1], [0, 0], [0, 40, 1, 0, 96], [25] * 200, [1500, 3]])
@pytest.mark.parametrize("thick", [1e-4, 20.0, 3e4])
def test_compositing_over_counts_channels_and_densities(fast, channels, counts, thick):
    found = []
    for backend, dtype in ((fast, torch.float32), ("torch", DOUBLE)):
        density, features, length, start = samples(counts, channels, thick=thick)
        inputs = [density.to(dtype).requires_grad_(), features.to(dtype).requires_grad_()]
        outputs = composite(*inputs, length.to(dtype), start, backend)
        g = torch.Generator().manual_seed(3)
        cotangents = [torch.randn(o.shape, generator=g).to(dtype) for o in outputs]
        found.append([*outputs, *torch.autograd.grad(outputs, inputs, cotangents)])
    for a, b in zip(found[0][:2], found[1][:2], strict=True):
        assert b.numel() == 0 or ((a - b).abs() <= FORWARD * b.abs().clamp_min(1.0)).all()
    for a, b in zip(found[0][2:], found[1][2:], strict=True):
        # The gradient's scale is its largest possible value: behind a wall it is nothing but rounding.
        assert (a - b).norm() <= BACKWARD * b.norm() + 1e-7 * b.numel() ** 0.5


@pytest.mark.parametrize(
    "layout",
    [geometric_layout(6, 4, 90, 10, f) for f in (1, 2, 3, 8)] + [HashGridLayout((1,), 8, 2)],
    ids=lambda layout: f"{len(layout.resolutions)}x{layout.features}",
)
@pytest.mark.parametrize("count", [1, 511, 1300])
def test_hash_grid_over_layouts_and_counts(fast, layout, count):
    g = torch.Generator().manual_seed(0)
    points = 2.3 * torch.rand(count, 3, generator=g) - 1.15
    table = torch.randn(layout.offsets[-1], layout.features, generator=g)
    cotangent = torch.randn(count, layout.width, generator=g)
    found = []
    for name, dtype in ((fast, torch.float32), ("torch", DOUBLE)):
        inputs = [points.to(dtype).requires_grad_(), table.to(dtype).requires_grad_()]
        out = encode(*inputs, layout, name)
        found.append([out, *torch.autograd.grad(out, inputs, cotangent.to(dtype))])
    # The position in a cell is a difference of numbers as large as the resolution.
    assert (found[0][0] - found[1][0]).abs().max() <= FORWARD * max(
        1.0, layout.resolutions[-1] / 16
    )
    for a, b in zip(found[0][1:], found[1][1:], strict=True):
        assert (a - b).norm() <= BACKWARD * b.norm()


@pytest.mark.parametrize("rays", [0, 1, 257])
@pytest.mark.parametrize("step", [0.03, 2.0])
@pytest.mark.parametrize("cells", [None, 1, 8, 33])
def test_marching_over_rays_steps_and_grids(fast, rays, step, cells):
    g = torch.Generator().manual_seed(4)
    origins = 1.5 * torch.randn(rays, 3, generator=g)  # some lie in the cube
    toward = 0.8 * torch.randn(rays, 3, generator=g) - origins
    directions = torch.nn.functional.normalize(toward, dim=1)
    directions[1::7] = torch.tensor([0.0, 0.0, -1.0])  # parallel to faces; many of these miss
    jitter = torch.rand(rays, generator=g)
    occupied = None if cells is None else torch.rand(cells, cells, cells, generator=g) < 0.4
    ours, theirs = (
        march(origins, directions, occupied, step, jitter, name) for name in (fast, "torch")
    )
    for samples in (ours, theirs):
        assert torch.equal(samples.ray, torch.arange(rays).repeat_interleave(samples.start.diff()))
    # A sample may fall on either side of a cell's border by rounding; hardly any does.
    same = ours.start.diff() == theirs.start.diff()
    assert rays == 0 or (same.float().mean() >= 0.98 and len(theirs) > 0) or cells == 1
    for name in ("points", "t", "length"):
        a, b = getattr(ours, name)[same[ours.ray]], getattr(theirs, name)[same[theirs.ray]]
        assert a.dtype == b.dtype and b.numel() in (0, a.numel())
        assert b.numel() == 0 or (a - b).abs().max() <= FORWARD, name


class Bumps:
    """A smooth field of any number of channels."""

    def __init__(self, channels, dtype, scale=30.0):
        self.channels, self.like = channels, torch.zeros(1, dtype=dtype)
        self.weight = torch.full((), scale, dtype=dtype, requires_grad=True)

    def density(self, points, backend="auto"):
        return self.weight * torch.exp(-4.0 * points.square().sum(1))

    def __call__(self, points, backend="auto"):
        waves = torch.stack([(points * (c + 1)).sin().sum(1) for c in range(self.channels)], dim=1)
        return self.density(points), 0.5 + 0.3 * waves * self.weight / self.weight.detach()


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (9, 20)])
@pytest.mark.parametrize("normals", ["none", "analytic"])
def test_volumes_over_sizes_channels_and_batches(fast, views, channels, size, normals):
    found = []
    for backend, dtype in ((fast, torch.float32), ("torch", DOUBLE)):
        field = Bumps(channels, dtype)
        cameras = orbit_cameras([33.0 + 110.0 * i for i in range(views)], 20.0, size=size)
        out = render_volume(field, cameras, normals=normals, backend=backend)
        image = images_of(out)
        g = torch.Generator().manual_seed(5)
        cotangent = torch.randn(image.shape, generator=g).to(image)
        found.append((image, *torch.autograd.grad(image, field.weight, cotangent)))
    # A sample at the far face may fall in or out by rounding; the field is thin there.
    assert ((found[0][0] - found[1][0]).abs() <= 2 * FORWARD * 4.5).all()
    assert (found[0][1] - found[1][1]).abs() <= BACKWARD * found[1][1].abs() + 1e-5


def test_wrong_devices_are_refused():
    splats = cloud(3)
    on_meta = SplatData(**{**splats.tensors(), "log_scales": torch.empty(3, 3, device="meta")})
    with pytest.raises(ConfigError, match="convert them to one dtype and device"):
        render_splats(on_meta, orbit_cameras([0.0], size=8))
    layout = HashGridLayout((2,), 8, 2)
    with pytest.raises(ConfigError, match="convert them to one dtype and device"):
        encode(torch.zeros(2, 3, device="meta"), torch.zeros(27, 2), layout)
    with pytest.raises(ConfigError, match="one dtype and device"):
        composite(torch.zeros(2), torch.zeros(2, 3).double(), torch.ones(2), torch.tensor([0, 2]))
    with pytest.raises(ConfigError, match="one dtype and device"):
        march(torch.zeros(2, 3), torch.ones(2, 3), None, 0.1, torch.zeros(2).double())


def test_absurd_pictures_are_refused():
    huge = orbit_cameras([0.0], size=8).resized(100_000, 100_000)
    with pytest.raises(ConfigError, match="render at most"):
        render_splats(cloud(3), huge)
    for n in (0, 3):  # no splats is an empty picture, not an error
        assert render_splats(cloud(n), orbit_cameras([0.0], size=8)).rgb.shape == (1, 8, 8, 3)
