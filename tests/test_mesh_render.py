"""Mesh renderers: closed forms, gradients, agreement of backends, conventions, bad input."""

import math

import numpy as np
import pytest
import torch
import trimesh

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.errors import ConfigError, NumericsError
from renderers.mesh import SurfacePoints, interpolate, rasterize, render_mesh, sample_texture
from renderers.mesh_data import MeshData, check_manifold, mesh_edges, vertex_normals

BACKENDS = ("torch", "numba")


def mesh_of(solid: trimesh.Trimesh, channels: int = 3, seed: int = 0) -> MeshData:
    g = torch.Generator().manual_seed(seed)
    return MeshData(
        torch.tensor(np.asarray(solid.vertices), dtype=torch.float32),
        torch.tensor(np.asarray(solid.faces), dtype=torch.int64),
        torch.rand(len(solid.vertices), channels, generator=g),
    )


def sphere(subdivisions: int = 2, radius: float = 0.6) -> trimesh.Trimesh:
    return trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)


def crowd() -> trimesh.Trimesh:
    """A sphere in a ring it does not touch, a box before both, and two triangles that share one edge with a third."""
    box = trimesh.creation.box((0.3, 0.3, 0.3))
    box.apply_translation([0.3, 0.2, 0.75])
    ring = trimesh.creation.torus(0.8, 0.12, major_sections=20, minor_sections=10)
    fork = trimesh.Trimesh(
        [[-0.9, -0.5, 0], [-0.9, 0.5, 0], [-0.5, 0, 0.4], [-1, 0, 0.5], [-0.7, 0, -0.5]],
        [[0, 1, 2], [0, 1, 3], [0, 1, 4]],
        process=False,
    )
    return trimesh.util.concatenate([sphere(), ring, box, fork])


def soup(faces: int, seed: int) -> MeshData:
    """Triangles of very different sizes, anywhere, some behind the cameras."""
    g = torch.Generator().manual_seed(seed)
    size = torch.exp(1.5 * torch.randn(faces, 1, 1, generator=g) - 2.0)
    corners = 1.2 * torch.randn(faces, 1, 3, generator=g) + size * torch.randn(
        faces, 3, 3, generator=g
    )
    features = torch.rand(3 * faces, 2, generator=g)
    return MeshData(corners.reshape(-1, 3), torch.arange(3 * faces).reshape(-1, 3), features)


def triangle(*corners: tuple[float, float, float]) -> MeshData:
    return MeshData(torch.tensor(corners), torch.tensor([[0, 1, 2]]), torch.eye(3))


def render_and_differentiate(mesh: MeshData, cameras: CameraBatch, backend: str, dtype, **options):
    """All images and, for one fixed random cotangent, the gradients of vertices and features."""
    mesh = mesh.to("cpu", dtype)
    assert mesh.features is not None
    inputs = [mesh.vertices.requires_grad_(), mesh.features.requires_grad_()]
    out = render_mesh(mesh, cameras, backend=backend, **options)
    images = [out.rgb, out.alpha, out.depth]
    g = torch.Generator().manual_seed(7)
    loss = sum((i * torch.randn(i.shape, generator=g).to(dtype)).sum() for i in images)
    return images, torch.autograd.grad(loss, inputs), out


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_triangle_by_hand(backend):
    cameras = orbit_cameras([0.0], distance=3.0, size=33)
    mesh = triangle((-0.5, -0.5, 0.0), (0.9, -0.5, 0.0), (-0.5, 0.9, 0.0))
    out = render_mesh(mesh, cameras, backend=backend, normals="face")
    # The centre of the middle pixel looks at the origin.
    first = 0.5 / 1.4
    assert out.rgb[0, 16, 16].tolist() == pytest.approx([1 - 2 * first, first, first], abs=1e-6)
    assert out.depth[0, 16, 16, 0] == pytest.approx(3.0, abs=1e-6)
    assert out.normal is not None and out.face is not None
    assert out.normal[0, 16, 16].tolist() == pytest.approx([0, 0, 1], abs=1e-6)
    assert out.face[0, 16, 16] == 0 and out.face[0, 0, 0] == -1
    assert out.alpha[0, 16, 16, 0] == 1 and out.alpha[0, 0, 0, 0] == 0
    # The covered area in pixels is that of the projected triangle.
    focal = cameras.K[0, 0, 0].item()
    assert out.alpha.sum().item() == pytest.approx(0.5 * (1.4 * focal / 3.0) ** 2, rel=0.01)


