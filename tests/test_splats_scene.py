"""The splat scene: density control, state, direct fit, mesh."""

import math

import pytest
import torch
import trimesh

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.errors import AssetError, CheckpointError, ConfigError
from dream3d.scenes.base import SCENES
from dream3d.scenes.fit import fit_to_views
from dream3d.scenes.splats import SplatsConfig, exportable
from dream3d.scenes.splats_density import (
    AdaptiveRules,
    Edit,
    apply_edit,
    densify,
    relocate,
    shared_splat,
)
from dream3d.scenes.splats_mesh import to_mesh
from dream3d.schedules import constant

BALLS = (((0.0, -0.25, 0.0), 0.5, (0.9, 0.2, 0.1)), ((0.1, 0.4, 0.2), 0.3, (0.1, 0.3, 0.9)))


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


def new_scene(seed: int = 0, **settings):
    config = SplatsConfig(**{"count": 600, "max_count": 900, **settings})
    return config.create(torch.Generator().manual_seed(seed), torch.device("cpu"))


def optimizer_of(scene):
    return torch.optim.Adam(
        [{"params": [p], "name": n} for n, p in scene.parameters().items()], lr=0.01
    )


def train(scene, optimizer, generator, first, last, total=40):
    """Steps `first`..`last` of a small fit whose state is only the scene, the optimiser and the generator."""
    cameras = some_cameras(6, 24)
    rgb, alpha = true_views(cameras)
    for step in range(first, last):
        progress = (step + 1) / total
        chosen = torch.randperm(6, generator=generator)[:2]
        out = scene.render(cameras[chosen])
        loss = (out.rgb - rgb[chosen]).square().mean() + (out.alpha - alpha[chosen]).square().mean()
        loss = loss + sum(scene.regularisation(out, progress).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = scene.learning_rates(progress)[group["name"]]
        optimizer.step()
        scene.density_control(optimizer, progress, step, generator)


def test_registered_and_deterministic():
    assert SCENES["splats"] is SplatsConfig
    a, b = new_scene(3).state(), new_scene(3).state()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["means"], new_scene(4).state()["means"])
    surface = new_scene(init="surface").splats.means
    assert torch.allclose(surface.norm(dim=1), torch.tensor(0.6), atol=1e-5)
    inside = new_scene().splats.means.norm(dim=1)
    assert inside.max() <= 0.6 and inside.median() < 0.6 * 0.5 ** (1 / 3)


@pytest.mark.parametrize("density", ["relocate", "adaptive", "none"])
def test_a_resumed_run_equals_an_unbroken_one(density):
    settings = {"density": density, "density_every": 7, "split_gradient": 1e-5}
    straight, generator = new_scene(**settings), torch.Generator().manual_seed(5)
    train(straight, optimizer_of(straight), generator, 0, 40)

    first, generator = new_scene(**settings), torch.Generator().manual_seed(5)
    optimizer = optimizer_of(first)
    train(first, optimizer, generator, 0, 20)
    saved = (first.state(), optimizer.state_dict(), generator.get_state())

    second = new_scene(seed=99, **settings)
    second.load_state(saved[0])
    optimizer = optimizer_of(second)
    optimizer.load_state_dict(saved[1])
    generator = torch.Generator()
    generator.set_state(saved[2])
    train(second, optimizer, generator, 20, 40)

    expected, got = straight.state(), second.state()
    assert (len(straight) != 600) == (density != "none")
    assert expected.keys() == got.keys()
    for name in expected:
        assert torch.equal(expected[name], got[name]), name


def test_moments_move_with_their_splats():
    scene = new_scene(count=5, max_count=9)
    optimizer = optimizer_of(scene)
    parameters = scene.parameters()
    for p in parameters.values():
        p.grad = torch.arange(1.0, 6.0).reshape(5, *([1] * (p.ndim - 1))).expand_as(p).clone()
    optimizer.step()
    index = torch.tensor([3, 1, 1, 4])
    edit = Edit(
        {name: p.detach()[index] for name, p in parameters.items()}, torch.tensor([3, 1, -1, 4])
    )
    new = apply_edit(optimizer, parameters, edit)
    for name, p in new.items():
        group = next(g for g in optimizer.param_groups if g["name"] == name)
        assert group["params"] == [p] and len(p) == 4
        moment = optimizer.state[p]["exp_avg"].reshape(4, -1)[:, 0]
        assert torch.allclose(moment, 0.1 * torch.tensor([4.0, 2.0, 0.0, 5.0]))
        assert optimizer.state[p]["step"] == 1
        assert parameters[name] not in optimizer.state


def test_copies_together_look_like_the_original():
    opacity = torch.tensor([0.2, 0.6, 0.9, 0.7])
    copies = torch.tensor([1, 2, 5, 3])
    new, scale = shared_splat(opacity, copies)
    assert torch.allclose(1 - (1 - new) ** copies, opacity, atol=1e-6)
    assert new[0] == pytest.approx(0.2) and scale[0] == pytest.approx(1.0)
    # The integral over the line of the composited profile is conserved.
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    for o, n, count, s in zip(opacity, new, copies, scale, strict=True):
        profile = 1 - (1 - n.double() * torch.exp(-0.5 * (x / s.double()) ** 2)) ** int(count)
        one = o.double() * torch.exp(-0.5 * x**2)
        assert profile.sum().item() == pytest.approx(one.sum().item(), rel=1e-3)


