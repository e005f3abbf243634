"""Numba: which tiles each splat touches, as lists sorted front to back.

Splats are sorted by depth once per camera and then dealt to their tiles in that order, so every tile's list is sorted
without sorting it. A (splat, tile) pair also has a number in splat order, under which the backward pass files its
gradient: summing a splat's consecutive pairs is then free of races and of any dependence on threads.
"""

import numpy as np
from numba import prange

from dream3d.kernels import kernel
from renderers.splats_numba_project import ACROSS, ALONG, CENTER_DEPTH, CX, CY, OPACITY, SHEAR

TILE = 16
_RADIX_BITS = 11
_RADIX = 1 << _RADIX_BITS


@kernel()
def _sort_by_depth(keys, order, spare):
    """Stable radix sort of `order` by `keys[order]`; the bits of positive floats sort like the floats."""
    count = np.empty(_RADIX, np.int64)
    for shift in (0, _RADIX_BITS, 2 * _RADIX_BITS):
        count[:] = 0
        for i in range(len(order)):
            count[(keys[order[i]] >> shift) & (_RADIX - 1)] += 1
        position = 0
        for d in range(_RADIX):
            here = count[d]
            count[d] = position
            position += here
        for i in range(len(order)):
            d = (keys[order[i]] >> shift) & (_RADIX - 1)
            spare[count[d]] = order[i]
            count[d] += 1
        order, spare = spare, order
    return order


@kernel(fastmath={"contract"})
def _row_span(s, box, ty):
    """First and one past the last tile column that the splat's ellipse reaches within tile row `ty`.

    Within a band of rows the ellipse d^T conic d <= reach is widest at its own extreme point, or at the band's edge
    nearest to it.
    """
    along, shear, across = np.float64(s[ALONG]), np.float64(s[SHEAR]), np.float64(s[ACROSS])
    # Slack for rounding: the alpha cut-off itself is applied per pixel.
    reach = 2.0 * np.log(255.0 * np.float64(s[OPACITY])) * 1.002 + 1e-3
    top, bottom = max(box[2], ty * TILE) + 0.5 - s[CY], min(box[3], ty * TILE + TILE) - 0.5 - s[CY]
    # The rightmost point has u / sqrt(reach) = across / hypot(shear, across); it fixes the height it lies at.
    right_dy = -shear / across * np.sqrt(reach / (shear * shear + across * across))
    low, high = np.inf, -np.inf
    for k in range(2):
        dy = min(max(right_dy if k == 0 else -right_dy, top), bottom)
        room = reach - across * across * dy * dy
        if room < 0.0:
            return 0, 0
        half, middle = np.sqrt(room) / along, -shear / along * dy
        low, high = min(low, middle - half), max(high, middle + half)
    x0 = max(np.float64(box[0]), np.floor(min(max(s[CX] + low - 0.51, -1e9), 1e9)))
    x1 = min(np.float64(box[1]), np.ceil(min(max(s[CX] + high + 0.51, -1e9), 1e9)))
    if x0 >= x1:
        return 0, 0
    return int(x0) // TILE, (int(x1) - 1) // TILE + 1


@kernel(parallel=True)
def count_pairs(screen, box, tiles_x, splat_count, tile_count):
    """Fill how many tiles each splat touches [B, N] and how many splats each tile has [B, T] (zero on entry)."""
    views, n = box.shape[0], box.shape[1]
    for b in prange(views):
        for g in range(n):
            number = 0
            y0, y1 = box[b, g, 2], box[b, g, 3]
            if y0 < y1:
                for ty in range(y0 // TILE, (y1 - 1) // TILE + 1):
                    x0, x1 = _row_span(screen[b, g], box[b, g], ty)
                    for tx in range(x0, x1):
                        tile_count[b, ty * tiles_x + tx] += 1
                    number += x1 - x0
            splat_count[b, g] = number


@kernel(parallel=True)
def fill_pairs(screen, box, tiles_x, pair_start, tile_start, entry_splat, entry_pair):
    """Deal the splats to their tiles, nearest first.

    Shapes:
        pair_start: [B * N + 1] first pair of each splat.
        tile_start: [B * T + 1] first entry of each tile's list.
        entry_splat, entry_pair: [P] outputs, a list entry's splat and pair number.
    """
    views, n = box.shape[0], box.shape[1]
    tiles = (len(tile_start) - 1) // views
    for b in prange(views):
        cursor = tile_start[b * tiles : (b + 1) * tiles].copy()
        order, spare = np.empty(n, np.int32), np.empty(n, np.int32)
        keys = screen[b, :, CENTER_DEPTH].copy().view(np.uint32)
        seen = 0
        for g in range(n):
            if pair_start[b * n + g] < pair_start[b * n + g + 1]:
                order[seen] = g
                seen += 1
        order = _sort_by_depth(keys, order[:seen], spare[:seen])
        for i in range(seen):
            g = order[i]
            pair = pair_start[b * n + g]
            for ty in range(box[b, g, 2] // TILE, (box[b, g, 3] - 1) // TILE + 1):
                x0, x1 = _row_span(screen[b, g], box[b, g], ty)
                for tx in range(x0, x1):
                    tile = ty * tiles_x + tx
                    entry_splat[cursor[tile]] = g
                    entry_pair[cursor[tile]] = pair
                    cursor[tile] += 1
                    pair += 1