@pytest.mark.parametrize("backend", BACKENDS)
def test_perspective_is_corrected(backend):
    # A floor that recedes: at the middle of the picture its corners' mean is not seen.
    mesh = MeshData(
        torch.tensor([[-1.0, -0.5, 1.0], [1.0, -0.5, 1.0], [1.0, -0.5, -4.0], [-1.0, -0.5, -4.0]]),
        torch.tensor([[0, 1, 2], [0, 2, 3]]),
        torch.tensor([[1.0], [1.0], [-4.0], [-4.0]]),
    )
    cameras = orbit_cameras([0.0], distance=3.0, size=64)
    out = render_mesh(mesh, cameras, backend=backend)
    row = 45
    ray = (row + 0.5 - 32.0) / cameras.K[0, 1, 1].item()
    assert out.depth[0, row, 32, 0] == pytest.approx(0.5 / ray, rel=1e-5)
    assert out.rgb[0, row, 32, 0] == pytest.approx(3.0 - 0.5 / ray, abs=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_left_stays_left_and_up_stays_up(backend):
    def centre(place, azimuth):
        ball = sphere(1, 0.15)
        ball.apply_translation(place)
        alpha = render_mesh(mesh_of(ball), orbit_cameras([azimuth], size=32), backend=backend).alpha
        grid, alpha = torch.arange(32) + 0.5, alpha[0, ..., 0]
        total = alpha.sum()
        return ((alpha.sum(0) * grid).sum() / total).item(), (
            (alpha.sum(1) * grid).sum() / total
        ).item()

    assert centre([0.5, 0.0, 0.0], 0.0)[0] > 20  # +X is right of the centre, seen from the front
    assert centre([0.5, 0.0, 0.0], 180.0)[0] < 12
    assert centre([0.0, 0.0, 0.5], 90.0)[0] < 12  # from +X the front is on the left
    assert centre([0.0, 0.5, 0.0], 0.0)[1] < 12  # up is a smaller row


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_outline_covers_what_it_covers(backend):
    """Every pixel of a smooth outline holds the share of it that is covered, as a render at 8 times the size says."""
    mesh = mesh_of(crowd())
    cameras = orbit_cameras([10.0, 100.0], [25.0, -30.0], size=40)
    smooth = render_mesh(mesh, cameras, backend=backend)
    fine = render_mesh(mesh, cameras.resized(320, 320), backend="numba", antialias=False).alpha
    share = fine.reshape(2, 40, 8, 40, 8).mean(dim=(2, 4))
    hard = render_mesh(mesh, cameras, backend=backend, antialias=False).alpha[..., 0]
    error, rough = (smooth.alpha[..., 0] - share).abs(), (hard - share).abs()
    assert error.mean() < 0.25 * rough.mean()
    assert smooth.alpha.min() >= 0 and smooth.alpha.max() <= 1 + 1e-6
    assert smooth.rgb.min() >= 0 and (smooth.rgb <= smooth.alpha + 1e-6).all()


@pytest.mark.parametrize(
    ("mesh", "cameras"),
    [
        (mesh_of(crowd()), orbit_cameras([10.0, 130.0], [20.0, -70.0], size=48)),
        (mesh_of(sphere(), 7), orbit_cameras([10.0], size=(20, 33))),
        (mesh_of(sphere(1), 1), orbit_cameras([200.0], size=1)),
        (soup(60, 0), orbit_cameras([10.0, 77.0], [20.0, -70.0], size=40)),
        (soup(400, 1), orbit_cameras([300.0], distance=0.3, size=33)),
        (triangle((0, 0, 9.0), (1, 0, 9.0), (0, 1, 9.0)), orbit_cameras([0.0], size=9)),
        (triangle((0, 0, 0.0), (0, 0, 0.0), (0, 1, 0.0)), orbit_cameras([0.0], size=9)),
    ],
    ids=["crowd", "channels", "pixel", "soup", "inside", "behind", "degenerate"],
)
@pytest.mark.parametrize("fast", ["numba", "warp"])
def test_backends_agree(fast, mesh, cameras):
    pytest.importorskip(fast)
    options = {"normals": "none"}
    ours, our_grads, _ = render_and_differentiate(mesh, cameras, fast, torch.float32, **options)
    true, true_grads, _ = render_and_differentiate(mesh, cameras, "torch", torch.float64, **options)
    for image, reference in zip(ours, true, strict=True):
        assert (image - reference).abs().max() <= 1e-5 * max(1.0, reference.abs().max().item())
    for grad, reference in zip(our_grads, true_grads, strict=True):
        assert (grad - reference).norm() <= 1e-4 * reference.norm() + 1e-9


@pytest.mark.parametrize("backend", (*BACKENDS, "warp"))
def test_low_level_parts_agree_with_the_whole(backend):
    pytest.importorskip(backend)
    mesh, cameras = mesh_of(crowd()), orbit_cameras([40.0], size=40)
    assert mesh.features is not None
    fragments = rasterize(mesh.vertices, mesh.faces, cameras, backend)
    image = interpolate(mesh.features, mesh.faces, fragments.face, fragments.barycentric, backend)
    whole = render_mesh(mesh, cameras, antialias=False, backend=backend)
    assert torch.allclose(image, whole.rgb, atol=1e-6)
    assert torch.allclose(fragments.depth, whole.depth, atol=2e-6)
    covered = fragments.face >= 0
    assert torch.allclose(fragments.barycentric.sum(-1), covered.float(), atol=1e-6)


def test_reference_gradients_match_finite_differences():
    g = torch.Generator().manual_seed(3)
    solid = trimesh.creation.box((0.6, 0.5, 0.4))
    ring = trimesh.Trimesh([[-0.9, -0.6, 0.7], [0.5, -0.3, 0.8], [-0.2, 0.6, 0.9]], [[0, 1, 2]])
    mesh = mesh_of(trimesh.util.concatenate([solid, ring]), 1).to("cpu", torch.float64)
    cameras = orbit_cameras([20.0], [10.0], size=6).to("cpu", torch.float64)
    weight = torch.randn(1, 6, 6, 6, generator=g, dtype=torch.float64)
    assert mesh.features is not None

    def evaluate(vertices, features):
        moved = MeshData(vertices, mesh.faces, features)
        out = render_mesh(moved, cameras, normals="smooth", backend="torch")
        assert out.normal is not None
        whole = torch.cat([out.rgb, out.alpha, out.depth, out.normal], dim=-1)
        return (whole * weight).sum()

    inputs = (mesh.vertices.requires_grad_(), mesh.features.requires_grad_())
    assert torch.autograd.gradcheck(evaluate, inputs, eps=1e-7, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_does_not_matter(threads, monkeypatch):
    before = torch.get_num_threads()
    mesh, cameras = mesh_of(crowd()), orbit_cameras([10.0, 130.0], size=48)
    images, grads, _ = render_and_differentiate(mesh, cameras, "numba", torch.float32)
    torch.set_num_threads(threads)
    try:
        again, same, _ = render_and_differentiate(mesh, cameras, "numba", torch.float32)
    finally:
        torch.set_num_threads(before)
    for a, b in zip([*images, *grads], [*again, *same], strict=True):
        assert torch.equal(a, b)


def test_texture_lies_where_it_should():
    # Texel (row i, column j) is at v = (i + .5) / rows, u = (j + .5) / columns.
    texture = torch.arange(6.0).reshape(2, 3, 1)
    uv = torch.tensor([[0.5 / 3, 0.25], [2.5 / 3, 0.25], [0.5 / 3, 0.75], [0.0, 1.0]])
    assert sample_texture(texture, uv)[:, 0].tolist() == pytest.approx([0, 2, 3, 3], abs=1e-6)
    mesh = MeshData(
        torch.tensor([[-1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [-1.0, -1.0, 0.0]]),
        torch.tensor([[0, 2, 1], [0, 3, 2]]),
        uvs=torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]),
        texture=torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(0)),
    )
    assert mesh.texture is not None
    # As large as the texture: one pixel a texel.
    distance = 1.0 / math.tan(math.radians(20.0))
    out = render_mesh(mesh, orbit_cameras([0.0], distance=distance, size=16))
    assert torch.allclose(out.rgb[0], mesh.texture, atol=1e-4)


