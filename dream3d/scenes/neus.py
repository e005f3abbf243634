"""A signed distance as a scene: surfaces that volume rendering sees without bias (NeuS, Wang et al. 2021).

With S(x) = sigmoid(s x), an interval along which the distance goes from f_0 to f_1 absorbs
max((S(f_0) - S(f_1)) / S(f_0), 0) (eq. 13): its optical depth is max(log S(f_0) - log S(f_1), 0). Where f falls along a
ray the depths telescope, so the transmittance is S(f_end) / S(f_begin) whatever the steps, and the weights are largest
where f = 0.
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dream3d.errors import ConfigError
from dream3d.rendering import RenderOutput
from dream3d.scenes.base import SCENES, check_settings
from dream3d.scenes.fields import Encoding, Field, make_head
from dream3d.scenes.nerf import Nerf, NerfConfig, new_seed
from dream3d.scenes.nerf_mesh import FINEST, HOLLOW, colored
from dream3d.scenes.occupancy import POINTS_AT_ONCE, cell_points
from dream3d.scenes.surface import ColoredMesh, closed_surface
from dream3d.schedules import Ramp, constant

PROBE = 0.01
"""Half the distance over which the distance's slope is taken, world units."""


class SdfField(Field):
    """Signed distance and features on [-1, 1]^3, negative inside.

    sdf(p) = |p| - radius + raw_0(p): a sphere to begin with, for the network starts near zero (Atzmon & Lipman 2020 get
    the same start by their choice of weights).

    Args:
        encoding: points and backend to features.
        head: those features to a raw distance and C raw features.
        radius: of the sphere, world units.
        sharpness: s at the start, in 1 / world units; it is optimised along.
        squash: as `Field`.
    """

    def __init__(
        self,
        encoding: nn.Module,
        head: nn.Sequential,
        radius: float,
        sharpness: float,
        squash: bool = True,
    ) -> None:
        super().__init__(encoding, head, squash=squash)
        self.radius = radius
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(sharpness)))

    @property
    def sharpness(self) -> Float[Tensor, ""]:
        """s, the slope of the sigmoid at the surface times four."""
        return self.log_sharpness.exp()

    def _distance(self, raw: Tensor, points: Tensor) -> Tensor:
        # The root is kept off zero: the norm's gradient at the origin is not a number.
        return (points.square().sum(dim=-1) + 1e-12).sqrt() - self.radius + raw

    def sdf(self, points: Float[Tensor, "N 3"], backend: str = "auto") -> Float[Tensor, " N"]:
        """Distance to the surface in world units, negative inside."""
        return self._distance(self.head(self.encoding(points, backend))[:, 0], points)

    def _density(self, raw: Tensor, points: Tensor) -> Tensor:
        # -d log S / dt of a ray that meets the surface head on.
        s = self.sharpness
        return s * torch.sigmoid(-s * self._distance(raw, points))

    def interval_density(
        self,
        points: Float[Tensor, "N 3"],
        directions: Float[Tensor, "N 3"],
        length: Float[Tensor, " N"],
        backend: str = "auto",
    ) -> Float[Tensor, " N"]:
        """Mean extinction over the intervals of this length along `directions` around `points`."""
        half = 0.5 * length[:, None] * directions
        near, far = self.sdf(torch.cat([points - half, points + half]), backend).chunk(2)
        s = self.sharpness
        depth = functional.logsigmoid(s * near) - functional.logsigmoid(s * far)
        return depth.clamp_min(0.0) / length.clamp_min(1e-9)

    def eikonal(self, points: Float[Tensor, "N 3"], backend: str = "auto") -> Float[Tensor, ""]:
        """Mean squared deviation of the slope from one (Gropp et al. 2020), by differences."""
        offsets = PROBE * torch.eye(3).to(points)
        around = torch.cat([points + o for o in (*offsets, *-offsets)])
        ahead, behind = self.sdf(around, backend).reshape(2, 3, -1)
        slope = (ahead - behind) / (2.0 * PROBE)
        return ((slope.square().sum(dim=0) + 1e-12).sqrt() - 1.0).square().mean()


