"""From one representation to another and back: what comes out is what went in."""

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import KDTree

from dream3d.errors import AssetError, ConfigError
from dream3d.scenes.conversions.baked_texture import PADDING, bake_texture, dilated, texels
from dream3d.scenes.conversions.mesh_cleanup import clean_mesh, decimated
from dream3d.scenes.conversions.mesh_sdf import LEAST, mesh_to_sdf
from dream3d.scenes.conversions.mesh_splats import facing, mesh_to_splats, surface_samples
from dream3d.scenes.splats_mesh import to_mesh as splats_to_mesh
from dream3d.scenes.surface import ColoredMesh
from renderers.marching_tets import grid_vertices, marching_tets


def colors_at(points: np.ndarray, normals: np.ndarray | None = None) -> np.ndarray:
    """A smooth picture on every surface."""
    return 0.5 + 0.4 * np.sin(3.0 * points + np.array([0.0, 1.0, 2.0]))


def colored(mesh: trimesh.Trimesh) -> ColoredMesh:
    vertices = np.asarray(mesh.vertices, np.float32)
    return ColoredMesh(vertices, np.asarray(mesh.faces, np.int32), colors_at(vertices))


def two_parts() -> trimesh.Trimesh:
    """Two separate boxes, turned: edges and corners in no direction of the grid."""
    boxes = [trimesh.creation.box((0.5, 0.7, 0.4)) for _ in range(2)]
    for box, x in zip(boxes, (-0.45, 0.45), strict=True):
        box.apply_transform(trimesh.transformations.rotation_matrix(0.5, [1, 2, 3], [0, 0, 0]))
        box.apply_translation([x, 0.0, 0.1])
    return trimesh.util.concatenate(boxes)


MESHES = {
    "sphere": trimesh.creation.icosphere(4, radius=0.7),
    "torus": trimesh.creation.torus(0.5, 0.25),
    "boxes": two_parts(),
}


def test_distance_of_a_box_is_exact() -> None:
    half = np.array([0.5, 0.6, 0.3])
    box = trimesh.creation.box(2 * half)
    sdf = mesh_to_sdf(np.asarray(box.vertices), np.asarray(box.faces), 21)
    beyond = np.abs(grid_vertices(21).numpy().astype(np.float64)) - half
    true = np.linalg.norm(np.maximum(beyond, 0.0), axis=1) + np.minimum(beyond.max(axis=1), 0.0)
    near = np.abs(true) < 2.5 * 2.0 / 21
    assert np.abs(sdf.ravel() - true)[near].max() <= 1.01 * LEAST * 2.0 / 21
    assert ((sdf.ravel() < 0.0) == (true < 0.0)).all()
    assert (np.abs(sdf.ravel())[~near] > 2.0 * 2.0 / 21).all()


@pytest.mark.parametrize("name", MESHES)
def test_mesh_to_distance_to_mesh(name: str) -> None:
    mesh, cells = MESHES[name], 48
    sdf = torch.from_numpy(mesh_to_sdf(np.asarray(mesh.vertices), np.asarray(mesh.faces), cells))
    vertices, faces = marching_tets(sdf, grid_vertices(cells))
    back = trimesh.Trimesh(vertices.numpy(), faces.numpy())
    assert back.is_watertight
    assert back.volume == pytest.approx(mesh.volume, rel=0.02)
    points = surface_samples(colored(mesh), 60_000, torch.Generator().manual_seed(0))[0].numpy()
    assert KDTree(points).query(back.vertices)[0].max() < 0.6 * 2.0 / cells


def test_sign_survives_a_hole_and_any_orientation() -> None:
    sphere = MESHES["sphere"]
    faces = np.asarray(sphere.faces)[20:]
    faces[::3] = faces[::3, ::-1]
    sdf = mesh_to_sdf(np.asarray(sphere.vertices), faces, 24)
    true = grid_vertices(24).norm(dim=-1).numpy() - 0.7
    wrong = (sdf.ravel() < 0) != (true < 0)
    assert wrong[np.abs(true) > 0.01].mean() < 0.002


