"""Splats in Warp, for CUDA without a compiler on the user's machine. Checked on its CPU device, not on a GPU.

Projection is the reference's own, in float64 and by autograd: elongated splats make the determinant of the screen
covariance a difference of nearly equal numbers. The lists of tiles are torch's too. The kernels composite, one thread a
pixel, with the backward pass written by hand as in `renderers.splats_numba_raster`, whose notation this follows.
Gradients of splats are summed by atomic additions, in whatever order threads come: on a GPU the last bits of a step may
differ from run to run.
"""

# Warp reads kernel annotations as values, and takes a plain literal for a constant that no loop may change.
# pyright: reportInvalidTypeForm=false, reportAssignmentType=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false
# ruff: noqa: UP018

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from dream3d.cameras import CameraBatch
from renderers import splats_data
from renderers.splats_data import RasterSettings, SplatData
from renderers.splats_torch import ProjectedSplats, project
from renderers.tiles_warp import THREADS, pixel_of, tile_lists
from renderers.warp_device import launch

wp.set_module_options({"enable_backward": False})

ALPHA_CUT = wp.constant(float(splats_data.ALPHA_CUT))
ALPHA_MAX = wp.constant(float(splats_data.ALPHA_MAX))
TRANSMITTANCE_CUT = wp.constant(float(splats_data.TRANSMITTANCE_CUT))
BLOCK = 4
"""Channels that a thread sums at a time, in registers."""


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
    """dL/da_i = T_i v_i - R_i / (1 - a_i), front to back; R_0 is what the forward pass composited. Zero on entry."""
    tile, view, line, column = pixel_of(wp.tid(), width, height)  # pyright: ignore[reportArgumentType]
    if line < 0:
        return
    pixel = (view * height + line) * width + column
    x, y = float(column) + 0.5, float(line) + 0.5
    channels = image.shape[1]
    rest = grad_alpha[pixel] * alpha_image[pixel]
    for c in range(channels):
        rest = rest + grad_image[pixel, c] * image[pixel, c]
    through = float(1.0)
    for e in range(start[tile], start[tile + 1]):
        if through < TRANSMITTANCE_CUT:
            break
        row = entry[e]
        dx, dy, u, v, raw = footprint(screen, row, x, y)
        if raw >= ALPHA_CUT:
            alpha = wp.min(raw, ALPHA_MAX)
            weight = alpha * through
            value = grad_alpha[pixel]
            for c in range(channels):
                value = value + grad_image[pixel, c] * values[row, c]
                wp.atomic_add(grad_values, row, c, weight * grad_image[pixel, c])
            rest = rest - weight * value
            if raw < ALPHA_MAX:
                slope = through * value - rest / (1.0 - alpha)
                q = raw * slope  # by the exponent
                wp.atomic_add(grad_screen, row, 0, q * u * screen[row, 2])
                wp.atomic_add(grad_screen, row, 1, q * (u * screen[row, 3] + v * screen[row, 4]))
                wp.atomic_add(grad_screen, row, 2, -q * u * dx)
                wp.atomic_add(grad_screen, row, 3, -q * u * dy)
                wp.atomic_add(grad_screen, row, 4, -q * v * dy)
                wp.atomic_add(grad_screen, row, 5, slope * raw / screen[row, 5])
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


def screen_rows(seen: ProjectedSplats) -> Float[Tensor, "M 6"]:
    """Projected splats as `footprint` reads them."""
    a, b, c = seen.conic.unbind(dim=-1)
    along = a.sqrt()
    columns = [along, b / along, (c - b * b / a).sqrt(), seen.opacity]
    return torch.cat([seen.center, torch.stack(columns, dim=-1)], dim=-1)


def pixel_boxes(seen: ProjectedSplats, cameras: CameraBatch) -> Int[Tensor, "M 4"]:
    """The pixels (x0, x1, y0, y1) within the image whose centres a splat can reach."""
    center = seen.center.detach()
    # Slack for rounding: the alpha cut-off decides what is drawn.
    reach = seen.extent * 1.001 + 1e-3
    size = torch.tensor([cameras.width, cameras.height]).to(center)
    low = torch.minimum((center - reach - 0.5).ceil().clamp_min(0.0), size)
    high = torch.minimum((center + reach + 0.5).floor().clamp_min(0.0), size)
    return torch.stack([low, high], dim=-1).flatten(1).long()


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
    views, device = len(cameras), splats.means.device
    exact = SplatData(
        splats.means.double(),
        splats.log_scales.double(),
        splats.quaternions.double(),
        splats.opacity_logits.double(),
    )
    exact_cameras = cameras.to(device, torch.float64)
    radii = torch.zeros(views, len(splats), device=device)
    rows, values, boxes, view = [], [], [], []
    for b in range(views):
        seen = project(exact, exact_cameras, b, settings, screen_offset)
        radii[b, seen.index] = seen.extent.amax(dim=-1).float()
        rows.append(screen_rows(seen).float())
        source = features[b if len(features) > 1 else 0]
        values.append(torch.cat([source[seen.index], seen.depth.float()[:, None]], dim=-1))
        boxes.append(pixel_boxes(seen, cameras))
        view.append(torch.full_like(seen.index, b))
    channels = features.shape[-1] + 1
    padded = torch.nn.functional.pad(torch.cat(values), (0, -channels % BLOCK))
    lists = tile_lists(torch.cat(boxes), torch.cat(view), cameras)
    image, alpha = _Composite.apply(torch.cat(rows), padded, *lists, cameras)
    shape = (views, cameras.height, cameras.width, -1)
    return image[:, :channels].reshape(shape), alpha.reshape(shape), radii
