"""The fast CPU backend: the numba kernels behind one autograd function. float32, deterministic for any thread count."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dream3d.cameras import CameraBatch
from dream3d.kernels import kernel_threads
from renderers import splats_numba_bin as binning
from renderers import splats_numba_project as projection
from renderers import splats_numba_raster as raster
from renderers.splats_data import FRUSTUM_MARGIN, RasterSettings, SplatData


def pack_cameras(cameras: CameraBatch) -> np.ndarray:
    """[B, 20] float64 rows as `splats_numba_project` reads them."""
    # Numpy throughout: on arrays this small every call into torch costs more than its arithmetic.
    c2w, K = cameras.c2w.numpy().astype(np.float64), cameras.K.numpy().astype(np.float64)
    packed = np.empty((len(c2w), projection.CAMERA))
    rotation = c2w[:, :3, :3].transpose(0, 2, 1)  # of an orthonormal matrix the inverse
    packed[:, :9] = rotation.reshape(-1, 9)
    packed[:, 9:12] = -(rotation @ c2w[:, :3, 3:])[..., 0]
    packed[:, 12], packed[:, 13] = K[:, 0, 0], K[:, 1, 1]
    packed[:, 14], packed[:, 15] = K[:, 0, 2], K[:, 1, 2]
    for column, size, axis in ((16, cameras.width, 0), (18, cameras.height, 1)):
        focal, center = K[:, axis, axis], K[:, axis, 2]
        packed[:, column] = (-center - FRUSTUM_MARGIN * size) / focal
        packed[:, column + 1] = (size - center + FRUSTUM_MARGIN * size) / focal
    return packed


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


@dataclass(frozen=True)
class _Scene:
    """The arguments of the projection kernels: packed cameras and raw splats."""

    cameras: np.ndarray
    means: np.ndarray
    log_scales: np.ndarray
    quaternions: np.ndarray
    logits: np.ndarray
    settings: RasterSettings


@dataclass(frozen=True)
class _Lists:
    """Projected splats and which tiles they touch; see `splats_numba_bin`."""

    screen: np.ndarray
    box: np.ndarray
    radii: np.ndarray
    pair_start: np.ndarray
    tile_start: np.ndarray
    entry_splat: np.ndarray
    entry_pair: np.ndarray
    tiles_x: int


def _prepare(scene: _Scene, offset: np.ndarray, height: int, width: int, workers: int) -> _Lists:
    """Project all splats into all cameras and deal them to tiles."""
    views, n, settings = len(scene.cameras), len(scene.means), scene.settings
    screen = np.empty((views, n, projection.SCREEN), np.float32)
    box, radii = np.empty((views, n, 4), np.int32), np.empty((views, n), np.float32)
    projection.project(
        scene.cameras, scene.means, scene.log_scales, scene.quaternions, scene.logits, offset,
        float(settings.near), bool(settings.antialias),
        height, width, workers, screen, box, radii,
    )  # fmt: skip
    order = np.empty((views, n), np.int32)
    seen = binning.order_by_depth(screen, box, order)
    tiles_x, tiles_y = -(-width // binning.TILE), -(-height // binning.TILE)
    tiles = tiles_x * tiles_y
    splat_count = np.zeros(views * n, np.int32)
    tile_count = np.zeros((workers, views * tiles), np.int32)
    binning.count_pairs(screen, box, order, seen, tiles_x, tiles, splat_count, tile_count)
    pair_start, tile_start, cursor = binning.starts(splat_count, tile_count)
    entry_splat = np.empty(pair_start[-1], np.int32)
    entry_pair = np.empty(pair_start[-1], np.int32)
    binning.fill_pairs(
        screen, box, order, seen, tiles_x, tiles, pair_start, cursor, entry_splat, entry_pair
    )
    return _Lists(screen, box, radii, pair_start, tile_start, entry_splat, entry_pair, tiles_x)


class _Rasterize(torch.autograd.Function):
    """Project, bin and composite; the backward pass is written by hand."""

    @staticmethod
    def forward(ctx, means, log_scales, quaternions, logits, features, offset, cameras, settings):
        height, width, views = cameras.height, cameras.width, len(cameras)
        raw = (_numpy(means), _numpy(log_scales), _numpy(quaternions), _numpy(logits))
        scene, colors = _Scene(pack_cameras(cameras), *raw, settings), _numpy(features)
        shift = np.empty((0, 0, 2), np.float32) if offset is None else _numpy(offset)
        image = np.empty((views, height, width, colors.shape[2]), np.float32)
        depth, alpha = np.empty((2, views, height, width), np.float32)
        with kernel_threads() as workers:
            lists = _prepare(scene, shift, height, width, workers)
            used = np.empty(len(lists.tile_start) - 1, np.int32)
            raster.rasterize_tiles(
                lists.screen, lists.box, colors, lists.tile_start, lists.entry_splat, lists.tiles_x,
                binning.shares(np.diff(lists.tile_start), workers), image, depth, alpha, used,
            )  # fmt: skip
        ctx.kept, ctx.has_offset = (scene, colors, lists, used), offset is not None
        # What nobody uses gets no gradient instead of a picture of zeros.
        ctx.set_materialize_grads(False)
        radii = torch.from_numpy(lists.radii)
        ctx.mark_non_differentiable(radii)
        outputs = [torch.from_numpy(value) for value in (image, depth[..., None], alpha[..., None])]
        ctx.save_for_backward(*outputs)  # and torch objects if a caller changes them in place
        return *outputs, radii

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_image, grad_depth, grad_alpha, _):  # pyright: ignore[reportIncompatibleMethodOverride]
        scene, colors, lists, used = ctx.kept
        image, depth, alpha = (_numpy(value) for value in ctx.saved_tensors)
        channels = image.shape[3] + 1
        columns = projection.SCREEN_GRADIENTS + max(channels, raster.BLOCK)
        pair_grad = np.empty((len(lists.entry_pair), columns), np.float32)
        raw = (scene.means, scene.log_scales, scene.quaternions, scene.logits, colors)
        grads = [np.empty_like(value) for value in raw]
        grad_offset = np.empty(
            (*lists.box.shape[:2], 2) if ctx.has_offset else (0, 0, 2), np.float32
        )
        above = np.zeros_like(image) if grad_image is None else _numpy(grad_image)
        over = np.zeros_like(alpha) if grad_alpha is None else _numpy(grad_alpha)
        deep = np.empty((0, 0, 0, 1), np.float32) if grad_depth is None else _numpy(grad_depth)
        with kernel_threads() as workers:
            raster.rasterize_tiles_backward(
                lists.screen, lists.box, colors, lists.tile_start, lists.entry_splat,
                lists.entry_pair, lists.tiles_x, binning.shares(used, workers), image, depth[..., 0],
                alpha[..., 0], used, above, deep[..., 0], over[..., 0], pair_grad,
            )  # fmt: skip
            projection.project_backward(
                scene.cameras, bool(scene.settings.antialias),
                scene.means, scene.log_scales, scene.quaternions, scene.logits,
                lists.pair_start, pair_grad, workers, *grads, grad_offset,
            )  # fmt: skip
        result = [torch.from_numpy(grad) for grad in grads]
        return *result, torch.from_numpy(grad_offset) if ctx.has_offset else None, None, None


def rasterize_apart(
    splats: SplatData,
    features: Float[Tensor, "V N C"],
    cameras: CameraBatch,
    settings: RasterSettings,
    screen_offset: Float[Tensor, "B N 2"] | None,
) -> tuple[
    Float[Tensor, "B H W C"],
    Float[Tensor, "B H W 1"],
    Float[Tensor, "B H W 1"],
    Float[Tensor, "B N"],
]:
    """Premultiplied features, alpha-normalised z-depth, alpha, and pixel radii (0: not seen).

    `features` have V = 1 (the same from everywhere) or V = B.
    """
    return _Rasterize.apply(
        splats.means,
        splats.log_scales,
        splats.quaternions,
        splats.opacity_logits,
        features,
        screen_offset,
        cameras,
        settings,
    )
