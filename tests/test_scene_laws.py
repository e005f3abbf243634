"""What every scene owes: normals of its surface, checkpoints it can tell from others', and refusals that help."""

import dataclasses
import math

import pytest
import torch

from dream3d.cameras import orbit_cameras
from dream3d.errors import CheckpointError, ConfigError, NumericsError
from dream3d.export.pictures import render_views
from dream3d.scenes.base import SCENES, Scene
from dream3d.scenes.mesh import MeshConfig
from dream3d.scenes.nerf import NerfConfig
from dream3d.scenes.neus import NeusConfig
from dream3d.scenes.splats import SplatsConfig
from dream3d.scenes.tets import TetsConfig
from dream3d.train import make_optimizer

CPU = torch.device("cpu")


def made(config, seed: int = 0) -> Scene:
    return config.create(torch.Generator().manual_seed(seed), CPU)


def sphere(kind: str) -> Scene:
    """A ball around the origin."""
    small = {"levels": 4, "resolution": 32, "table_log2": 10, "hidden": 8, "step": 0.02}
    if kind == "nerf":
        return made(NerfConfig(**small, blob_scale=40.0, blob_radius=0.6))
    if kind == "neus":
        return made(NeusConfig(**small, sdf_radius=0.6, sharpness=300.0))
    if kind == "tets":
        return made(TetsConfig(resolution=32, init_radius=0.6, field_resolution=32))
    if kind == "mesh":
        return made(MeshConfig.tiny())
    return SplatsConfig(count=6000).convert(sphere("tets"), torch.Generator().manual_seed(0), CPU)


@pytest.mark.parametrize("kind", [name for name in SCENES.names() if name != "canvas"])
def test_the_normals_of_a_sphere_point_away_from_its_centre(kind: str) -> None:
    scene, cameras = sphere(kind), orbit_cameras([0.0, 70.0], [20.0, -10.0], size=72)
    out = scene.render_normals(cameras)
    assert out.normal is not None and not out.normal.requires_grad
    origins, directions = cameras.rays()
    along = (directions * cameras.c2w[:, None, None, :3, 2]).sum(dim=-1, keepdim=True)
    truth = torch.nn.functional.normalize(origins + directions * out.depth / along, dim=-1)
    inside = (out.alpha[..., 0] > 0.99) & ((truth * -directions).sum(dim=-1) > 0.5)
    assert inside.float().mean() > 0.03
    angle = torch.rad2deg((out.normal * truth).sum(dim=-1).clamp(-1.0, 1.0).acos())[inside]
    # Splats are blended in depth, and each is flat.
    assert angle.mean() < (6.0 if kind == "splats" else 2.0), angle.mean()
    # Where there is nothing, there is no normal either; elsewhere they have length 1.
    length = out.normal.norm(dim=-1)
    assert (length[out.alpha[..., 0] == 0] == 0).all() and (length[inside] - 1).abs().max() < 1e-4


def test_a_picture_of_normals_is_blue_in_the_middle() -> None:
    """Right, up and toward the viewer are red, green and blue."""
    picture = render_views(sphere("mesh"), [0.0], 65, "normal")[0].astype(int)
    row, column = picture.shape[0] // 2, picture.shape[1] // 2
    assert abs(picture[row, column] - [128, 128, 255]).max() < 16
    assert picture[row, column + 8, 0] > 140 and picture[row - 8, column, 1] > 140


@pytest.mark.parametrize("name", SCENES.names())
def test_a_scene_loads_its_own_state_and_no_other(name: str) -> None:
    config = SCENES[name].tiny()
    first, second = made(config, 0), made(config, 1)
    cameras = orbit_cameras([30.0], size=12)
    second.load_state(first.state())
    with torch.no_grad():
        assert torch.equal(first.render(cameras).rgb, second.render(cameras).rgb)
    state = first.state()
    some = next(iter(first.parameters()))
    with pytest.raises(CheckpointError, match=r"another kind of scene.*start a new run"):
        second.load_state({**state, "whiskers": torch.zeros(3)})
    with pytest.raises(CheckpointError, match=f"{some.replace('.', '[.]')} has shape .*expected"):
        second.load_state({**state, some: state[some][..., None]})
    # A refusal changes nothing.
    assert all(torch.equal(value, state[key]) for key, value in second.state().items())


# A canvas never makes the device wait; its loss tells the loop (tests/test_train.py).
@pytest.mark.parametrize("name", SCENES.names())
def test_the_optimiser_takes_adams_step_on_every_parameter(name: str) -> None:
    """It is one kernel that goes by memory, not by index: a parameter or moment in another order would go wrong."""
    scene, generator = made(SCENES[name].tiny()), torch.Generator().manual_seed(0)
    cameras, optimizer = orbit_cameras([30.0, 200.0], size=12), make_optimizer(scene, (0.9, 0.99))
    for step in range(6):
        output = scene.render(cameras)
        loss = (output.rgb + output.alpha).square().sum()
        optimizer.zero_grad(set_to_none=True)
        (loss + sum(scene.regularisation(output, 0.5).values())).backward()
        expected = {}
        for key, p in scene.parameters().items():
            assert p.is_contiguous(), key
            grad = p.grad
            if grad is None:
                expected[key] = p.detach().clone()
                continue
            held = optimizer.state.get(p) or {"exp_avg": 0.0, "exp_avg_sq": 0.0, "step": 0.0}
            count = float(held["step"]) + 1.0
            mean = (0.9 * held["exp_avg"] + 0.1 * grad) / (1.0 - 0.9**count)
            square = (0.99 * held["exp_avg_sq"] + 0.01 * grad.square()) / (1.0 - 0.99**count)
            expected[key] = p.detach() - 0.01 * mean / (square.sqrt() + 1e-15)
        for group in optimizer.param_groups:
            group["lr"] = 0.01
        optimizer.step()
        for key, p in scene.parameters().items():
            torch.testing.assert_close(p.detach(), expected[key], rtol=1e-4, atol=1e-6)
        scene.density_control(optimizer, 0.3, 20 * step + 19, generator)  # splats come and go


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", [name for name in SCENES.names() if name != "canvas"])
def test_a_diverged_scene_says_what_and_the_remedy(name: str, value: float) -> None:
    scene = made(SCENES[name].tiny())
    broken, parameter = next(iter(scene.parameters().items()))
    with torch.no_grad():
        parameter.reshape(-1)[0] = value
    with pytest.raises(NumericsError, match=r"not finite; .*lower") as caught:
        scene.render(orbit_cameras([0.0], size=8))
    assert broken.split(".")[-1] in str(caught.value)


@pytest.mark.parametrize("name", SCENES.names())
def test_absurd_pictures_are_refused_before_memory_is_asked_for(name: str) -> None:
    scene = made(SCENES[name].tiny())
    cameras = dataclasses.replace(orbit_cameras([0.0], size=8), height=200_000, width=200_000)
    with pytest.raises(ConfigError, match=r"200000 x 200000.*at most"):
        scene.render(cameras)
