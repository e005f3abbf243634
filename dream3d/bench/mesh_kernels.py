"""The mesh renderer's rows of the kernel benchmark: depth buffer and interpolation, forward and backward."""

from collections.abc import Callable

import numpy as np
import torch
import trimesh
from torch import Tensor

from dream3d.cameras import orbit_cameras
from renderers.mesh import interpolate, rasterize


def rasterize_interpolate(
    subdivisions: int, size: int, device: str = "cpu"
) -> Callable[[str], list[Tensor]]:
    """Nearest triangle of every pixel, colours mixed from its corners; gradients of vertices and colours.

    Args:
        subdivisions: of an icosphere, which has 20 * 4^subdivisions faces (4: 5120).
        size: side of the image in pixels.
        device: of the data.

    Returns:
        One forward and backward pass on a backend; it returns image, depth and both gradients.
    """
    solid = trimesh.creation.icosphere(subdivisions=subdivisions, radius=0.8)
    g = torch.Generator().manual_seed(0)
    vertices = torch.tensor(np.asarray(solid.vertices), dtype=torch.float32, device=device)
    faces = torch.tensor(np.asarray(solid.faces), dtype=torch.int64, device=device)
    colors = torch.rand(len(vertices), 3, generator=g).to(device).requires_grad_()
    vertices.requires_grad_()
    cameras = orbit_cameras([10.0], 5.0, size=size).to(torch.device(device))
    drawn = [torch.randn(1, size, size, channels, generator=g) for channels in (3, 1)]
    cotangents = [cotangent.to(device) / size for cotangent in drawn]

    def run(backend: str) -> list[Tensor]:
        found = rasterize(vertices, faces, cameras, backend)
        image = interpolate(colors, faces, found.face, found.barycentric, backend)
        outputs = [image, found.depth]
        return [*outputs, *torch.autograd.grad(outputs, [vertices, colors], cotangents)]

    return run
