"""Numba: which tiles each splat touches, as lists sorted front to back.

Splats are sorted by depth once per camera and then dealt to their tiles in that order, so every tile's list is sorted
without sorting it. Workers deal consecutive slices of that order, each with cursors of its own that begin where the
slices before it end: the lists are the same for any number of workers.
A (splat, tile) pair also has a number in splat order, under which the backward pass files its gradient: summing a
splat's consecutive pairs is then free of races and of any dependence on threads.
"""

import numpy as np
from numba import prange

from dream3d.kernels import kernel
from renderers.splats_numba_project import ACROSS, ALONG, CX, CY, DEPTH, OPACITY, SHEAR

TILE = 16
_RADIX_BITS = 12
_RADIX = 1 << _RADIX_BITS


@kernel()
def _sort_by_depth(keys, order, spare):
    """Stable radix sort of `order` by `keys[order]`; the bits of positive floats sort like the floats."""
    least, most = np.uint32(0xFFFFFFFF), np.uint32(0)
    for g in order:
        least, most = min(least, keys[g]), max(most, keys[g])
    # Depths of an object differ little: above the nearest one's, two digits tell most of them apart.
    count = np.empty(_RADIX, np.int32)
    shift = 0
    while len(order) > 0 and (most - least) >> shift > 0:
        count[:] = 0
        for g in order:
            count[((keys[g] - least) >> shift) & (_RADIX - 1)] += 1
        position = 0
        for d in range(_RADIX):
            here = count[d]
            count[d] = position
            position += here
        for g in order:
            d = ((keys[g] - least) >> shift) & (_RADIX - 1)
            spare[count[d]] = g
            count[d] += 1
        order, spare = spare, order
        shift += _RADIX_BITS
    return order


@kernel(parallel=True)
def order_by_depth(screen, box, order):
    """Sort every camera's seen splats, nearest first, into `order` [B, N] int32; returns how many each sees [B]."""
    views, n = box.shape[0], box.shape[1]
    seen = np.zeros(views, np.int64)
    for b in prange(views):
        found, spare = np.empty(n, np.int32), np.empty(n, np.int32)
        keys = screen[b, :, DEPTH].copy().view(np.uint32)
        count = 0
        for g in range(n):
            if box[b, g, 2] < box[b, g, 3]:
                found[count] = g
                count += 1
        order[b, :count] = _sort_by_depth(keys, found[:count], spare[:count])
        seen[b] = count
    return seen


@kernel(fastmath={"contract"})
def _ellipse(s):
    """A splat's ellipse d^T conic d <= reach, and how far below its centre its rightmost point lies."""
    shear, across = np.float64(s[SHEAR]), np.float64(s[ACROSS])
    # Slack for rounding: the alpha cut-off itself is applied per pixel.
    reach = 2.0 * np.log(255.0 * np.float64(s[OPACITY])) * 1.002 + 1e-3
    # The rightmost point has u / sqrt(reach) = across / hypot(shear, across); it fixes the height it lies at.
    return reach, -shear / across * np.sqrt(reach / (shear * shear + across * across))


@kernel(fastmath={"contract"})
def _row_span(s, box, reach, right_dy, ty):
    """First and one past the last tile column that the splat's ellipse reaches within tile row `ty`.

    Within a band of rows the ellipse is widest at its own extreme point, or at the band's edge nearest to it.
    """
    along, shear, across = np.float64(s[ALONG]), np.float64(s[SHEAR]), np.float64(s[ACROSS])
    top, bottom = max(box[2], ty * TILE) + 0.5 - s[CY], min(box[3], ty * TILE + TILE) - 0.5 - s[CY]
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
def count_pairs(screen, box, order, seen, tiles_x, tiles, splat_count, tile_count):
    """Count how many tiles each splat touches and how many splats each tile has.

    Shapes:
        order, seen: [B, N], [B], from `order_by_depth`.
        splat_count: [B * N], zero on entry.
        tile_count: [workers, B * tiles], zero on entry: each worker's share of a tile.
    """
    views, n, workers = box.shape[0], box.shape[1], tile_count.shape[0]
    for worker in prange(workers):
        for b in range(views):
            for i in range(seen[b] * worker // workers, seen[b] * (worker + 1) // workers):
                g = order[b, i]
                s, around, number = screen[b, g], box[b, g], 0
                reach, right_dy = _ellipse(s)
                for ty in range(around[2] // TILE, (around[3] - 1) // TILE + 1):
                    x0, x1 = _row_span(s, around, reach, right_dy, ty)
                    for tx in range(x0, x1):
                        tile_count[worker, b * tiles + ty * tiles_x + tx] += 1
                    number += x1 - x0
                splat_count[b * n + g] = number


@kernel()
def starts(splat_count, tile_count):
    """From `count_pairs`: where every splat's pairs and every tile's list begin, and each worker's share of the lists.

    Returns:
        pair_start [B * N + 1], tile_start [B * tiles + 1], cursor [workers, B * tiles].
    """
    pair_start = np.empty(len(splat_count) + 1, np.int64)
    total = 0
    for g in range(len(splat_count)):
        pair_start[g] = total
        total += splat_count[g]
    pair_start[len(splat_count)] = total
    workers, tiles = tile_count.shape
    tile_start, cursor = np.empty(tiles + 1, np.int64), np.empty((workers, tiles), np.int64)
    total = 0
    for tile in range(tiles):
        tile_start[tile] = total
        for worker in range(workers):
            cursor[worker, tile] = total
            total += tile_count[worker, tile]
    tile_start[tiles] = total
    return pair_start, tile_start, cursor


@kernel()
def shares(load, workers):
    """Where each worker's consecutive tiles begin, [workers + 1], so that all have about the same load [tiles].

    Neighbouring tiles share splats, whose gradients lie side by side: a worker keeps to one region.
    """
    # A tile costs something even where nothing is in it.
    total = 4 * len(load)
    for tile in range(len(load)):
        total += load[tile]
    first = np.empty(workers + 1, np.int64)
    worker, running = 0, 0
    for tile in range(len(load) + 1):
        while worker <= workers and running >= total * worker // workers:
            first[worker] = tile
            worker += 1
        if tile < len(load):
            running += load[tile] + 4
    return first


@kernel(parallel=True)
def fill_pairs(
    screen, box, order, seen, tiles_x, tiles, pair_start, cursor, entry_splat, entry_pair
):
    """Deal the splats to their tiles, nearest first.

    Shapes:
        pair_start: [B * N + 1] first pair of each splat.
        cursor: [workers, B * tiles] where each worker's share of a tile's list begins; advanced.
        entry_splat, entry_pair: [P] outputs, a list entry's splat and pair number.
    """
    views, n, workers = box.shape[0], box.shape[1], cursor.shape[0]
    for worker in prange(workers):
        for b in range(views):
            for i in range(seen[b] * worker // workers, seen[b] * (worker + 1) // workers):
                g = order[b, i]
                s, around, pair = screen[b, g], box[b, g], pair_start[b * n + g]
                reach, right_dy = _ellipse(s)
                for ty in range(around[2] // TILE, (around[3] - 1) // TILE + 1):
                    x0, x1 = _row_span(s, around, reach, right_dy, ty)
                    for tx in range(x0, x1):
                        tile = b * tiles + ty * tiles_x + tx
                        entry_splat[cursor[worker, tile]] = g
                        entry_pair[cursor[worker, tile]] = pair
                        cursor[worker, tile] += 1
                        pair += 1
