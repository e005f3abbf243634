"""What a 3D representation must offer so that any guidance can optimise it."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.errors import AssetError, ConfigError
from dream3d.registry import Registry
from dream3d.rendering import RenderOutput
from dream3d.scenes.conversions.baked_texture import TexturedMesh
from dream3d.scenes.surface import ColoredMesh
from renderers.splats_data import SplatData


class Scene(ABC):
    """Parameters that can be rendered. Knows nothing of diffusion.

    Attributes:
        solid: whether there is an object one can walk around; a flat picture has only pictures to give.
    """

    solid: ClassVar[bool] = True

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

    def to_mesh(self, resolution: int = 128, max_faces: int = 20_000) -> ColoredMesh:
        """The scene's surface.

        Args:
            resolution: grid cells per side, where the surface has to be found.
            max_faces: about this many triangles at most.

        Raises:
            AssetError: this kind of scene has no surface, or this one shows none.
        """
        del resolution, max_faces
        kind = type(self).__name__.lower()
        raise AssetError(f"a {kind} has no surface; generate with scene.name=splats, nerf or tets")

    def to_textured_mesh(self) -> TexturedMesh | None:
        """The scene's own mesh with its texture; None where its colours are not a picture on its surface."""
        return None

    def to_splats(self) -> SplatData | None:
        """The scene's own splats; None where it is not made of splats (its mesh can be turned into some)."""
        return None

    def surface_colors(
        self, points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"]
    ) -> Float[Tensor, "N 3"] | None:
        """What colours points of the scene's surface have.

        Args:
            points: on the surface `to_mesh` found.
            normals: unit, pointing outward.

        Returns:
            sRGB in [0, 1], on the CPU and without gradient; None where the mesh's vertices tell all there is to know.
        """
        del points, normals
        return None

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

    def convert(self, previous: Scene, generator: torch.Generator, device: torch.device) -> Scene:
        """The scene that shows what `previous` shows.

        Args:
            previous: of any kind; it is read, not changed.
            generator: for what the conversion leaves open.
            device: of the result.

        Raises:
            ConfigError: this kind of scene cannot be made from another.
            AssetError: `previous` shows no surface.
        """
        name = getattr(type(self), "registered_name", type(self).__name__)
        raise ConfigError(
            f"scene '{name}' cannot be made from the scene of another stage; choose start=fresh, or a scene with a "
            "surface (splats, tets)"
        )

    @classmethod
    def tiny(cls) -> "SceneConfig":
        """The smallest settings that still are this representation, for tests that run over all scenes.

        A render of 16 pixels should take some ten milliseconds; a scene whose defaults are larger overrides this.
        """
        return cls()


SCENES: Registry[SceneConfig] = Registry("scene", "dream3d.scenes")
