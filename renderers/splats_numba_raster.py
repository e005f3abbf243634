"""Numba: composite one 16x16 tile at a time, front to back, and the hand-written backward pass.

Everything of a tile lies in one flat float32 array, plane after plane of 256 pixels at constant offsets, and the inner
loops index it with unsigned integers and select instead of branching: the form the compiler turns into one vector
loop without overlap tests. (Two-dimensional arrays, signed indices, `min`, `max` or `and` each undo that.)

Backward, also front to back. With w_i = a_i T_i and the value v_i = <feature_i, dL/dpixel> + dL/dalpha of splat i,
    dL/da_i = T_i v_i - R_i / (1 - a_i),   R_i = sum over j > i of w_j v_j.
R_i follows by subtraction from the sum over all j, which the forward pass's own output gives: no list is walked
backwards and no transmittance is divided out.
"""

import numpy as np
from numba import njit, prange

from dream3d.kernels import kernel
from renderers.splats_data import ALPHA_CUT as _ALPHA_CUT
from renderers.splats_data import ALPHA_MAX as _ALPHA_MAX
from renderers.splats_data import TRANSMITTANCE_CUT as _TRANSMITTANCE_CUT
from renderers.splats_numba_bin import TILE
from renderers.splats_numba_project import (
    ACROSS,
    ALONG,
    CX,
    CY,
    DEPTH,
    OPACITY,
    SCREEN_GRADIENTS,
    SHEAR,
)

# Reassociation lets sums over pixels vectorise, contraction gives fused multiply-adds. Both are fixed when the code is
# compiled: results do not depend on threads or timing.
FAST = {"reassoc", "contract", "nsz", "arcp"}

F = np.float32
ZERO, HALF, ONE, QUARTER = F(0.0), F(0.5), F(1.0), F(0.25)
ALPHA_CUT, ALPHA_MAX, TRANSMITTANCE_CUT = F(_ALPHA_CUT), F(_ALPHA_MAX), F(_TRANSMITTANCE_CUT)
COVERED = HALF * ALPHA_CUT
"""An alpha that is not zero is at least ALPHA_CUT; what depth is divided by is at least this."""
POWER_MIN = F(-6.0)
"""A power below log(1/255) = -5.54 cannot pass the alpha cut-off, so exp is only needed on [-6, 0]."""
# exp(y) on [-1.5, 0] as 1 + y (E1 + y (E2 + ...)), least squares at Chebyshev nodes: 2.3e-8 relative.
E1, E2, E3, E4, E5, E6, E7 = (
    F(0.9999989860067816),
    F(0.4999848917415009),
    F(0.16658745749071752),
    F(0.04146357904663188),
    F(0.00804613998602366),
    F(0.0011563150298272984),
    F(9.275738829311875e-05),
)
CHECK_EVERY = 16
"""Splats between two looks at whether a tile is already opaque."""


@njit(inline="always", fastmath=FAST, error_model="numpy")
def _exp(x):
    """exp on [-6, 0], as the fourth power of a polynomial in x / 4."""
    y = x * QUARTER
    p = ONE + y * (E1 + y * (E2 + y * (E3 + y * (E4 + y * (E5 + y * (E6 + y * E7))))))
    p = p * p
    return p * p


# Planes of a tile. The first BLOCK channels have planes of their own in the same array; more live in a second array.
BLOCK = 4
PIXELS = TILE * TILE
COLUMN, ROW, THROUGH, WEIGHT, VALUE, REST, COVER, CHANNEL0, CHANNEL1, CHANNEL2, CHANNEL3 = (
    np.uint64(PIXELS * plane) for plane in range(11)
)
PLANES = 11
WIDE = np.uint64(TILE)


@kernel()
def _new_tile():
    """The planes of a tile, with the pixel centres filled in."""
    tile = np.zeros(PLANES * PIXELS, np.float32)
    for p in range(PIXELS):
        tile[p] = p % TILE + HALF
        tile[PIXELS + p] = p // TILE + HALF
    return tile


