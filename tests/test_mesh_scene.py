"""The mesh scene: files in, direct fits, regularisers, state, export."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from dream3d.cameras import orbit_cameras
from dream3d.config import load_config
from dream3d.errors import CheckpointError, ConfigError, NumericsError
from dream3d.evaluation.run import load_scene, read_config
from dream3d.export.run import export_scene
from dream3d.generation import generate_run, resume_run
from dream3d.priors.gaussian import GaussianConfig
from dream3d.run import run_system
from dream3d.scenes.base import SCENES
from dream3d.scenes.fit import fit_to_views
from dream3d.scenes.mesh import Mesh, MeshConfig
from dream3d.scenes.mesh_file import RADIUS, load_mesh
from dream3d.schedules import constant
from guidance.sds import SDS
from renderers.mesh import MeshData, render_mesh
from systems.base import RunConfig, Stage

TINY = {"field_resolution": 16, "field_table_log2": 8, "texture_size": 64}


def new_scene(**settings) -> Mesh:
    config = MeshConfig(**{**TINY, **settings})
    return config.create(torch.Generator().manual_seed(0), torch.device("cpu"))


@pytest.fixture
def block(tmp_path: Path) -> str:
    """A box that is not a cube, off the origin, as a file whose format doubles vertices."""
    solid = trimesh.creation.box((2.0, 1.0, 0.5)).subdivide()
    solid.apply_translation([5.0, 3.0, -2.0])
    path = tmp_path / "block.stl"
    solid.export(path)
    return str(path)


@pytest.mark.parametrize("suffix", ["obj", "glb", "ply", "stl"])
def test_files_are_read_welded_and_placed(tmp_path: Path, suffix: str) -> None:
    solid = trimesh.creation.box((2.0, 1.0, 0.5))
    solid.apply_translation([5.0, 3.0, -2.0])
    path = tmp_path / f"block.{suffix}"
    solid.export(path)
    mesh = load_mesh(path)
    assert mesh.vertices.shape == (8, 3) and mesh.faces.shape == (12, 3)
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(RADIUS, rel=1e-5)
    size = np.ptp(mesh.vertices, axis=0)
    assert (size / size[0]).tolist() == pytest.approx([1.0, 0.5, 0.25], rel=1e-5)
    assert trimesh.Trimesh(mesh.vertices, mesh.faces).is_watertight


def test_own_texture_coordinates_are_kept(tmp_path: Path) -> None:
    """A quad whose upper left corner has the picture's upper left corner."""
    quad = trimesh.Trimesh(
        [[-1, 1, 0], [1, 1, 0], [1, -1, 0], [-1, -1, 0]], [[0, 2, 1], [0, 3, 2]], process=False
    )
    picture = Image.new("RGB", (4, 4))
    quad.visual = trimesh.visual.TextureVisuals([[0, 1], [1, 1], [1, 0], [0, 0]], image=picture)
    path = tmp_path / "quad.glb"
    quad.export(path)
    mesh = load_mesh(path)
    assert mesh.uvs is not None and mesh.uv_faces is not None
    place = np.zeros((4, 2))
    place[mesh.faces.reshape(-1)] = mesh.uvs[mesh.uv_faces.reshape(-1)]
    for vertex, uv in zip(mesh.vertices, place, strict=True):
        assert uv.tolist() == pytest.approx([float(vertex[0] > 0), float(vertex[1] < 0)], abs=1e-6)


def test_bad_files_are_refused(tmp_path: Path) -> None:
    def file(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    cases = [
        ("chair.fbx", "it must be a file that ends in"),
        (str(tmp_path / "none.obj"), "there is no such file"),
        (file("broken.glb", "no glb at all"), "cannot be read as GLB"),
        (file("points.obj", "v 0 0 0\nv 1 0 0\n"), "no triangles|cannot be read"),
        (file("flat.obj", "v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n"), "has no area"),
        (file("nan.obj", "v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"), "not finite|cannot be read"),
    ]
    for path, message in cases:
        with pytest.raises(ConfigError, match=message):
            new_scene(mesh=path)
    fork = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 -1 0\nv 0 0 1\nf 1 2 3\nf 1 2 4\nf 1 2 5\n"
    with pytest.raises(ConfigError, match="at most two faces at an edge"):
        new_scene(mesh=file("fork.obj", fork))
    assert new_scene(mesh=file("fork.obj", fork), move=False).parameters()


def test_bad_settings_and_broken_parameters_are_refused() -> None:
    for settings, message in (
        ({"texture_size": 100_000}, "texture_size is 100000"),
        ({"ambient": 1.5}, "ambient is 1.5"),
    ):
        with pytest.raises(ConfigError, match=message):
            MeshConfig(**settings)
    scene = new_scene()
    with torch.no_grad():
        scene.vertices[3, 0] = math.nan
    with pytest.raises(NumericsError, match="mesh's vertices is not finite"):
        scene.render(orbit_cameras([0.0], size=8))
    state = new_scene().state()
    state["vertices"] = state["vertices"][:-1]
    with pytest.raises(CheckpointError, match="has changed since"):
        new_scene().load_state(state)


@pytest.mark.parametrize("material", ["field", "texels"])
def test_only_the_material_is_found_where_nothing_moves(block: str, material: str) -> None:
    scene = new_scene(mesh=block, move=False, material=material, lr_texels=constant(0.3))
    assert "vertices" not in scene.parameters()
    cameras = orbit_cameras([30.0, 150.0, 270.0], [20.0, -20.0, 50.0], size=24)
    before = scene.render(cameras)
    target = torch.tensor([0.9, 0.2, 0.1]) * before.alpha.detach()
    losses = fit_to_views(
        scene, cameras, target, before.alpha.detach(), 30, torch.Generator().manual_seed(0)
    )
    assert losses[-1] < 0.1 * losses[0]
    assert torch.equal(scene.render(cameras).alpha, before.alpha)
    # The baked picture holds what was found.
    texture = scene.to_textured_mesh().texture.reshape(-1, 3)
    learned = texture[np.abs(texture - 0.5).max(axis=1) > 0.1]  # texels no pixel met stay grey
    assert np.median(learned, axis=0).tolist() == pytest.approx([0.9, 0.2, 0.1], abs=0.15)


def test_a_ball_becomes_another_shape() -> None:
    egg = trimesh.creation.icosphere(subdivisions=2, radius=0.6)
    egg.vertices *= [1.0, 1.35, 0.8]
    vertices = torch.tensor(np.asarray(egg.vertices), dtype=torch.float32)
    faces = torch.tensor(np.asarray(egg.faces), dtype=torch.int64)
    cameras = orbit_cameras([i * 45.0 for i in range(8)], [0.0, 30.0] * 4, size=24)
    true = render_mesh(MeshData(vertices, faces, torch.ones(len(vertices), 3)), cameras)
    scene = new_scene(lr_vertices=constant(0.01))

    def overlap() -> float:
        with torch.no_grad():
            alpha = scene.render(cameras).alpha
        return (
            torch.minimum(alpha, true.alpha).sum() / torch.maximum(alpha, true.alpha).sum()
        ).item()

    start = overlap()
    fit_to_views(scene, cameras, true.rgb, true.alpha, 40, torch.Generator().manual_seed(0))
    assert start < 0.8 and overlap() > start + 0.05
    mesh = scene.to_mesh()
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces)
    assert solid.is_watertight and solid.volume > 0


