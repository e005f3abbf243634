"""What a 3D representation must offer so that any guidance can optimise it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.errors import AssetError, CheckpointError, ConfigError, NumericsError
from dream3d.registry import Registry
from dream3d.rendering import RenderOutput, normals_of_depth
from dream3d.scenes.conversions.baked_texture import TexturedMesh
from dream3d.scenes.latent_colors import LatentColors
from dream3d.scenes.surface import ColoredMesh
from renderers.splats_data import SplatData


class Scene(ABC):
    """Parameters that can be rendered. Knows nothing of diffusion.

    Attributes:
        solid: whether there is an object one can walk around; a flat picture has only pictures to give.
        latent_colors: of a scene whose channels are a prior's latents: how they are seen; None where channels are
            colours.
    """

    solid: ClassVar[bool] = True
    latent_colors: LatentColors | None = None

    @abstractmethod
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Trainable tensors by name; one optimiser group each. Density control may replace them."""

    @abstractmethod
    def learning_rates(self, progress: float) -> dict[str, float]:
        """Learning rate per parameter name at a fraction of the stage."""

    @abstractmethod
    def render(self, cameras: CameraBatch) -> RenderOutput:
        """Differentiable images of the scene."""

    def render_latents(self, cameras: CameraBatch) -> RenderOutput:
        """Differentiable renders whose `rgb` holds latent channels, for a scene with `latent_colors`."""
        raise ConfigError(f"a {type(self).__name__.lower()} has no latents; choose scene.latent=0")

    @torch.no_grad()
    def render_normals(self, cameras: CameraBatch) -> RenderOutput:
        """`render` to look at, always with normals: the surface's own where the scene knows it, or its depth's."""
        output = self.render(cameras)
        if output.normal is not None:
            return output
        return replace(output, normal=normals_of_depth(output, cameras))

    @abstractmethod
    def regularisation(self, output: RenderOutput, progress: float) -> dict[str, Float[Tensor, ""]]:
        """Weighted loss terms of this representation for the current render (may be empty)."""

    def density_control(
        self,
        optimizer: torch.optim.Optimizer,
        progress: float,
        step: int,
        generator: torch.Generator,
    ) -> None:
        """After each optimiser step: add, remove or reset elements, keeping the optimiser's state in line.

        Most scenes keep what they are made of.
        """
        del optimizer, progress, step, generator

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


def check_settings(
    config: SceneConfig,
    limits: Mapping[str, tuple[float | int, float | int]],
    choices: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Refuse settings outside of their range, in the same words for every representation.

    Args:
        config: the settings.
        limits: smallest and largest value by name; checked first, in this order.
        choices: what is allowed by name.

    Raises:
        ConfigError: names the setting, its value and what is allowed.
    """
    for name, (low, high) in limits.items():
        value = getattr(config, name)
        if not low <= value <= high:
            raise ConfigError(f"scene.{name} is {value}; choose a value from {low:g} to {high:g}")
    for name, allowed in (choices or {}).items():
        value = getattr(config, name)
        if value not in allowed:
            raise ConfigError(f"scene.{name} is '{value}'; choose one of {', '.join(allowed)}")


def check_finite(parameters: Mapping[str, Tensor], kind: str, rates: str) -> None:
    """Refuse to render a scene that has diverged.

    Raises:
        NumericsError: a parameter holds NaN or infinity; `rates` are the settings to lower.
    """
    for name, value in parameters.items():
        # NaN and infinity survive a sum; an overflowing sum is looked at again.
        if not torch.isfinite(value.detach().sum()) and not torch.isfinite(value).all():
            raise NumericsError(
                f"the {kind}'s {name} is not finite; lower {rates}, or go back to a checkpoint"
            )


def check_state(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    kind: str,
    any_count: bool = False,
    remedy: str = "start a new run",
) -> None:
    """Refuse a checkpoint's tensors that are not of this scene.

    Args:
        state: what the checkpoint holds.
        expected: the scene's own `state`, or tensors of the same names and shapes.
        kind: what the scene is, for the message.
        any_count: the first dimension may differ from the scene's, if it is the same for all (splats come and go).
        remedy: what to do about it, for the message.

    Raises:
        CheckpointError: names or shapes differ.
    """
    if set(state) != set(expected):
        raise CheckpointError(
            f"the checkpoint's {kind} has {', '.join(sorted(state))}; expected {', '.join(sorted(expected))}. It "
            f"belongs to another kind of scene or other settings; {remedy}"
        )
    if any_count and len(counts := {len(value) for value in state.values()}) != 1:
        raise CheckpointError(
            f"the checkpoint's {kind} tensors disagree in number: {sorted(counts)}; use an older checkpoint"
        )
    skip = 1 if any_count else 0
    for name, own in expected.items():
        if state[name].ndim != own.ndim or state[name].shape[skip:] != own.shape[skip:]:
            wanted = [*("N" for _ in range(skip)), *own.shape[skip:]]
            raise CheckpointError(
                f"the checkpoint's {name} has shape {list(state[name].shape)}, expected "
                f"[{', '.join(map(str, wanted))}]; {remedy}"
            )


SCENES: Registry[SceneConfig] = Registry("scene", "dream3d.scenes")