@kernel(fastmath=FAST)
def _composite(t, y0, y1, mx, my, along, shear, across, opacity, f0, f1, f2, f3):
    """Rows y0..y1 of one splat in one tile: fill its weights, lower the transmittance, add four channels."""
    for p in range(np.uint64(y0) * WIDE, np.uint64(y1) * WIDE):
        dy = t[p + ROW] - my
        u = along * (t[p + COLUMN] - mx) + shear * dy
        v = across * dy
        power = -HALF * (u * u + v * v)
        power = power if power > POWER_MIN else POWER_MIN
        alpha = opacity * _exp(power)
        alpha = alpha if alpha < ALPHA_MAX else ALPHA_MAX
        alpha = alpha if alpha >= ALPHA_CUT else ZERO
        ahead = t[p + THROUGH]
        alpha = alpha if ahead >= TRANSMITTANCE_CUT else ZERO
        w = alpha * ahead
        t[p + THROUGH] = ahead - w
        t[p + WEIGHT] = w
        t[p + COVER] += w
        t[p + CHANNEL0] += w * f0
        t[p + CHANNEL1] += w * f1
        t[p + CHANNEL2] += w * f2
        t[p + CHANNEL3] += w * f3


@kernel(fastmath=FAST)
def _composite_backward(t, y0, y1, mx, my, along, shear, across, opacity, f0, f1, f2, f3, out):
    """One splat in one tile: the first ten gradients of the pair into `out`.

    On entry the channel planes hold dL/dpixel, VALUE what the other channels and alpha add to v, REST R_{i-1}. Sums
    over pixels of q = dL/dpower times 1, dx, dy, dx^2, dx dy, dy^2, then of w dL/dpixel for each of four channels.
    """
    s0, s1, s2, s3, s4, s5 = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
    c0, c1, c2, c3 = ZERO, ZERO, ZERO, ZERO
    for p in range(np.uint64(y0) * WIDE, np.uint64(y1) * WIDE):
        dx = t[p + COLUMN] - mx
        dy = t[p + ROW] - my
        u = along * dx + shear * dy
        v = across * dy
        power = -HALF * (u * u + v * v)
        power = power if power > POWER_MIN else POWER_MIN
        raw = opacity * _exp(power)
        alpha = raw if raw < ALPHA_MAX else ALPHA_MAX
        alpha = alpha if alpha >= ALPHA_CUT else ZERO
        ahead = t[p + THROUGH]
        alpha = alpha if ahead >= TRANSMITTANCE_CUT else ZERO
        w = alpha * ahead
        g0, g1, g2, g3 = t[p + CHANNEL0], t[p + CHANNEL1], t[p + CHANNEL2], t[p + CHANNEL3]
        value = t[p + VALUE] + f0 * g0 + f1 * g1 + f2 * g2 + f3 * g3
        rest = t[p + REST] - w * value
        t[p + REST] = rest
        t[p + THROUGH] = ahead - w
        t[p + WEIGHT] = w
        q = alpha * (ahead * value - rest / (ONE - alpha))
        q = q if raw < ALPHA_MAX else ZERO
        s0 += q
        s1 += q * dx
        s2 += q * dy
        s3 += q * dx * dx
        s4 += q * dx * dy
        s5 += q * dy * dy
        c0 += w * g0
        c1 += w * g1
        c2 += w * g2
        c3 += w * g3
    out[0], out[1], out[2], out[3], out[4], out[5] = s0, s1, s2, s3, s4, s5
    out[6], out[7], out[8], out[9] = c0, c1, c2, c3


@kernel(fastmath=FAST)
def _add(target, start, source, offset, y0, y1, value):
    """target[start + p] += value * source[offset + p] over rows y0..y1."""
    for p in range(np.uint64(y0) * WIDE, np.uint64(y1) * WIDE):
        target[p + start] += value * source[p + offset]


@kernel(fastmath=FAST)
def _dot(t, grad, offset, y0, y1):
    """Sum over rows y0..y1 of the weights times a plane of `grad`."""
    total = ZERO
    for p in range(np.uint64(y0) * WIDE, np.uint64(y1) * WIDE):
        total += t[p + WEIGHT] * grad[p + offset]
    return total


