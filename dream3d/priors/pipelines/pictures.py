"""A user's picture files, and pictures as an image encoder takes them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from dream3d.errors import ModelError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def read_image(file: Path, setting: str) -> Image.Image:
    """A picture file as RGB; what is transparent becomes white.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    if not file.is_file():
        raise ModelError(f"there is no picture {file}; check {setting}")
    try:
        with Image.open(file) as image:
            whole = image.convert("RGBA")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ModelError(f"{file} ({setting}) is not a readable picture: {error}") from error
    return Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")


def image_tensor(image: Image.Image) -> Float[Tensor, "1 3 H W"]:
    """Values in [0, 1]."""
    pixels = torch.from_numpy(np.asarray(image).copy())
    return pixels.permute(2, 0, 1)[None].float() / 255.0


def for_clip(image: Float[Tensor, "B H W 3"], encoder: Any) -> Float[Tensor, "B 3 S S"]:
    """Images in [0, 1] as a CLIP vision encoder takes them."""
    size = int(encoder.config.image_size)
    signal = interpolate(
        image.permute(0, 3, 1, 2), (size, size), mode="bicubic", antialias=True, align_corners=False
    )
    mean, std = (torch.tensor(x, device=image.device)[:, None, None] for x in (CLIP_MEAN, CLIP_STD))
    return ((signal.clamp(0.0, 1.0) - mean) / std).to(next(encoder.parameters()).dtype)
