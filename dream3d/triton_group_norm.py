"""Group normalisation with SiLU for channels-last tensors, in Triton: two passes forward, two backward.

torch's own kernel takes channels-first tensors only: around it the layout is turned twice, which in Stable Diffusion's
encoder costs more than all convolutions (measured on an H100; docs/performance.md).

A tensor is rows of pixels [N, R, C]. The first pass sums over a part of the rows for every channel, a small kernel
joins the parts and the channels of a group, the second pass reads the pixels again.
"""

# Triton reads kernels' annotations and arguments as its own types.
# pyright: reportInvalidTypeForm=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportArgumentType=false, reportIndexIssue=false, reportCallIssue=false

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from jaxtyping import Float
from torch import Tensor

_CHANNELS = 128  # of a program
_ROWS = 32  # read at a time
_SPLITS = 128  # parts of the rows, at most


@triton.jit
def _silu(u):
    return u / (1.0 + tl.exp(-u))


@triton.jit
def _slope(u, SILU: tl.constexpr):
    """The derivative of SiLU; 1 without it."""
    if SILU:
        s = 1.0 / (1.0 + tl.exp(-u))
        return s * (1.0 + u * (1.0 - s))
    return u * 0.0 + 1.0


@triton.jit
def _part_moments(x, parts, rows, channels, span, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """Mean and sum of squared deviations of every channel over `span` rows."""
    n, split = tl.program_id(0), tl.program_id(1)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = c < channels
    base = x + n.to(tl.int64) * rows * channels
    first = split * span
    last = tl.minimum(first + span, rows)
    # Sums of deviations from the first row, which stay small where the mean is large.
    shift = tl.load(base + first.to(tl.int64) * channels + c, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros([CHANNELS], tl.float32)
    square = tl.zeros([CHANNELS], tl.float32)
    for start in range(first, last, ROWS):
        r = start + tl.arange(0, ROWS)
        known = (r < last)[:, None] & inside[None, :]
        place = r.to(tl.int64)[:, None] * channels + c[None, :]
        value = tl.load(base + place, mask=known, other=0.0).to(tl.float32) - shift[None, :]
        value = tl.where(known, value, 0.0)
        total += tl.sum(value, axis=0)
        square += tl.sum(value * value, axis=0)
    count = (last - first).to(tl.float32)
    out = parts + (n * tl.num_programs(1) + split) * 2 * channels + c
    tl.store(out, shift + total / count, mask=inside)
    tl.store(out + channels, square - total * total / count, mask=inside)


@triton.jit
def _join_moments(
    parts, mean, scale, rows, channels, groups, span, splits, eps,
    SPLITS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Mean and 1 / standard deviation of a group."""
    n, g = tl.program_id(0), tl.program_id(1)
    width = channels // groups
    s, c = tl.arange(0, SPLITS), tl.arange(0, WIDTH)
    known = (s < splits)[:, None] & (c < width)[None, :]
    count = tl.where(s < splits, tl.minimum(span, rows - s * span), 0).to(tl.float32)[:, None]
    place = parts + (n * splits + s)[:, None] * 2 * channels + (g * width + c)[None, :]
    means = tl.load(place, mask=known, other=0.0)
    squares = tl.load(place + channels, mask=known, other=0.0)
    size = (rows * width).to(tl.float32)
    middle = tl.sum(tl.sum(tl.where(known, means * count, 0.0), axis=1), axis=0) / size
    away = tl.where(known, means - middle, 0.0)
    total = tl.sum(tl.sum(squares + count * away * away, axis=1), axis=0)
    tl.store(mean + n * groups + g, middle)
    tl.store(scale + n * groups + g, 1.0 / tl.sqrt(total / size + eps))


@triton.jit
def _apply(
    x, weight, bias, mean, scale, y, rows, channels, groups,
    SILU: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0)
    r = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = c < channels
    group = n * groups + c // (channels // groups)
    k = tl.load(scale + group, mask=inside, other=0.0)
    m = tl.load(mean + group, mask=inside, other=0.0)
    k_w = k * tl.load(weight + c, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)
    known = (r < rows)[:, None] & inside[None, :]
    place = (n.to(tl.int64) * rows + r)[:, None] * channels + c[None, :]
    u = (tl.load(x + place, mask=known, other=0.0).to(tl.float32) - m[None, :]) * k_w[None, :]
    u += b[None, :]
    if SILU:
        u = _silu(u)
    tl.store(y + place, u.to(y.dtype.element_ty), mask=known)


@triton.jit
def _part_products(
    x, grad, weight, bias, mean, scale, parts, rows, channels, groups, span,
    SILU: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Over `span` rows, for every channel: the sum of g and of g (x - mean), g the gradient before SiLU."""
    n, split = tl.program_id(0), tl.program_id(1)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = c < channels
    group = n * groups + c // (channels // groups)
    m = tl.load(mean + group, mask=inside, other=0.0)
    k = tl.load(scale + group, mask=inside, other=0.0)
    k_w = k * tl.load(weight + c, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)
    first = split * span
    last = tl.minimum(first + span, rows)
    plain = tl.zeros([CHANNELS], tl.float32)
    product = tl.zeros([CHANNELS], tl.float32)
    for start in range(first, last, ROWS):
        r = start + tl.arange(0, ROWS)
        known = (r < last)[:, None] & inside[None, :]
        place = (n.to(tl.int64) * rows + r)[:, None] * channels + c[None, :]
        away = tl.load(x + place, mask=known, other=0.0).to(tl.float32) - m[None, :]
        g = tl.load(grad + place, mask=known, other=0.0).to(tl.float32)
        g = tl.where(known, g * _slope(away * k_w[None, :] + b[None, :], SILU), 0.0)
        plain += tl.sum(g, axis=0)
        product += tl.sum(g * away, axis=0)
    out = parts + (n * tl.num_programs(1) + split) * 2 * channels + c
    tl.store(out, plain, mask=inside)
    tl.store(out + channels, product, mask=inside)


@triton.jit
def _join_products(
    parts, weight, scale, plain, product, rows, channels, groups, splits,
    SPLITS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Means over a group of w g and of w g times the normalised value."""
    n, g = tl.program_id(0), tl.program_id(1)
    width = channels // groups
    s, c = tl.arange(0, SPLITS), tl.arange(0, WIDTH)
    known = (s < splits)[:, None] & (c < width)[None, :]
    place = parts + (n * splits + s)[:, None] * 2 * channels + (g * width + c)[None, :]
    w = tl.load(weight + g * width + c, mask=c < width, other=0.0).to(tl.float32)[None, :]
    size = (rows * width).to(tl.float32)
    first = tl.sum(tl.sum(w * tl.load(place, mask=known, other=0.0), axis=1), axis=0)
    second = tl.sum(tl.sum(w * tl.load(place + channels, mask=known, other=0.0), axis=1), axis=0)
    tl.store(plain + n * groups + g, first / size)
    tl.store(product + n * groups + g, second / size * tl.load(scale + n * groups + g))


@triton.jit
def _gradient(
    x, grad, weight, bias, mean, scale, plain, product, out, rows, channels, groups,
    SILU: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """(w g - mean of w g - normalised value times mean of w g times it) / standard deviation."""
    n = tl.program_id(0)
    r = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    inside = c < channels
    group = n * groups + c // (channels // groups)
    m = tl.load(mean + group, mask=inside, other=0.0)[None, :]
    k = tl.load(scale + group, mask=inside, other=0.0)[None, :]
    p = tl.load(plain + group, mask=inside, other=0.0)[None, :]
    q = tl.load(product + group, mask=inside, other=0.0)[None, :]
    w = tl.load(weight + c, mask=inside, other=0.0).to(tl.float32)[None, :]
    b = tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)[None, :]
    known = (r < rows)[:, None] & inside[None, :]
    place = (n.to(tl.int64) * rows + r)[:, None] * channels + c[None, :]
    normal = (tl.load(x + place, mask=known, other=0.0).to(tl.float32) - m) * k
    g = tl.load(grad + place, mask=known, other=0.0).to(tl.float32)
    g = g * _slope(normal * w + b, SILU)
    tl.store(out + place, (k * (w * g - p - normal * q)).to(out.dtype.element_ty), mask=known)


def _splits(rows: int) -> tuple[int, int]:
    """Into how many parts rows are taken apart, and the rows of each."""
    parts = min(_SPLITS, max(1, rows // _SPLITS))
    span = -(-rows // parts)
    return -(-rows // span), span


def _power(n: int) -> int:
    return 1 << (n - 1).bit_length()


def normalize(
    x: Float[Tensor, "N R C"],
    weight: Float[Tensor, " C"],
    bias: Float[Tensor, " C"],
    groups: int,
    eps: float,
    silu: bool,
) -> tuple[Float[Tensor, "N R C"], Float[Tensor, "N G"], Float[Tensor, "N G"]]:
    """The result, and mean and 1 / standard deviation of every group, which the gradient wants.

    Args:
        x: contiguous.
        weight: of channels.
        bias: of channels.
        groups: G, a divisor of C.
        eps: added to variances.
        silu: apply SiLU to the result.
    """
    count, rows, channels = x.shape
    splits, span = _splits(rows)
    blocks = triton.cdiv(channels, _CHANNELS)
    parts = x.new_empty(count, splits, 2, channels, dtype=torch.float32)
    mean, scale = (x.new_empty(count, groups, dtype=torch.float32) for _ in range(2))
    tile = {"ROWS": _ROWS, "CHANNELS": _CHANNELS}
    joined = {"SPLITS": _power(splits), "WIDTH": _power(channels // groups)}
    y = torch.empty_like(x)
    _part_moments[(count, splits, blocks)](x, parts, rows, channels, span, **tile)
    _join_moments[(count, groups)](
        parts, mean, scale, rows, channels, groups, span, splits, eps, **joined
    )
    grid = (count, triton.cdiv(rows, _ROWS), blocks)
    _apply[grid](x, weight, bias, mean, scale, y, rows, channels, groups, SILU=silu, **tile)
    return y, mean, scale


def gradient(
    x: Float[Tensor, "N R C"],
    grad: Float[Tensor, "N R C"],
    weight: Float[Tensor, " C"],
    bias: Float[Tensor, " C"],
    mean: Float[Tensor, "N G"],
    scale: Float[Tensor, "N G"],
    silu: bool,
) -> Float[Tensor, "N R C"]:
    """The gradient by `x`, from that by `normalize`'s result; both contiguous."""
    count, rows, channels = x.shape
    groups = mean.shape[1]
    splits, span = _splits(rows)
    blocks = triton.cdiv(channels, _CHANNELS)
    parts = x.new_empty(count, splits, 2, channels, dtype=torch.float32)
    plain, product = torch.empty_like(mean), torch.empty_like(mean)
    tile = {"SILU": silu, "ROWS": _ROWS, "CHANNELS": _CHANNELS}
    joined = {"SPLITS": _power(splits), "WIDTH": _power(channels // groups)}
    shared = (weight, bias, mean, scale)
    _part_products[(count, splits, blocks)](
        x, grad, *shared, parts, rows, channels, groups, span, **tile
    )
    _join_products[(count, groups)](
        parts, weight, scale, plain, product, rows, channels, groups, splits, **joined
    )
    out = torch.empty_like(x)
    grid = (count, triton.cdiv(rows, _ROWS), blocks)
    _gradient[grid](x, grad, *shared, plain, product, out, rows, channels, groups, **tile)
    return out