@kernel(fastmath=FAST)
def _opaque(t):
    """Whether no pixel of the tile accepts another splat."""
    most = ZERO
    for p in range(np.uint64(PIXELS)):
        through = t[p + THROUGH]
        most = through if through > most else most
    return most < TRANSMITTANCE_CUT


@kernel()
def _load_values(features, g, depth, values):
    """A splat's channels: its features, then its depth, then zeros."""
    for c in range(features.shape[1]):
        values[c] = features[g, c]
    values[features.shape[1]] = depth


@kernel(parallel=True)
def rasterize_tiles(
    screen, box, features, tile_start, entry_splat, tiles_x, shares, image, depth_image, alpha_image, used
):  # fmt: skip
    """Composite all tiles of all cameras.

    `features` are [V, N, C] with V = 1 or B. Outputs: `image` [B, H, W, C]; `depth_image` [B, H, W], divided by alpha;
    `alpha_image` [B, H, W], the sum of weights (exact where it is small, unlike one minus the transmittance); `used`
    [B T], the list entries looked at before a tile was opaque. Worker w takes the tiles `shares[w]` to `shares[w + 1]`.
    """
    views, height, width, colors = image.shape
    channels = colors + 1  # depth is the last
    tiles = (len(tile_start) - 1) // views
    for worker in prange(len(shares) - 1):
        t, values = _new_tile(), np.zeros(max(channels, BLOCK), np.float32)
        more = np.zeros(max(channels - BLOCK, 0) * PIXELS, np.float32)
        for index in range(shares[worker], shares[worker + 1]):
            b, tile = index // tiles, index % tiles
            left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
            source = features[b if features.shape[0] > 1 else 0]
            t[THROUGH:WEIGHT] = ONE
            t[COVER:] = ZERO
            more[:] = ZERO
            first, last = tile_start[index], tile_start[index + 1]
            entry = first
            while entry < last:
                g = entry_splat[entry]
                s = screen[b, g]
                _load_values(source, g, s[DEPTH], values)
                y0, y1 = max(box[b, g, 2] - top, 0), min(box[b, g, 3] - top, TILE)
                _composite(
                    t, y0, y1, s[CX] - F(left), s[CY] - F(top), s[ALONG], s[SHEAR], s[ACROSS], s[OPACITY],
                    values[0], values[1], values[2], values[3],
                )  # fmt: skip
                for c in range(BLOCK, channels):
                    _add(more, np.uint64((c - BLOCK) * PIXELS), t, WEIGHT, y0, y1, values[c])
                entry += 1
                if (entry - first) % CHECK_EVERY == 0 and _opaque(t):
                    break
            used[index] = entry - first
            for y in range(min(TILE, height - top)):
                for x in range(min(TILE, width - left)):
                    p = y * TILE + x
                    alpha = t[COVER + np.uint64(p)]
                    alpha_image[b, top + y, left + x] = alpha
                    for c in range(min(colors, BLOCK)):
                        image[b, top + y, left + x, c] = t[CHANNEL0 + np.uint64(c * PIXELS + p)]
                    for c in range(BLOCK, colors):
                        image[b, top + y, left + x, c] = more[(c - BLOCK) * PIXELS + p]
                    if colors < BLOCK:
                        depth = t[CHANNEL0 + np.uint64(colors * PIXELS + p)]
                    else:
                        depth = more[(colors - BLOCK) * PIXELS + p]
                    depth_image[b, top + y, left + x] = depth / max(alpha, COVERED)


