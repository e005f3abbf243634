"""A user's picture files."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dream3d.errors import ModelError


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
