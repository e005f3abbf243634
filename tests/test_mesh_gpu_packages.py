"""The GPU packages' mesh backends against stand-ins of their APIs, which say what the packages document.

No package runs here: what is tested is that the right thing is asked of it and its answer read rightly.
"""

import importlib
import sys
import types

import numpy as np
import pytest
import torch
import trimesh

from dream3d.cameras import orbit_cameras
from dream3d.errors import ConfigError
from renderers.backends import BACKENDS
from renderers.mesh import MeshData, rasterize, render_mesh


def scene():
    ball = trimesh.creation.icosphere(subdivisions=1, radius=0.5)
    block = trimesh.creation.box((0.3, 0.2, 0.4))
    block.apply_translation([0.4, 0.3, 0.5])
    solid = trimesh.util.concatenate([ball, block])
    vertices = torch.tensor(np.asarray(solid.vertices), dtype=torch.float32)
    return vertices, torch.tensor(np.asarray(solid.faces), dtype=torch.int64)


def nearest(x, y, depth, faces, columns, rows):
    """Per pixel the nearest triangle of screen points, by edge functions and depth that is linear on the screen."""
    px, py = np.meshgrid(columns, rows)
    best, found = np.full(px.shape, np.inf), np.full(px.shape, -1)
    for index, (i, j, k) in enumerate(faces):
        area = (x[j] - x[i]) * (y[k] - y[i]) - (y[j] - y[i]) * (x[k] - x[i])
        if area == 0:
            continue
        u = ((px - x[i]) * (y[k] - y[i]) - (py - y[i]) * (x[k] - x[i])) / area
        v = ((x[j] - x[i]) * (py - y[i]) - (y[j] - y[i]) * (px - x[i])) / area
        d = (1 - u - v) * depth[i] + u * depth[j] + v * depth[k]
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (d < best)
        best, found = np.where(hit, d, best), np.where(hit, index, found)
    return found


def nvdiffrast_stub():
    module = types.ModuleType("nvdiffrast.torch")

    class RasterizeCudaContext:
        def __init__(self, device=None):
            pass

    def rasterize(context, pos, tri, resolution):
        assert isinstance(context, RasterizeCudaContext)
        assert pos.dtype == torch.float32 and tri.dtype == torch.int32
        height, width = resolution
        assert height % 8 == 0 and width % 8 == 0
        # Normalised device coordinates; row 0 is y = -1, the centre of pixel i is at (2 i + 1) / size - 1.
        columns, rows = ((2 * np.arange(n) + 1) / n - 1 for n in (width, height))
        out = []
        for view in pos.numpy().astype(np.float64):
            x, y, z = (view[:, axis] / view[:, 3] for axis in range(3))
            assert (np.abs(z) < 1).all()
            found = nearest(x, y, z, tri.numpy(), columns, rows)
            out.append(np.stack([0 * found, 0 * found, 0 * found, found + 1], axis=-1))
        return torch.tensor(np.stack(out), dtype=torch.float32), None

    module.RasterizeCudaContext, module.rasterize = RasterizeCudaContext, rasterize  # type: ignore[attr-defined]
    package = types.ModuleType("nvdiffrast")
    package.torch = module  # type: ignore[attr-defined]
    return {"nvdiffrast": package, "nvdiffrast.torch": module}


def pytorch3d_stub():
    class Meshes:
        def __init__(self, verts, faces):
            self.verts, self.faces = verts, faces

    def rasterize_meshes(meshes, image_size, blur_radius, faces_per_pixel, **options):
        assert blur_radius == 0.0 and faces_per_pixel == 1 and not options["cull_backfaces"]
        height, width = image_size
        # +x is left, +y up; the shorter side spans [-1, 1], pixel 0 is top left.
        short = min(height, width)
        columns, rows = ((n - 2 * np.arange(n) - 1) / short for n in (width, height))
        out, first = [], 0
        for verts, faces in zip(meshes.verts, meshes.faces, strict=True):
            x, y, z = verts.numpy().astype(np.float64).T
            assert (z > 0).all()
            found = nearest(x, y, -1 / z, faces.numpy(), columns, rows)
            out.append(np.where(found >= 0, found + first, -1)[..., None])
            first += len(faces)
        return torch.tensor(np.stack(out)), None, None, None

    names = ("pytorch3d", "pytorch3d.structures", "pytorch3d.renderer", "pytorch3d.renderer.mesh")
    modules = {name: types.ModuleType(name) for name in names}
    inner = types.ModuleType("pytorch3d.renderer.mesh.rasterize_meshes")
    inner.rasterize_meshes = rasterize_meshes  # type: ignore[attr-defined]
    modules["pytorch3d.structures"].Meshes = Meshes  # type: ignore[attr-defined]
    return {**modules, inner.__name__: inner}


STUBS = {"nvdiffrast": nvdiffrast_stub, "pytorch3d": pytorch3d_stub}


@pytest.fixture(params=list(STUBS))
def backend(request, monkeypatch):
    for name, module in STUBS[request.param]().items():
        monkeypatch.setitem(sys.modules, name, module)
    name = f"renderers.mesh_{request.param}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(name)
    sys.modules.pop(name, None)


@pytest.mark.parametrize("size", [(24, 24), (19, 30), (30, 19)])
def test_fragments_are_those_of_the_reference(backend, size):
    vertices, faces = scene()
    cameras = orbit_cameras([20.0, 150.0], [10.0, -30.0], size=size)
    ours, theirs = (
        backend.rasterize(vertices.requires_grad_(), faces, cameras),
        rasterize(vertices, faces, cameras, "torch"),
    )
    assert torch.equal(ours.face, theirs.face) and (ours.face >= 0).any()
    assert torch.equal(ours.barycentric, theirs.barycentric)
    assert torch.equal(ours.depth, theirs.depth)
    (grad,) = torch.autograd.grad(ours.depth.sum(), vertices)
    assert grad.abs().sum() > 0


@pytest.mark.parametrize("name", list(STUBS))
def test_without_the_package_the_remedy_is_named(name):
    entry = next(b for b in BACKENDS if b.renderer == "mesh" and b.name == name)
    assert entry.devices == ("cuda",)
    vertices, faces = scene()
    mesh, cameras = MeshData(vertices, faces, vertices), orbit_cameras([0.0], size=8)
    message = "is not installed" if entry.missing else "runs on cuda, the data is on cpu"
    with pytest.raises(ConfigError, match=message):
        render_mesh(mesh, cameras, backend=name)
