"""A flat picture as a scene: every camera sees the same image. The quickest way to watch an algorithm work."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dream3d.cameras import CameraBatch
from dream3d.rendering import RenderOutput
from dream3d.scenes.base import SCENES, Scene, SceneConfig, check_state
from dream3d.schedules import Ramp, constant
from renderers.volume_data import check_views


class Canvas(Scene):
    """An opaque image, stored as logits so that its colours stay in (0, 1).

    Args:
        logits: the picture before the sigmoid.
        lr: learning rate over the stage.
    """

    solid = False

    def __init__(self, logits: Float[Tensor, "1 3 S S"], lr: Ramp) -> None:
        self._pixels = torch.nn.Parameter(logits)
        self._lr = lr

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        return {"pixels": self._pixels}

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {"pixels": self._lr(progress)}

    def render(self, cameras: CameraBatch) -> RenderOutput:
        check_views(cameras)
        size = (cameras.height, cameras.width)
        image = self._pixels.sigmoid()
        if image.shape[2:] != size:
            image = functional.interpolate(image, size, mode="bilinear", antialias=True)
        rgb = image.permute(0, 2, 3, 1).expand(len(cameras), -1, -1, -1)
        alpha = torch.ones_like(rgb[..., :1])
        depth = cameras.distance.to(rgb).reshape(-1, 1, 1, 1).expand_as(alpha)
        return RenderOutput(rgb, alpha, depth)

    def regularisation(self, output: RenderOutput, progress: float) -> dict[str, Float[Tensor, ""]]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return {"pixels": self._pixels.detach().clone()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        check_state(state, self.parameters(), "canvas")
        with torch.no_grad():
            self._pixels.copy_(state["pixels"])


@SCENES.register("canvas")
@dataclass(frozen=True)
class CanvasConfig(SceneConfig):
    """A square picture.

    Attributes:
        size: side in pixels.
        contrast: standard deviation of the initial logits around mid-grey.
        lr: Adam's learning rate.
    """

    size: int = 32
    contrast: float = 0.1
    lr: Ramp = field(default_factory=lambda: constant(0.05))

    @classmethod
    def tiny(cls) -> "CanvasConfig":
        return cls(size=16)

    def create(self, generator: torch.Generator, device: torch.device) -> Canvas:
        noise = torch.randn(1, 3, self.size, self.size, generator=generator)
        return Canvas((self.contrast * noise).to(device), self.lr)
