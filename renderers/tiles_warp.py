"""Tiles of the screen for Warp's rasterisers: which boxes reach each, and which pixel a thread draws.

Each box writes an entry for every tile it reaches, with a key of the tile above the box's rank in one 64-bit number, so
that one sort puts all lists in order (Kerbl et al. 2023). The host waits once, for the number of entries. A kernel then
has a thread a pixel, and the threads of a block share one tile's list.
"""

# Warp reads kernel annotations as values.
# pyright: reportInvalidTypeForm=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
# pyright: reportArgumentType=false

import torch
import warp as wp
from jaxtyping import Int
from torch import Tensor

from dream3d.cameras import CameraBatch
from renderers.warp_device import launch

wp.set_module_options({"enable_backward": False})

TILE = 16
"""Pixels a side."""
THREADS = TILE * TILE
"""Of a block, one a pixel; `warp.launch` makes blocks of as many."""
KEYS_OF_A_TILE = wp.constant(wp.int64(1 << 32))


def tile_counts(cameras: CameraBatch) -> tuple[int, int]:
    """How many tiles a view has along a row and along a column."""
    return -(-cameras.width // TILE), -(-cameras.height // TILE)


@wp.func
def tiles_of(box: wp.array2d(dtype=int), r: int):
    """The first tile of a box along a row and a column, and the one after its last."""
    x0, x1 = box[r, 0] // TILE, (box[r, 1] + TILE - 1) // TILE
    y0, y1 = box[r, 2] // TILE, (box[r, 3] + TILE - 1) // TILE
    if box[r, 1] <= box[r, 0] or box[r, 3] <= box[r, 2]:
        x1, y1 = x0, y0
    return x0, x1, y0, y1


@wp.kernel
def count_tiles(box: wp.array2d(dtype=int), count: wp.array(dtype=int)):
    """How many tiles a box reaches."""
    r = wp.tid()
    x0, x1, y0, y1 = tiles_of(box, r)
    count[r] = (x1 - x0) * (y1 - y0)


@wp.kernel
def write_entries(
    box: wp.array2d(dtype=int),
    view: wp.array(dtype=int),
    rank: wp.array(dtype=int),
    last: wp.array(dtype=wp.int64),
    tiles_x: int,
    tiles_y: int,
    key: wp.array(dtype=wp.int64),
    row: wp.array(dtype=int),
):
    """The entries of one box; `last` counts those of all boxes up to and with it."""
    r = wp.tid()
    x0, x1, y0, y1 = tiles_of(box, r)
    place = last[r] - wp.int64((x1 - x0) * (y1 - y0))
    for y in range(y0, y1):
        for x in range(x0, x1):
            tile = (view[r] * tiles_y + y) * tiles_x + x
            key[place] = wp.int64(tile) * KEYS_OF_A_TILE + wp.int64(rank[r])
            row[place] = r
            place = place + wp.int64(1)


def tile_lists(
    box: Int[Tensor, "R 4"],
    view: Int[Tensor, " R"],
    cameras: CameraBatch,
    rank: Int[Tensor, " R"] | None = None,
) -> tuple[Int[Tensor, " T1"], Int[Tensor, " P"]]:
    """Which of R boxes reach each tile of each view, in order.

    Args:
        box: pixels from x0 to x1 and y0 to y1 (exclusive), within the image; empty ones are in no list.
        view: which camera each belongs to.
        cameras: B views.
        rank: int32 from 0, by which a tile's boxes are ordered; boxes of one rank, and all without ranks, come in the
            order they are given in.

    Returns:
        Int32: the lists' starts (view by view, row by row of tiles) and the boxes in them.
    """
    tiles_x, tiles_y = tile_counts(cameras)
    box, view = box.int(), view.int()
    if rank is None:
        rank = torch.zeros_like(view)
    count = torch.empty_like(view)
    launch(count_tiles, len(box), [box, count])
    last = count.cumsum(0)
    total = int(last[-1]) if len(box) else 0  # the host waits for this
    key, row = last.new_empty(total), view.new_empty(total)
    if total:
        launch(write_entries, len(box), [box, view, rank, last, tiles_x, tiles_y, key, row])
    key, order = key.sort(stable=True)
    every = torch.arange(len(cameras) * tiles_x * tiles_y + 1, device=box.device) * 2**32
    return torch.searchsorted(key, every, out_int32=True), row[order]


@wp.func
def pixel_of(thread: int, width: int, height: int):
    """The tile, view, row and column that a thread draws; row -1 where it lies beyond the image."""
    tiles_x = (width + TILE - 1) // TILE
    tiles = tiles_x * ((height + TILE - 1) // TILE)
    tile = thread // THREADS
    place = thread % THREADS
    y = (tile % tiles) // tiles_x * TILE + place // TILE
    x = (tile % tiles) % tiles_x * TILE + place % TILE
    if x >= width or y >= height:
        y = -1
    return tile, tile // tiles, y, x
