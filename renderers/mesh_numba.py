"""The fast CPU backend of meshes: numba kernels behind autograd. float32, the same for any number of threads."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from dream3d.cameras import CameraBatch
from dream3d.kernels import kernel_threads
from renderers import mesh_numba_kernels as kernels
from renderers import mesh_numba_outline as outline
from renderers.mesh_data import Crossings, Fragments, MeshEdges
from renderers.splats_numba import pack_cameras


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def camera_points(vertices: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    """Vertices in every camera's axes, float64 [B, V, 3], from packed cameras."""
    rotation = cameras[:, :9].reshape(-1, 3, 3)
    return np.ascontiguousarray(
        vertices.astype(np.float64) @ rotation.transpose(0, 2, 1) + cameras[:, None, 9:12]
    )


def prepared(
    points: np.ndarray, faces: np.ndarray, packed: np.ndarray, size: tuple[int, int], workers: int
) -> tuple[np.ndarray, np.ndarray]:
    """Triangles as linear functions of the pixel, and their bounds; see `mesh_numba_kernels.prepare`."""
    planes = np.empty((len(points), len(faces), kernels.PREPARED))
    box = np.empty((len(points), len(faces), 4), np.int32)
    kernels.prepare(points, faces, packed, size[0], size[1], workers, planes, box)
    return planes, box


class _Rasterize(torch.autograd.Function):
    """Depth buffer with weights and depth; the backward pass is written by hand."""

    @staticmethod
    def forward(ctx, vertices, faces, cameras):
        size = (cameras.height, cameras.width)
        packed, triangles = pack_cameras(cameras.to("cpu", torch.float64)), _numpy(faces)
        points = camera_points(_numpy(vertices), packed)
        face = np.empty((len(cameras), *size), np.int64)
        weights = np.empty((len(cameras), *size, 3), np.float32)
        depth = np.empty((len(cameras), *size), np.float32)
        with kernel_threads() as workers:
            planes, box = prepared(points, triangles, packed, size, workers)
            kernels.nearest_faces(planes, box, workers, face, weights, depth)
        ctx.kept = (points, triangles, packed, face)
        found = torch.from_numpy(face)
        ctx.mark_non_differentiable(found)
        return found, torch.from_numpy(weights), torch.from_numpy(depth)[..., None]

    @staticmethod
    @once_differentiable
    def backward(ctx, _, grad_weights, grad_depth):  # pyright: ignore[reportIncompatibleMethodOverride]
        points, triangles, packed, face = ctx.kept
        total = np.zeros((kernels.PARTS, points.shape[1], 3))
        with kernel_threads():
            kernels.nearest_faces_backward(
                points, triangles, packed, face, _numpy(grad_weights), _numpy(grad_depth[..., 0]), total
            )  # fmt: skip
        return torch.from_numpy(total.sum(axis=0).astype(np.float32)), None, None


class _Interpolate(torch.autograd.Function):
    """Corner values at points on triangles."""

    @staticmethod
    def forward(ctx, values, corners, face, weights):
        ctx.save_for_backward(values, corners, face, weights)
        out = np.empty((len(face), values.shape[1]), np.float32)
        with kernel_threads():
            kernels.interpolate(_numpy(values), _numpy(corners), _numpy(face), _numpy(weights), out)
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        values, corners, face, weights = (_numpy(kept) for kept in ctx.saved_tensors)
        grad_values = np.zeros((kernels.PARTS, *values.shape), np.float32)
        grad_weights = np.empty_like(weights)
        with kernel_threads():
            kernels.interpolate_backward(
                values, corners, face, weights, _numpy(grad), grad_values, grad_weights
            )
        return torch.from_numpy(grad_values.sum(axis=0)), None, None, torch.from_numpy(grad_weights)


def rasterize(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], cameras: CameraBatch
) -> Fragments:
    """What every pixel's centre shows."""
    return Fragments(*_Rasterize.apply(vertices, faces, cameras))


def interpolate(
    values: Float[Tensor, "V C"],
    corners: Int[Tensor, "F 3"],
    face: Int[Tensor, " N"],
    weights: Float[Tensor, "N 3"],
) -> Float[Tensor, "N C"]:
    """Weighted means of the values at triangles' corners; 0 where `face` is -1."""
    return _Interpolate.apply(values, corners, face, weights)


def crossings(
    vertices: Float[Tensor, "V 3"],
    faces: Int[Tensor, "F 3"],
    edges: MeshEdges,
    cameras: CameraBatch,
) -> Crossings:
    """Where visible outlines cut rows and columns of pixel centres."""
    packed, triangles = pack_cameras(cameras.to("cpu", torch.float64)), _numpy(faces)
    points = camera_points(_numpy(vertices), packed)
    ends, start = _numpy(edges.ends), _numpy(edges.start)
    around, opposite = _numpy(edges.face), _numpy(edges.opposite)
    size = (cameras.height, cameras.width)
    sizes, lines = np.array(size), max(size)
    counts = np.empty((len(points), len(ends)), np.int32)
    with kernel_threads() as workers:
        outline.count(points, packed, ends, start, opposite, sizes, counts)
        offsets = np.zeros(counts.size + 1, np.int64)
        np.cumsum(counts.ravel(), out=offsets[1:])
        out = np.empty((offsets[-1], 5), np.int64)
        place, depth = np.empty(len(out)), np.empty(len(out))
        outline.fill(
            points, packed, ends, start, opposite, sizes, offsets, out, place, depth
        )  # fmt: skip
        key = (2 * out[:, 0] + out[:, 1]) * lines + out[:, 2]
        order = np.argsort(key, kind="stable")
        out, place, depth = out[order], place[order], depth[order]
        line_start = np.searchsorted(key[order], np.arange(2 * len(points) * lines + 1))
        outside = np.full(len(out), -1, np.int64)
        planes, box = prepared(points, triangles, packed, size, workers)
        outline.hide(
            planes, box, triangles, ends, out, place, depth, line_start, sizes, workers, outside
        )
        seen = outside != outline.HIDDEN
        out, place, outside = out[seen], place[seen], outside[seen]
        inside = np.empty(len(out), np.int64)
        outline.nearest_side(planes, start, around, out, place, inside)
    view, axis, line, edge, high = (torch.from_numpy(column.copy()) for column in out.T)
    return Crossings(
        view, axis, line, edges.ends[edge], torch.from_numpy(place).to(vertices), high.bool(),
        torch.from_numpy(inside), torch.from_numpy(outside),
    )  # fmt: skip
