"""What the scene is seen against. A background that changes with every view cannot be imitated by fog in the scene."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.errors import ConfigError
from dream3d.registry import Registry


class BackgroundSampler(ABC):
    """Draws the backgrounds of one step. Subclasses are frozen dataclasses."""

    @abstractmethod
    def __call__(
        self, views: int, size: int, progress: float, generator: torch.Generator
    ) -> Float[Tensor, "views size size 3"]:
        """sRGB in [0, 1], one image per view."""


BACKGROUND_SAMPLERS: Registry[BackgroundSampler] = Registry(
    "background", "dream3d.background_samplers"
)


def hsv_to_rgb(
    hue: Float[Tensor, " B"], saturation: Float[Tensor, " B"], value: Float[Tensor, " B"]
) -> Float[Tensor, "B 3"]:
    """Hue, saturation and value in [0, 1] to RGB in [0, 1]."""
    offsets = torch.tensor([5.0, 3.0, 1.0])
    k = (offsets + 6.0 * hue[:, None]) % 6.0
    fall = torch.minimum(k, 4.0 - k).clamp(0.0, 1.0)
    return value[:, None] * (1.0 - saturation[:, None] * fall)


@BACKGROUND_SAMPLERS.register("random")
@dataclass(frozen=True)
class RandomBackground(BackgroundSampler):
    """A plain or graded colour per view: greys, hues and linear gradients between two of them.

    Attributes:
        gray_share: chance that a colour is a grey (else a random hue).
        gradient_share: chance that a view blends two colours across the image in a random direction.
        value: range of brightness.
        saturation: range of saturation of hues.
    """

    gray_share: float = 0.3
    gradient_share: float = 0.4
    value: tuple[float, float] = (0.25, 1.0)
    saturation: tuple[float, float] = (0.15, 0.9)

    def __post_init__(self) -> None:
        for name in ("gray_share", "gradient_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(
                    f"background.{name} is {getattr(self, name)}; choose a chance in [0, 1]"
                )
        for name in ("value", "saturation"):
            low, high = getattr(self, name)
            if not 0.0 <= low <= high <= 1.0:
                raise ConfigError(
                    f"background.{name} is {[low, high]}; choose [from, to] inside [0, 1]"
                )

    def _colors(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 3"]:
        hue, saturation, value, gray = torch.rand(4, count, generator=generator)
        saturation = self.saturation[0] + (self.saturation[1] - self.saturation[0]) * saturation
        value = self.value[0] + (self.value[1] - self.value[0]) * value
        return hsv_to_rgb(hue, torch.where(gray < self.gray_share, 0.0, saturation), value)

    def __call__(
        self, views: int, size: int, progress: float, generator: torch.Generator
    ) -> Float[Tensor, "views size size 3"]:
        first = self._colors(views, generator)[:, None, None, :]
        second = self._colors(views, generator)[:, None, None, :]
        angle, graded = torch.rand(2, views, generator=generator)
        axis = torch.linspace(-1.0, 1.0, size)
        x, y = axis[None, None, :], axis[None, :, None]
        angle = 2.0 * math.pi * angle[:, None, None]
        # The projection onto any direction stays inside [-sqrt 2, sqrt 2]; map that to a blend in [0, 1].
        blend = 0.5 + (x * angle.cos() + y * angle.sin()) / (2.0 * math.sqrt(2.0))
        blend = blend * (graded < self.gradient_share)[:, None, None]
        return torch.lerp(first, second, blend[..., None])


@BACKGROUND_SAMPLERS.register("solid")
@dataclass(frozen=True)
class SolidBackground(BackgroundSampler):
    """One colour for every view.

    Attributes:
        color: sRGB in [0, 1]; white unless told otherwise.
    """

    color: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if any(not 0.0 <= c <= 1.0 for c in self.color):
            raise ConfigError(
                f"background.color is {list(self.color)}; choose three numbers in [0, 1]"
            )

    def __call__(
        self, views: int, size: int, progress: float, generator: torch.Generator
    ) -> Float[Tensor, "views size size 3"]:
        return torch.tensor(self.color).expand(views, size, size, 3)
