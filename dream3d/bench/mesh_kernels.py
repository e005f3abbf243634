"""The mesh renderer's row of the kernel benchmark: depth buffer and interpolation, forward and backward."""

from collections.abc import Callable

import numpy as np
import torch
import trimesh

from dream3d.cameras import orbit_cameras
from renderers.mesh import interpolate, rasterize

RASTERIZE_CASES = {"5k/512": (4, 512)}
"""Per case: subdivisions of an icosphere (4: 5120 faces) and the side of the image in pixels."""


def rasterize_interpolate(case: str, backend: str) -> tuple[Callable[[], None], int]:
    """What to time for op `rasterize_interpolate`: one forward and backward pass.

    The pass finds the nearest triangle of every pixel, mixes three channels of its corners, and carries a random
    gradient of image and depth back to vertices and channels.

    Args:
        case: key of RASTERIZE_CASES, "faces/pixels".
        backend: of the mesh renderer, e.g. "numba" or "torch".

    Returns:
        The callable, and the number of faces.
    """
    subdivisions, size = RASTERIZE_CASES[case]
    solid = trimesh.creation.icosphere(subdivisions=subdivisions, radius=0.8)
    g = torch.Generator().manual_seed(0)
    vertices = torch.tensor(np.asarray(solid.vertices), dtype=torch.float32).requires_grad_()
    faces = torch.tensor(np.asarray(solid.faces), dtype=torch.int64)
    colors = torch.rand(len(vertices), 3, generator=g).requires_grad_()
    cameras = orbit_cameras([10.0], 5.0, size=size)
    grad_image = torch.randn(1, size, size, 3, generator=g)
    grad_depth = torch.randn(1, size, size, 1, generator=g)

    def run() -> None:
        found = rasterize(vertices, faces, cameras, backend)
        image = interpolate(colors, faces, found.face, found.barycentric, backend)
        torch.autograd.grad([image, found.depth], [vertices, colors], [grad_image, grad_depth])

    return run, len(faces)
