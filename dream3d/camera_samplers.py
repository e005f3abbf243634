"""From where a step looks at the scene, as a pure function of progress and a generator."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.errors import ConfigError
from dream3d.registry import Registry


class CameraSampler(ABC):
    """Draws the cameras of one step. Subclasses are frozen dataclasses."""

    @abstractmethod
    def __call__(
        self, views: int, size: int, progress: float, generator: torch.Generator
    ) -> CameraBatch:
        """`views` cameras with square images of `size` pixels."""


CAMERA_SAMPLERS: Registry[CameraSampler] = Registry("cameras", "dream3d.camera_samplers")


def _between(low: float, high: float, share: Float[Tensor, " count"]) -> Float[Tensor, " count"]:
    return low + (high - low) * share


def _check_range(name: str, values: tuple[float, float], low: float, high: float) -> None:
    if not low <= values[0] <= values[1] <= high:
        raise ConfigError(
            f"cameras.{name} is {list(values)}; choose [from, to] with {low:g} <= from <= to <= {high:g}"
        )


@CAMERA_SAMPLERS.register("orbit")
@dataclass(frozen=True)
class OrbitCameras(CameraSampler):
    """Cameras on a sphere around the object, evenly spread in azimuth from a random start.

    Attributes:
        elevation_deg: range, uniform in angle.
        distance, distance_jitter: mean distance from the origin and its relative deviation (0.05 is +-5 %).
        fovy_deg: vertical field of view.
        spread: evenly spaced azimuths (random start, jittered), else independent ones.
        azimuth_jitter_deg: half-width of the deviation from the even spacing.
        shared_elevation: one elevation and distance for all views of a step, as multi-view priors are trained.
        overhead_share: chance that a view looks from above (`overhead_elevation_deg`) instead. With
            `shared_elevation` the whole step does.
        overhead_elevation_deg: range of those views.
    """

    elevation_deg: tuple[float, float] = (-10.0, 50.0)
    distance: float = 3.2
    distance_jitter: float = 0.05
    fovy_deg: float = 40.0
    spread: bool = True
    azimuth_jitter_deg: float = 15.0
    shared_elevation: bool = False
    overhead_share: float = 0.1
    overhead_elevation_deg: tuple[float, float] = (60.0, 90.0)

    def __post_init__(self) -> None:
        _check_range("elevation_deg", self.elevation_deg, -90.0, 90.0)
        _check_range("overhead_elevation_deg", self.overhead_elevation_deg, -90.0, 90.0)
        for name, low, high in (
            ("distance_jitter", 0.0, 0.5),
            ("overhead_share", 0.0, 1.0),
            ("azimuth_jitter_deg", 0.0, 180.0),
            ("fovy_deg", 1.0, 170.0),
            ("distance", 1.01, 100.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(
                    f"cameras.{name} is {value}; choose a value in [{low:g}, {high:g}]"
                )

    def __call__(
        self, views: int, size: int, progress: float, generator: torch.Generator
    ) -> CameraBatch:
        draws = 1 if self.shared_elevation else views
        sizes = [*([1, views] if self.spread else [views, 0]), draws, draws, draws, draws]
        drawn = torch.rand(sum(sizes), generator=generator).split(sizes)
        turn, jitter, level, top, chance, deviation = drawn
        azimuth = _between(0.0, 360.0, turn)
        if self.spread:
            jitter = self.azimuth_jitter_deg * _between(-1.0, 1.0, jitter)
            azimuth = azimuth + torch.arange(views) * (360.0 / views) + jitter
        elevation = torch.where(
            chance < self.overhead_share,
            _between(*self.overhead_elevation_deg, top),
            _between(*self.elevation_deg, level),
        )
        deviation = 1.0 + self.distance_jitter * _between(-1.0, 1.0, deviation)
        return orbit_cameras(
            azimuth % 360.0,
            elevation.expand(views),
            (self.distance * deviation).expand(views),
            self.fovy_deg,
            size,
        )


@CAMERA_SAMPLERS.register("ring")
@dataclass(frozen=True)
class RingCameras(CameraSampler):
    """The same evenly spaced cameras at every step: azimuth 0 (the front) first. For 2D canvases and for tests.

    Attributes:
        elevation_deg, distance, fovy_deg: of all cameras.
    """

    elevation_deg: float = 0.0
    distance: float = 3.2
    fovy_deg: float = 40.0

    def __call__(
        self, views: int, size: int, progress: float, generator: torch.Generator
    ) -> CameraBatch:
        azimuth = torch.arange(views) * (360.0 / views)
        return orbit_cameras(azimuth, self.elevation_deg, self.distance, self.fovy_deg, size)
