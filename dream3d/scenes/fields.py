"""Fields: density and colour as functions of space, by an encoding of the point and a small network.

    raw = head(encoding(p));   density = activation(raw_0 + blob(p));   features = sigmoid(raw_1..C)

Encodings differ in speed and in what they can hold; see docs/representations.md.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dream3d.errors import ConfigError
from renderers.hash_grid import HashGridLayout, encode

DensityActivation = Literal["exp", "softplus"]
LARGEST_RAW = 10.0
"""Raw density is cut off here before the exponential: e^10 is opaque within a thousandth of the cube."""


class _TruncatedExp(torch.autograd.Function):
    """exp(min(x, LARGEST_RAW)), whose gradient beyond the cut is that at the cut.

    A cut-off that also stops the gradient would hold whatever once passed it; this one lets it come back.
    """

    @staticmethod
    def forward(ctx, x):
        y = x.clamp(max=LARGEST_RAW).exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        (y,) = ctx.saved_tensors
        return grad * y


def truncated_exp(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """exp, bounded by e^10 (Mueller et al. 2022 use exp for density); its gradient is its value everywhere."""
    return _TruncatedExp.apply(x)


@dataclass(frozen=True)
class Blob:
    """What a field starts from: added to the raw density, scale * (1 - |p| / radius) + offset.

    Attributes:
        scale: height in the middle above that at `radius`, in raw units; with "exp" density falls by e^scale on the
            way. 0 is no blob.
        radius: distance at which only the offset is left, world units, > 0.
        offset: raw density at `radius`.
    """

    scale: float = 2.5
    radius: float = 0.5
    offset: float = 0.0

    def __call__(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        # The root is kept off zero: the norm's gradient at the origin is not a number.
        distance = (points.square().sum(dim=-1) + 1e-12).sqrt()
        return self.scale * (1.0 - distance / self.radius) + self.offset


class HashEncoding(nn.Module):
    """Rows of one table at every level of a hash grid; one level that fits its table is a dense grid.

    Args:
        layout: of the table.
        spread: initial values are uniform in [-spread, spread].
        generator: draws them.
    """

    def __init__(self, layout: HashGridLayout, spread: float, generator: torch.Generator) -> None:
        super().__init__()
        self.layout, self.width = layout, layout.width
        rows = torch.rand(layout.offsets[-1], layout.features, generator=generator)
        self.table = nn.Parameter(spread * (2.0 * rows - 1.0))

    def forward(self, points: Tensor, backend: str) -> Tensor:
        return encode(points, self.table, self.layout, backend)


class PlaneEncoding(nn.Module):
    """Three planes, each times the line along the axis it lacks (VM decomposition, Chen et al. 2022, eq. 3).

    Args:
        resolution: vertices per side.
        features: per plane; all three planes' lie side by side.
        generator: draws the initial values.
    """

    def __init__(self, resolution: int, features: int, generator: torch.Generator) -> None:
        super().__init__()
        self.width = 3 * features
        shape = (3, features, resolution)
        self.plane = nn.Parameter(0.3 * torch.randn(*shape, resolution, generator=generator))
        self.line = nn.Parameter(0.3 * torch.randn(*shape, 1, generator=generator))

    def forward(self, points: Tensor, backend: str) -> Tensor:
        flat = torch.stack([points[:, [1, 2]], points[:, [0, 2]], points[:, [0, 1]]])[:, None]
        along = torch.stack([torch.zeros_like(points.T), points.T], dim=-1)[:, None]
        how: dict[str, Any] = {"align_corners": True, "padding_mode": "border"}
        plane = functional.grid_sample(self.plane, flat, **how)
        line = functional.grid_sample(self.line, along, **how)
        return (plane * line)[:, :, 0].permute(2, 0, 1).reshape(len(points), self.width)


class FrequencyEncoding(nn.Module):
    """The point, and sines and cosines of its coordinates at octaves of pi (Mildenhall et al. 2020, eq. 4).

    Args:
        octaves: the finest wave has length 2^(2 - octaves).
    """

    def __init__(self, octaves: int) -> None:
        super().__init__()
        self.width = 3 + 6 * octaves
        self.register_buffer("waves", math.pi * 2.0 ** torch.arange(octaves), persistent=False)

    def forward(self, points: Tensor, backend: str) -> Tensor:
        angle = (points[:, None] * self.get_buffer("waves")[:, None]).flatten(1)
        return torch.cat([points, angle.sin(), angle.cos()], dim=1)


Encoding = HashEncoding | PlaneEncoding | FrequencyEncoding


def make_head(
    width: int, hidden: int, layers: int, out: int, generator: torch.Generator
) -> nn.Sequential:
    """A ReLU network with `layers` hidden layers; the last starts small, so that the blob decides the start."""
    modules: list[nn.Module] = []
    for index in range(layers + 1):
        last = index == layers
        # Made without values, or torch's global generator would be drawn from.
        linear = nn.Linear(width, out if last else hidden, device="meta").to_empty(device="cpu")
        bound = (0.1 if last else 1.0) * math.sqrt(6.0 / width)
        with torch.no_grad():
            linear.weight.uniform_(-bound, bound, generator=generator)
            linear.bias.zero_()
        modules += [linear] if last else [linear, nn.ReLU()]
        width = hidden
    return nn.Sequential(*modules)


class Field(nn.Module):
    """Density and features on [-1, 1]^3.

    Args:
        encoding: points and backend to features.
        head: those features to raw density and C raw features.
        activation: of the density: "exp" (truncated) or "softplus".
        blob: added to the raw density.
        squash: features are a sigmoid's, hence colours in (0, 1); without it they are the network's own (latents).
    """

    def __init__(
        self,
        encoding: nn.Module,
        head: nn.Sequential,
        activation: DensityActivation = "exp",
        blob: Blob = Blob(),
        squash: bool = True,
    ) -> None:
        super().__init__()
        self.encoding, self.head = encoding, head
        self.blob, self.squash = blob, squash
        if activation not in ("exp", "softplus"):
            raise ConfigError(f"density activation is '{activation}'; choose exp or softplus")
        self.activation = activation

    @property
    def like(self) -> Tensor:
        """A tensor with the field's dtype and device."""
        return next(self.head.parameters())

    def _density(self, raw: Tensor, points: Tensor) -> Tensor:
        raw = raw + self.blob(points)
        return truncated_exp(raw) if self.activation == "exp" else functional.softplus(raw)

    def density(self, points: Float[Tensor, "N 3"], backend: str = "auto") -> Float[Tensor, " N"]:
        """Extinction per world unit, >= 0."""
        return self._density(self.head(self.encoding(points, backend))[:, 0], points)

    def forward(
        self, points: Float[Tensor, "N 3"], backend: str = "auto"
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, "N C"]]:
        """Density, and features after their activation."""
        raw = self.head(self.encoding(points, backend))
        features = raw[:, 1:].sigmoid() if self.squash else raw[:, 1:]
        return self._density(raw[:, 0], points), features
