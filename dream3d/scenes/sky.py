"""What a scene is seen against, where that is learned too: a colour for every direction (Poole et al. 2022)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dream3d.cameras import CameraBatch
from dream3d.scenes.fields import FrequencyEncoding, make_head

OCTAVES = 2
"""Few: a sky that could hold detail would paint the object onto itself."""


class Sky(nn.Module):
    """A small network from direction to colour.

    Args:
        hidden: width of its hidden layer.
        generator: draws the initial values.
    """

    def __init__(self, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.encoding = FrequencyEncoding(OCTAVES)
        self.head = make_head(self.encoding.width, hidden, 1, 3, generator)

    def forward(self, cameras: CameraBatch) -> Float[Tensor, "B H W 3"]:
        """Colours in (0, 1) behind every pixel; cameras get no gradient."""
        like = next(self.head.parameters())
        _, directions = cameras.to(like.device, like.dtype).rays()
        flat = directions.reshape(-1, 3)
        return self.head(self.encoding(flat, "auto")).sigmoid().reshape(*directions.shape[:3], 3)