def test_dead_splats_are_relocated_and_the_budget_is_kept():
    scene = new_scene(count=100, max_count=103)
    raw = {name: p.detach().clone() for name, p in scene.parameters().items()}
    raw["opacities"][:40] = -9.0
    edit = relocate(raw, 103, 0.05, torch.Generator().manual_seed(0))
    assert edit is not None and len(edit.moments_from) == 103
    assert (edit.values["opacities"].sigmoid() > 0.005).all()
    alive = {tuple(m.tolist()) for m in raw["means"][40:]}
    assert all(tuple(m.tolist()) in alive for m in edit.values["means"])
    untouched = edit.moments_from >= 0
    assert torch.equal(
        edit.values["opacities"][untouched], raw["opacities"][edit.moments_from[untouched]]
    )
    assert (
        relocate({**raw, "opacities": torch.full((100,), -9.0)}, 103, 0.05, torch.Generator())
        is None
    )


def test_clone_split_and_prune():
    raw = {
        name: p.detach().clone()
        for name, p in new_scene(count=50, max_count=99).parameters().items()
    }
    raw["log_scales"][:] = math.log(0.01)
    raw["log_scales"][0] = math.log(0.2)  # wants to move and is large: split
    raw["opacities"][2] = -9.0  # faint: pruned
    gradient = torch.zeros(50)
    gradient[:2] = 1.0  # the second is small: cloned
    rules = AdaptiveRules(0.5, 0.05, 0.01, 0.4, 99)
    edit = densify(raw, gradient, rules, torch.Generator().manual_seed(0))
    assert len(edit.moments_from) == 50 + 1 + 1 - 1
    assert 0 not in edit.moments_from.tolist() and 2 not in edit.moments_from.tolist()
    assert (edit.moments_from == -1).sum() == 3
    assert edit.values["log_scales"].exp().max() == pytest.approx(0.2 / 1.6)
    capped = densify(raw, torch.ones(50), AdaptiveRules(0.5, 9.0, 0.0, 9.0, 55), torch.Generator())
    assert len(capped.moments_from) == 55


def test_state_of_another_kind_is_refused():
    scene = new_scene()
    state = scene.state()
    smaller = new_scene(count=7, max_count=9)
    smaller.load_state(state)
    assert len(smaller) == 600
    with pytest.raises(CheckpointError, match="colors_rest"):
        new_scene(sh_degree=1).load_state(state)
    with pytest.raises(CheckpointError, match="disagree"):
        scene.load_state({**state, "means": state["means"][:3]})
    with pytest.raises(ConfigError, match="max_count"):
        SplatsConfig(count=10, max_count=5)
    with pytest.raises(ConfigError, match="depth_at is -1"):
        SplatsConfig(depth_at=-1.0)


def test_regularisers_push_the_right_way():
    scene = new_scene(
        weight_scale=1.0, weight_opacity=1.0, weight_entropy=1.0, weight_tv_rgb=1.0, weight_tv_depth=1.0,
        weight_flat=1.0,
    )  # fmt: skip
    terms = scene.regularisation(scene.render(some_cameras(1, 16)), 0.5)
    assert set(terms) == {"scale", "flat", "opacity", "entropy", "tv_rgb", "tv_depth"}
    (terms["scale"] + terms["flat"]).backward()
    grad = scene.parameters()["log_scales"].grad
    assert grad is not None and (grad.sum(1) > 0).all()


def test_splats_not_worth_exporting_are_dropped():
    splats = new_scene(count=10, max_count=10).splats.detach()
    splats.means[1, 0] = math.nan
    splats.opacity_logits[2] = -20.0
    assert splats.sh is not None
    splats.sh[3, 0, 1] = math.inf
    kept = exportable(splats)
    assert len(kept) == 7 and torch.equal(kept.means[0], splats.means[0])


def fitted(steps: int, **settings):
    cameras = some_cameras(16, 40)
    rgb, alpha = true_views(cameras)
    scene = new_scene(count=1000, max_count=1500, **settings)
    losses = fit_to_views(scene, cameras, rgb, alpha, steps, torch.Generator().manual_seed(0))
    return scene, losses


def test_direct_fit_and_mesh():
    scene, losses = fitted(150)
    assert losses[-1] < 0.2 * losses[0]
    cameras = orbit_cameras([33.0, 200.0], [20.0, 5.0], size=40)
    rgb, _ = true_views(cameras)
    with torch.no_grad():
        out = scene.render(cameras)
    psnr = -10 * torch.log10((out.rgb - rgb).square().mean()).item()
    assert psnr > 22.0
    mesh = to_mesh(scene.splats, resolution=48, image_size=96, max_faces=4000)
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces)
    assert solid.is_watertight and solid.body_count == 1
    true_volume = sum(4 / 3 * math.pi * r**3 for _, r, _ in BALLS)  # they overlap by 1 %
    assert solid.volume == pytest.approx(true_volume, rel=0.15)
    assert len(mesh.faces) <= 4100
    low = mesh.vertices[:, 1] < -0.3
    assert torch.from_numpy(mesh.colors[low].mean(0)).numpy() == pytest.approx(
        [0.9, 0.2, 0.1], abs=0.1
    )


def test_fit_and_mesh_refuse_what_they_cannot_use():
    cameras = some_cameras(4, 16)
    rgb, alpha = true_views(cameras)
    with pytest.raises(ConfigError, match="do not belong to the cameras"):
        fit_to_views(new_scene(), cameras, rgb[:2], alpha, 1, torch.Generator())
    ghost = new_scene(count=20, max_count=20, lr_means=constant(0.0)).splats.detach()
    ghost.opacity_logits[:] = -20.0
    with pytest.raises(AssetError, match="no opaque surface"):
        to_mesh(ghost, resolution=16, image_size=32)
