"""A network call as the pipelines make it: the latent's layout, time, positions and the extra inputs."""

from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.diffusion import TableSchedule
from dream3d.priors.pipelines.packing import Text
from dream3d.priors.pipelines.table import PipelineRow


def to_layout(row: PipelineRow, z: Float[Tensor, "B C h w"]) -> Any:
    """The latent as the network takes it."""
    count, channels, height, width = z.shape
    if row.layout == "packed":
        z = z.reshape(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        return z.reshape(count, height * width // 4, 4 * channels)
    if row.layout == "flat":
        return z.flatten(2).transpose(1, 2)
    if row.layout == "list":
        return list(z[:, :, None].unbind(0))
    return z


def from_layout(row: PipelineRow, value: Any, z: Float[Tensor, "B C h w"]) -> Tensor:
    """The network's output on the grid of `z`, a learnt variance cut off."""
    count, channels, height, width = z.shape
    if row.layout == "packed":
        value = value.reshape(count, height // 2, width // 2, channels, 2, 2)
        return value.permute(0, 3, 1, 4, 2, 5).reshape(z.shape)
    if row.layout == "flat":
        return value.transpose(1, 2).reshape(z.shape)
    if row.layout == "list":
        return torch.stack(list(value))[:, :, 0]
    if row.variance_channels and value.shape[1] == 2 * channels:
        return value[:, :channels]
    return value


def model_time(
    row: PipelineRow, config: Any, schedule: TableSchedule | None, t: Float[Tensor, " B"]
) -> Tensor:
    """What the network is told of the noise level t in [0, 1]."""
    if row.time == "index":
        assert schedule is not None
        return schedule.index(t)
    told = {"sigma": t, "1000 sigma": 1000.0 * t, "1 - sigma": 1.0 - t}[row.time]
    return told * float(config["timestep_scale"]) if row.time_scale else told


@lru_cache(maxsize=32)
def _flux_ids(height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[h w / 4, 3]: 0, row and column of every 2 x 2 patch."""
    rows = torch.arange(height // 2, device=device, dtype=dtype)
    columns = torch.arange(width // 2, device=device, dtype=dtype)
    zero = torch.zeros(1, device=device, dtype=dtype)
    return torch.cartesian_prod(zero, rows, columns)


@lru_cache(maxsize=32)
def _flux2_ids(count: int, height: int, width: int, device: torch.device) -> Tensor:
    """[B, h w, 4]: 0, row, column, 0."""
    zero = torch.zeros(1, device=device, dtype=torch.long)
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    return torch.cartesian_prod(zero, rows, columns, zero).expand(count, -1, -1)


@lru_cache(maxsize=32)
def _flux2_text_ids(count: int, length: int, device: torch.device) -> Tensor:
    """[B, L, 4]: 0, 0, 0, place."""
    zero = torch.zeros(1, device=device, dtype=torch.long)
    places = torch.arange(length, device=device)
    return torch.cartesian_prod(zero, zero, zero, places).expand(count, -1, -1)


@lru_cache(maxsize=32)
def _size_ids(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[6]: original size, corner and target size; made once, because sending numbers to a GPU waits for it."""
    return torch.tensor([size, size, 0, 0, size, size], device=device, dtype=dtype)


def _positions(row: PipelineRow, z: Tensor, length: int) -> dict[str, Any]:
    count, _, height, width = z.shape
    if row.positions == "flux":
        text = torch.zeros(length, 3, device=z.device, dtype=z.dtype)
        return {"img_ids": _flux_ids(height, width, z.device, z.dtype), "txt_ids": text}
    if row.positions == "flux2":
        return {
            "img_ids": _flux2_ids(count, height, width, z.device),
            "txt_ids": _flux2_text_ids(count, length, z.device),
        }
    if row.positions == "shapes":
        return {"img_shapes": [[(1, height // 2, width // 2)]] * count}
    return {}


def arguments(
    row: PipelineRow,
    config: Any,
    z: Float[Tensor, "B C h w"],
    told: Tensor,
    text: Text,
    guidance_embedding: float,
    size: int,
) -> dict[str, Any]:
    """Keyword arguments of the network.

    Args:
        row: of the pipeline.
        config: the network's configuration.
        z: the noisy latents, in the network's precision.
        told: from `model_time`.
        text: in any precision.
        guidance_embedding: for networks that take their guidance scale as an input.
        size: side of the image in pixels, for SDXL's size ids.
    """
    image, time, words = row.names
    count, dtype = z.shape[0], z.dtype
    tokens: Any = text.tokens.to(dtype)
    if row.layout == "list":
        assert text.mask is not None
        # The network takes a list of prompts of their own lengths; on a GPU this waits for the lengths.
        tokens = [
            row_tokens[:n] for row_tokens, n in zip(tokens, text.mask.sum(1).tolist(), strict=True)
        ]
    given = {image: to_layout(row, z), time: told, words: tokens, "return_dict": False}
    given |= _positions(row, z, text.tokens.shape[1])
    if row.mask:
        given[row.mask] = text.mask
    if row.guidance_argument:
        wanted = bool(config.get("guidance_embeds", False))
        given["guidance"] = (
            torch.full((count,), guidance_embedding, device=z.device) if wanted else None
        )
    pooled = None if text.pooled is None else text.pooled.to(dtype)
    if row.size_ids:
        given["added_cond_kwargs"] = {
            row.pooled: pooled,
            "time_ids": _size_ids(size, z.device, dtype).expand(count, -1),
        }
    elif row.pooled:
        given[row.pooled] = pooled
    if row.added_none:
        given["added_cond_kwargs"] = {"resolution": None, "aspect_ratio": None}
    return given
