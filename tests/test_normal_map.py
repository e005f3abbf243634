"""Normal maps: glTF's tangent space, no slope is no map, gradients, and what other programs read of the export."""

import io
import math
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from readers import gltf_report

from dream3d.cameras import orbit_cameras
from dream3d.errors import ConfigError
from dream3d.export.asset import Asset
from dream3d.export.formats.base import FORMATS, ExportOptions
from dream3d.export.materials import with_corners
from dream3d.scenes.mesh import Mesh, MeshConfig
from dream3d.scenes.mesh_material import mapped_normal
from renderers.mesh import MeshData, SurfacePoints
from renderers.normal_map import encoded, leaning, uv_tangents

TINY = {"field_resolution": 16, "field_table_log2": 8, "texture_size": 64}
CORNERS = np.array([[-1, 1, 0], [1, 1, 0], [1, -1, 0], [-1, -1, 0], [0, 0, 0]], np.float64)
FACES = np.array([[0, 4, 1], [1, 4, 2], [2, 4, 3], [3, 4, 0]])


def new_scene(**settings) -> Mesh:
    config = MeshConfig(**{**TINY, **settings})
    return config.create(torch.Generator().manual_seed(0), torch.device("cpu"))


def quad_file(path: Path, turned: np.ndarray | None = None, mirrored: bool = False) -> str:
    """A square that faces the front; a picture on it stands upright (or mirrored), as seen from there."""
    corners = CORNERS if turned is None else CORNERS @ turned.T
    quad = trimesh.Trimesh(corners, FACES, process=False)
    uv = 0.5 + 0.5 * CORNERS[:, :2]  # trimesh counts v upward
    if mirrored:
        uv[:, 0] = 1.0 - uv[:, 0]
    quad.visual = trimesh.visual.TextureVisuals(uv, image=Image.new("RGB", (4, 4)))
    quad.export(path)
    return str(path)


def ball_file(path: Path) -> str:
    """A coarse ball without texture coordinates."""
    trimesh.creation.icosphere(subdivisions=1).export(path)
    return str(path)


def turn_to(normal: tuple[float, float, float]) -> np.ndarray:
    """The shortest turn that takes +Z to a direction."""
    target = np.array(normal) / np.linalg.norm(normal)
    turn = trimesh.geometry.align_vectors([0.0, 0.0, 1.0], target)[:3, :3]
    np.testing.assert_allclose(turn @ [0.0, 0.0, 1.0], target, atol=1e-12)
    return turn


def set_slopes(scene: Mesh, a: float, b: float) -> None:
    """The same slopes in every texel."""
    with torch.no_grad():
        scene.parameters()["material.texels"][..., -2:] = torch.logit(
            0.5 + 0.5 * torch.tensor([a, b])
        )


