"""What a 3D representation must offer so that any guidance can optimise it."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.registry import Registry
from dream3d.rendering import RenderOutput


class Scene(ABC):
    """Parameters that can be rendered. Knows nothing of diffusion."""

    @abstractmethod
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Trainable tensors by name; one optimiser group each. Density control may replace them."""

    @abstractmethod
    def learning_rates(self, progress: float) -> dict[str, float]:
        """Learning rate per parameter name at a fraction of the stage."""

    @abstractmethod
    def render(self, cameras: CameraBatch) -> RenderOutput:
        """Differentiable images of the scene."""

    @abstractmethod
    def regularisation(self, output: RenderOutput, progress: float) -> dict[str, Float[Tensor, ""]]:
        """Weighted loss terms of this representation for the current render (may be empty)."""

    @abstractmethod
    def density_control(
        self,
        optimizer: torch.optim.Optimizer,
        progress: float,
        step: int,
        generator: torch.Generator,
    ) -> None:
        """After each optimiser step: add, remove or reset elements, keeping the optimiser's state in line."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Every tensor (parameters and statistics) needed to continue bit for bit."""

    @abstractmethod
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned; element counts may differ from the current ones."""


class SceneConfig(ABC):
    """Settings of one representation. Subclasses are frozen dataclasses registered in SCENES."""

    @abstractmethod
    def create(self, generator: torch.Generator, device: torch.device) -> Scene:
        """A freshly initialised scene."""


SCENES: Registry[SceneConfig] = Registry("scene", "dream3d.scenes")
