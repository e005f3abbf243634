"""A radiance field as a scene: density and colour everywhere in the cube, rendered by ray marching."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.errors import ConfigError
from dream3d.rendering import RenderOutput
from dream3d.scenes.base import (
    SCENES,
    Scene,
    SceneConfig,
    check_finite,
    check_settings,
    check_state,
)
from dream3d.scenes.fields import (
    Blob,
    DensityActivation,
    Encoding,
    Field,
    FrequencyEncoding,
    HashEncoding,
    PlaneEncoding,
    make_head,
)
from dream3d.scenes.latent_colors import LatentColors, PaintedField
from dream3d.scenes.nerf_mesh import surface_colors, to_mesh
from dream3d.scenes.occupancy import measure_occupancy, occupied_cells
from dream3d.scenes.sky import Sky
from dream3d.scenes.surface import ColoredMesh
from dream3d.schedules import Ramp
from renderers.hash_grid import HashGridLayout, geometric_layout
from renderers.volume import render_volume
from renderers.volume_data import Light, Normals, Shading, VolumeField, VolumeRenderOutput

CHOICES = {
    "field": ("hash", "dense", "planes", "frequency"),
    "density_activation": ("exp", "softplus"),
    "normals": ("none", "analytic", "finite"),
    "shading": ("albedo", "lambert", "textureless", "mixed"),
    "background": ("transparent", "learned"),
}
MIXED: tuple[Shading, ...] = ("albedo", "albedo", "lambert", "textureless")
"""What shading "mixed" draws from, evenly."""


@SCENES.register("nerf")
@dataclass(frozen=True)
class NerfConfig(SceneConfig):
    """A radiance field: density and colour by an encoding and a small network.

    Attributes:
        field: "hash" (multiresolution hash grid), "dense" (voxel grid), "planes" (three planes times three lines) or
            "frequency" (sines and cosines into a deeper network, no grid).
        levels: "hash": resolutions, from `coarsest` to `resolution`.
        coarsest: "hash": cells per side of the first level.
        resolution: cells per side of the finest level, of the dense grid, of the planes.
        table_log2: "hash": a level has at most 2^table_log2 rows.
        features: numbers per row, voxel or plane.
        octaves: "frequency": how many.
        hidden, layers: width and number of the network's hidden layers.
        density_activation: "exp" (bounded by e^10) or "softplus".
        blob_scale, blob_radius, blob_offset: the ball a field starts from: blob_scale * (1 - |p| / blob_radius) +
            blob_offset is added to the raw density. A negative scale is the inverse, for scenes seen from inside: empty
            in the middle, dense toward the walls.
        step: distance of samples along a ray, world units.
        fine: samples a ray that are put where those of `step` found something, and rendered instead of them; 0 is off.
        shading: how colours are lit while optimising: "albedo" (not), "lambert", "textureless" (light alone) or
            "mixed", which draws one of them each step, albedo twice as often; all but "albedo" need normals.
        ambient: share of the light that comes from everywhere.
        light_spread: how far from the camera the lamp is, at random each step, world units.
        background: "transparent", so that the stage's background shows, or "learned", a colour for every direction
            that is optimised along and left out of the result.
        occupancy_cells: cells per side of the grid by which rays skip empty space.
        occupancy_every: steps between two updates of it.
        occupancy_decay: how much of a cell's largest known density is remembered at an update.
        occupancy_alpha: cells in which one step of a ray covers less than this are skipped, unless they touch others.
        lr_grid: Adam's learning rate of grids and planes over the stage.
        lr_net: that of the network.
        weight_entropy: penalty on the binary entropy of the rendered alpha over the stage, which makes pixels decide.
        weight_sparsity: penalty on the mean rendered alpha, which removes haze.
        weight_orientation: penalty on surface that faces away from the camera; needs normals "finite".
        latent: 0 makes a field of colours. Otherwise it holds that many channels of the prior's latents, which are
            rendered straight into them, without encoding (Latent-NeRF); colours are then a linear approximation.
        normals: "none", "analytic" (to look at) or "finite" (differentiable, seven times the evaluations).
        backend: renderer backend: "auto", "numba", "torch".
    """

    field: Literal["hash", "dense", "planes", "frequency"] = "hash"
    levels: int = 8
    coarsest: int = 8
    resolution: int = 128
    table_log2: int = 15
    features: int = 2
    octaves: int = 6
    hidden: int = 32
    layers: int = 1
    density_activation: DensityActivation = "exp"
    blob_scale: float = 2.5
    blob_radius: float = 0.5
    blob_offset: float = 0.0
    step: float = 0.04
    fine: int = 0
    shading: Literal["albedo", "lambert", "textureless", "mixed"] = "albedo"
    ambient: float = 0.3
    light_spread: float = 1.0
    background: Literal["transparent", "learned"] = "transparent"
    occupancy_cells: int = 32
    occupancy_every: int = 8
    occupancy_decay: float = 0.8
    occupancy_alpha: float = 0.01
    lr_grid: Ramp = dataclasses.field(default_factory=lambda: Ramp(0.02, 0.005))
    lr_net: Ramp = dataclasses.field(default_factory=lambda: Ramp(0.005, 0.001))
    weight_entropy: Ramp = dataclasses.field(default_factory=Ramp)
    weight_sparsity: float = 0.0
    weight_orientation: float = 0.0
    latent: int = 0
    normals: Normals = "none"
    backend: str = "auto"

    def __post_init__(self) -> None:
        limits = {
            "levels": (1, 32),
            "coarsest": (1, self.resolution),
            "resolution": (2, 256 if self.field == "dense" else 2048),
            "table_log2": (8, 24),
            "features": (1, 64),
            "octaves": (1, 16),
            "hidden": (1, 1024),
            "layers": (0, 16),
            "blob_radius": (1e-3, 100.0),
            "step": (1e-3, 1.0),
            "fine": (0, 1024),
            "ambient": (0.0, 1.0),
            "light_spread": (0.0, 10.0),
            "occupancy_cells": (4, 256),
            "occupancy_every": (1, 1_000_000),
            "occupancy_decay": (0.0, 1.0),
            "occupancy_alpha": (0.0, 1.0),
            "latent": (0, 1024),
        }
        check_settings(self, limits, CHOICES)
        if self.shading != "albedo" and self.normals == "none":
            raise ConfigError(
                f"scene.shading is '{self.shading}', but scene.normals is 'none'; choose normals=analytic or finite"
            )
        if self.latent and (self.shading, self.background) != ("albedo", "transparent"):
            raise ConfigError(
                f"scene.latent is {self.latent}, but light and a learned background are of colours: scene.shading is "
                f"'{self.shading}' and scene.background is '{self.background}'; choose albedo and transparent"
            )
        if self.weight_orientation > 0.0 and self.normals != "finite":
            raise ConfigError(
                f"scene.weight_orientation is {self.weight_orientation}, but scene.normals is '{self.normals}'; "
                "choose normals=finite, which passes gradients on"
            )

    @classmethod
    def tiny(cls) -> "NerfConfig":
        return cls(
            levels=4,
            resolution=32,
            table_log2=10,
            hidden=8,
            blob_scale=8.0,
            blob_radius=0.7,
            step=0.1,
            occupancy_cells=8,
        )

    def create_encoding(self, generator: torch.Generator) -> Encoding:
        """A freshly initialised encoding."""
        if self.field == "hash":
            layout = geometric_layout(
                self.levels, self.coarsest, self.resolution, self.table_log2, self.features
            )
            return HashEncoding(layout, 1e-2, generator)
        if self.field == "dense":
            layout = HashGridLayout((self.resolution,), 24, self.features)
            return HashEncoding(layout, 0.1, generator)
        if self.field == "planes":
            return PlaneEncoding(self.resolution, self.features, generator)
        return FrequencyEncoding(self.octaves)

    def create_field(self, generator: torch.Generator) -> Field:
        """A freshly initialised field of three colours, or of `latent` channels."""
        encoding = self.create_encoding(generator)
        head = make_head(
            encoding.width, self.hidden, self.layers, 1 + (self.latent or 3), generator
        )
        blob = Blob(self.blob_scale, self.blob_radius, self.blob_offset)
        return Field(encoding, head, self.density_activation, blob, squash=not self.latent)

    def create(self, generator: torch.Generator, device: torch.device) -> "Nerf":
        """A grey blob."""
        made, sky = self.create_parts(generator, device)
        return Nerf(self, made, new_seed(generator), sky)

    def create_parts(
        self, generator: torch.Generator, device: torch.device
    ) -> tuple[Field, Sky | None]:
        """The field, and the sky where one is learned."""
        made = self.create_field(generator).to(device)
        learned = self.background == "learned"
        return made, Sky(self.hidden, generator).to(device) if learned else None


@dataclass(frozen=True)
class OutdoorRenderOutput(VolumeRenderOutput):
    """A render with a sky of its own behind it.

    Attributes:
        sky: what every pixel sees behind the object.
    """

    sky: Float[Tensor, "B H W C"] | None = None

    def over(self, background: Float[Tensor, "*#B #H #W C"]) -> Float[Tensor, "B H W C"]:
        """The image in front of its sky; `background` is hidden by it."""
        assert self.sky is not None
        return self.rgb + (1.0 - self.alpha) * self.sky


def new_seed(generator: torch.Generator) -> Tensor:
    """The seed of a step's randomness."""
    return torch.randint(2**62, (), generator=generator)


