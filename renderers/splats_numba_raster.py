"""Numba: composite one 16x16 tile at a time, front to back, and the hand-written backward pass.

Inner loops run over the 16 pixels of a tile row, branch-free on plain float32 arrays, because that is what the
compiler turns into vector instructions: no `min`/`max`/`and` (they become branches), no flattened indices.

Backward, also front to back. With w_i = a_i T_i and the value v_i = <feature_i, dL/dpixel> + dL/dalpha of splat i,
    dL/da_i = T_i v_i - R_i / (1 - a_i),   R_i = sum over j > i of w_j v_j.
R_i follows by subtraction from the sum over all j, which the forward pass's own output gives: no list is walked
backwards and no transmittance is divided out.
"""

import numpy as np
from numba import njit, prange

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


@njit(cache=True, fastmath=FAST, error_model="numpy")
def _weigh(through, weight, columns, y0, y1, mx, my, along, shear, across, opacity):
    """Rows y0..y1 of one splat in one tile: fill its `weight` and lower the transmittance `through` [16, 16]."""
    for y in range(y0, y1):
        dy = F(y) + HALF - my
        constant, sheared = -HALF * (across * dy) * (across * dy), shear * dy
        for x in range(16):
            dx = columns[x] - mx
            u = along * dx + sheared
            power = constant - HALF * u * u
            power = power if power > POWER_MIN else POWER_MIN
            alpha = opacity * _exp(power)
            alpha = alpha if alpha < ALPHA_MAX else ALPHA_MAX
            alpha = alpha if alpha >= ALPHA_CUT else ZERO
            ahead = through[y, x]
            alpha = alpha if ahead >= TRANSMITTANCE_CUT else ZERO
            w = alpha * ahead
            weight[y, x] = w
            through[y, x] = ahead - w


@njit(cache=True, fastmath=FAST, error_model="numpy")
def _add(target, weight, y0, y1, value):
    """target += value * weight over rows y0..y1."""
    for y in range(y0, y1):
        for x in range(16):
            target[y, x] += value * weight[y, x]


@njit(cache=True, fastmath=FAST, error_model="numpy")
def _opaque(through):
    """Whether no pixel of the tile accepts another splat."""
    most = ZERO
    for y in range(16):
        for x in range(16):
            most = through[y, x] if through[y, x] > most else most
    return most < TRANSMITTANCE_CUT


@njit(parallel=True, cache=True, error_model="numpy")
def rasterize_tiles(
    screen, box, features, tile_start, entry_splat, tiles_x, workers, image, through_image, used
):
    """Composite all tiles of all cameras.

    Args:
        features: [V, N, C], V = 1 or B.
        image: [B, H, W, C + 1] output, z-depth last; through_image: [B, H, W] output, what shines through.
        used: [B * T] output, list entries looked at before the tile was opaque.
    """
    views, height, width, channels = image.shape
    tiles = (len(tile_start) - 1) // views
    for worker in prange(workers):
        columns = np.empty(TILE, np.float32)
        for x in range(TILE):
            columns[x] = x + HALF
        through, weight = np.empty((TILE, TILE), np.float32), np.empty((TILE, TILE), np.float32)
        sums = np.empty((channels, TILE, TILE), np.float32)
        for index in range(worker, views * tiles, workers):
            b, tile = index // tiles, index % tiles
            left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
            source = features[b if features.shape[0] > 1 else 0]
            through[:] = ONE
            sums[:] = ZERO
            first, last = tile_start[index], tile_start[index + 1]
            entry = first
            while entry < last:
                g = entry_splat[entry]
                s = screen[b, g]
                y0, y1 = max(box[b, g, 2] - top, 0), min(box[b, g, 3] - top, TILE)
                mx, my = s[CX] - F(left), s[CY] - F(top)
                _weigh(
                    through,
                    weight,
                    columns,
                    y0,
                    y1,
                    mx,
                    my,
                    s[ALONG],
                    s[SHEAR],
                    s[ACROSS],
                    s[OPACITY],
                )
                for c in range(channels - 1):
                    _add(sums[c], weight, y0, y1, source[g, c])
                _add(sums[channels - 1], weight, y0, y1, s[DEPTH])
                entry += 1
                if (entry - first) % CHECK_EVERY == 0 and _opaque(through):
                    break
            used[index] = entry - first
            for y in range(min(TILE, height - top)):
                for x in range(min(TILE, width - left)):
                    through_image[b, top + y, left + x] = through[y, x]
                    for c in range(channels):
                        image[b, top + y, left + x, c] = sums[c, y, x]


