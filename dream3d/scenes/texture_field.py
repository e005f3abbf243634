"""A texture field: colour as a function of space, looked up where a surface is.

color = sigmoid(network(encoding(p)))
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dream3d.scenes.fields import HashEncoding, make_head
from renderers.hash_grid import geometric_layout


class TextureField(nn.Module):
    """Colours in (0, 1) on [-1, 1]^3; outside, those of the nearest point of the cube.

    Args:
        encoding: points and backend to features.
        head: those features to raw colours.
    """

    def __init__(self, encoding: nn.Module, head: nn.Sequential) -> None:
        super().__init__()
        self.encoding, self.head = encoding, head

    @property
    def like(self) -> Tensor:
        """A tensor with the field's dtype and device."""
        return next(self.head.parameters())

    def forward(self, points: Float[Tensor, "N 3"], backend: str = "auto") -> Float[Tensor, "N 3"]:
        """Colours at points; nothing passes back to the points."""
        return self.head(self.encoding(points.detach().clamp(-1.0, 1.0), backend)).sigmoid()


def make_texture_field(
    levels: int,
    coarsest: int,
    resolution: int,
    table_log2: int,
    features: int,
    hidden: int,
    generator: torch.Generator,
) -> TextureField:
    """A grey texture: a hash grid (see `geometric_layout`) and a network with one hidden layer."""
    layout = geometric_layout(levels, coarsest, resolution, table_log2, features)
    encoding = HashEncoding(layout, 1e-2, generator)
    return TextureField(encoding, make_head(encoding.width, hidden, 1, 3, generator))