class Nerf(Scene):
    """An optimisable radiance field.

    While gradients are recorded, samples are shifted along their rays at random. The shifts follow from a seed that
    every step's `density_control` draws anew from the run's generator and `state` holds: a render is a function of
    the state, and a resumed run repeats an unbroken one. Without gradients samples lie in the middle.

    Args:
        config: settings.
        field: what is rendered.
        seed: of the first step's shifts.
        sky: what is learned to be behind it; seen only while gradients are recorded.
    """

    def __init__(
        self, config: NerfConfig, field: Field, seed: Tensor, sky: Sky | None = None
    ) -> None:
        self.config, self.field, self._seed, self.sky = config, field, seed, sky
        self._density = measure_occupancy(field, config.occupancy_cells, config.backend)
        if config.latent:
            self.latent_colors = LatentColors.unknown(config.latent, field.like.device)

    @property
    def occupied(self) -> Tensor:
        """Which cells [x, y, z] of the cube rays stop in."""
        return occupied_cells(self._density, self.config.step, self.config.occupancy_alpha)

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        found = dict(self.field.named_parameters())
        if self.sky is not None:
            found |= {f"sky.{name}": value for name, value in self.sky.named_parameters()}
        return found

    def learning_rates(self, progress: float) -> dict[str, float]:
        grid, net = self.config.lr_grid(progress), self.config.lr_net(progress)
        return {name: grid if name.startswith("encoding.") else net for name in self.parameters()}

    @property
    def painted(self) -> VolumeField:
        """The field in colours, whatever its channels are."""
        colors = self.latent_colors
        return self.field if colors is None else PaintedField(self.field, colors)

    def render(self, cameras: CameraBatch) -> RenderOutput:
        return self._colored(self._drawn(cameras, self.config.normals))

    @torch.no_grad()
    def render_normals(self, cameras: CameraBatch) -> RenderOutput:
        return self._colored(self._drawn(cameras, "analytic"))

    def render_latents(self, cameras: CameraBatch) -> RenderOutput:
        if self.latent_colors is None:
            return super().render_latents(cameras)
        return self._drawn(cameras, self.config.normals)

    def _colored(self, output: RenderOutput) -> RenderOutput:
        colors = self.latent_colors
        if colors is None:
            return output
        rgb = colors.rgb(output.rgb, output.alpha).clamp_min(0.0)
        return dataclasses.replace(output, rgb=torch.minimum(rgb, output.alpha))

    def _drawn(self, cameras: CameraBatch, normals: Normals) -> RenderOutput:
        c = self.config
        generator, light = None, Light()
        if torch.is_grad_enabled():
            generator = torch.Generator().manual_seed(int(self._seed))
            light = self._light()
        # A field that is broken where no ray looks is broken all the same.
        check_finite(self.parameters(), "field", "scene.lr_grid and scene.lr_net")
        out = render_volume(
            self.field,
            cameras,
            self.occupied,
            c.step,
            generator,
            normals,
            c.backend,
            c.fine,
            light,
        )
        if self.sky is None or not torch.is_grad_enabled():
            return out
        return OutdoorRenderOutput(
            out.rgb, out.alpha, out.depth, out.normal, out.backward_normals, self.sky(cameras)
        )

    def _light(self) -> Light:
        """This step's, which follows from its seed."""
        c = self.config
        if c.shading == "albedo":
            return Light()
        # Not the samples' own seed, or lamps and shifts would be the same numbers.
        generator = torch.Generator().manual_seed(int(self._seed) + 1)
        drawn = MIXED[int(torch.randint(len(MIXED), (), generator=generator))]
        x, y, z = (c.light_spread * torch.randn(3, generator=generator)).tolist()
        return Light(drawn if c.shading == "mixed" else c.shading, c.ambient, (x, y, z))

    def regularisation(self, output: RenderOutput, progress: float) -> dict[str, Float[Tensor, ""]]:
        c = self.config
        terms: dict[str, Float[Tensor, ""]] = {}
        if (weight := c.weight_entropy(progress)) > 0:
            alpha = output.alpha.clamp(1e-3, 1.0 - 1e-3)
            entropy = -(alpha * alpha.log() + (1 - alpha) * (1 - alpha).log())
            terms["entropy"] = weight * entropy.mean()
        if c.weight_sparsity > 0:
            terms["sparsity"] = c.weight_sparsity * output.alpha.mean()
        if c.weight_orientation > 0:
            assert isinstance(output, VolumeRenderOutput) and output.backward_normals is not None
            terms["orientation"] = c.weight_orientation * output.backward_normals.mean()
        return terms

    def density_control(
        self,
        optimizer: torch.optim.Optimizer,
        progress: float,
        step: int,
        generator: torch.Generator,
    ) -> None:
        """Draw the next step's sample shifts; at times, look where the field has become dense or empty."""
        c = self.config
        self._seed = new_seed(generator)
        if (step + 1) % c.occupancy_every == 0:
            now = measure_occupancy(self.field, c.occupancy_cells, c.backend, generator)
            self._density = torch.maximum(c.occupancy_decay * self._density, now)

    def to_mesh(self, resolution: int = 128, max_faces: int = 20_000) -> ColoredMesh:
        """A closed mesh with vertex colours; see `dream3d.scenes.nerf_mesh.to_mesh`."""
        c = self.config
        return to_mesh(
            self.painted, self.occupied, resolution, max_faces, step=c.step, backend=c.backend
        )

    def surface_colors(
        self, points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"]
    ) -> Float[Tensor, "N 3"]:
        return surface_colors(self.painted, points, normals, self.config.step, self.config.backend)

    def state(self) -> dict[str, Tensor]:
        own = {"occupancy": self._density, "seed": self._seed}
        if self.latent_colors is not None:
            own |= vars(self.latent_colors)
        return {
            name: value.detach().clone() for name, value in {**self.parameters(), **own}.items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        check_state(state, self.state(), "field")
        own = self.parameters()
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(state[name])
        self._density = state["occupancy"].to(self._density, copy=True)
        self._seed = state["seed"].clone()
        if self.latent_colors is not None:
            names = vars(self.latent_colors)
            self.latent_colors = LatentColors(
                **{name: state[name].to(self._density, copy=True) for name in names}
            )
