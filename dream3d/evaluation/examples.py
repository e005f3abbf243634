"""Labelled true renders: what the evaluator is trained on and checked with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.evaluation.classifier import (
    AZIMUTH_BINS,
    CATEGORY_NAMES,
    COLOR_NAMES,
    ELEVATIONS,
    NOTHING,
    RELATIONS,
    SIZE,
)
from dream3d.world.catalog import CATEGORIES
from dream3d.world.dataset import MARKER_SEEN
from dream3d.world.grammar import STACKABLE, SUPPORTS, Caption, Thing
from dream3d.world.objects import WorldObject, build_object
from dream3d.world.parts import Part
from dream3d.world.render import UNLIT, WORLD_LIGHT, marker_share, trace
from dream3d.world.solid import Solid, pack

MARKER_HIDDEN = 0.001
"""A front's mark counts as hidden below this share of the image; up to MARKER_SEEN it is not asked about."""
EDGE_SAMPLES = 2
"""Rays per side of an edge pixel; at 64 x 64 more is not seen."""
HIDDEN = 0.01
"""Nothing is asked about a pair when one of the two fills less than this share of the image."""
UNKNOWN = -1
"""Label of a head that an example says nothing about."""
PAIR_SHARE = 0.5
BESIDE_SHARE = 0.6
"""Of pairs, side by side: they are harder to read than one on the other."""


@dataclass(frozen=True)
class Examples:
    """N renders with their labels.

    Attributes:
        rgba: premultiplied colour and coverage as bytes, so that many fit into memory.
        labels: per head of the network one class index, UNKNOWN where the head is not asked. "azimuth" is a target
            distribution instead; rows of zeros are not asked.
    """

    rgba: Int[Tensor, "N H W 4"]
    labels: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.rgba)

    def __getitem__(self, index: Tensor | slice) -> "Examples":
        return Examples(self.rgba[index], {k: v[index] for k, v in self.labels.items()})

    @staticmethod
    def concatenate(parts: "Sequence[Examples]") -> "Examples":
        """All examples of several sets, in order."""
        labels = {k: torch.cat([p.labels[k] for p in parts]) for k in parts[0].labels}
        return Examples(torch.cat([p.rgba for p in parts]), labels)


def draw_caption(rng: np.random.Generator, pair_share: float = PAIR_SHARE) -> Caption:
    """Any object in any colour, or a pair of the stackable ones, held-out combinations included."""
    if rng.random() >= pair_share:
        return Caption((_draw(rng, CATEGORY_NAMES),))
    if rng.random() >= BESIDE_SHARE:
        return Caption((_draw(rng, STACKABLE), _draw(rng, SUPPORTS)), "on")
    return Caption((_draw(rng, STACKABLE), _draw(rng, STACKABLE)), "next to")


def _draw(rng: np.random.Generator, names: Sequence[str]) -> Thing:
    return COLOR_NAMES[int(rng.integers(len(COLOR_NAMES)))], names[int(rng.integers(len(names)))]


def object_labels(caption: Caption) -> dict[str, int]:
    """What is true of an object from every side; colours must be named."""
    objects = caption.objects
    labels = {"relation": RELATIONS.index(caption.relation)}
    for place in (1, 2):
        known = place <= len(objects)
        color, name = objects[place - 1] if known else (None, None)
        labels[f"category_{place}"] = NOTHING if name is None else CATEGORY_NAMES.index(name)
        labels[f"color_{place}"] = UNKNOWN if color is None else COLOR_NAMES.index(color)
    return labels


def elevation_class(elevation_deg: float) -> int:
    """Index into ELEVATIONS."""
    if elevation_deg > 60.0:
        return ELEVATIONS.index("overhead")
    if elevation_deg >= 30.0:
        return ELEVATIONS.index("high")
    return ELEVATIONS.index("low" if elevation_deg < 0.0 else "level")


def azimuth_target(azimuth_deg: float, faces_deg: Sequence[float]) -> Float[np.ndarray, " A"]:
    """Target distribution over the eight azimuth bins, as seen from the nearest of the object's faces.

    Within 15 degrees of a bin's centre it is that bin; between two bins it passes linearly from one to the other.
    Where two faces are almost equally near, no question is asked (zeros).
    """
    turns = sorted(((azimuth_deg - f + 180.0) % 360.0 - 180.0 for f in faces_deg), key=abs)
    target = np.zeros(AZIMUTH_BINS, dtype=np.float32)
    if len(turns) > 1 and abs(turns[1]) - abs(turns[0]) < 50.0:
        return target
    place = turns[0] / 45.0
    low = int(np.floor(place))
    upper = float(np.clip((place - low - 1 / 3) * 3.0, 0.0, 1.0))
    target[low % AZIMUTH_BINS] += 1.0 - upper
    target[(low + 1) % AZIMUTH_BINS] += upper
    return target


def two_faced(parts: Sequence[Part]) -> list[Part]:
    """The parts with every front marker repeated on the back, mirrored in a plane of constant z.

    Bodies are not symmetric, and a mirrored mark may end up inside: the plane is moved back until the second face is
    seen from behind about as well as the first from the front.
    """
    best, most = list(parts), -1.0
    for step in range(20):
        double = [*parts, *_mirrored_markers(parts, -0.02 * step)]
        solid = pack(double)
        front, back = marker_share(solid, trace(solid, _FACING, UNLIT, samples=1).part).tolist()
        if back > most:
            best, most = double, back
        if back >= 0.8 * front:
            break
    return best


_FACING = orbit_cameras([0.0, 180.0], 10.0, size=32)