def test_distance_refuses() -> None:
    sphere = MESHES["sphere"]
    with pytest.raises(AssetError, match="empty"):
        mesh_to_sdf(np.zeros((0, 3)), np.zeros((0, 3), int), 16)
    with pytest.raises(AssetError, match="not finite"):
        mesh_to_sdf(np.full((3, 3), np.nan), np.array([[0, 1, 2]]), 16)
    with pytest.raises(ConfigError, match="resolution is 9999"):
        mesh_to_sdf(np.asarray(sphere.vertices), np.asarray(sphere.faces), 9999)


def test_surface_samples_are_even_and_on_the_surface() -> None:
    mesh = colored(MESHES["boxes"])
    points, normals, colors, area = surface_samples(mesh, 4000, torch.Generator().manual_seed(0))
    assert area == pytest.approx(MESHES["boxes"].area, rel=1e-5)
    assert torch.allclose(normals.norm(dim=-1), torch.ones(4000), atol=1e-5)
    left = (points[:, 0] < 0.0).float().mean().item()
    assert left == pytest.approx(0.5, abs=0.03), "two equal boxes get equal shares"
    distance = trimesh.proximity.closest_point_naive(MESHES["boxes"], points[::200].numpy())[1]
    assert distance.max() < 1e-5
    assert colors.shape == (4000, 3)


def test_quaternions_face_their_normals() -> None:
    g = torch.Generator().manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(50, 3, generator=g), dim=-1)
    normals = torch.cat([normals, torch.tensor([[0.0, 0, 1], [0, 0, -1], [1, 0, 0]])])
    w, x, y, z = facing(normals).unbind(-1)
    turned = torch.stack(
        [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], dim=-1
    )
    assert torch.allclose(turned, normals, atol=1e-3)


def test_mesh_to_splats_to_mesh() -> None:
    """The sphere: seen from the sides and from above, as views are, nothing of it is hidden."""
    mesh = colored(MESHES["sphere"])
    splats = mesh_to_splats(mesh, 3000, torch.Generator().manual_seed(0))
    back = splats_to_mesh(splats, resolution=48, image_size=64)
    assert trimesh.Trimesh(back.vertices, back.faces).is_watertight
    own, other = (
        mesh_to_sdf(np.asarray(m.vertices), np.asarray(m.faces), 48) < 0 for m in (mesh, back)
    )
    assert (own & other).sum() / (own | other).sum() > 0.85
    error = np.abs(back.colors - colors_at(back.vertices))
    assert np.median(error) < 0.05


def test_mesh_to_splats_refuses() -> None:
    mesh = colored(MESHES["sphere"])
    with pytest.raises(ConfigError, match="count is 0"):
        mesh_to_splats(mesh, 0, torch.Generator())
    flat = ColoredMesh(np.zeros((3, 3)), np.array([[0, 1, 2]]), np.zeros((3, 3)))
    with pytest.raises(AssetError, match="surface of 0"):
        mesh_to_splats(flat, 10, torch.Generator())


@pytest.mark.parametrize("name", MESHES)
def test_baked_texture_shows_the_colours(name: str) -> None:
    """Looked up where the surface is, the picture has the surface's colour, on seams too."""
    mesh, size = colored(MESHES[name]), 512
    baked = bake_texture(mesh, colors_at, size)
    assert baked.uvs.min() >= 0.0 and baked.uvs.max() <= 1.0
    assert np.array_equal(baked.faces, mesh.faces)
    g = np.random.default_rng(0)
    face = g.integers(0, len(mesh.faces), 3000)
    weight = g.dirichlet([0.4, 0.4, 0.4], 3000)  # often near corners and edges
    uv = (baked.uvs[baked.uv_faces[face]] * weight[..., None]).sum(1)
    points = (mesh.vertices[mesh.faces[face]] * weight[..., None]).sum(1)
    error = np.abs(bilinear(baked.texture, uv) - colors_at(points)).max(axis=1)
    assert np.quantile(error, 0.99) < 0.02 and error.max() < 0.08
    # Charts do not overlap: every texel belongs to one face, and its point maps back onto it.
    own, _ = texels(baked.uvs, baked.uv_faces, size)
    assert 0.2 < (own >= 0).mean() <= 1.0
    vertex_colors = bake_texture(mesh, None, size)
    error = np.abs(bilinear(vertex_colors.texture, uv) - colors_at(points)).max(axis=1)
    assert np.quantile(error, 0.9) < (0.3 if name == "boxes" else 0.03)