@pytest.mark.parametrize("shading", ["lambert", "pbr"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_tilted_map_shades_as_a_tilted_surface(
    tmp_path: Path, shading: str, mirrored: bool
) -> None:
    """Red leans to the picture's right, green up: at the middle, where both lie in one place, they look the same."""
    a, b = 0.5, -0.3
    settings = {"move": False, "material": "texels", "shading": shading, "ambient": 0.0}
    flat = new_scene(
        mesh=quad_file(tmp_path / "flat.glb", mirrored=mirrored), normal_map=True, **settings
    )
    set_slopes(flat, a, b)
    lean = (-a if mirrored else a, b, 1.0)
    tilted = new_scene(mesh=quad_file(tmp_path / "tilted.glb", turn_to(lean)), **settings)
    even = new_scene(mesh=quad_file(tmp_path / "even.glb"), **settings)
    cameras = orbit_cameras([20.0], [10.0], size=33)
    seen, true, plain = (s.render(cameras).rgb[0, 16, 16] for s in (flat, tilted, even))
    assert (seen - true).abs().max() < 2e-4
    assert (plain - true).abs().max() > 0.01
    # From behind the same surface is seen from its other side.
    behind = orbit_cameras([200.0], [10.0], size=33)
    seen, true = (s.render(behind).rgb[0, 16, 16] for s in (flat, tilted))
    assert (seen - true).abs().max() < 2e-4


@pytest.mark.parametrize("material", ["field", "texels"])
@pytest.mark.parametrize("shading", ["lambert", "pbr"])
def test_no_slope_is_no_normal_map_to_the_bit(tmp_path: Path, material: str, shading: str) -> None:
    settings = {
        "mesh": ball_file(tmp_path / "ball.stl"),
        "material": material,
        "shading": shading,
    }
    with_map, without = new_scene(normal_map=True, **settings), new_scene(**settings)
    with torch.no_grad():
        for name, value in with_map.parameters().items():
            if name.startswith("material.head.2"):  # what gives the channels
                value.zero_()
                without.parameters()[name].zero_()
    cameras = orbit_cameras([30.0, 200.0], [20.0, -40.0], size=32)
    outputs = [scene.render(cameras) for scene in (with_map, without)]
    assert torch.equal(outputs[0].rgb, outputs[1].rgb)
    for output in outputs:
        output.rgb.square().sum().backward()
    grads = [scene.vertices.grad for scene in (with_map, without)]
    assert grads[0] is not None and grads[1] is not None
    assert (grads[0] - grads[1]).norm() < 1e-4 * grads[1].norm()


@pytest.mark.parametrize("slopes", [2, 3])
def test_gradients_reach_slopes_and_vertices(slopes: int) -> None:
    ball = trimesh.creation.icosphere(subdivisions=0)
    g = torch.Generator().manual_seed(0)
    vertices = torch.tensor(np.asarray(ball.vertices)).requires_grad_()
    faces = torch.tensor(np.asarray(ball.faces), dtype=torch.int64)
    uvs = torch.rand(len(vertices), 2, generator=g, dtype=torch.float64)
    face = torch.arange(12) % len(faces)
    weights = torch.rand(12, 3, generator=g, dtype=torch.float64)
    weights = weights / weights.sum(dim=1, keepdim=True)
    channels = torch.rand(12, 3 + slopes, generator=g, dtype=torch.float64).requires_grad_()

    def normals(vertices, channels):
        mesh = MeshData(vertices, faces, None, uvs)
        cameras = orbit_cameras([0.0], size=8).to("cpu", torch.float64)
        points = SurfacePoints(mesh, cameras, torch.zeros(12, dtype=torch.int64), face, weights)
        return mapped_normal(channels, points, "lambert")

    assert torch.autograd.gradcheck(normals, (vertices, channels))
    assert normals(vertices, channels).norm(dim=1).detach().numpy() == pytest.approx(1.0)


def test_a_field_bakes_to_the_slopes_it_shows(tmp_path: Path) -> None:
    """A field's slopes lie in the world; on the square's upright picture they are its x and y, z does not count."""
    scene = new_scene(
        mesh=quad_file(tmp_path / "quad.glb"), move=False, shading="pbr", normal_map=True
    )
    with torch.no_grad():
        head = {n: p for n, p in scene.parameters().items() if n.startswith("material.head.2")}
        head["material.head.2.weight"].zero_()
        head["material.head.2.bias"][-3:] = torch.logit(0.5 + 0.5 * torch.tensor([0.4, -0.2, 0.7]))
    normal = scene.to_textured_mesh().normal
    assert normal is not None
    length = math.sqrt(1 + 0.4**2 + 0.2**2)
    wanted = [0.5 + 0.5 * x / length for x in (0.4, -0.2, 1.0)]
    np.testing.assert_allclose(normal.reshape(-1, 3), np.tile(wanted, (64 * 64, 1)), atol=1e-5)


def test_a_degenerate_texture_leans_nothing() -> None:
    mesh = MeshData(
        torch.tensor(CORNERS).requires_grad_(),
        torch.tensor(FACES),
        None,
        torch.zeros(5, 2).double(),
    )
    values = uv_tangents(mesh).values
    values.sum().backward()
    assert mesh.vertices.grad is not None
    assert (values == 0).all() and (mesh.vertices.grad == 0).all()


def test_slopes_are_encoded_as_directions() -> None:
    g = torch.Generator().manual_seed(0)
    slope = 2 * torch.rand(50, 2, generator=g) - 1
    up = torch.tensor([[0.0, 0.0, 1.0]])
    lean = leaning(up.expand(50, 3), torch.nn.functional.pad(slope, (0, 1)))
    assert torch.allclose(2 * encoded(slope) - 1, lean, atol=1e-6)
    assert torch.equal(encoded(torch.zeros(1, 2)), torch.tensor([[0.5, 0.5, 1.0]]))


def bumpy(path: Path, mirrored: bool = False) -> Mesh:
    scene = new_scene(
        mesh=quad_file(path, mirrored=mirrored),
        move=False,
        material="texels",
        shading="pbr",
        normal_map=True,
    )
    set_slopes(scene, 0.0, 0.0)
    texels = scene.parameters()["material.texels"]
    with torch.no_grad():
        texels[:32, :32, -2:] = torch.logit(0.5 + 0.5 * torch.tensor([0.75, -0.5]))
    return scene


def encode(scene: Mesh, name: str) -> bytes:
    return FORMATS[name]().encode(Asset(scene), ExportOptions()).data


CORNER = [round(255 * (0.5 + 0.5 * x / math.sqrt(1 + 0.75**2 + 0.5**2))) for x in (0.75, -0.5, 1)]


def test_glb_read_by_trimesh_has_the_map_and_tangents(tmp_path: Path) -> None:
    for mirrored in (False, True):
        read = trimesh.load(
            io.BytesIO(encode(bumpy(tmp_path / "quad.glb", mirrored), "glb")),
            file_type="glb",
            force="mesh",
        )
        assert isinstance(read, trimesh.Trimesh)
        picture = np.asarray(read.visual.material.normalTexture)  # type: ignore[union-attr]
        assert picture.shape == (64, 64, 3)
        assert picture[8, 8].tolist() == CORNER and picture[48, 48].tolist() == [128, 128, 255]
        assert read.visual.material.metallicRoughnessTexture is not None  # type: ignore[union-attr]
        made = Asset(bumpy(tmp_path / "quad.glb", mirrored)).textured(1000, 64)
        assert made.tangents is not None
        sign = -1.0 if mirrored else 1.0
        np.testing.assert_allclose(made.tangents, np.tile([sign, 0, 0, sign], (5, 1)), atol=1e-6)


@pytest.mark.node
def test_the_khronos_validator_has_nothing_to_say_of_normal_maps(tmp_path: Path) -> None:
    ball = new_scene(mesh=ball_file(tmp_path / "ball.stl"), shading="pbr", normal_map=True)
    for name, scene in (("quad", bumpy(tmp_path / "q.glb", True)), ("ball", ball)):
        path = tmp_path / f"{name}.glb"
        path.write_bytes(encode(scene, "glb"))
        assert gltf_report(path)["issues"]["messages"] == []


def test_obj_names_its_pictures(tmp_path: Path) -> None:
    archive = zipfile.ZipFile(io.BytesIO(encode(bumpy(tmp_path / "quad.glb"), "obj")))
    names = [f"asset_{name}.png" for name in ("metallic", "normal", "roughness")]
    assert sorted(archive.namelist()) == ["asset.mtl", "asset.obj", "asset.png", *names]
    text = archive.read("asset.mtl").decode()
    assert "norm asset_normal.png" in text and "map_Bump -bm 1 asset_normal.png" in text
    assert "map_Pr asset_roughness.png" in text and "map_Pm asset_metallic.png" in text
    normal = np.asarray(Image.open(io.BytesIO(archive.read("asset_normal.png"))))
    assert normal[8, 8].tolist() == CORNER
    rough = np.asarray(Image.open(io.BytesIO(archive.read("asset_roughness.png"))))
    assert rough[8, 8].tolist() == [round(255 * 0.54)] * 3
    archive.extractall(tmp_path)
    assert isinstance(trimesh.load(tmp_path / "asset.obj", force="mesh"), trimesh.Trimesh)


def test_usd_feeds_the_normals_raw(tmp_path: Path) -> None:
    if (remedy := FORMATS["usdz"].missing()) is not None:
        pytest.skip(remedy)
    from pxr import Usd, UsdShade, UsdValidation

    (tmp_path / "asset.usdz").write_bytes(encode(bumpy(tmp_path / "quad.glb"), "usdz"))
    stage = Usd.Stage.Open(str(tmp_path / "asset.usdz"))
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    errors = UsdValidation.ValidationContext(validators).Validate(stage)
    assert [e.GetMessage() for e in errors] == []
    shader = UsdShade.Shader(stage.GetPrimAtPath("/asset/baked/normal"))
    assert shader.GetInput("sourceColorSpace").Get() == "raw"
    assert tuple(shader.GetInput("bias").Get()) == (-1.0, -1.0, -1.0, 0.0)


def test_a_vertex_where_pictures_mirror_is_doubled() -> None:
    """Two squares beside a mirror line share vertices and coordinates there; their bitangents' signs differ."""
    vertices = np.array([[x, y, 0.0] for x in (-1.0, 0.0, 1.0) for y in (0.0, 1.0)])
    faces = np.array([[0, 2, 3], [0, 3, 1], [2, 4, 5], [2, 5, 3]])
    uvs = np.array([[abs(x), 1.0 - y] for x, y, _ in vertices])
    made = with_corners(vertices, faces, uvs, faces, np.zeros((16, 16, 3)), tangents=True)
    assert len(made.vertices) == 8 and made.tangents is not None
    side = np.sign(made.vertices[made.faces].mean(axis=1)[:, 0])
    for corner in range(3):
        found = made.tangents[made.faces[:, corner]]
        np.testing.assert_allclose(found[:, 0], side, atol=1e-6)
        np.testing.assert_allclose(found[:, 3], side, atol=1e-6)
    plain = with_corners(vertices, faces, uvs, faces, np.zeros((16, 16, 3)))
    assert len(plain.vertices) == 6 and plain.tangents is None


def test_a_map_that_nothing_shows_is_refused() -> None:
    with pytest.raises(ConfigError, match="choose shading 'lambert' or 'pbr'"):
        MeshConfig(normal_map=True)
    assert replace(MeshConfig(shading="pbr"), normal_map=True).channels == 8


def test_a_normal_map_learns(tmp_path: Path) -> None:
    """Light alone tells a leaning surface from an even one: the slopes are found from pictures."""
    scene = new_scene(
        mesh=quad_file(tmp_path / "quad.glb"),
        move=False,
        material="texels",
        shading="lambert",
        ambient=0.0,
        normal_map=True,
    )
    cameras = orbit_cameras([20.0], size=24)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        scene.parameters()["material.texels"][..., -2:] = 0.5
        target = scene.render(cameras).rgb
        scene.parameters()["material.texels"][..., -2:].normal_(0.0, 0.1, generator=g)
    texels = scene.parameters()["material.texels"]
    losses = []
    optimizer = torch.optim.Adam([texels], 0.1)
    for _ in range(20):
        loss = (scene.render(cameras).rgb - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        assert texels.grad is not None
        texels.grad[..., :3] = 0.0
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
