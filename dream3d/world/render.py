"""Images of the procedural world on the CPU: colour, coverage, depth, normals and which part is seen."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.rendering import RenderOutput
from dream3d.world.solid import Solid
from dream3d.world.tracer import part_table, trace_images

EDGE_SAMPLES = 3


@dataclass(frozen=True)
class Light:
    """A soft light fixed in the world: shade = ambient + key * (1 + n.l) / 2, never below `ambient`.

    Attributes:
        direction: toward the light, any length; the default is above, in front, to the +X side.
        ambient, key: factors of the part's colour; their sum is the brightest shade, at most 1.
    """

    direction: tuple[float, float, float] = (0.45, 0.75, 0.5)
    ambient: float = 0.64
    key: float = 0.36


# White in the shade (0.61) must stay brighter than gray in the light (0.55).
WORLD_LIGHT = Light()
UNLIT = Light(ambient=1.0, key=0.0)


class HasSolid(Protocol):
    """Anything that carries packed geometry, such as a `WorldObject`."""

    @property
    def solid(self) -> Solid: ...


def solid_of(thing: Solid | HasSolid) -> Solid:
    """The packed geometry itself."""
    return thing if isinstance(thing, Solid) else thing.solid


@dataclass(frozen=True)
class Trace:
    """What B cameras see, as numpy arrays; conventions as in `RenderOutput`.

    `part` is what the pixel's centre shows: an index into the solid's parts, -1 where there is none.
    """

    rgb: Float[np.ndarray, "B H W 3"]
    alpha: Float[np.ndarray, "B H W 1"]
    depth: Float[np.ndarray, "B H W 1"]
    normal: Float[np.ndarray, "B H W 3"]
    part: Int[np.ndarray, "B H W"]


def trace(
    solid: Solid, cameras: CameraBatch, light: Light = WORLD_LIGHT, samples: int = EDGE_SAMPLES
) -> Trace:
    """Traces one solid through B cameras that stand outside it.

    Args:
        solid: the parts.
        cameras: intrinsics without skew.
        light: shading; `UNLIT` gives plain colours.
        samples: pixels on edges get samples x samples rays; 1 turns anti-aliasing off.
    """
    shape = (len(cameras), cameras.height, cameras.width)
    direction = np.array(light.direction) / np.linalg.norm(light.direction)
    result = Trace(
        rgb=np.zeros((*shape, 3), dtype=np.float32),
        alpha=np.zeros((*shape, 1), dtype=np.float32),
        depth=np.zeros((*shape, 1), dtype=np.float32),
        normal=np.zeros((*shape, 3), dtype=np.float32),
        part=np.full(shape, -1, dtype=np.int16),
    )
    trace_images(
        part_table(solid),
        np.ascontiguousarray(cameras.c2w.cpu().numpy(), dtype=np.float64),
        np.ascontiguousarray(cameras.K.cpu().numpy(), dtype=np.float64),
        np.array([*direction, light.ambient, light.key]),
        samples,
        result.rgb,
        result.alpha,
        result.depth,
        result.normal,
        result.part,
    )
    return result


def render_object(
    thing: Solid | HasSolid,
    cameras: CameraBatch,
    lit: bool = True,
    background: Float[Tensor, "*#B #H #W 3"] | None = None,
    antialias: bool = True,
) -> RenderOutput:
    """True images of an object, on the CPU.

    Args:
        thing: an object of the world or packed parts.
        cameras: outside the object; any device, results are on the CPU.
        lit: under the fixed world light; otherwise plain part colours.
        background: when given, `rgb` is composited over it, and is then no longer premultiplied; `alpha`, `depth` and
            `normal` are those of the object either way.
        antialias: average several rays in pixels on edges.
    """
    light = WORLD_LIGHT if lit else UNLIT
    traced = trace(solid_of(thing), cameras, light, EDGE_SAMPLES if antialias else 1)
    output = RenderOutput(
        rgb=torch.from_numpy(traced.rgb),
        alpha=torch.from_numpy(traced.alpha),
        depth=torch.from_numpy(traced.depth),
        normal=torch.from_numpy(traced.normal),
    )
    if background is None:
        return output
    return RenderOutput(output.over(background), output.alpha, output.depth, output.normal)


def part_images(thing: Solid | HasSolid, cameras: CameraBatch) -> Int[np.ndarray, "B H W"]:
    """Which part every pixel's centre shows; -1 for none."""
    return trace(solid_of(thing), cameras, UNLIT, samples=1).part


def marker_visibility(thing: Solid | HasSolid, cameras: CameraBatch) -> Float[np.ndarray, " B"]:
    """The share of each image's pixels that show a marker of the front (0 when there is none)."""
    return marker_share(solid_of(thing), part_images(thing, cameras))


def marker_share(solid: Solid, part: Int[np.ndarray, "B H W"]) -> Float[np.ndarray, " B"]:
    """`marker_visibility` from part images that exist already."""
    marker: Bool[np.ndarray, " P1"] = np.append(
        solid.marker, False
    )  # index -1 reads the appended one
    return marker[part].mean(axis=(1, 2))
