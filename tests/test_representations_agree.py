"""One sphere as field, splats and mesh under one camera."""

import numpy as np
import torch
import trimesh

from dream3d.cameras import orbit_cameras
from renderers.mesh import MeshData, render_mesh
from renderers.splats import SplatData, render_splats
from renderers.volume import render_volume


class Ball:
    """A sharp opaque ball as a field, its right half red."""

    like = torch.zeros(1)

    def density(self, points, backend="auto"):
        return 400.0 * (points.norm(dim=1) < 0.6)

    def __call__(self, points, backend="auto"):
        red = (points[:, :1] > 0).float()
        return self.density(points), torch.cat([red, 1 - red, 0 * red], dim=1)


def test_one_sphere_as_field_splats_and_mesh() -> None:
    """Silhouettes overlap, depths agree, left stays left, under the same cameras."""
    # Splats are never narrower than about a pixel, which must be little beside the sphere.
    cameras = orbit_cameras([0.0], size=192)
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.6)
    vertices = torch.tensor(np.asarray(ball.vertices), dtype=torch.float32)
    red = (vertices[:, :1] > 0).float()
    colors = torch.cat([red, 1 - red, 0 * red], dim=1)
    mesh = render_mesh(
        MeshData(vertices, torch.tensor(np.asarray(ball.faces), dtype=torch.int64), colors), cameras
    )
    # Splats flat on the surface: wide enough that nothing of the far side shines through, thin along the normal.
    half = torch.nn.functional.normalize(
        torch.nn.functional.normalize(vertices, dim=1) + torch.tensor([0.0, 0.0, 1.0]), dim=1
    )
    quaternions = torch.cat(
        [torch.zeros(len(half), 1), half], dim=1
    )  # half a turn about the half vector
    scales = torch.tensor([0.03, 0.03, 0.0005]).log().expand(len(half), 3)
    splats = render_splats(
        SplatData(vertices, scales, quaternions, torch.full((len(half),), 5.0), colors),
        cameras,
        antialias=True,
    )
    field = render_volume(Ball(), cameras, None, 0.02)
    covered = mesh.alpha > 0.5
    for other in (splats, field):
        theirs = other.alpha > 0.5
        assert (covered & theirs).sum() / (covered | theirs).sum() > 0.95
        inner = (mesh.alpha[:, 64:128, 64:128] > 0.99) & (other.alpha[:, 64:128, 64:128] > 0.9)
        apart = (mesh.depth - other.depth)[:, 64:128, 64:128][inner].abs()
        assert apart.mean() < 0.02 and inner.float().mean() > 0.7
    for out in (mesh, splats, field):
        front = out.rgb[0]
        assert front[96, 120, 0] > 0.9 and front[96, 120, 1] < 0.1  # +X is right of the centre
        assert front[96, 72, 1] > 0.9 and front[96, 72, 0] < 0.1
