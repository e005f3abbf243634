"""Tiles of the screen for Warp's rasterisers: which boxes reach each, and which pixel a thread draws.

The lists are made by torch where the data are, by one stable sort; a kernel then has a thread a pixel, and the threads
of a block share one tile's list.
"""

# Warp reads kernel annotations as values.
# pyright: reportInvalidTypeForm=false

import torch
import warp as wp
from jaxtyping import Int
from torch import Tensor

from dream3d.cameras import CameraBatch

TILE = 16
"""Pixels a side."""
THREADS = TILE * TILE
"""Of a block, one a pixel; `warp.launch` makes blocks of as many."""


def tile_counts(cameras: CameraBatch) -> tuple[int, int]:
    """How many tiles a view has along a row and along a column."""
    return -(-cameras.width // TILE), -(-cameras.height // TILE)


def tile_lists(
    box: Int[Tensor, "R 4"], view: Int[Tensor, " R"], cameras: CameraBatch
) -> tuple[Int[Tensor, " T1"], Int[Tensor, " P"]]:
    """Which of R boxes reach each tile of each view, in the order of the boxes.

    Args:
        box: pixels from x0 to x1 and y0 to y1 (exclusive), within the image; empty ones are in no list.
        view: which camera each belongs to.
        cameras: B views.

    Returns:
        Int32: the lists' starts (view by view, row by row of tiles) and the boxes in them.
    """
    tiles_x, tiles_y = tile_counts(cameras)
    first = box[:, 0::2] // TILE  # [R, 2]
    size = (box[:, 1::2] + TILE - 1) // TILE - first
    size = size * (box[:, 1::2] > box[:, 0::2]).all(dim=1, keepdim=True)
    counts = size.prod(dim=1)
    row = torch.arange(len(box), device=box.device).repeat_interleave(counts)
    within = torch.arange(len(row), device=box.device) - (counts.cumsum(0) - counts)[row]
    across = size[row, 0]
    x, y = first[row, 0] + within % across, first[row, 1] + within // across
    tile = ((view[row] * tiles_y + y) * tiles_x + x).int()
    tile, order = tile.sort(stable=True)
    every = torch.arange(len(cameras) * tiles_x * tiles_y + 1, device=box.device).int()
    return torch.searchsorted(tile, every, out_int32=True), row[order].int()


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
