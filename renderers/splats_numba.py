"""The fast CPU backend: the numba kernels behind one autograd function. float32, deterministic for any thread count."""

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dream3d.cameras import CameraBatch
from renderers import splats_numba_bin as binning
from renderers import splats_numba_project as projection
from renderers import splats_numba_raster as raster
from renderers.splats_data import FRUSTUM_MARGIN, RasterSettings, SplatData


def set_workers() -> int:
    """Let numba use as many threads as torch does, and say how many."""
    workers = max(1, min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
    numba.set_num_threads(workers)
    return workers


def pack_cameras(cameras: CameraBatch) -> np.ndarray:
    """[B, 20] float64 rows as `splats_numba_project` reads them."""
    w2c = cameras.w2c.double().numpy()
    K = cameras.K.double().numpy()
    packed = np.empty((len(cameras), projection.CAMERA))
    packed[:, :9] = w2c[:, :3, :3].reshape(-1, 9)
    packed[:, 9:12] = w2c[:, :3, 3]
    packed[:, 12], packed[:, 13] = K[:, 0, 0], K[:, 1, 1]
    packed[:, 14], packed[:, 15] = K[:, 0, 2], K[:, 1, 2]
    for column, size, axis in ((16, cameras.width, 0), (18, cameras.height, 1)):
        focal, center = K[:, axis, axis], K[:, axis, 2]
        packed[:, column] = (-center - FRUSTUM_MARGIN * size) / focal
        packed[:, column + 1] = (size - center + FRUSTUM_MARGIN * size) / focal
    return packed


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _starts(counts: np.ndarray) -> np.ndarray:
    """Exclusive running sum with the total at the end."""
    starts = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts.ravel(), out=starts[1:])
    return starts


class _Rasterize(torch.autograd.Function):
    """Project, bin and composite; the backward pass is written by hand."""

    @staticmethod
    def forward(ctx, means, log_scales, quaternions, logits, features, offset, cameras, settings):
        height, width, views, n = cameras.height, cameras.width, len(cameras), len(means)
        workers = set_workers()
        packed = pack_cameras(cameras)
        raw = [_numpy(value) for value in (means, log_scales, quaternions, logits)]
        colors = _numpy(features)
        shift = np.empty((0, 0, 2), np.float32) if offset is None else _numpy(offset)

        screen = np.zeros((views, n, projection.SCREEN), np.float32)
        box = np.zeros((views, n, 4), np.int32)
        style = (float(settings.near), bool(settings.antialias), float(settings.depth_at))
        projection.project(packed, *raw, shift, *style, height, width, workers, screen, box)

        tiles_x, tiles_y = -(-width // binning.TILE), -(-height // binning.TILE)
        splat_count = np.zeros((views, n), np.int32)
        tile_count = np.zeros((views, tiles_x * tiles_y), np.int32)
        binning.count_pairs(screen, box, tiles_x, splat_count, tile_count)
        pair_start, tile_start = _starts(splat_count), _starts(tile_count)
        entry_splat = np.empty(pair_start[-1], np.int32)
        entry_pair = np.empty(pair_start[-1], np.int32)
        binning.fill_pairs(screen, box, tiles_x, pair_start, tile_start, entry_splat, entry_pair)

        image = np.empty((views, height, width, colors.shape[2] + 1), np.float32)
        cover = np.empty((views, height, width), np.float32)
        used = np.zeros(views * tiles_x * tiles_y, np.int32)
        lists = (tile_start, entry_splat)
        raster.rasterize_tiles(screen, box, colors, *lists, tiles_x, workers, image, cover, used)

        ctx.inputs = (packed, raw, colors, screen, box, pair_start, lists, entry_pair)
        ctx.outputs = (tiles_x, image, cover, used)
        ctx.has_offset, ctx.style = offset is not None, style[1:]
        radii = torch.from_numpy(screen[:, :, projection.RADIUS].copy())
        ctx.mark_non_differentiable(radii)
        alpha = torch.from_numpy(cover.copy())[..., None]
        # A copy: whatever a caller does to the image in place must not reach what the backward pass reads.
        return torch.from_numpy(image.copy()), alpha, radii

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_image, grad_alpha, _):
        packed, raw, colors, screen, box, pair_start, lists, entry_pair = ctx.inputs
        tiles_x, image, cover, used = ctx.outputs
        workers = set_workers()
        columns = projection.SCREEN_GRADIENTS + max(image.shape[3], raster.BLOCK)
        pair_grad = np.zeros((len(entry_pair), columns), np.float32)
        raster.rasterize_tiles_backward(
            screen, box, colors, *lists, entry_pair, tiles_x, workers, image, cover, used,
            _numpy(grad_image), _numpy(grad_alpha[..., 0]), pair_grad,
        )  # fmt: skip
        grads = [np.zeros_like(value) for value in (*raw, colors)]
        grad_offset = np.zeros((*screen.shape[:2], 2) if ctx.has_offset else (0, 0, 2), np.float32)
        pairs = (pair_start, pair_grad)
        projection.project_backward(packed, *ctx.style, *raw, *pairs, workers, *grads, grad_offset)
        result = [torch.from_numpy(grad) for grad in grads]
        return *result, torch.from_numpy(grad_offset) if ctx.has_offset else None, None, None


def rasterize(
    splats: SplatData,
    features: Float[Tensor, "V N C"],
    cameras: CameraBatch,
    settings: RasterSettings,
    screen_offset: Float[Tensor, "B N 2"] | None,
) -> tuple[Float[Tensor, "B H W C1"], Float[Tensor, "B H W 1"], Float[Tensor, "B N"]]:
    """Premultiplied features with z-depth as a last channel, alpha, and pixel radii (0: not seen).

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
