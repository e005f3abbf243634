"""Every renderer backend on a GPU against the torch reference on the CPU in float64: images and all gradients."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from gpu_support import CPU, DEVICE, ON_GPU, away, backends, require, share_beyond

from dream3d.bench.host_waits import listen, waits_heard
from dream3d.cameras import CameraBatch, orbit_cameras
from renderers.backends import Backend
from renderers.hash_grid import HashGridLayout, encode, geometric_layout
from renderers.mesh import interpolate, rasterize, render_mesh
from renderers.mesh_data import MeshData
from renderers.splats import SplatData, render_splats
from renderers.volume import composite, march

pytestmark = pytest.mark.gpu
DOUBLE, SINGLE = torch.float64, torch.float32
HASH_GRIDS, COMPOSITES, MARCHES = (
    {"torch", "warp", "tinycudann"},
    {"torch", "warp", "nerfacc"},
    {"torch", "warp"},
)


def each(renderer: str, only: set[str] | None = None) -> Any:
    """A parameter for every backend of a renderer; torch runs in float64, and in float32 as well."""
    ways = []
    for backend in backends(renderer):
        if only is None or backend.name in only:
            kinds = [DOUBLE, SINGLE] if backend.name == "torch" else [SINGLE]
            ways += [(backend, kind) for kind in kinds]
    ids = [f"{backend.name}-{str(kind).removeprefix('torch.')}" for backend, kind in ways]
    return pytest.mark.parametrize("way", ways, ids=ids)


Way = tuple[Backend, torch.dtype]


def others(way: Way) -> bool:
    """Whether the arithmetic is a package's own, or the reference's in single precision."""
    return way[0].name not in ("torch", "warp") or (way[0].name == "torch" and way[1] == SINGLE)


def some_splats(count: int, harmonics: int = 0, size: float = -3.0) -> SplatData:
    """No opacity comes near 0.99, where packages clamp differently."""
    g = torch.Generator().manual_seed(0)
    values = {
        "means": 0.5 * torch.randn(count, 3, generator=g),
        "log_scales": size + 0.4 * torch.randn(count, 3, generator=g),
        "quaternions": torch.randn(count, 4, generator=g),
        "opacity_logits": 3.0 * torch.rand(count, generator=g) - 1.5,
    }
    if harmonics:
        return SplatData(**values, sh=0.3 * torch.randn(count, harmonics, 3, generator=g))
    return SplatData(**values, features=torch.rand(count, 3, generator=g))


def draw_splats(
    splats: SplatData,
    cameras: CameraBatch,
    backend: str,
    device: torch.device,
    dtype: torch.dtype,
    **options: Any,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """All pictures and, for a fixed random cotangent, the gradients of every input."""
    values = {k: v.detach().to(device, dtype).requires_grad_() for k, v in splats.tensors().items()}
    offset = torch.zeros(
        len(cameras), len(splats), 2, device=device, dtype=dtype, requires_grad=True
    )
    out = render_splats(SplatData(**values), cameras, backend, screen_offset=offset, **options)
    pictures = {"rgb": out.rgb, "alpha": out.alpha, "depth": out.depth, "normal": out.normal}
    pictures = {name: picture for name, picture in pictures.items() if picture is not None}
    g = torch.Generator().manual_seed(7)
    loss = sum(
        (picture * torch.randn(picture.shape, generator=g).to(picture)).sum()
        for picture in pictures.values()
    )
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    inputs = {**values, "offset": offset}
    none = {k: torch.zeros_like(v) if v.grad is None else v.grad for k, v in inputs.items()}
    assert all(v.device.type == device.type for v in (*pictures.values(), *none.values()))
    return pictures, none


SPLAT_CASES: dict[str, tuple[SplatData, CameraBatch, dict[str, Any]]] = {
    "two views": (some_splats(200), orbit_cameras([0.0, 130.0], [10.0, 50.0], size=(40, 57)), {}),
    "normals": (some_splats(150), orbit_cameras([20.0], size=32), {"normals": True}),
    "surface depth": (some_splats(150), orbit_cameras([20.0], size=32), {"depth_at": 1.0}),
    "antialiased": (
        some_splats(300, size=-4.5),
        orbit_cameras([75.0], size=24),
        {"antialias": True},
    ),
    "harmonics": (some_splats(150, 16), orbit_cameras([0.0, 100.0], size=33), {}),
    "one": (some_splats(1), orbit_cameras([0.0], size=9), {}),
    "none": (some_splats(0), orbit_cameras([0.0], size=9), {}),
}


@pytest.mark.parametrize("case", SPLAT_CASES)
@each("splats")
def test_splats(way: Way, case: str) -> None:
    backend, dtype = way
    require(backend)
    splats, cameras, options = SPLAT_CASES[case]
    pictures, grads = draw_splats(splats, cameras, backend.name, DEVICE, dtype, **options)
    true, true_grads = draw_splats(splats, cameras, "torch", CPU, DOUBLE, **options)
    loose = 100.0 if others(way) else 1.0
    for name, picture in true.items():
        # Depth is a quotient by alpha, which may be as small as 1/255; normals have unit length either way.
        tolerance = {"depth": 1e-4, "normal": 1e-4}.get(name, 1e-5)
        # A pixel on the alpha cut-off may fall on either side of it by rounding.
        beyond = share_beyond(pictures[name], picture, loose * tolerance)
        assert beyond <= 1e-4 * loose, (name, beyond, away(pictures[name], picture))
    for name, grad in true_grads.items():
        error = away(grads[name], grad)
        assert error <= 2e-4 * loose or grad.norm() < 1e-7, (name, error)


@each("splats")
def test_many_splats(way: Way) -> None:
    """As many as a run has, on many tiles: against the reference on the same device."""
    backend, dtype = way
    require(backend)
    if backend.name == "torch":
        pytest.skip("it is the reference")
    count, size = (30_000, 256) if ON_GPU else (500, 48)
    splats, cameras = some_splats(count, size=-4.5), orbit_cameras([0.0, 90.0], size=size)
    pictures, grads = draw_splats(splats, cameras, backend.name, DEVICE, dtype)
    true, true_grads = draw_splats(splats, cameras, "torch", DEVICE, DOUBLE)
    assert away(pictures["rgb"], true["rgb"]) < 2e-3
    for name, grad in true_grads.items():
        assert away(grads[name], grad) < 2e-2, (name, away(grads[name], grad))


@pytest.mark.parametrize("channels", [1, 3, 7])
@each("volume", COMPOSITES)
def test_compositing(way: Way, channels: int) -> None:
    backend, dtype = way
    require(backend)
    g = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 40, (200,), generator=g)
    counts[:3] = torch.tensor([0, 96, 0])
    start = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    n = int(start[-1])
    density, length = 20.0 * torch.rand(n, generator=g), 0.1 * torch.rand(n, generator=g)
    features = torch.randn(n, channels, generator=g)
    cotangents = [torch.randn(200, channels, generator=g), torch.randn(200, generator=g)]
    found = []
    for name, device, kind in ((backend.name, DEVICE, dtype), ("torch", CPU, DOUBLE)):
        inputs = [x.to(device, kind).requires_grad_() for x in (density, features)]
        outputs = composite(*inputs, length.to(device, kind), start.to(device), name)
        weights = [c.to(device, kind) for c in cotangents]
        found.append([*outputs, *torch.autograd.grad(outputs, inputs, weights)])
    for ours, reference in zip(*found, strict=True):
        assert away(ours, reference) <= 1e-4


@each("volume", MARCHES)
def test_marching(way: Way) -> None:
    backend, dtype = way
    require(backend)
    g = torch.Generator().manual_seed(2)
    origins = 3.0 * torch.nn.functional.normalize(torch.randn(500, 3, generator=g), dim=1)
    aim = 1.2 * torch.rand(500, 3, generator=g) - 0.6
    directions = torch.nn.functional.normalize(aim - origins, dim=1)
    directions[1::7] = torch.tensor([0.0, 0.0, -1.0])  # parallel to faces
    jitter = torch.rand(500, generator=g)
    occupied = torch.rand(8, 8, 8, generator=g) < 0.4
    for cells in (None, occupied):
        true = march(origins, directions, cells, 0.03, jitter, "torch")
        rays = (x.to(DEVICE, dtype) for x in (origins, directions))
        there = None if cells is None else cells.to(DEVICE)
        ours = march(*rays, there, 0.03, jitter.to(DEVICE, dtype), backend.name)
        counts, expected = (x.start[1:].cpu() - x.start[:-1].cpu() for x in (ours, true))
        same = counts == expected
        # A sample within rounding of a cell's side may fall into either cell.
        assert same.float().mean() > 0.98 and (counts - expected).abs().max() <= 2
        assert torch.equal(ours.ray.cpu(), torch.repeat_interleave(torch.arange(500), counts))
        rows = same[ours.ray.cpu()], same[true.ray]
        for name in ("points", "t", "length"):
            a, b = getattr(ours, name).cpu()[rows[0]], getattr(true, name)[rows[1]]
            assert share_beyond(a, b, 1e-4) < 0.01, name


LAYOUTS = [
    geometric_layout(5, 3, 80, 9, 2),
    HashGridLayout((6,), 12, 4),
    geometric_layout(8, 4, 512, 14, 2),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["hashed", "dense", "deep"])
@each("volume", HASH_GRIDS)
def test_hash_grids(way: Way, layout: HashGridLayout) -> None:
    backend, dtype = way
    require(backend)
    g = torch.Generator().manual_seed(0)
    points = 2.3 * torch.rand(3000, 3, generator=g) - 1.15
    table = torch.randn(layout.offsets[-1], layout.features, generator=g)
    cotangent = torch.randn(len(points), layout.width, generator=g)
    found = []
    for name, device, kind in ((backend.name, DEVICE, dtype), ("torch", CPU, DOUBLE)):
        inputs = [x.to(device, kind).requires_grad_() for x in (points, table)]
        out = encode(*inputs, layout, name)
        found.append([out, *torch.autograd.grad(out, inputs, cotangent.to(device, kind))])
    (out, by_points, by_table), (true, true_points, true_table) = found
    assert away(out, true) < 2e-4 and away(by_table, true_table) < 2e-4
    # The slope jumps at a cell's side: a point within rounding of one may have either.
    assert (
        share_beyond(by_points, true_points, 2e-3 * float(true_points.detach().abs().max())) < 5e-3
    )


def crowd() -> MeshData:
    """A sphere in a ring it does not touch, and a box before both."""
    box = trimesh.creation.box((0.3, 0.3, 0.3))
    box.apply_translation([0.3, 0.2, 0.75])
    ring = trimesh.creation.torus(0.8, 0.12, major_sections=20, minor_sections=10)
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.6)
    solid = trimesh.util.concatenate([ball, ring, box])
    return MeshData(
        torch.tensor(np.asarray(solid.vertices), dtype=SINGLE),
        torch.tensor(np.asarray(solid.faces), dtype=torch.int64),
        torch.rand(len(solid.vertices), 3, generator=torch.Generator().manual_seed(0)),
    )


def soup(faces: int) -> MeshData:
    """Triangles of very different sizes, anywhere, some behind the cameras."""
    g = torch.Generator().manual_seed(1)
    size = torch.exp(1.5 * torch.randn(faces, 1, 1, generator=g) - 2.0)
    corners = 1.2 * torch.randn(faces, 1, 3, generator=g)
    corners = corners + size * torch.randn(faces, 3, 3, generator=g)
    features = torch.rand(3 * faces, 2, generator=g)
    return MeshData(corners.reshape(-1, 3), torch.arange(3 * faces).reshape(-1, 3), features)


MESHES: dict[str, tuple[MeshData, CameraBatch]] = {
    "crowd": (crowd(), orbit_cameras([10.0, 130.0], [20.0, -70.0], size=48)),
    "oblong": (crowd(), orbit_cameras([60.0], size=(20, 33))),
    "soup": (soup(60), orbit_cameras([10.0, 77.0], [20.0, -70.0], size=40)),
    "inside": (soup(300), orbit_cameras([300.0], distance=0.3, size=33)),
}


def draw_mesh(
    mesh: MeshData, cameras: CameraBatch, way: tuple[str, torch.device, torch.dtype], **options: Any
) -> tuple[list[torch.Tensor], tuple[torch.Tensor, ...]]:
    """Pictures and the gradients of vertices and features."""
    backend, device, dtype = way
    mesh = mesh.to(device, dtype)
    assert mesh.features is not None
    mesh = dataclasses.replace(
        mesh, vertices=mesh.vertices.detach().clone(), features=mesh.features.detach().clone()
    )
    assert mesh.features is not None
    inputs = [mesh.vertices.requires_grad_(), mesh.features.requires_grad_()]
    out = render_mesh(mesh, cameras, backend=backend, **options)
    pictures = [out.rgb, out.alpha, out.depth] + ([] if out.normal is None else [out.normal])
    g = torch.Generator().manual_seed(7)
    loss = sum((p * torch.randn(p.shape, generator=g).to(p)).sum() for p in pictures)
    assert isinstance(loss, torch.Tensor)
    return pictures, torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize("antialias", [True, False], ids=["smooth", "hard"])
@pytest.mark.parametrize("case", MESHES)
@each("mesh")
def test_meshes(way: Way, case: str, antialias: bool) -> None:
    backend, dtype = way
    require(backend)
    mesh, cameras = MESHES[case]
    options: dict[str, Any] = {"antialias": antialias, "normals": "smooth"}
    ours, grads = draw_mesh(mesh, cameras, (backend.name, DEVICE, dtype), **options)
    true, true_grads = draw_mesh(mesh, cameras, ("torch", CPU, DOUBLE), **options)
    if not others(way):
        for picture, reference in zip(ours, true, strict=True):
            bound = 2e-5 * max(1.0, float(reference.detach().abs().max()))
            assert share_beyond(picture, reference, bound) <= 1e-3
        for grad, reference in zip(grads, true_grads, strict=True):
            assert away(grad, reference) <= 5e-4
        return
    # In single precision a few pixels on shared edges show the other triangle.
    for picture, reference in zip(ours, true, strict=True):
        assert share_beyond(picture, reference, 1e-2) < 0.02
    if case == "crowd" and not antialias:
        assert away(grads[1], true_grads[1]) < 0.05


@each("mesh")
def test_parts_of_the_mesh_renderer(way: Way) -> None:
    backend, dtype = way
    require(backend)
    mesh, cameras = MESHES["crowd"]
    mesh = mesh.to(DEVICE, dtype)
    assert mesh.features is not None
    found = rasterize(mesh.vertices, mesh.faces, cameras, backend.name)
    image = interpolate(mesh.features, mesh.faces, found.face, found.barycentric, backend.name)
    whole = render_mesh(mesh, cameras, antialias=False, backend=backend.name)
    assert share_beyond(image, whole.rgb, 1e-5) == 0.0
    assert share_beyond(found.depth, whole.depth, 1e-4) == 0.0
    true = rasterize(*(x.cpu() for x in (mesh.vertices.double(), mesh.faces)), cameras, "torch")
    assert (found.face.cpu() != true.face).float().mean() < 2e-3


@pytest.mark.skipif(not ON_GPU, reason="nobody waits for a CPU")
def test_a_render_waits_for_the_gpu_twice_whatever_the_views() -> None:
    """For whether the splats are finite and for how many entries their tiles have; its gradients do not wait."""
    pytest.importorskip("warp")
    values = {k: v.to(DEVICE).requires_grad_() for k, v in some_splats(500).tensors().items()}
    cameras = orbit_cameras([0.0, 90.0, 180.0], size=32).to(DEVICE)
    for heard in (False, True):  # the first pass compiles
        splats = SplatData(**values)
        if heard:
            hearing = listen()
        out = render_splats(splats, cameras, "warp", antialias=True)
        torch.autograd.grad(out.rgb, list(values.values()), torch.ones_like(out.rgb))
    waits = waits_heard(*hearing)
    assert waits.total() <= 2, waits


@pytest.mark.skipif(not ON_GPU, reason="a CPU has no streams")
@pytest.mark.parametrize("backend", [b for b in backends("splats")], ids=lambda b: b.name)
def test_kernels_wait_for_the_stream_torch_is_on(backend: Backend) -> None:
    """Work that is still queued on another stream is seen by the kernels, forward and backward."""
    require(backend)
    splats, cameras = some_splats(2000, size=-4.0), orbit_cameras([0.0], size=64)
    expected, _ = draw_splats(splats, cameras, backend.name, DEVICE, SINGLE)
    stream, busy = torch.cuda.Stream(), torch.rand(4096, 4096, device=DEVICE)
    moved = {k: v.to(DEVICE) for k, v in splats.tensors().items()}
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(20):
            busy = busy @ busy / 4096.0
        shifted = {k: v + 0.0 * busy[0, 0] for k, v in moved.items()}
        values = {k: v.detach().requires_grad_() for k, v in shifted.items()}
        out = render_splats(SplatData(**values), cameras, backend.name)
        out.rgb.square().sum().backward()
        total = out.rgb.sum().item()
    assert total == pytest.approx(float(expected["rgb"].sum()), rel=1e-4)
    assert all(v.grad is not None and torch.isfinite(v.grad).all() for v in values.values())
