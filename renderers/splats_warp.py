"""Splats in Warp, for CUDA without a compiler on the user's machine.

A render is a handful of launches and one wait for the host, whatever the number of views: `splats_warp_project`
projects, `tiles_warp` makes the lists of tiles, and the kernels here composite, one thread a pixel, with the backward
pass written by hand as in `renderers.splats_numba_raster`, whose notation this follows. All threads of a tile go
through its list in step; a splat's gradients are summed over each 32 of them in registers, as in gsplat (Ye et al.
2024), and then by atomic additions, in whatever order they come: on a GPU the last bits of a step may differ from run
to run.
"""

# Warp reads kernel annotations as values, and takes a plain literal for a constant that no loop may change.
# pyright: reportInvalidTypeForm=false, reportAssignmentType=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false
# ruff: noqa: UP018

import torch
import warp as wp
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dream3d.cameras import CameraBatch
from renderers import splats_data
from renderers.splats_data import RasterSettings, SplatData
from renderers.splats_warp_project import project
from renderers.tiles_warp import THREADS, pixel_of, tile_lists
from renderers.warp_device import launch

wp.set_module_options({"enable_backward": False})

ALPHA_CUT = wp.constant(float(splats_data.ALPHA_CUT))
ALPHA_MAX = wp.constant(float(splats_data.ALPHA_MAX))
TRANSMITTANCE_CUT = wp.constant(float(splats_data.TRANSMITTANCE_CUT))
BLOCK = 4
"""Channels that a thread sums at a time, in registers."""


@wp.func_native("""
#if defined(__CUDA_ARCH__)
    return __any_sync(0xffffffffu, flag);
#else
    return flag;
#endif
""")
def any_in_warp(flag: int) -> int:
    """Whether the flag of any of the 32 threads in step is not 0; on a CPU a thread is alone."""
    ...


@wp.func_native("""
    float sum = x;
#if defined(__CUDA_ARCH__)
    for (int away = 16; away > 0; away /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, away);
#endif
    return sum;
""")
def sum_in_warp(x: float) -> float:
    """The sum over the 32 threads in step, which all have to ask for it."""
    ...


@wp.func_native("""
#if defined(__CUDA_ARCH__)
    return threadIdx.x & 31;
#else
    return 0;
#endif
""")
def place_in_warp() -> int:
    """Which of the 32 threads in step this one is."""
    ...


@wp.func
def add_once(target: wp.array2d(dtype=float), row: int, column: int, x: float):
    """Add what the threads in step have, by one atomic addition; all have to call this."""
    total = sum_in_warp(x)
    if place_in_warp() == 0:
        wp.atomic_add(target, row, column, total)


@wp.func
def footprint(screen: wp.array2d(dtype=float), row: int, x: float, y: float):
    """The way from a splat's centre to a pixel, the same along its axes, and alpha there, neither clamped nor cut.

    Columns of `screen`: centre, inverse covariance (Cholesky: along, shear, across), opacity. The exponent is
    -(u^2 + v^2) / 2: never positive, and free of cancellation for needles.
    """
    dx = x - screen[row, 0]
    dy = y - screen[row, 1]
    u = screen[row, 2] * dx + screen[row, 3] * dy
    v = screen[row, 4] * dy
    return dx, dy, u, v, screen[row, 5] * wp.exp(-0.5 * (u * u + v * v))


@wp.kernel
def composite_forward(
    screen: wp.array2d(dtype=float),
    values: wp.array2d(dtype=float),
    start: wp.array(dtype=int),
    entry: wp.array(dtype=int),
    width: int,
    height: int,
    image: wp.array2d(dtype=float),
    alpha_image: wp.array(dtype=float),
):
    """One pixel and BLOCK channels of it; the threads of the first channels write the alpha, the sum of weights."""
    block, thread = wp.tid()
    tile, view, line, column = pixel_of(thread, width, height)
    if line < 0:
        return
    pixel = (view * height + line) * width + column
    x, y = float(column) + 0.5, float(line) + 0.5
    c = block * BLOCK
    through = float(1.0)
    cover = float(0.0)
    total = wp.vec4(0.0, 0.0, 0.0, 0.0)
    for e in range(start[tile], start[tile + 1]):
        if through < TRANSMITTANCE_CUT:
            break
        row = entry[e]
        _, _, _, _, raw = footprint(screen, row, x, y)
        if raw >= ALPHA_CUT:
            weight = wp.min(raw, ALPHA_MAX) * through
            four = wp.vec4(
                values[row, c], values[row, c + 1], values[row, c + 2], values[row, c + 3]
            )
            total = total + weight * four
            cover = cover + weight
            through = through - weight
    for k in range(BLOCK):
        image[pixel, c + k] = total[k]
    if block == 0:
        alpha_image[pixel] = cover


