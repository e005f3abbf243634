"""What the scene is seen against. A background that changes with every view cannot be imitated by fog in the scene."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.errors import ConfigError
from dream3d.registry import Registry
from dream3d.transfer import sent
from dream3d.world.backgrounds import random_backgrounds

HOST = torch.device("cpu")


class BackgroundSampler(ABC):
    """Draws the backgrounds of one step. Subclasses are frozen dataclasses."""

    @abstractmethod
    def __call__(
        self,
        views: int,
        size: int,
        progress: float,
        generator: torch.Generator,
        device: torch.device = HOST,
    ) -> Float[Tensor, "views size size 3"]:
        """sRGB in [0, 1], one image per view, on `device`; drawn with `generator` on the host."""


BACKGROUND_SAMPLERS: Registry[BackgroundSampler] = Registry(
    "background", "dream3d.background_samplers"
)


@BACKGROUND_SAMPLERS.register("random")
@dataclass(frozen=True)
class RandomBackground(BackgroundSampler):
    """A grey, a hue or a gradient per view: the law the embedded prior's training images are drawn by."""

    def __call__(
        self,
        views: int,
        size: int,
        progress: float,
        generator: torch.Generator,
        device: torch.device = HOST,
    ) -> Float[Tensor, "views size size 3"]:
        return random_backgrounds(views, size, generator, device)


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
        self,
        views: int,
        size: int,
        progress: float,
        generator: torch.Generator,
        device: torch.device = HOST,
    ) -> Float[Tensor, "views size size 3"]:
        return sent(torch.tensor(self.color), device).expand(views, size, size, 3)
