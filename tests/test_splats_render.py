"""Splat renderers: closed forms, gradients, agreement of backends, conventions, bad input."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.errors import ConfigError, NumericsError
from renderers.splats import SplatData, render_splats
from renderers.splats_data import ALPHA_CUT
from renderers.splats_sh import C0, rgb_to_sh, sh_basis


def random_splats(n: int, channels: int = 3, seed: int = 0, size: float = -3.2) -> SplatData:
    g = torch.Generator().manual_seed(seed)
    return SplatData(
        0.5 * torch.randn(n, 3, generator=g),
        size + 0.5 * torch.randn(n, 3, generator=g),
        torch.randn(n, 4, generator=g),
        2.0 * torch.randn(n, generator=g),
        torch.rand(n, channels, generator=g),
    )


def leaves(splats: SplatData, dtype: torch.dtype) -> SplatData:
    return SplatData(
        **{k: v.detach().to(dtype, copy=True).requires_grad_() for k, v in splats.tensors().items()}
    )


def render_and_differentiate(splats, cameras, backend, dtype, **options):
    """All outputs and, for one fixed random cotangent, the gradients of every input."""
    splats = leaves(splats, dtype)
    cameras = cameras.to("cpu", dtype)
    offset = torch.zeros(len(cameras), len(splats), 2, dtype=dtype, requires_grad=True)
    out = render_splats(splats, cameras, backend, screen_offset=offset, **options)
    images = {"rgb": out.rgb, "alpha": out.alpha, "depth": out.depth}
    if out.normal is not None:
        images["normal"] = out.normal
    g = torch.Generator().manual_seed(7)
    loss = torch.stack(
        [
            (image * torch.randn(image.shape, generator=g).to(dtype)).sum()
            for image in images.values()
        ]
    ).sum()
    inputs = {**splats.tensors(), "offset": offset}
    grads = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True)
    found = {
        k: torch.zeros_like(v) if d is None else d
        for (k, v), d in zip(inputs.items(), grads, strict=True)
    }
    return images, found, out


def test_one_splat_at_the_centre_by_hand():
    # Isotropic, sigma 0.1 at distance 3: sigma in pixels = f * 0.1 / 3; the variance grows by the low-pass 0.3.
    cameras = orbit_cameras([0.0], distance=3.0, size=33)
    focal = cameras.K[0, 0, 0].item()
    variance = (focal * 0.1 / 3.0) ** 2 + 0.3
    splats = SplatData(
        torch.zeros(1, 3),
        torch.full((1, 3), math.log(0.1)),
        torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        torch.logit(torch.tensor([0.8])),
        torch.tensor([[0.2, 0.5, 1.0]]),
    )
    for backend in ("torch", "numba"):
        out = render_splats(splats, cameras, backend)
        assert out.alpha[0, 16, 16, 0] == pytest.approx(0.8, abs=1e-6)
        assert out.alpha[0, 16, 18, 0] == pytest.approx(
            0.8 * math.exp(-0.5 * 4 / variance), abs=1e-6
        )
        assert out.alpha[0, 14, 15, 0] == pytest.approx(
            0.8 * math.exp(-0.5 * 5 / variance), abs=1e-6
        )
        assert out.rgb[0, 16, 16].tolist() == pytest.approx([0.16, 0.4, 0.8], abs=1e-6)
        assert out.depth[0, 16, 16, 0] == pytest.approx(3.0, abs=1e-5)
        reach = math.sqrt(2 * math.log(0.8 / ALPHA_CUT) * variance)
        assert out.radii is not None
        assert out.radii[0, 0] == pytest.approx(reach, rel=1e-5)
        row = out.alpha[0, 16, :, 0]
        inside = (torch.arange(33) - 16).abs() <= reach
        assert torch.equal(row > 0, inside)
        front = render_splats(splats, cameras, backend, depth_at=1.0)
        assert front.depth[0, 16, 16, 0] == pytest.approx(2.9, abs=1e-5)


def test_two_splats_composite_front_to_back():
    cameras = orbit_cameras([0.0], distance=3.0, size=17)
    splats = SplatData(
        torch.tensor([[0.0, 0.0, -0.5], [0.0, 0.0, 0.5]]),  # listed back first
        torch.full((2, 3), -2.0),
        torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 2),
        torch.logit(torch.tensor([0.5, 0.25])),
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
    )
    for backend in ("torch", "numba"):
        out = render_splats(splats, cameras, backend)
        assert out.rgb[0, 8, 8].tolist() == pytest.approx([0.75 * 0.5, 0.25], abs=1e-6)
        assert out.depth[0, 8, 8, 0] == pytest.approx((0.25 * 2.5 + 0.375 * 3.5) / 0.625, abs=1e-5)


@pytest.mark.parametrize("tilt", [0.0, 30.0, 60.0])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_depth_of_a_disc_is_that_of_its_plane(tilt, backend):
    # Far away and narrow, so that the affine approximation holds; beside the axis, so that rays are not parallel to it.
    cameras = orbit_cameras([20.0], [10.0], distance=60.0, fovy_deg=2.0, size=32)
    half = math.radians(tilt) / 2.0  # a turn about +Y takes the disc's normal from +Z to +X
    splats = SplatData(
        torch.tensor([[0.1, -0.05, 0.0]]),
        torch.log(torch.tensor([[0.3, 0.3, 1e-3]])),
        torch.tensor([[math.cos(half), 0.0, math.sin(half), 0.0]]),
        torch.tensor([3.0]),
        torch.ones(1, 1),
    )
    normal = torch.tensor([math.sin(2 * half), 0.0, math.cos(2 * half)])
    out = render_splats(splats, cameras, backend, depth_at=1e-6)
    origins, directions = cameras.rays()
    along = ((splats.means[0] - origins) @ normal) / (directions @ normal)
    true = along * (directions @ cameras.c2w[0, :3, 2])
    near = out.alpha[..., 0] > 0.5
    assert near.sum() > 50
    # The low-pass filter is part of the disc.
    assert (out.depth[..., 0] - true)[near].abs().max() < 1e-2
    if tilt > 0.0:  # the centre's depth, which other depths are taken at, is far off
        assert (render_splats(splats, cameras, backend).depth[..., 0] - true)[
            near
        ].abs().max() > 0.05


def test_depth_of_a_ball_is_taken_before_its_centre_by_its_width():
    cameras = orbit_cameras([0.0], distance=3.0, size=33)
    splats = SplatData(
        torch.tensor([[0.0, 0.0, 0.0]]),
        torch.log(torch.tensor([[0.3, 0.2, 0.1]])),
        torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        torch.tensor([3.0]),
        torch.ones(1, 1),
    )
    for backend in ("torch", "numba"):  # seen along +Z, where it is 0.1 wide
        out = render_splats(splats, cameras, backend, depth_at=2.0)
        assert out.depth[0, 16, 16, 0] == pytest.approx(2.8, abs=1e-5)


def test_left_stays_left_and_up_stays_up():
    def centre(mean, azimuth):
        splats = SplatData(
            torch.tensor([mean]),
            torch.full((1, 3), -3.0),
            torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
            torch.tensor([2.0]),
            torch.tensor([[1.0, 0.0, 0.0]]),
        )
        alpha = render_splats(splats, orbit_cameras([azimuth], size=32)).alpha[0, ..., 0]
        grid = torch.arange(32) + 0.5
        return ((alpha.sum(0) * grid).sum() / alpha.sum()).item(), (
            (alpha.sum(1) * grid).sum() / alpha.sum()
        ).item()

    assert centre([0.5, 0.0, 0.0], 0.0)[0] > 20  # +X is right of the centre, seen from the front
    assert centre([0.5, 0.0, 0.0], 180.0)[0] < 12
    assert centre([0.0, 0.0, 0.5], 90.0)[0] < 12  # from +X the front is on the left
    assert centre([0.0, 0.5, 0.0], 0.0)[1] < 12  # up is a smaller row


@pytest.mark.parametrize(
    "options", [{}, {"antialias": True, "depth_at": 1.0}], ids=["plain", "antialias"]
)
def test_reference_gradients_match_finite_differences(options):
    g = torch.Generator().manual_seed(3)
    double = torch.float64
    base = SplatData(
        0.2 * torch.randn(3, 3, generator=g, dtype=double),
        -1.5 + 0.3 * torch.randn(3, 3, generator=g, dtype=double),
        torch.randn(3, 4, generator=g, dtype=double),
        torch.randn(3, generator=g, dtype=double),
        sh=torch.randn(3, 4, 3, generator=g, dtype=double) * 0.3 + 0.5,
    )
    cameras = orbit_cameras([20.0], [10.0], size=5).to("cpu", double)

    def images(means, scales, quaternions, logits, sh):
        out = render_splats(
            SplatData(means, scales, quaternions, logits, sh=sh), cameras, "torch", **options
        )
        return out.rgb, out.alpha, out.depth

    inputs = [value.requires_grad_() for value in base.tensors().values()]
    assert torch.autograd.gradcheck(images, inputs, eps=1e-6, atol=1e-5, rtol=1e-4)


CASES = [
    (1, 17, 3, {}),
    (60, 17, 3, {"normals": True}),
    (300, 64, 1, {}),
    (300, (40, 70), 5, {"antialias": True}),
    (300, 64, 3, {"depth_at": 1.0, "antialias": True}),
]


@pytest.mark.parametrize(("n", "size", "channels", "options"), CASES)
def test_numba_agrees_with_the_reference(n, size, channels, options):
    cameras = orbit_cameras([0.0, 50.0, 200.0], [0.0, 20.0, 60.0], size=size)
    splats = random_splats(n, channels, size=-3.2 if n > 1 else -2.0)
    ours, our_grads, _ = render_and_differentiate(
        splats, cameras, "numba", torch.float32, **options
    )
    theirs, their_grads, _ = render_and_differentiate(
        splats, cameras, "torch", torch.float64, **options
    )
    for name, image in theirs.items():
        # Depth is a quotient by alpha, which may be as small as 1/255; normals have unit length either way.
        tolerance = {"depth": 1e-4, "normal": 1e-4}.get(name, 1e-5)
        error = (ours[name] - image).abs()
        # A pixel on the alpha cut-off may fall on either side of it by rounding.
        assert (error > tolerance).float().mean() < 1e-4, (name, error.max())
    for name, grad in their_grads.items():
        assert (our_grads[name] - grad).norm() <= 2e-4 * grad.norm() + 1e-7, name


@pytest.mark.parametrize("name", ["rgb", "alpha", "depth"])
def test_one_picture_alone_is_differentiated_too(name):
    """The others get no gradient at all then, instead of zeros."""
    cameras = orbit_cameras([0.0, 130.0], size=20)
    found = []
    for backend, dtype in (("numba", torch.float32), ("torch", torch.float64)):
        base = random_splats(30)
        values = {k: v.to(dtype).requires_grad_() for k, v in base.tensors().items()}
        out = render_splats(SplatData(**values), cameras.to("cpu", dtype), backend)
        weight = torch.rand(20, 20, 1, generator=torch.Generator().manual_seed(4))
        (getattr(out, name) * weight).sum().backward()
        found.append({k: v.grad for k, v in values.items()})
    ours, theirs = found
    for key, grad in theirs.items():
        if grad is None:  # the reference knows that colours are not in it
            assert name != "rgb" and (ours[key] is None or (ours[key] == 0).all())
            continue
        assert (ours[key] - grad).norm() <= 2e-4 * grad.norm() + 1e-6, key


def test_nothing_is_read_that_was_not_written(monkeypatch):
    """Memory is not cleared: also behind an opaque front, where no kernel looks, every gradient is written."""
    front = random_splats(60, size=-0.5)
    front.opacity_logits[:] = 5.0
    front.means[:, 2] = 0.6
    behind = random_splats(60, size=-2.5)
    behind.means[:] *= 0.3
    behind.means[:, 2] = -0.6
    splats = SplatData(
        **{k: torch.cat([v, behind.tensors()[k]]) for k, v in front.tensors().items()}
    )
    cameras = orbit_cameras([0.0], size=40)
    images, grads, _ = render_and_differentiate(splats, cameras, "numba", torch.float32)
    empty = np.empty

    def spoiled(shape, dtype=float):
        made = empty(shape, dtype)
        made.fill(np.nan if np.issubdtype(made.dtype, np.floating) else 77)
        return made

    monkeypatch.setattr(np, "empty", spoiled)
    monkeypatch.setattr(np, "empty_like", lambda like: spoiled(like.shape, like.dtype))
    again, again_grads, _ = render_and_differentiate(splats, cameras, "numba", torch.float32)
    assert all(torch.equal(again[name], image) for name, image in images.items())
    assert all(torch.equal(again_grads[name], grad) for name, grad in grads.items())
    assert (grads["features"][60:] == 0).all(dim=1).any()


def test_spherical_harmonics_agree_between_backends_and_with_their_definition():
    cameras = orbit_cameras([10.0, 130.0], size=24)
    base = random_splats(40)
    g = torch.Generator().manual_seed(1)
    sh = 0.3 * torch.randn(40, 16, 3, generator=g)
    splats = SplatData(base.means, base.log_scales, base.quaternions, base.opacity_logits, sh=sh)
    _, a, out = render_and_differentiate(splats, cameras, "numba", torch.float32)
    _, b, reference = render_and_differentiate(splats, cameras, "torch", torch.float64)
    assert (out.rgb - reference.rgb).abs().max() < 1e-5
    for name in b:
        assert (a[name] - b[name]).norm() <= 2e-4 * b[name].norm(), name
    # The basis is orthonormal on the sphere.
    direction = torch.nn.functional.normalize(torch.randn(400_000, 3, generator=g), dim=-1)
    basis = sh_basis(direction, 16)
    gram = 4 * math.pi * basis.T @ basis / len(basis)
    assert (gram - torch.eye(16)).abs().max() < 0.02
    assert 0.5 + C0 * rgb_to_sh(torch.tensor(0.3)) == pytest.approx(0.3)


def look_away() -> CameraBatch:
    """A camera whose back is turned to the origin."""
    camera = orbit_cameras([0.0], size=16)
    c2w = camera.c2w.clone()
    c2w[:, :3, 0] *= -1
    c2w[:, :3, 2] *= -1
    return CameraBatch(
        c2w, camera.K, 16, 16, camera.azimuth_deg, camera.elevation_deg, camera.distance
    )


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_nothing_to_see(backend):
    for splats, cameras in (
        (random_splats(0), orbit_cameras([0.0, 90.0], size=(9, 16))),
        (random_splats(20), look_away()),
    ):
        images, grads, out = render_and_differentiate(splats, cameras, backend, torch.float32)
        assert all((image == 0).all() for image in images.values())
        assert all((grad == 0).all() for grad in grads.values())
        assert (out.radii == 0).all()


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_degenerate_splats_stay_finite(backend):
    splats = random_splats(60, size=-3.0)
    splats.log_scales[:20] = torch.tensor([3.0, -9.0, -9.0])  # needles through the whole scene
    splats.log_scales[20:30] = 50.0
    splats.log_scales[30:40] = -90.0
    splats.quaternions[40:45] = 0.0
    splats.opacity_logits[45:50] = 100.0
    splats.opacity_logits[50:55] = -100.0
    for antialias in (False, True):
        images, grads, _ = render_and_differentiate(
            splats, orbit_cameras([0.0, 77.0], size=32), backend, torch.float32, antialias=antialias
        )
        for name, value in (images | grads).items():
            assert torch.isfinite(value).all(), name


def test_needles_agree_with_the_reference():
    splats = random_splats(40, size=-3.0)
    splats.log_scales[:] = torch.tensor([0.0, -6.0, -6.0])
    cameras = orbit_cameras([0.0, 77.0], size=48)
    ours, a, _ = render_and_differentiate(splats, cameras, "numba", torch.float32)
    theirs, b, _ = render_and_differentiate(splats, cameras, "torch", torch.float64)
    assert ((ours["rgb"] - theirs["rgb"]).abs() > 2e-5).float().mean() < 1e-3
    assert (a["features"] - b["features"]).norm() < 1e-3 * b["features"].norm()


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_results_do_not_depend_on_the_number_of_threads(monkeypatch, workers):
    cameras = orbit_cameras([0.0, 120.0, 240.0], [10.0, 20.0, 30.0], size=72)

    def with_workers(count):
        # Work is shared out among this many whatever the machine has, so that any machine can tell.
        monkeypatch.setattr("renderers.splats_numba.kernel_threads", lambda: nullcontext(count))
        return render_and_differentiate(random_splats(500), cameras, "numba", torch.float32)[:2]

    for first, second in zip(with_workers(1), with_workers(workers), strict=True):
        for name, value in first.items():
            assert torch.equal(value, second[name]), name


def test_antialiased_splats_keep_their_area_at_every_size():
    splats = random_splats(1, size=-4.5)
    splats.means[:] = 0.01
    splats.opacity_logits[:] = 0.0

    def area(size, antialias):
        alpha = render_splats(splats, orbit_cameras([0.0], size=size), antialias=antialias).alpha
        return alpha.sum().item() / size**2

    assert area(32, True) == pytest.approx(area(512, True), rel=0.35)
    assert area(32, False) > 2.0 * area(512, False)


def test_bad_input_is_refused():
    cameras = orbit_cameras([0.0], size=8)
    good = random_splats(5)

    def changed(**values):
        return SplatData(**{**good.tensors(), **values})

    with pytest.raises(ConfigError, match=r"log_scales has shape \[4, 3\]"):
        render_splats(changed(log_scales=torch.zeros(4, 3)), cameras)
    with pytest.raises(ConfigError, match="exactly one"):
        render_splats(changed(sh=torch.zeros(5, 1, 3)), cameras)
    with pytest.raises(ConfigError, match="K = 1, 4, 9 or 16"):
        render_splats(changed(features=None, sh=torch.zeros(5, 2, 3)), cameras)
    with pytest.raises(ConfigError, match=r"float64"):
        render_splats(changed(means=good.means.double()), cameras)
    with pytest.raises(ConfigError, match="choose one of auto"):
        render_splats(good, cameras, backend="tensorflow")
    with pytest.raises(ConfigError, match="screen_offset"):
        render_splats(good, cameras, screen_offset=torch.zeros(1, 4, 2))
    for name in good.tensors():
        poisoned = good.tensors()[name].clone()
        poisoned[2] = math.nan
        with pytest.raises(NumericsError, match=f"1 of 5 splats have {name}"):
            render_splats(changed(**{name: poisoned}), cameras)