@njit(cache=True, fastmath=FAST, error_model="numpy")
def _weigh_backward(
    through, weight, value, rest, columns, y0, y1, mx, my, along, shear, across, opacity, out
):
    """Like `_weigh`, and the sums of q = dL/dpower times 1, dx, dy, dx^2, dx dy, dy^2 into `out`.

    `value` is v_i per pixel; `rest` holds R_{i-1} on entry and R_i on return.
    """
    sq, sqx, sqy, sqxx, sqxy, sqyy = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
    for y in range(y0, y1):
        dy = F(y) + HALF - my
        constant, sheared = -HALF * (across * dy) * (across * dy), shear * dy
        row, row_x, row_xx = ZERO, ZERO, ZERO
        for x in range(16):
            dx = columns[x] - mx
            u = along * dx + sheared
            power = constant - HALF * u * u
            power = power if power > POWER_MIN else POWER_MIN
            raw = opacity * _exp(power)
            alpha = raw if raw < ALPHA_MAX else ALPHA_MAX
            alpha = alpha if alpha >= ALPHA_CUT else ZERO
            ahead = through[y, x]
            alpha = alpha if ahead >= TRANSMITTANCE_CUT else ZERO
            w = alpha * ahead
            behind = rest[y, x] - w * value[y, x]
            weight[y, x] = w
            through[y, x] = ahead - w
            rest[y, x] = behind
            q = alpha * (ahead * value[y, x] - behind / (ONE - alpha))
            q = q if raw < ALPHA_MAX else ZERO
            row += q
            row_x += q * dx
            row_xx += q * dx * dx
        sq += row
        sqx += row_x
        sqxx += row_xx
        sqy += row * dy
        sqxy += row_x * dy
        sqyy += row * dy * dy
    out[0], out[1], out[2], out[3], out[4], out[5] = sq, sqx, sqy, sqxx, sqxy, sqyy


@njit(cache=True, fastmath=FAST, error_model="numpy")
def _dot(weight, grad, y0, y1):
    """Sum of weight * grad over rows y0..y1."""
    total = ZERO
    for y in range(y0, y1):
        row = ZERO
        for x in range(16):
            row += weight[y, x] * grad[y, x]
        total += row
    return total


@njit(cache=True, fastmath=FAST, error_model="numpy")
def _load_gradients(grad_image, grad_alpha, image, through_image, b, top, left, grads, rest):
    """One tile's pixel gradients, channel first (alpha last), and R_0 = <everything composited, its gradient>."""
    height, width, channels = image.shape[1], image.shape[2], image.shape[3]
    grads[:] = ZERO
    rest[:] = ZERO
    for y in range(min(TILE, height - top)):
        for x in range(min(TILE, width - left)):
            total = (ONE - through_image[b, top + y, left + x]) * grad_alpha[b, top + y, left + x]
            for c in range(channels):
                grads[c, y, x] = grad_image[b, top + y, left + x, c]
                total += grads[c, y, x] * image[b, top + y, left + x, c]
            grads[channels, y, x] = grad_alpha[b, top + y, left + x]
            rest[y, x] = total


@njit(parallel=True, cache=True, error_model="numpy")
def rasterize_tiles_backward(
    screen, box, features, tile_start, entry_splat, entry_pair, tiles_x, workers, image, through_image, used,
    grad_image, grad_alpha, pair_grad,
):  # fmt: skip
    """Every (splat, tile) pair's gradient: six sums for the screen ellipse, then one per channel (depth last).

    Args:
        grad_image: [B, H, W, C + 1]; grad_alpha: [B, H, W].
        pair_grad: [P, 6 + C + 1] output, zero on entry.
    """
    views, channels = image.shape[0], image.shape[3]
    tiles = (len(tile_start) - 1) // views
    for worker in prange(workers):
        columns = np.empty(TILE, np.float32)
        for x in range(TILE):
            columns[x] = x + HALF
        through, weight = np.empty((TILE, TILE), np.float32), np.empty((TILE, TILE), np.float32)
        value, rest = np.empty((TILE, TILE), np.float32), np.empty((TILE, TILE), np.float32)
        grads = np.empty((channels + 1, TILE, TILE), np.float32)
        for index in range(worker, views * tiles, workers):
            if used[index] == 0:
                continue
            b, tile = index // tiles, index % tiles
            left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
            source = features[b if features.shape[0] > 1 else 0]
            through[:] = ONE
            _load_gradients(grad_image, grad_alpha, image, through_image, b, top, left, grads, rest)
            first = tile_start[index]
            for entry in range(first, first + used[index]):
                g = entry_splat[entry]
                s, out = screen[b, g], pair_grad[entry_pair[entry]]
                y0, y1 = max(box[b, g, 2] - top, 0), min(box[b, g, 3] - top, TILE)
                value[y0:y1] = grads[channels, y0:y1]
                for c in range(channels - 1):
                    _add(value, grads[c], y0, y1, source[g, c])
                _add(value, grads[channels - 1], y0, y1, s[DEPTH])
                mx, my = s[CX] - F(left), s[CY] - F(top)
                _weigh_backward(
                    through, weight, value, rest, columns, y0, y1, mx, my,
                    s[ALONG], s[SHEAR], s[ACROSS], s[OPACITY], out,
                )  # fmt: skip
                for c in range(channels):
                    out[SCREEN_GRADIENTS + c] = _dot(weight, grads[c], y0, y1)