@SCENES.register("neus")
@dataclass(frozen=True)
class NeusConfig(NerfConfig):
    """A signed distance function with colours, rendered like a field; blob and density settings have no effect.

    Attributes:
        sdf_radius: of the sphere it starts as, world units.
        sharpness: how abrupt the surface is at the start, 1 / world units: the fog around it is a few times
            1 / sharpness deep. It is optimised along.
        lr_sharpness: Adam's learning rate of its logarithm.
        weight_eikonal: penalty that keeps the function a distance.
        eikonal_points: points a step at which that is looked at.
    """

    sdf_radius: float = 0.5
    sharpness: float = 20.0
    lr_sharpness: Ramp = dataclasses.field(default_factory=lambda: constant(0.005))
    weight_eikonal: float = 0.1
    eikonal_points: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        limits = {
            "sdf_radius": (0.01, 1.7),
            "sharpness": (1.0, 10_000.0),
            "weight_eikonal": (0.0, 1e6),
            "eikonal_points": (1, 1_000_000),
        }
        check_settings(self, limits)

    @classmethod
    def tiny(cls) -> "NeusConfig":
        return cls(
            levels=4,
            resolution=32,
            table_log2=10,
            hidden=8,
            sdf_radius=0.9,
            step=0.1,
            occupancy_cells=8,
        )

    def create_field(self, generator: torch.Generator) -> SdfField:
        """A sphere of grey, or of `latent` channels."""
        encoding: Encoding = self.create_encoding(generator)
        head = make_head(
            encoding.width, self.hidden, self.layers, 1 + (self.latent or 3), generator
        )
        return SdfField(encoding, head, self.sdf_radius, self.sharpness, squash=not self.latent)

    def create(self, generator: torch.Generator, device: torch.device) -> "Neus":
        """A grey sphere."""
        made, sky = self.create_parts(generator, device)
        assert isinstance(made, SdfField)
        return Neus(self, made, new_seed(generator), sky)


class Neus(Nerf):
    """An optimisable signed distance; everything else as `Nerf`."""

    config: NeusConfig
    field: SdfField

    def learning_rates(self, progress: float) -> dict[str, float]:
        rates = super().learning_rates(progress)
        return {**rates, "log_sharpness": self.config.lr_sharpness(progress)}

    def regularisation(self, output: RenderOutput, progress: float) -> dict[str, Float[Tensor, ""]]:
        terms = super().regularisation(output, progress)
        c = self.config
        if c.weight_eikonal > 0:
            generator = torch.Generator().manual_seed(int(self._seed) + 2)
            points = 2.0 * torch.rand(c.eikonal_points, 3, generator=generator) - 1.0
            deviation = self.field.eikonal(points.to(self.field.like), c.backend)
            terms["eikonal"] = c.weight_eikonal * deviation
        return terms

    def to_mesh(self, resolution: int = 128, max_faces: int = 20_000) -> ColoredMesh:
        """The zero level set as a closed mesh with vertex colours.

        Raises:
            ConfigError: absurd resolution.
            AssetError: there is no surface inside the cube.
        """
        if not 8 <= resolution <= FINEST:
            raise ConfigError(f"mesh resolution is {resolution}; choose a value from 8 to {FINEST}")
        c, points = self.config, cell_points(resolution, self.field.like)
        with torch.no_grad():
            parts = [self.field.sdf(some, c.backend) for some in points.split(POINTS_AT_ONCE)]
        grid = torch.cat(parts).reshape(resolution, resolution, resolution).double().cpu().numpy()
        mesh = closed_surface(grid, 1.0, max_faces, HOLLOW)
        return colored(self.painted, mesh, c.step, c.backend)