@kernel(fastmath=FAST)
def _load_gradients(
    grad_image, grad_depth, grad_alpha, image, depth_image, alpha_image, b, top, left, t, more, alpha_plane
):  # fmt: skip
    """One tile's pixel gradients, and R_0 = <everything composited, its gradient>; zero beyond the image.

    Depth is a sum over alpha, D = S / A: dL/dS = dL/dD / A and dL/dA -= D dL/dS, which cancel in R_0.
    """
    height, width, colors = image.shape[1], image.shape[2], image.shape[3]
    t[CHANNEL0:] = ZERO
    t[REST:COVER] = ZERO
    alpha_plane[:] = ZERO
    more[:] = ZERO
    deep = grad_depth.shape[0] > 0
    for y in range(min(TILE, height - top)):
        for x in range(min(TILE, width - left)):
            p = y * TILE + x
            alpha_plane[p] = grad_alpha[b, top + y, left + x]
            total = alpha_image[b, top + y, left + x] * alpha_plane[p]
            for c in range(colors):
                grad = grad_image[b, top + y, left + x, c]
                total += grad * image[b, top + y, left + x, c]
                if c < BLOCK:
                    t[CHANNEL0 + np.uint64(c * PIXELS + p)] = grad
                else:
                    more[(c - BLOCK) * PIXELS + p] = grad
            if deep:
                grad = grad_depth[b, top + y, left + x]
                grad /= max(alpha_image[b, top + y, left + x], COVERED)
                alpha_plane[p] -= grad * depth_image[b, top + y, left + x]
                if colors < BLOCK:
                    t[CHANNEL0 + np.uint64(colors * PIXELS + p)] = grad
                else:
                    more[(colors - BLOCK) * PIXELS + p] = grad
            t[REST + np.uint64(p)] = total


@kernel(parallel=True)
def rasterize_tiles_backward(
    screen, box, features, tile_start, entry_splat, entry_pair, tiles_x, shares, image, depth_image, alpha_image,
    used, grad_image, grad_depth, grad_alpha, pair_grad,
):  # fmt: skip
    """Every (splat, tile) pair's gradient: six sums for the screen ellipse, then one per channel (depth last).

    The forward pass's arguments and outputs, then `grad_image` [B, H, W, C], `grad_depth` [B, H, W], or [0, 0, 0] for
    none, and `grad_alpha` [B, H, W]. Output: `pair_grad` [P, 6 + max(C + 1, 4)]; columns beyond 6 + C + 1 are padding.
    """
    views, channels = image.shape[0], image.shape[3] + 1
    tiles = (len(tile_start) - 1) // views
    for worker in prange(len(shares) - 1):
        t, values = _new_tile(), np.zeros(max(channels, BLOCK), np.float32)
        alpha_plane = np.empty(PIXELS, np.float32)
        more = np.zeros(max(channels - BLOCK, 0) * PIXELS, np.float32)
        for index in range(shares[worker], shares[worker + 1]):
            first = tile_start[index]
            for entry in range(first + used[index], tile_start[index + 1]):
                pair_grad[entry_pair[entry]] = ZERO
            if used[index] == 0:
                continue
            b, tile = index // tiles, index % tiles
            left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
            source = features[b if features.shape[0] > 1 else 0]
            t[THROUGH:WEIGHT] = ONE
            _load_gradients(
                grad_image, grad_depth, grad_alpha, image, depth_image, alpha_image, b, top, left, t, more,
                alpha_plane,
            )  # fmt: skip
            t[VALUE:REST] = alpha_plane
            for entry in range(first, first + used[index]):
                g = entry_splat[entry]
                s, out = screen[b, g], pair_grad[entry_pair[entry]]
                _load_values(source, g, s[DEPTH], values)
                y0, y1 = max(box[b, g, 2] - top, 0), min(box[b, g, 3] - top, TILE)
                if channels > BLOCK:
                    t[VALUE:REST] = alpha_plane
                for c in range(BLOCK, channels):
                    _add(t, VALUE, more, np.uint64((c - BLOCK) * PIXELS), y0, y1, values[c])
                _composite_backward(
                    t, y0, y1, s[CX] - F(left), s[CY] - F(top), s[ALONG], s[SHEAR], s[ACROSS], s[OPACITY],
                    values[0], values[1], values[2], values[3], out,
                )  # fmt: skip
                for c in range(BLOCK, channels):
                    out[SCREEN_GRADIENTS + c] = _dot(
                        t, more, np.uint64((c - BLOCK) * PIXELS), y0, y1
                    )
