"""The truth a prompt allows: not one object but a family, of which the member nearest to an asset is taken.

The world jitters proportions, and a prompt may leave a colour open. An asset is therefore compared with the best of a
few members, chosen by overlap of outlines alone.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.evaluation.acceptance import IN_VIEW
from dream3d.evaluation.examples import shows_all
from dream3d.evaluation.geometry import silhouette_iou
from dream3d.rendering import RenderOutput
from dream3d.world.catalog import CATEGORIES
from dream3d.world.grammar import Caption
from dream3d.world.objects import WorldObject, build_object
from dream3d.world.render import WORLD_LIGHT, part_images, trace

VARIANTS = 12
"""Members of the family that are tried."""
YAW_STEP_DEG = 15.0
_FAMILY = 20_000  # keeps these objects apart from those drawn with the same seed elsewhere


@dataclass(frozen=True)
class Truth:
    """One true object, turned about +Y.

    Attributes:
        thing: the object in its canonical pose.
        seed: its jitter.
        yaw_deg: turn applied to it, positive from +Z toward +X; 0 for objects with a front.
    """

    thing: WorldObject
    seed: int
    yaw_deg: float = 0.0

    def shows_all(self, cameras: CameraBatch) -> Bool[Tensor, " B"]:
        """Which views show every object of the caption; one of a pair may hide behind the other."""
        part = part_images(self.thing, _turned_cameras(cameras, -self.yaw_deg))
        return shows_all(self.thing.solid, part, IN_VIEW)

    def render(self, cameras: CameraBatch, samples: int = 3) -> RenderOutput:
        """True images under the world's light, which does not turn with the object.

        Args:
            cameras: made by `orbit_cameras`.
            samples: rays per side of an edge pixel; 1 for exact depth.
        """
        x, y, z = turned(torch.tensor([WORLD_LIGHT.direction]), -self.yaw_deg)[0].tolist()
        traced = trace(
            self.thing.solid,
            _turned_cameras(cameras, -self.yaw_deg),
            replace(WORLD_LIGHT, direction=(x, y, z)),
            samples,
        )
        normal = turned(torch.from_numpy(traced.normal), self.yaw_deg)
        return RenderOutput(
            torch.from_numpy(traced.rgb),
            torch.from_numpy(traced.alpha),
            torch.from_numpy(traced.depth),
            normal,
        )


def turned(points: Float[Tensor, "*S 3"], yaw_deg: float) -> Float[Tensor, "*S 3"]:
    """Points turned about +Y, +Z toward +X for positive angles."""
    sine, cosine = math.sin(math.radians(yaw_deg)), math.cos(math.radians(yaw_deg))
    x, y, z = points.unbind(-1)
    return torch.stack([cosine * x + sine * z, y, cosine * z - sine * x], dim=-1)


def _turned_cameras(cameras: CameraBatch, yaw_deg: float) -> CameraBatch:
    """The same cameras carried around the object by `yaw_deg`."""
    c2w = cameras.c2w.clone()
    c2w[:, :3] = turned(c2w[:, :3].transpose(1, 2), yaw_deg).transpose(1, 2)
    return replace(cameras, c2w=c2w, azimuth_deg=cameras.azimuth_deg + yaw_deg)


def yaws_to_try(caption: Caption) -> list[float]:
    """Turns under which the object is still what the prompt asked for: any, where nothing has a front.

    Turns that only repeat a symmetric object are left out.
    """
    entries = [CATEGORIES[name] for _, name in caption.objects]
    if any(entry.has_front for entry in entries):
        return [0.0]
    turns = [entry.yaw_turns for entry in entries]
    if len(entries) == 1 and turns[0] == 0:
        return [0.0]
    period = 360.0 / turns[0] if len(entries) == 1 else 360.0
    return [YAW_STEP_DEG * i for i in range(max(1, round(period / YAW_STEP_DEG)))]


def best_truth(
    caption: Caption,
    alpha: Float[Tensor, "B H W 1"],
    cameras: CameraBatch,
    variants: int = VARIANTS,
) -> Truth:
    """The true object nearest to an asset: the best jitter first, then its best turn, by overlap of outlines.

    Args:
        caption: with every colour spelled out, so that the jitter alone is searched.
        alpha: the asset's coverage.
        cameras: it was rendered from; all around, so that a turn shows.
        variants: how many jitters to try.
    """

    def score(truth: Truth) -> float:
        return silhouette_iou(truth.render(cameras, samples=1).alpha, alpha)

    best = max((truth_variant(caption, seed) for seed in range(variants)), key=score)
    turns = [replace(best, yaw_deg=yaw) for yaw in yaws_to_try(caption)]
    return best if len(turns) == 1 else max(turns, key=score)


def truth_variant(caption: Caption, seed: int) -> Truth:
    """The object of a caption with one fixed jitter."""
    return Truth(build_object(caption, np.random.default_rng([seed, _FAMILY])), seed)


def training_cameras(count: int, size: int, seed: int = 0) -> CameraBatch:
    """Views for a direct fit: spread evenly around, elevations -10 to 55, one in eight from overhead."""
    rng = np.random.default_rng([seed, 30_000])
    azimuth = (np.arange(count) * 137.50776405 + rng.uniform(0.0, 360.0)) % 360.0
    elevation = rng.permutation(np.linspace(-10.0, 55.0, count))
    elevation[::8] = rng.uniform(65.0, 90.0, len(elevation[::8]))
    return orbit_cameras(
        torch.from_numpy(azimuth).float(), torch.from_numpy(elevation).float(), size=size
    )