def _mirrored_markers(parts: Sequence[Part], plane: float) -> list[Part]:
    """The mirror images of the marker parts in the plane z = `plane`."""
    twins = []
    for part in parts:
        if part.marker:
            (x, y, z), (rx, ry, rz) = part.position, part.rotation_deg
            twins.append(
                replace(part, position=(x, y, 2.0 * plane - z), rotation_deg=(-rx, -ry, rz))
            )
    return twins


def draw_cameras(rng: np.random.Generator, count: int, size: int = SIZE) -> CameraBatch:
    """Views over the world's whole range, elevation -10 to 60 and one in ten overhead, up to 5 % off centre."""
    overhead = rng.random(count) < 0.1
    elevation = np.where(overhead, rng.uniform(60.0, 90.0, count), rng.uniform(-10.0, 60.0, count))
    cameras = orbit_cameras(
        torch.from_numpy(rng.uniform(0.0, 360.0, count)).float(),
        torch.from_numpy(elevation).float(),
        torch.from_numpy(3.2 * rng.uniform(0.93, 1.07, count)).float(),
        size=size,
    )
    cameras.K[:, :2, 2] += torch.from_numpy(size * rng.uniform(-0.05, 0.05, (count, 2))).float()
    return cameras


def shows_all(solid: Solid, part: Int[np.ndarray, "B H W"], least: float) -> Bool[Tensor, " B"]:
    """Which views show at least the share `least` of pixels of every object; one may hide behind the other.

    Args:
        solid: one object, or two.
        part: which part each pixel shows, -1 for none.
        least: share of the image.
    """
    owner = np.append(solid.owner, -1)[part]  # index -1 reads the appended one
    seen = [(owner == index).mean(axis=(1, 2)) >= least for index in range(solid.owner.max() + 1)]
    return torch.from_numpy(np.all(seen, axis=0))


def to_bytes(rgba: Float[Tensor, "N H W 4"]) -> Int[Tensor, "N H W 4"]:
    """[0, 1] to 0..255."""
    return (rgba.clamp(0.0, 1.0) * 255.0 + 0.5).to(torch.uint8)


def render_examples(
    thing: WorldObject,
    cameras: CameraBatch,
    lit: bool = True,
    faces_deg: Sequence[float] = (0.0,),
    solid: Solid | None = None,
) -> Examples:
    """One object from several sides, labelled.

    Args:
        thing: names the colours and categories.
        cameras: the views.
        lit: under the world's light, or plain colours.
        faces_deg: where its fronts are; more than one for an object made two-faced on purpose.
        solid: traced instead of the object's own.
    """
    shown = thing.solid if solid is None else solid
    traced = trace(shown, cameras, WORLD_LIGHT if lit else UNLIT, EDGE_SAMPLES)
    rgba = torch.from_numpy(np.concatenate([traced.rgb, traced.alpha], axis=-1))
    fixed = object_labels(thing.caption)
    count = len(cameras)
    labels = {name: torch.full((count,), value) for name, value in fixed.items()}
    hidden = ~shows_all(shown, traced.part, HIDDEN)
    for name in fixed:
        labels[name][hidden] = UNKNOWN
    labels["elevation"] = torch.tensor([elevation_class(e) for e in cameras.elevation_deg.tolist()])
    marker = torch.full((count,), UNKNOWN)
    azimuth = np.zeros((count, AZIMUTH_BINS), dtype=np.float32)
    if any(CATEGORIES[name].has_front for _, name in thing.caption.objects):
        share = torch.from_numpy(marker_share(shown, traced.part))
        marker[share >= MARKER_SEEN], marker[share < MARKER_HIDDEN] = 1, 0
        azimuth[:] = [azimuth_target(a, faces_deg) for a in cameras.azimuth_deg.tolist()]
    labels |= {"marker": marker, "azimuth": torch.from_numpy(azimuth)}
    return Examples(to_bytes(rgba), labels)


def render_two_faced(thing: WorldObject, cameras: CameraBatch, lit: bool = True) -> Examples:
    """An object with its front's marks repeated at the back, labelled as seen from the nearer face."""
    solid = pack(two_faced(thing.parts))
    return render_examples(thing, cameras, lit, (0.0, 180.0), solid)


def random_examples(
    rng: np.random.Generator, objects: int, views: int, two_faced_share: float = 0.0
) -> Examples:
    """Fresh objects of all combinations from random sides, one in four without light.

    Args:
        rng: randomness.
        objects: how many.
        views: of each object.
        two_faced_share: of the front-marked single objects, so many are given a second face.
    """
    parts = []
    for _ in range(objects):
        thing = build_object(draw_caption(rng), rng)
        names = [name for _, name in thing.caption.objects]
        double = len(names) == 1 and CATEGORIES[names[0]].has_front
        render = render_two_faced if double and rng.random() < two_faced_share else render_examples
        parts.append(render(thing, draw_cameras(rng, views), bool(rng.random() < 0.75)))
    return Examples.concatenate(parts)


def negative_examples(rgba: Float[Tensor, "N H W 4"]) -> Examples:
    """Images that show no object, labelled."""
    count = len(rgba)
    labels = {
        name: torch.full((count,), UNKNOWN)
        for name in ("color_1", "color_2", "relation", "elevation")
    }
    labels |= {name: torch.full((count,), NOTHING) for name in ("category_1", "category_2")}
    labels |= {"marker": torch.zeros(count, dtype=torch.long)}
    labels["azimuth"] = torch.zeros(count, AZIMUTH_BINS)
    return Examples(to_bytes(rgba), labels)