def test_a_texture_field_learns_through_the_surface():
    """Colour from a function of the surface point; its gradient reaches function and surface."""
    mesh = mesh_of(sphere())
    vertices = mesh.vertices.requires_grad_()
    slope = torch.tensor([0.3, 0.2, 0.1], requires_grad=True)

    def field(points: SurfacePoints):
        assert torch.allclose(points.normal.norm(dim=1), torch.ones(len(points)), atol=1e-4)
        assert ((points.face_normal * points.to_camera).sum(-1) > -1e-3).all()
        return (0.5 + points.position * slope).clamp(0, 1)

    out = render_mesh(MeshData(vertices, mesh.faces), orbit_cameras([30.0], size=32), field)
    out.rgb.square().sum().backward()
    assert slope.grad is not None and (slope.grad.abs() > 0).all()
    assert vertices.grad is not None and torch.isfinite(vertices.grad).all()


def test_edges_and_normals():
    solid = sphere()
    mesh = mesh_of(solid)
    edges = mesh_edges(mesh.faces)
    assert len(edges.ends) == len(solid.edges_unique) and (edges.face_counts == 2).all()
    check_manifold(edges, "this")
    fork = mesh_edges(torch.tensor([[0, 1, 2], [0, 1, 3], [1, 0, 4]]))
    assert sorted(fork.face_counts.tolist()) == [1] * 6 + [3]
    with pytest.raises(ConfigError, match="1 of 7 edges"):
        check_manifold(fork, "this")
    outward = torch.nn.functional.normalize(mesh.vertices, dim=-1)
    assert (vertex_normals(mesh.vertices, mesh.faces) * outward).sum(-1).min() > 0.99


