"""What volume renderers read and give: fields, samples along rays, and the limits of both."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.errors import ConfigError, NumericsError
from dream3d.rendering import RenderOutput

NEAR = 0.05
"""Nothing closer to the camera than this (world units, along the ray) is sampled."""
DEFAULT_STEP = 0.04
"""Length of a ray's intervals in world units: 87 across the diagonal of the cube."""
MOST_SAMPLES = 4096
"""Intervals a ray may have."""
MOST_PIXELS = 2**24
"""Pixels one call may render, over all its views."""
RAYS_AT_ONCE = {"cpu": 4096, "cuda": 65_536}
"""Rays are marched in groups of this many, which bounds the memory of large pictures. On a CPU small groups are also a
fifth faster: what a group leaves between two layers is taken from memory that is there, not from new pages."""

Normals = Literal["none", "analytic", "finite"]
"""How normals are found: not at all; from the density's gradient, through which no loss flows; from differences of the
density, which costs six more evaluations a sample and passes gradients on."""
Shading = Literal["albedo", "lambert", "textureless"]
MOST_FINE = 1024


@runtime_checkable
class VolumeField(Protocol):
    """Density and features as functions of space, on the cube [-1, 1]^3."""

    @property
    def like(self) -> Tensor:
        """Any tensor with the field's dtype and device."""
        ...

    def density(self, points: Float[Tensor, "N 3"], backend: str = "auto") -> Float[Tensor, " N"]:
        """Extinction per world unit, >= 0."""
        ...

    def __call__(
        self, points: Float[Tensor, "N 3"], backend: str = "auto"
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, "N C"]]:
        """Density, and C features that are already activated."""
        ...


@runtime_checkable
class SurfaceField(VolumeField, Protocol):
    """A field whose surface knows where it is: what an interval absorbs follows from its two ends, not its middle."""

    def interval_density(
        self,
        points: Float[Tensor, "N 3"],
        directions: Float[Tensor, "N 3"],
        length: Float[Tensor, " N"],
        backend: str = "auto",
    ) -> Float[Tensor, " N"]:
        """Mean extinction over the intervals of this length along `directions` around `points`."""
        ...


@dataclass(frozen=True)
class Light:
    """How the field's colour is lit at a sample.

    Attributes:
        mode: "albedo" (not at all), "lambert" (colour times light) or "textureless" (light alone, which shows shape).
        ambient: share of the light that comes from everywhere, in [0, 1]; the rest falls with the cosine.
        offset: of a point light from each camera, world units; None puts it at the camera.
    """

    mode: Shading = "albedo"
    ambient: float = 0.3
    offset: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("albedo", "lambert", "textureless") or not 0.0 <= self.ambient <= 1.0:
            raise ConfigError(
                f"light is '{self.mode}' with ambient {self.ambient}; choose albedo, lambert or textureless, and an "
                "ambient share in [0, 1]"
            )


@dataclass(frozen=True)
class RaySamples:
    """N sample points on R rays, ray by ray and nearest first.

    Attributes:
        points: positions in the world.
        t: distance from each ray's origin.
        length: of the interval a sample stands for, in world units.
        ray: which ray a sample belongs to.
        start: ray r owns the samples start[r] to start[r + 1].
    """

    points: Float[Tensor, "N 3"]
    t: Float[Tensor, " N"]
    length: Float[Tensor, " N"]
    ray: Int[Tensor, " N"]
    start: Int[Tensor, " R1"]

    def __len__(self) -> int:
        return self.points.shape[0]


@dataclass(frozen=True)
class VolumeRenderOutput(RenderOutput):
    """A render and what regularisers want to know about it.

    Attributes:
        backward_normals: per pixel, the weighted sum of max(0, normal . ray direction)^2: surface that shows its
            inside to the camera (Verbin et al. 2022, eq. 11). None without normals.
    """

    backward_normals: Float[Tensor, "B H W 1"] | None = None


