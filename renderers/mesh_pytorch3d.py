"""PyTorch3D as the depth buffer (Ravi et al. 2020), on NVIDIA GPUs: not run on one yet, tested against its API only.

Only the triangle at every pixel is taken from it; see `mesh_nvdiffrast`.
"""

import torch
from jaxtyping import Float, Int
from pytorch3d.renderer.mesh.rasterize_meshes import (  # pyright: ignore[reportMissingImports]
    rasterize_meshes,
)
from pytorch3d.structures import Meshes  # pyright: ignore[reportMissingImports]
from torch import Tensor

from dream3d.cameras import CameraBatch
from renderers.mesh_data import NEAR, Fragments
from renderers.mesh_torch import fragments_of, to_camera


def ndc_points(points: Float[Tensor, "B V 3"], cameras: CameraBatch) -> Float[Tensor, "B V 3"]:
    """Camera-space points as PyTorch3D draws them: x to the left, y up, the shorter side from -1 to 1, z in front."""
    K, short = cameras.K[:, None], min(cameras.height, cameras.width)
    x, y, z = points.unbind(dim=-1)
    # Triangles that reach behind the camera are cut there by z_clip_value, which only reads z.
    divisor = torch.where(z.abs() < 1e-6, torch.full_like(z, 1e-6), z)
    u = K[..., 0, 0] * x / divisor + K[..., 0, 2]
    v = K[..., 1, 1] * y / divisor + K[..., 1, 2]
    return torch.stack([(cameras.width - 2 * u) / short, (cameras.height - 2 * v) / short, z], -1)


def face_ids(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], cameras: CameraBatch
) -> Int[Tensor, "B H W"]:
    """The nearest triangle at every pixel's centre, -1 where there is none."""
    points = ndc_points(to_camera(vertices.detach(), cameras), cameras).float()
    meshes = Meshes(list(points), [faces] * len(points))
    found = rasterize_meshes(
        meshes,
        image_size=(cameras.height, cameras.width),
        blur_radius=0.0,
        faces_per_pixel=1,
        perspective_correct=True,
        cull_backfaces=False,
        z_clip_value=NEAR,
    )[0][..., 0]
    # Triangles are counted through all views of the batch.
    first = torch.arange(len(points), device=found.device)[:, None, None] * len(faces)
    return torch.where(found >= 0, found - first, found).long()


def rasterize(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], cameras: CameraBatch
) -> Fragments:
    """What every pixel's centre shows."""
    return fragments_of(face_ids(vertices, faces, cameras), vertices, faces, cameras)
