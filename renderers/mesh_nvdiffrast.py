"""nvdiffrast as the depth buffer (Laine et al. 2020), on NVIDIA GPUs: half of its tests ran on an H100, and passed.

Only the triangle at every pixel is taken from it; weights, depth, interpolation and outlines are this package's own, so
that what they mean does not depend on the backend.
"""

import functools

import nvdiffrast.torch as dr  # pyright: ignore[reportMissingImports]
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dream3d.cameras import CameraBatch
from renderers.mesh_data import NEAR, Fragments
from renderers.mesh_torch import fragments_of, to_camera

FAR = 1e4
MULTIPLE = 8
"""Its CUDA rasteriser wants image sizes that are multiples of this."""


@functools.cache
def _context(device: torch.device):  # its type is nvdiffrast's own
    return dr.RasterizeCudaContext(device=device)


def clip_points(
    points: Float[Tensor, "B V 3"], cameras: CameraBatch, height: int, width: int
) -> Float[Tensor, "B V 4"]:
    """Camera-space points in OpenGL clip space with y as rows grow: its first row is y = -1, ours is the top one."""
    K, (x, y, z) = cameras.K[:, None], points.unbind(dim=-1)
    across = 2.0 * (K[..., 0, 0] * x + K[..., 0, 2] * z) / width - z
    down = 2.0 * (K[..., 1, 1] * y + K[..., 1, 2] * z) / height - z
    depth = ((FAR + NEAR) * z - 2.0 * FAR * NEAR) / (FAR - NEAR)
    return torch.stack([across, down, depth, z], dim=-1)


def face_ids(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], cameras: CameraBatch
) -> Int[Tensor, "B H W"]:
    """The nearest triangle at every pixel's centre, -1 where there is none."""
    height, width = (-(-size // MULTIPLE) * MULTIPLE for size in (cameras.height, cameras.width))
    points = to_camera(vertices.detach(), cameras)
    clip = clip_points(points, cameras, height, width).float().contiguous()
    found, _ = dr.rasterize(
        _context(vertices.device), clip, faces.int().contiguous(), resolution=[height, width]
    )
    # The last channel counts triangles from 1; 0 is none.
    return found[:, : cameras.height, : cameras.width, 3].long() - 1


def rasterize(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], cameras: CameraBatch
) -> Fragments:
    """What every pixel's centre shows."""
    return fragments_of(face_ids(vertices, faces, cameras), vertices, faces, cameras)