def check_march(
    origins: Tensor, directions: Tensor, occupied: Tensor | None, step: float, jitter: Tensor
) -> None:
    """Refuse rays and occupancy grids that do not fit together.

    Raises:
        ConfigError: wrong shapes or types, or a step that is not positive or absurdly short.
    """
    rays = origins.shape[0]
    if origins.shape != (rays, 3) or directions.shape != (rays, 3) or jitter.shape != (rays,):
        raise ConfigError(
            f"ray origins {list(origins.shape)}, directions {list(directions.shape)} and jitter "
            f"{list(jitter.shape)} do not fit; expected [R, 3], [R, 3] and [R]"
        )
    _check_alike({"origins": origins, "directions": directions, "jitter": jitter})
    if not math.isfinite(step) or not 2.0 * math.sqrt(3.0) / MOST_SAMPLES <= step <= 2.0:
        raise ConfigError(
            f"step is {step}; choose a length from {2.0 * math.sqrt(3.0) / MOST_SAMPLES:.5f} "
            f"(which makes {MOST_SAMPLES} samples a ray) to 2 world units"
        )
    if occupied is not None and (
        occupied.dtype != torch.bool or occupied.ndim != 3 or len(set(occupied.shape)) != 1
    ):
        raise ConfigError(
            f"the occupancy grid is {occupied.dtype} {list(occupied.shape)}; expected bool [G, G, G]"
        )


def _check_alike(values: dict[str, Tensor]) -> None:
    """Refuse tensors of several dtypes or devices.

    Raises:
        ConfigError: names the first that differs.
    """
    (first, like), *others = values.items()
    for name, value in others:
        if value.dtype != like.dtype or value.device != like.device:
            raise ConfigError(
                f"{name} are {value.dtype} on {value.device}, {first} are {like.dtype} on {like.device}; convert "
                "them to one dtype and device"
            )


def check_composite(density: Tensor, features: Tensor, length: Tensor, start: Tensor) -> None:
    """Refuse values whose shapes disagree or that are not finite.

    Raises:
        ConfigError: wrong shapes.
        NumericsError: NaN or infinity.
    """
    n = density.shape[0]
    if (
        density.shape != (n,)
        or features.shape[:1] != (n,)
        or features.ndim != 2
        or length.shape != (n,)
        or start.ndim != 1
        or int(start[-1]) != n
    ):
        raise ConfigError(
            f"density {list(density.shape)}, features {list(features.shape)}, lengths {list(length.shape)} and ray "
            f"starts {list(start.shape)} do not fit; expected [N], [N, C], [N] and [R + 1] ending with N"
        )
    _check_alike({"density": density, "features": features, "lengths": length})
    for name, value in (("density", density), ("features", features)):
        # NaN and infinity survive a sum, which is cheaper than looking at every value.
        if not torch.isfinite(value.detach().sum()) and not torch.isfinite(value).all():
            bad = int((~torch.isfinite(value.detach().reshape(n, -1))).any(dim=1).sum())
            raise NumericsError(
                f"the field's {name} is not finite at {bad} of {n} samples: its parameters hold NaN or infinity; "
                "lower the learning rates or go back to a checkpoint"
            )


def check_views(cameras: CameraBatch) -> None:
    """Refuse pictures nobody can mean.

    Raises:
        ConfigError: too many pixels.
    """
    pixels = len(cameras) * cameras.height * cameras.width
    if pixels > MOST_PIXELS:
        raise ConfigError(
            f"{len(cameras)} views of {cameras.width} x {cameras.height} are {pixels} pixels; render at most "
            f"{MOST_PIXELS} in one call, in fewer or smaller views"
        )


def full_occupancy(device: torch.device) -> Bool[Tensor, "1 1 1"]:
    """The grid of one cell that leaves nothing out."""
    return torch.ones(1, 1, 1, dtype=torch.bool, device=device)
