"""Outline gradients of meshes against finite differences of large renders, and what the kernel benchmark times."""

import pytest
import torch

from dream3d.bench.mesh_kernels import rasterize_interpolate
from dream3d.bench.outlines import outline_gradients, outline_scenes
from dream3d.cameras import orbit_cameras
from renderers.mesh import MeshData, render_mesh

SCENES = dict(outline_scenes())


def check(rows, cosine: float = 0.97, ratio: tuple[float, float] = (0.9, 1.15)) -> None:
    for row in rows:
        assert row.cosine >= cosine, row
        assert ratio[0] <= row.ratio <= ratio[1], row


def test_outline_gradients_on_a_small_budget():
    rows = outline_gradients("sphere 5k", SCENES["sphere 5k"], (64,), true_size=512, directions=4)
    check([row for row in rows if row.loss == "weighted"])


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SCENES))
def test_outline_gradients_match_large_renders(name):
    """The weighted loss already on small pictures; the noisier squared one at 256 pixels, with room for its noise."""
    rows = outline_gradients(name, SCENES[name], (64, 128, 256))
    check([row for row in rows if row.loss == "weighted"])
    check([row for row in rows if row.loss == "squared" and row.size == 256], 0.9, (0.85, 1.2))


@pytest.mark.parametrize("subdivisions", [2, 4, 5])
def test_growing_a_sphere_grows_its_picture(subdivisions):
    """The derivative of the covered area by scale is that of a disc, however fine the mesh."""
    import numpy as np
    import trimesh

    solid = trimesh.creation.icosphere(subdivisions=subdivisions, radius=0.75)
    vertices = torch.tensor(np.asarray(solid.vertices), dtype=torch.float32).requires_grad_()
    faces = torch.tensor(np.asarray(solid.faces), dtype=torch.int64)
    cameras = orbit_cameras([25.0], [20.0], size=96)
    mesh = MeshData(vertices, faces, torch.ones(len(vertices), 1))
    area = render_mesh(mesh, cameras).alpha.sum()
    (grad,) = torch.autograd.grad(area, vertices)
    # A sphere of radius r at distance d covers pi f^2 r^2 / (d^2 - r^2); by log r that grows as 2 d^2 / (d^2 - r^2).
    d, r = 3.2, 0.75
    expected = 2.0 * area.item() * d**2 / (d**2 - r**2)
    assert (grad * vertices).sum().item() == pytest.approx(expected, rel=0.02)


def test_the_benchmark_times_the_same_work():
    run = rasterize_interpolate(3, 64)
    for ours, reference in zip(run("numba"), run("torch"), strict=True):
        assert (ours - reference).norm() <= 1e-3 * reference.norm()