@wp.kernel
def composite_backward(
    screen: wp.array2d(dtype=float),
    values: wp.array2d(dtype=float),
    start: wp.array(dtype=int),
    entry: wp.array(dtype=int),
    width: int,
    height: int,
    image: wp.array2d(dtype=float),
    alpha_image: wp.array(dtype=float),
    grad_image: wp.array2d(dtype=float),
    grad_alpha: wp.array(dtype=float),
    grad_screen: wp.array2d(dtype=float),
    grad_values: wp.array2d(dtype=float),
):
    """dL/da_i = T_i v_i - R_i / (1 - a_i), front to back; R_0 is what the forward pass composited. Zero on entry.

    The threads of a tile go in step: none leaves before all are done. What a thread does not need it counts as 0, and
    what no thread in step needs is not summed. The first BLOCK channels of the image's gradient stay in registers.
    """
    tile, view, line, column = pixel_of(wp.tid(), width, height)  # pyright: ignore[reportArgumentType]
    through = float(0.0)  # beyond the image: goes along, adds nothing
    pixel = int(0)  # noqa: RUF046
    if line >= 0:
        through = float(1.0)
        pixel = (view * height + line) * width + column
    x, y = float(column) + 0.5, float(line) + 0.5
    channels = image.shape[1]
    by_alpha = grad_alpha[pixel]
    rest = by_alpha * alpha_image[pixel]
    for c in range(channels):
        rest = rest + grad_image[pixel, c] * image[pixel, c]
    four = wp.vec4(
        grad_image[pixel, 0], grad_image[pixel, 1], grad_image[pixel, 2], grad_image[pixel, 3]
    )
    for e in range(start[tile], start[tile + 1]):
        if any_in_warp(int(through >= TRANSMITTANCE_CUT)) == 0:
            break
        row = entry[e]
        dx, dy, u, v, raw = footprint(screen, row, x, y)
        needed = through >= TRANSMITTANCE_CUT and raw >= ALPHA_CUT
        if any_in_warp(int(needed)) != 0:
            alpha = wp.min(raw, ALPHA_MAX)
            weight = wp.where(needed, alpha * through, 0.0)
            value = by_alpha
            for k in range(BLOCK):
                value = value + four[k] * values[row, k]
                add_once(grad_values, row, k, weight * four[k])
            for c in range(BLOCK, channels):
                value = value + grad_image[pixel, c] * values[row, c]
                add_once(grad_values, row, c, weight * grad_image[pixel, c])
            rest = rest - weight * value
            slope = wp.where(
                needed and raw < ALPHA_MAX, through * value - rest / (1.0 - alpha), 0.0
            )
            q = raw * slope  # by the exponent
            add_once(grad_screen, row, 0, q * u * screen[row, 2])
            add_once(grad_screen, row, 1, q * (u * screen[row, 3] + v * screen[row, 4]))
            add_once(grad_screen, row, 2, -q * u * dx)
            add_once(grad_screen, row, 3, -q * u * dy)
            add_once(grad_screen, row, 4, -q * v * dy)
            add_once(grad_screen, row, 5, q / screen[row, 5])
            through = through - weight


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, screen, values, start, entry, cameras):
        size = cameras.width, cameras.height
        pixels = len(cameras) * size[0] * size[1]
        image, alpha = screen.new_empty(pixels, values.shape[1]), screen.new_empty(pixels)
        inputs = [screen, values, start, entry]
        threads = (len(start) - 1) * THREADS
        dim = (values.shape[1] // BLOCK, threads)
        launch(composite_forward, dim, [*inputs, *size, image, alpha])
        ctx.save_for_backward(*inputs, image, alpha)
        ctx.size, ctx.threads = size, threads
        return image, alpha

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_image, grad_alpha):  # pyright: ignore[reportIncompatibleMethodOverride]
        *inputs, image, alpha = ctx.saved_tensors
        grads = [torch.zeros_like(value) for value in inputs[:2]]
        arguments = [*inputs, *ctx.size, image, alpha, grad_image, grad_alpha, *grads]
        launch(composite_backward, ctx.threads, arguments)
        return *grads, None, None, None


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
    views, channels = len(cameras), features.shape[-1] + 1
    seen = project(splats, cameras, settings, screen_offset)
    same = features.expand(views, -1, -1)
    values = torch.cat([same, seen.depth[..., None]], dim=-1)
    if channels % BLOCK:
        values = torch.nn.functional.pad(values, (0, -channels % BLOCK))
    # Depths are positive, and bits of positive floats are in the order of their values.
    rank = seen.depth.detach().flatten().view(torch.int32)
    view = torch.arange(views, device=rank.device)[:, None].expand(seen.depth.shape).flatten()
    lists = tile_lists(seen.box.flatten(0, 1), view, cameras, rank)
    image, alpha = _Composite.apply(
        seen.screen.flatten(0, 1), values.flatten(0, 1), *lists, cameras
    )
    shape = (views, cameras.height, cameras.width, -1)
    return image[:, :channels].reshape(shape), alpha.reshape(shape), seen.radii