@pytest.mark.parametrize("shading", ["albedo", "lambert", "pbr"])
def test_shading_modes_render_and_learn(shading: str) -> None:
    scene = new_scene(shading=shading, normals="smooth")
    out = scene.render(orbit_cameras([0.0], size=24))
    assert out.normal is not None and out.rgb.min() >= 0 and out.rgb.max() <= 1
    out.rgb.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in scene.parameters().values())
    inside = out.rgb.detach()[0, 9:15, 9:15, 0]
    spread = inside.max() - inside.min()
    assert spread < 0.02 if shading == "albedo" else spread > 0.01


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    scene = MeshConfig(**TINY)
    stage = Stage(SDS(constant(1.5)), scene, steps=6, views=2, render_size=12, checkpoint_every=0)
    config = RunConfig("a red mug", GaussianConfig(12), [stage], seed=1)
    whole = run_system(config, tmp_path / "whole").scene.state()
    steps = iter(range(1, 100))
    run_system(config, tmp_path / "cut", should_stop=lambda: next(steps) == 3)
    rest = run_system(config, tmp_path / "cut", resume=True).scene.state()
    assert all(torch.equal(value, rest[name]) for name, value in whole.items())


@pytest.mark.slow
def test_a_run_goes_on_without_the_file_it_began_with(tmp_path: Path, block: str) -> None:
    """It has a copy: the original gone and the directory moved, it ends bit for bit as an undisturbed run does."""
    scene = MeshConfig(**{**TINY, "mesh": block})
    stage = Stage(SDS(constant(1.5)), scene, steps=6, views=2, render_size=12, checkpoint_every=0)
    config = RunConfig("a red mug", GaussianConfig(12), [stage], seed=1)
    whole = generate_run(config, tmp_path / "whole").directory
    steps = iter(range(1, 100))
    generate_run(config, tmp_path / "cut", should_stop=lambda: next(steps) == 3)
    Path(block).unlink()
    moved = (tmp_path / "cut").rename(tmp_path / "moved")
    assert resume_run(moved).status == "done"
    ends = [load_scene(path, read_config(path)).state() for path in (whole, moved)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_presets_and_export(tmp_path: Path, block: str) -> None:
    assert SCENES["mesh"] is MeshConfig
    config = load_config("texture", {"scene.mesh": block}, prompt="a red mug")
    found = config.stages[0].scene
    assert isinstance(found, MeshConfig) and found.mesh == block and not found.move
    assert isinstance(load_config("mesh", prompt="a red mug").stages[0].scene, MeshConfig)
    scene = new_scene(mesh=block, move=False, material="texels")
    with torch.no_grad():
        scene.parameters()["material.texels"][:] = torch.tensor([4.0, -4.0, -4.0])
    path = export_scene(scene, "glb", tmp_path / "block.glb").path
    read = trimesh.load(path, force="mesh")
    assert isinstance(read, trimesh.Trimesh)
    assert np.ptp(read.vertices, axis=0).tolist() == pytest.approx(
        np.ptp(scene.vertices.numpy(), axis=0).tolist(), rel=1e-5
    )
    picture = np.asarray(read.visual.material.baseColorTexture)[..., :3]  # type: ignore[union-attr]
    assert picture.shape == (64, 64, 3) and picture[32, 32].tolist() == [250, 5, 5]


def test_a_physical_material_is_exported_as_such(tmp_path: Path) -> None:
    scene = new_scene(shading="pbr", material="texels")
    read = trimesh.load(export_scene(scene, "glb", tmp_path / "ball.glb").path, force="mesh")
    assert isinstance(read, trimesh.Trimesh)
    picture = read.visual.material.metallicRoughnessTexture  # type: ignore[union-attr]
    roughness, metallic = np.asarray(picture)[32, 32, 1:3] / 255.0
    assert roughness == pytest.approx(0.54, abs=0.01) and metallic == pytest.approx(0.125, abs=0.01)
