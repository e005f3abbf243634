"""tiny-cuda-nn's hash grids (Mueller 2021), on NVIDIA GPUs: tested against its documented layout; crashed on an H100.

There, one encoding's levels are scaled by powers of one factor and shifted by half a cell: vertex k of a level of scale
s lies at (k - 1/2) / s. Ours have whole numbers of cells and vertices on the cube's sides. So every level is an
encoding of its own, of scale r = base_resolution - 1 and r + 1 vertices a side, asked at points moved by half a cell.
Rows then lie as ours do, x fastest or by the same hash, followed by padding to a multiple of eight.
"""

import functools

import tinycudann  # pyright: ignore[reportMissingImports]
import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.errors import ConfigError
from renderers.hash_grid import HashGridLayout

ROWS_MULTIPLE = 8
FEATURES = (1, 2, 4, 8)


def encode(
    points: Float[Tensor, "N 3"], table: Float[Tensor, "T F"], layout: HashGridLayout
) -> Float[Tensor, "N LF"]:
    """See `renderers.hash_grid.encode`.

    Raises:
        ConfigError: tiny-cuda-nn has no such grid.
    """
    if layout.features not in FEATURES or layout.table_log2 < 3:
        raise ConfigError(
            f"tiny-cuda-nn has no hash grid of {layout.features} features a row in tables of 2^{layout.table_log2} "
            f"rows; choose {', '.join(map(str, FEATURES))} features and at least 2^3 rows, or backend 'torch'"
        )
    unit = points.clamp(-1.0, 1.0) * 0.5 + 0.5
    found = []
    for resolution, parameters in zip(layout.resolutions, to_tcnn(table, layout), strict=True):
        level = _level(resolution, layout.table_log2, layout.features, str(points.device))
        moved = unit - 0.5 / resolution
        found.append(torch.func.functional_call(level, {"params": parameters}, (moved,)))
    return torch.cat(found, dim=1)


@functools.lru_cache(maxsize=256)
def _level(resolution: int, table_log2: int, features: int, device: str) -> torch.nn.Module:
    """The encoding of one level, without parameters of its own."""
    with torch.device(device):
        made = tinycudann.Encoding(
            n_input_dims=3,
            encoding_config={
                "otype": "HashGrid",
                "n_levels": 1,
                "n_features_per_level": features,
                "log2_hashmap_size": table_log2,
                "base_resolution": resolution + 1,
                "per_level_scale": 1.0,
                "interpolation": "Linear",
            },
            dtype=torch.float32,
        )
    made.params = torch.nn.Parameter(made.params.new_empty(0))
    return made


def to_tcnn(table: Float[Tensor, "T F"], layout: HashGridLayout) -> list[Float[Tensor, " P"]]:
    """Each level's `params` as tiny-cuda-nn holds them, flat and padded with zeros."""
    levels = table.split([b - a for a, b in zip(layout.offsets, layout.offsets[1:], strict=False)])
    pad = torch.nn.functional.pad
    return [pad(rows, (0, 0, 0, -len(rows) % ROWS_MULTIPLE)).reshape(-1) for rows in levels]


def from_tcnn(levels: list[Float[Tensor, " P"]], layout: HashGridLayout) -> Float[Tensor, "T F"]:
    """The table of which `to_tcnn` makes `levels`.

    Raises:
        ConfigError: there are other levels than the layout has.
    """
    counts = [b - a for a, b in zip(layout.offsets, layout.offsets[1:], strict=False)]
    padded = [(n + -n % ROWS_MULTIPLE) * layout.features for n in counts]
    if [level.numel() for level in levels] != padded:
        raise ConfigError(
            f"the levels have {[level.numel() for level in levels]} parameters; this layout needs {padded}"
        )
    rows = [one.reshape(-1, layout.features)[:n] for one, n in zip(levels, counts, strict=True)]
    return torch.cat(rows)