def test_bad_meshes_are_refused():
    cameras = orbit_cameras([0.0], size=8)
    good = triangle((0, 0, 0.0), (1, 0, 0.0), (0, 1, 0.0))
    v, f = good.vertices, good.faces
    uvs, texture = torch.rand(3, 2), torch.rand(4, 4, 3)
    cases = [
        (MeshData(v, f[:0], good.features), "no faces"),
        (MeshData(v[:, :2], f), r"vertices has shape \[3, 2\]"),
        (MeshData(v, f + 1), r"faces name row 3; there are rows 0 to 2"),
        (MeshData(v, f - 1), r"faces name row -1"),
        (MeshData(v, f.int()), "must be torch.int64"),
        (MeshData(v, f, good.features[:2]), "features has shape"),
        (MeshData(v, f, good.features.double()), "features is torch.float64"),
        (MeshData(v, f), "neither texture nor features"),
        (MeshData(v, f, texture=texture), "a texture and no uvs"),
        (MeshData(v, f, uvs=uvs[:2], texture=texture), "give uv_faces"),
        (MeshData(v, f, uvs=uvs, uv_faces=f + 2, texture=texture), "uv_faces name row 4"),
        (MeshData(v, f, uvs=uvs, texture=torch.zeros(9000, 1, 3)), "at most 8192"),
        (MeshData(v.to("meta"), f.to("cpu"), good.features), "on cpu"),
    ]
    for mesh, message in cases:
        with pytest.raises(ConfigError, match=message):
            render_mesh(mesh, cameras)
    broken = v.clone()
    broken[1, 2] = math.nan
    with pytest.raises(NumericsError, match="1 of 3 rows of mesh vertices are not finite"):
        render_mesh(MeshData(broken, f, good.features), cameras)
    with pytest.raises(ConfigError, match="pixels; render at most"):
        render_mesh(good, orbit_cameras([0.0], size=100_000))
    with pytest.raises(ConfigError, match="needs float32"):
        render_mesh(good.to("cpu", torch.float64), cameras, backend="numba")
    with pytest.raises(ConfigError, match="mesh backend is 'opengl'"):
        render_mesh(good, cameras, backend="opengl")
