"""The radiance field scene: fields, occupancy, state, direct fit, mesh, whole runs."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.errors import AssetError, CheckpointError, ConfigError, NumericsError
from dream3d.export.assets import export_all
from dream3d.export.formats import mp4
from dream3d.generation import generate_run
from dream3d.phases import Phases
from dream3d.priors.gaussian import GaussianConfig
from dream3d.run import run_system
from dream3d.scenes.base import SCENES
from dream3d.scenes.fields import LARGEST_RAW, Blob, Field, PlaneEncoding, make_head, truncated_exp
from dream3d.scenes.fit import fit_to_views
from dream3d.scenes.nerf import Nerf, NerfConfig
from dream3d.scenes.nerf_mesh import to_mesh
from dream3d.scenes.occupancy import cell_points, occupied_cells
from dream3d.scenes.surface import ColoredMesh
from dream3d.schedules import constant
from dream3d.train import StepReport
from guidance.sds import SDS
from systems.base import RunConfig, Stage

KINDS = ("hash", "dense", "planes", "frequency")
BALLS = (((0.0, -0.25, 0.0), 0.5, (0.9, 0.2, 0.1)), ((0.1, 0.4, 0.2), 0.3, (0.1, 0.3, 0.9)))
TINY = {"levels": 4, "resolution": 24, "table_log2": 10, "hidden": 8, "occupancy_cells": 8}


def tiny(**settings) -> NerfConfig:
    return NerfConfig(**{**TINY, **settings})


def new_scene(seed: int = 0, **settings) -> Nerf:
    return tiny(**settings).create(torch.Generator().manual_seed(seed), torch.device("cpu"))


def true_views(cameras: CameraBatch):
    """Two unlit balls, ray by ray: premultiplied colour and coverage."""
    origins, directions = cameras.rays()
    nearest = torch.full(origins.shape[:3], math.inf)
    rgb = torch.zeros(*origins.shape[:3], 3)
    for centre, radius, color in BALLS:
        to = origins - torch.tensor(centre)
        b = (to * directions).sum(-1)
        root = b * b - (to * to).sum(-1) + radius**2
        t = -b - root.clamp_min(0).sqrt()
        hit = (root > 0) & (t < nearest)
        nearest = torch.where(hit, t, nearest)
        rgb[hit] = torch.tensor(color)
    return rgb, torch.isfinite(nearest).float()[..., None]


def some_cameras(views: int, size: int) -> CameraBatch:
    azimuth = [360.0 * i / views for i in range(views)]
    return orbit_cameras(azimuth, [-10.0 + 60.0 * (i * 0.618 % 1) for i in range(views)], size=size)


class SolidBall:
    """A field that is a ball, red on the right and blue on the left, hollow where no camera sees."""

    like = torch.zeros(1)

    def density(self, points, backend="auto"):
        distance = points.norm(dim=1)
        return (3000.0 * (0.6 - distance)).clamp(0.0, 200.0) * (distance > 0.4)

    def __call__(self, points, backend="auto"):
        right = (points[:, :1] > 0).float()
        return self.density(points), torch.cat([right, torch.zeros_like(right), 1 - right], dim=1)


def test_registered_and_deterministic():
    assert SCENES["nerf"] is NerfConfig
    before = torch.get_rng_state()
    a, b, c = (new_scene(seed).state() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)  # torch's global generator is left alone
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["encoding.table"], c["encoding.table"])


def test_exponential_density_is_bounded_and_can_come_back():
    x = torch.linspace(-5, LARGEST_RAW - 0.1, 20, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(truncated_exp, x)
    assert torch.autograd.gradgradcheck(truncated_exp, x)
    far = torch.tensor([50.0], requires_grad=True)
    y = truncated_exp(far)
    assert y.item() == pytest.approx(math.exp(LARGEST_RAW))
    (grad,) = torch.autograd.grad(y, far)
    assert grad.item() == pytest.approx(math.exp(LARGEST_RAW))


def test_the_blob_is_what_a_field_starts_from():
    blob = Blob(scale=3.0, radius=0.5, offset=-1.0)
    points = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 1.0, 0.0]], requires_grad=True)
    assert blob(points).tolist() == pytest.approx([2.0, -1.0, -4.0], abs=1e-4)
    (grad,) = torch.autograd.grad(blob(points).sum(), points)
    assert torch.isfinite(grad).all()
    for kind in KINDS:
        scene = new_scene(field=kind, blob_scale=6.0)
        with torch.no_grad():
            density = scene.field.density(torch.tensor([[0.0, 0.0, 0.0], [0.9, 0.0, 0.0]]))
        assert density[0] > 50.0 * density[1]


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_every_field_match_finite_differences(kind):
    field = new_scene(field=kind, features=2, octaves=2).field.double()
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in field.parameters():
            value.copy_(0.4 * torch.randn(value.shape, generator=g))
    points = 1.8 * torch.rand(4, 3, generator=g, dtype=torch.float64) - 0.9
    names = [n for n, p in field.named_parameters() if p.numel() < 200]
    values = [dict(field.named_parameters())[n].detach().clone().requires_grad_() for n in names]

    def evaluate(p, *changed):
        return torch.func.functional_call(
            field, dict(zip(names, changed, strict=True)), (p, "torch")
        )

    assert torch.autograd.gradcheck(evaluate, (points.requires_grad_(), *values), atol=1e-5)


def test_planes_are_read_where_they_say():
    encoding = PlaneEncoding(5, 1, torch.Generator().manual_seed(0))
    axis = torch.linspace(-1, 1, 5)
    with torch.no_grad():
        encoding.plane[:] = axis + 2 * axis[:, None]  # rows are the second of the plane's axes
        encoding.line[:] = axis[:, None]
    x, y, z = 0.3, -0.7, 0.55
    found = encoding(torch.tensor([[x, y, z]]), "torch")[0]
    expected = [x * (y + 2 * z), y * (x + 2 * z), z * (x + 2 * y)]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_features_that_are_no_colours_stay_as_they_are():
    g = torch.Generator().manual_seed(0)
    encoding = PlaneEncoding(4, 2, g)
    field = Field(encoding, make_head(encoding.width, 8, 1, 5, g), "softplus", squash=False)
    density, features = field(torch.rand(20, 3, generator=g))
    assert features.shape == (20, 4) and features.min() < 0.0 and (density > 0).all()


def test_occupancy_covers_what_is_dense_and_its_neighbours():
    points = cell_points(8, torch.zeros(1))
    assert points[0].tolist() == pytest.approx([-0.875] * 3)
    assert points[1].tolist() == pytest.approx([-0.875, -0.875, -0.625])  # z is fastest
    density = torch.zeros(8, 8, 8)
    density[2, 5, 7] = 10.0
    occupied = occupied_cells(density, 0.04, 0.01)
    assert occupied.sum() == 3 * 3 * 2 and occupied[1:4, 4:7, 6:8].all()
    assert not occupied_cells(density, 0.04, 0.5).any()


def test_occupancy_follows_the_field():
    scene = new_scene(occupancy_every=2, occupancy_decay=0.1)
    assert scene.occupied[4, 4, 4] and not scene.occupied[0, 0, 0]
    parameters, g = scene.parameters(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        parameters["head.2.bias"][0] -= 30.0  # everything empties
    for step in range(8):
        scene.density_control(torch.optim.Adam(parameters.values()), 0.5, step, g)
    assert not scene.occupied.any()
    out = scene.render(orbit_cameras([0.0], size=8))
    assert (out.alpha == 0).all()
    out.rgb.sum().backward()  # nothing to see is no error


def test_training_renders_are_shifted_anew_each_step_and_previews_are_not():
    scene, cameras = new_scene(), orbit_cameras([0.0], size=12)
    first = scene.render(cameras).rgb
    assert torch.equal(first, scene.render(cameras).rgb)
    with torch.no_grad():
        preview = scene.render(cameras).rgb
    optimizer = torch.optim.Adam(scene.parameters().values())
    scene.density_control(optimizer, 0.1, 0, torch.Generator().manual_seed(1))
    assert not torch.equal(first, scene.render(cameras).rgb)
    with torch.no_grad():
        assert torch.equal(preview, scene.render(cameras).rgb)


def test_backends_render_the_same():
    for kind in KINDS:
        images = []
        for backend in ("numba", "torch"):
            scene = new_scene(field=kind, backend=backend, blob_scale=5.0)
            out = scene.render(orbit_cameras([20.0, 140.0], [0.0, 40.0], size=16))
            (out.rgb.square().sum() + out.depth.sum()).backward()
            grads = [p.grad for p in scene.parameters().values()]
            images.append((out.rgb, out.alpha, out.depth * out.alpha, grads))
        for ours, theirs in zip(images[0][:3], images[1][:3], strict=True):
            assert (ours - theirs).abs().max() < 1e-5
        for ours, theirs in zip(images[0][3], images[1][3], strict=True):
            assert ours is not None and theirs is not None
            assert (ours - theirs).norm() <= 1e-3 * theirs.norm() + 1e-7


def config(kind: str = "hash", steps: int = 14) -> RunConfig:
    scene = tiny(field=kind, resolution=12, occupancy_every=4)
    stage = Stage(
        SDS(constant(1.5)), scene, steps=steps, views=2, render_size=12, checkpoint_every=0
    )
    return RunConfig("a red mug", GaussianConfig(12), [stage], seed=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, kind: str) -> None:
    reports: list[float] = []

    def note(report: StepReport) -> None:
        reports.append(report.loss)

    whole = run_system(config(kind), tmp_path / "whole", note)
    for cut in (3, 4, 5) if kind == "hash" else (5,):
        steps = iter(range(1, 100))
        folder = tmp_path / str(cut)
        run_system(config(kind), folder, should_stop=lambda s=steps, c=cut: next(s) == c)
        expected, mark = reports[cut:14], len(reports)
        rest = run_system(config(kind), folder, note, resume=True)
        assert reports[mark:] == expected
        for name, value in whole.scene.state().items():
            assert torch.equal(value, rest.scene.state()[name]), name


def test_state_of_another_kind_is_refused():
    state = new_scene().state()
    with pytest.raises(CheckpointError, match="another kind of scene"):
        new_scene(field="planes").load_state(state)
    with pytest.raises(CheckpointError, match=r"encoding\.table has shape"):
        new_scene(features=3).load_state(state)


def test_bad_settings_and_broken_fields_are_refused():
    for settings, message in (
        ({"resolution": 100_000}, "resolution is 100000"),
        ({"field": "dense", "resolution": 512}, "resolution is 512; choose a value from 2 to 256"),
        ({"step": 0.0}, "step is 0"),
        ({"weight_orientation": 1.0}, "choose normals=finite"),
    ):
        with pytest.raises(ConfigError, match=message):
            NerfConfig(**settings)
    scene = new_scene()
    with torch.no_grad():
        scene.parameters()["encoding.table"][7, 1] = math.nan
    with pytest.raises(NumericsError, match=r"field's encoding\.table is not finite"):
        scene.render(orbit_cameras([0.0], size=8))


def test_regularisers_push_the_right_way():
    scene = new_scene(
        weight_entropy=constant(1.0), weight_sparsity=1.0, weight_orientation=1.0, normals="finite"
    )
    terms = scene.regularisation(scene.render(some_cameras(1, 12)), 0.5)
    assert set(terms) == {"entropy", "sparsity", "orientation"}
    assert all(term > 0 for term in terms.values())
    terms["sparsity"].backward(retain_graph=True)
    grad = scene.parameters()["head.2.bias"].grad
    assert grad is not None and grad[0] > 0  # less density is less of the penalty
    rates = scene.learning_rates(0.0)
    assert rates["encoding.table"] > rates["head.0.weight"] == rates["head.2.bias"]


def fitted(steps: int, **settings) -> tuple[Nerf, list[float]]:
    cameras = some_cameras(16, 40)
    rgb, alpha = true_views(cameras)
    scene = NerfConfig(**settings).create(torch.Generator().manual_seed(0), torch.device("cpu"))
    return scene, fit_to_views(scene, cameras, rgb, alpha, steps, torch.Generator().manual_seed(0))


def psnr(scene: Nerf) -> float:
    cameras = orbit_cameras([33.0, 200.0], [20.0, 5.0], size=40)
    with torch.no_grad():
        out = scene.render(cameras)
    return -10 * torch.log10((out.rgb - true_views(cameras)[0]).square().mean()).item()


@pytest.mark.slow
def test_direct_fit_and_mesh():
    scene, losses = fitted(80, levels=5, resolution=48, table_log2=13)
    assert losses[-1] < 0.15 * losses[0]
    assert psnr(scene) > 24.0
    mesh = to_mesh(scene.field, scene.occupied, 48, 4000, image_size=64)
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces)
    assert solid.is_watertight and solid.body_count == 1
    true_volume = sum(4 / 3 * math.pi * r**3 for _, r, _ in BALLS)  # they overlap by 1 %
    assert solid.volume == pytest.approx(true_volume, rel=0.15)
    assert len(mesh.faces) <= 4100
    low = mesh.colors[mesh.vertices[:, 1] < -0.3].mean(0)
    assert low.tolist() == pytest.approx([0.9, 0.2, 0.1], abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "bar", "settings"),
    [
        ("hash", 29.0, {}),
        ("dense", 28.0, {"resolution": 48, "features": 4}),
        ("planes", 27.0, {"resolution": 48, "features": 8}),
        ("frequency", 26.0, {"hidden": 64, "layers": 3}),
    ],
)
def test_every_field_fits(kind, bar, settings):
    assert psnr(fitted(150, field=kind, **settings)[0]) > bar


def test_mesh_of_a_ball():
    mesh = to_mesh(SolidBall(), resolution=48, image_size=96)
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces)
    assert solid.is_watertight and solid.body_count == 1
    # Hollow inside, yet solid: nobody can see in.
    assert solid.volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.06)
    right = mesh.colors[mesh.vertices[:, 0] > 0.1].mean(0)
    left = mesh.colors[mesh.vertices[:, 0] < -0.1].mean(0)
    assert right.tolist() == pytest.approx([1, 0, 0], abs=0.02)
    assert left.tolist() == pytest.approx([0, 0, 1], abs=0.02)


def test_mesh_refuses_what_it_cannot_use():
    scene = new_scene(blob_offset=-20.0)
    with pytest.raises(AssetError, match="nowhere dense enough"):
        scene.to_mesh(resolution=16)
    with pytest.raises(ConfigError, match="mesh resolution is 4000"):
        scene.to_mesh(resolution=4000)


@pytest.mark.slow
def test_exports_are_those_of_a_field(tmp_path: Path) -> None:
    scene = new_scene(blob_scale=6.0)
    assert export_all(scene, tmp_path, Phases()) == []
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"preview.png", "asset.glb", "turntable.mp4"}
    loaded = trimesh.load(tmp_path / "asset.glb", force="mesh")
    assert isinstance(loaded, trimesh.Trimesh) and loaded.is_watertight


def test_a_run_exports_a_mesh_and_lists_what_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tetrahedron = ColoredMesh(
        np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32),
        np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]], np.int32),
        np.full((4, 3), 0.5, np.float32),
    )
    monkeypatch.setattr(Nerf, "to_mesh", lambda scene, max_faces: tetrahedron)
    monkeypatch.setattr(mp4, "turntable_mp4", lambda *_: b"film")
    result = generate_run(config(steps=2), tmp_path / "run")
    made = {"preview.png", "asset.glb", "turntable.mp4"}
    assert result.status == "done" and made <= set(result.record["files"])
    assert "asset.ply" not in result.record["files"]