def bilinear(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    size = len(texture)
    x, y = np.clip(uv * size - 0.5, 0.0, size - 1.001).T
    i, j = y.astype(int), x.astype(int)
    fy, fx = (y - i)[:, None], (x - j)[:, None]
    top = texture[i, j] * (1 - fx) + texture[i, j + 1] * fx
    return top * (1 - fy) + (texture[i + 1, j] * (1 - fx) + texture[i + 1, j + 1] * fx) * fy


def test_dilation_copies_the_nearest() -> None:
    painted = np.zeros((16, 16), bool)
    painted[4, 4], painted[12, 12] = True, True
    texture = np.zeros((16, 16, 3), np.float32)
    texture[4, 4], texture[12, 12] = (1, 0, 0), (0, 1, 0)
    full = dilated(texture, painted)
    assert (full[:6, :6] == [1, 0, 0]).all() and (full[12:, 12:] == [0, 1, 0]).all()
    assert PADDING >= 2


def test_bake_refuses() -> None:
    mesh = colored(MESHES["sphere"])
    with pytest.raises(ConfigError, match="size is 4"):
        bake_texture(mesh, None, 4)
    with pytest.raises(AssetError, match="unwrap"):
        bake_texture(ColoredMesh(mesh.vertices, mesh.faces[:0], mesh.colors))


def test_clean_mesh_repairs() -> None:
    """Doubled vertices, a repeated and a flat face, a floater, a missing face and turned faces."""
    sphere = MESHES["sphere"]
    speck = trimesh.creation.icosphere(1, radius=0.03)
    vertices = np.concatenate([sphere.vertices[sphere.faces].reshape(-1, 3), speck.vertices + 0.8])
    faces = np.arange(3 * len(sphere.faces)).reshape(-1, 3)[:, ::-1]
    faces = np.concatenate(
        [faces[1:], faces[5:6], [[0, 0, 1]], speck.faces + 3 * len(sphere.faces)]
    )
    broken = ColoredMesh(
        vertices.astype(np.float32), faces.astype(np.int32), colors_at(vertices).astype(np.float32)
    )
    clean = clean_mesh(broken)
    made = trimesh.Trimesh(clean.vertices, clean.faces, process=False)
    assert made.is_watertight and made.body_count == 1
    assert made.volume == pytest.approx(sphere.volume, rel=1e-3), "and it is turned outward"
    assert len(clean.faces) == len(sphere.faces)
    assert np.abs(clean.colors - colors_at(clean.vertices)).max() < 1e-2
    assert trimesh.Trimesh(*_parts(clean_mesh(broken, 0.0))).body_count == 2
    nothing = ColoredMesh(vertices[:3], np.array([[0, 0, 1]]), colors_at(vertices[:3]))
    with pytest.raises(AssetError, match="nothing is left"):
        clean_mesh(nothing)


def _parts(mesh: ColoredMesh) -> tuple[np.ndarray, np.ndarray]:
    return mesh.vertices, mesh.faces


def test_decimation_keeps_the_solid() -> None:
    mesh = colored(MESHES["torus"])
    small = decimated(mesh, 800)
    made = trimesh.Trimesh(small.vertices, small.faces, process=False)
    assert len(small.faces) <= 820 and made.is_watertight
    assert made.volume == pytest.approx(MESHES["torus"].volume, rel=0.03)
    assert np.abs(small.colors - colors_at(small.vertices)).mean() < 0.05
    assert decimated(mesh, 10**6) is mesh
    with pytest.raises(ConfigError, match="max_faces is 3"):
        decimated(mesh, 3)
