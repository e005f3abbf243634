"""Features on grids of several resolutions, fine ones folded into short tables by hashing (Mueller et al. 2022).

A level whose vertices fit into its table is an ordinary dense grid, so one level with a long table is a voxel grid.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.errors import ConfigError
from renderers.volume import volume_backend

PRIMES = (1, 2_654_435_761, 805_459_861)
"""Factors of the vertex coordinates in the spatial hash (Mueller et al. 2022, eq. 4)."""
FASTEST = ("numba", "warp", "tinycudann", "torch")
FINEST = 2048


@dataclass(frozen=True)
class HashGridLayout:
    """How features lie in one table.

    Attributes:
        resolutions: cells per side of each level over [-1, 1].
        table_log2: a level has at most 2^table_log2 rows.
        features: numbers per row.

    Raises:
        ConfigError: no levels, or sizes out of range.
    """

    resolutions: tuple[int, ...]
    table_log2: int = 15
    features: int = 2

    def __post_init__(self) -> None:
        if not self.resolutions or not all(1 <= r <= FINEST for r in self.resolutions):
            raise ConfigError(
                f"hash grid resolutions are {list(self.resolutions)}; choose at least one, each from 1 to {FINEST}"
            )
        if not 2 <= self.table_log2 <= 24 or not 1 <= self.features <= 64:
            raise ConfigError(
                f"hash grid has tables of 2^{self.table_log2} rows with {self.features} features; choose 2^2 to "
                "2^24 rows and 1 to 64 features"
            )

    @property
    def offsets(self) -> tuple[int, ...]:
        """First row of each level, and the number of all rows."""
        rows = [min((r + 1) ** 3, 2**self.table_log2) for r in self.resolutions]
        return tuple(sum(rows[:i]) for i in range(len(rows) + 1))

    @property
    def width(self) -> int:
        """Features of a point: all levels' side by side."""
        return len(self.resolutions) * self.features


def geometric_layout(
    levels: int, coarsest: int, finest: int, table_log2: int, features: int
) -> HashGridLayout:
    """Resolutions that grow by one factor from level to level.

    Raises:
        ConfigError: sizes out of range.
    """
    if not 1 <= levels <= 32 or not 1 <= coarsest <= finest:
        raise ConfigError(
            f"a hash grid of {levels} levels from {coarsest} to {finest} cells cannot be made; choose 1 to 32 "
            "levels and a coarsest resolution no finer than the finest"
        )
    growth = (finest / coarsest) ** (1.0 / max(levels - 1, 1))
    sizes = tuple(round(coarsest * growth**level) for level in range(levels))
    return HashGridLayout(sizes, table_log2, features)


def encode(
    points: Float[Tensor, "N 3"],
    table: Float[Tensor, "T F"],
    layout: HashGridLayout,
    backend: str = "auto",
) -> Float[Tensor, "N LF"]:
    """Trilinearly interpolated features of every level, coarsest first.

    Args:
        points: in [-1, 1]^3; points outside are moved to its surface.
        table: rows of all levels, `layout.offsets[-1]` of them.
        layout: where they lie.
        backend: "auto", "numba" (CPU, float32), "warp", "tinycudann" or "torch". Gradients reach table and
            points; only the torch reference can be differentiated twice.

    Raises:
        ConfigError: shapes or dtypes do not fit, or the backend cannot run.
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise ConfigError(f"points have shape {list(points.shape)}; expected [N, 3]")
    if table.shape != (layout.offsets[-1], layout.features):
        raise ConfigError(
            f"the hash table has shape {list(table.shape)}; this layout needs "
            f"{[layout.offsets[-1], layout.features]}"
        )
    if points.dtype != table.dtype or points.device != table.device:
        raise ConfigError(
            f"points are {points.dtype} on {points.device}, the hash table is {table.dtype} on {table.device}; "
            "convert them to one dtype and device"
        )
    name = volume_backend(backend, table, FASTEST)
    if name == "numba":
        from renderers.hash_grid_numba import encode as run
    elif name == "warp":
        from renderers.hash_grid_warp import encode as run
    elif name == "tinycudann":
        from renderers.hash_grid_tinycudann import encode as run
    else:
        from renderers.hash_grid_torch import encode as run
    return run(points, table, layout)


def vertex_rows(vertex: tuple[Tensor, Tensor, Tensor], resolution: int, rows: int) -> Tensor:
    """The row, within its level, of integer vertex coordinates in [0, resolution]."""
    x, y, z = vertex
    side = resolution + 1
    if side**3 <= rows:
        return x + side * (y + side * z)
    # The exact product of 64-bit integers has the same low bits as the 32-bit one that wraps around.
    return torch.bitwise_xor(torch.bitwise_xor(x, y * PRIMES[1]), z * PRIMES[2]) & (rows - 1)
