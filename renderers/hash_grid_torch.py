"""The readable reference: a multiresolution hash grid in plain torch, by autograd, for any float type and device."""

import torch
from jaxtyping import Float
from torch import Tensor

from renderers.hash_grid import HashGridLayout, vertex_rows


def encode(
    points: Float[Tensor, "N 3"], table: Float[Tensor, "T F"], layout: HashGridLayout
) -> Float[Tensor, "N LF"]:
    """See `renderers.hash_grid.encode`."""
    unit = points.clamp(-1.0, 1.0) * 0.5 + 0.5
    offsets = layout.offsets
    levels = []
    for level, resolution in enumerate(layout.resolutions):
        rows = offsets[level + 1] - offsets[level]
        scaled = unit * resolution
        cell = scaled.detach().long().clamp(0, resolution - 1)
        share = scaled - cell
        total = points.new_zeros(len(points), layout.features)
        for corner in range(8):
            bits = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2], device=points.device)
            weight = torch.where(bits == 1, share, 1.0 - share).prod(dim=1)
            x, y, z = (cell + bits).unbind(dim=1)
            row = vertex_rows((x, y, z), resolution, rows)
            total = total + weight[:, None] * table[offsets[level] + row]
        levels.append(total)
    return torch.cat(levels, dim=1)
