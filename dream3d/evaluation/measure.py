"""All numbers of one asset: what its views show, and how near it comes to the truth."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.evaluation.alignment import has_front, is_janus, recall, views_right
from dream3d.evaluation.classifier import CATEGORY_NAMES, COLOR_NAMES, Evaluator, Reading
from dream3d.evaluation.geometry import (
    carve,
    carving_cameras,
    chamfer,
    f_score,
    grid_points,
    overlap,
    silhouette_iou,
    surface_points,
)
from dream3d.evaluation.images import psnr, saturation
from dream3d.evaluation.truth import Truth, best_truth
from dream3d.rendering import RenderOutput
from dream3d.scenes.base import Scene
from dream3d.world.grammar import Caption

RING_ELEVATIONS = (15.0, 40.0)
RING_SIZE = 64
GRID = 48
"""Cells per side of the grid volumes are compared on, over [-1.1, 1.1]^3."""
SURFACE_POINTS = 8000
GRAY = 0.5
"""Background of the images PSNR compares."""
METRICS = (
    "alignment",
    "category",
    "colors",
    "view",
    "janus",
    "silhouette_iou",
    "volume_iou",
    "chamfer",
    "f_score",
    "psnr",
    "saturation",
)


@dataclass(frozen=True)
class Shown:
    """An asset as the laboratory sees it.

    Attributes:
        ring: renders of `ring_cameras()`.
        reading: what the evaluator reads in them.
        carving: renders of `carving_cameras()`; only coverage and depth are used.
    """

    ring: RenderOutput
    reading: Reading
    carving: RenderOutput


def ring_cameras() -> CameraBatch:
    """16 views: eight azimuths at elevation 15, then the same at 40."""
    azimuth = [45.0 * i for i in range(8)]
    return orbit_cameras(azimuth * 2, [e for e in RING_ELEVATIONS for _ in azimuth], size=RING_SIZE)


@torch.no_grad()
def show(scene: Scene, evaluator: Evaluator) -> Shown:
    """Render a scene from the laboratory's cameras and read it."""
    ring = rendered(scene, ring_cameras())
    return Shown(ring, evaluator.read_render(ring), rendered(scene, carving_cameras()))


@torch.no_grad()
def rendered(scene: Scene, cameras: CameraBatch, batch: int = 8) -> RenderOutput:
    """Renders on the CPU, a few at a time."""
    device = next((p.device for p in scene.parameters().values()), torch.device("cpu"))
    parts = [
        scene.render(cameras[slice(i, i + batch)].to(device)) for i in range(0, len(cameras), batch)
    ]
    return RenderOutput(
        *(torch.cat([getattr(p, n).cpu() for p in parts]) for n in ("rgb", "alpha", "depth"))
    )


def spelled_out(caption: Caption, reading: Reading) -> Caption:
    """The caption with open colours filled in by what most views show, so that a truth can be drawn."""
    objects = []
    for place, (color, name) in enumerate(caption.objects, start=1):
        seen = getattr(reading, f"color_{place}").mean(0).argmax().item()
        objects.append((COLOR_NAMES[int(seen)] if color is None else color, name))
    return Caption(tuple(objects), caption.relation)


def choose_truth(shown: Shown, caption: Caption) -> Truth:
    """The member of the prompt's family nearest to an asset."""
    return best_truth(spelled_out(caption, shown.reading), shown.ring.alpha, ring_cameras())


def measure(shown: Shown, caption: Caption, truth: Truth) -> dict[str, float | bool | None]:
    """The numbers of METRICS.

    Of a pair, views from which the truth itself hides one behind the other do not count for alignment, category and
    colors.

    alignment: attributes of the prompt that are recalled (every category, every named colour, the relation), mean over
        16 views, in [0, 1].
    category: share of the eight views at elevation 15 that show the right category (both, for a pair), in [0, 1].
    colors: share of those views that show every named colour in its place, in [0, 1]; 1 if the prompt names none.
    view: share of those views whose side is read as the side it is, in [0, 1]; None where nothing has a front.
    janus: whether the front shows in more than one place; None where nothing has a front.
    silhouette_iou: overlap of outlines with the truth's, mean over 16 views, in [0, 1].
    volume_iou: overlap on a 48^3 grid of the solids that the asset's and the truth's views show, carved alike, in
        [0, 1].
    chamfer: mean distance of visible surfaces in object radii, >= 0; None for an asset that shows nothing.
    f_score: share of visible surface within 0.05 of the other's, in [0, 1].
    psnr: of 16 views over mid grey against the truth's, in dB; at most 100.
    saturation: mean of (largest - smallest channel) over the asset's pixels, in [0, 1]. Compare with the truth's.
    """
    cameras = ring_cameras()
    level = slice(0, 8)
    recalled = recall(caption, shown.reading)
    shown_whole = truth.shows_all(cameras)
    front = has_front(caption)
    sides = views_right(shown.reading[level], cameras.azimuth_deg[level])
    true_ring = truth.render(cameras)
    gray = torch.full((1, 1, 1, 3), GRAY)
    return {
        "alignment": recalled.share[shown_whole].mean().item(),
        "category": recalled.category[level][shown_whole[level]].mean().item(),
        "colors": recalled.color[level][shown_whole[level]].mean().item(),
        "view": sides.mean().item() if front else None,
        "janus": is_janus(shown.reading, cameras.azimuth_deg) if front else None,
        "silhouette_iou": silhouette_iou(shown.ring.alpha, true_ring.alpha),
        "psnr": psnr(shown.ring.over(gray), true_ring.over(gray)),
        "saturation": saturation(shown.ring.rgb, shown.ring.alpha),
        "true_saturation": saturation(true_ring.rgb, true_ring.alpha),
        **_geometry(shown.carving, truth),
    }


def _geometry(carving: RenderOutput, truth: Truth) -> dict[str, float | None]:
    cameras = carving_cameras()
    points = grid_points(GRID)
    true_depth = truth.render(cameras, samples=1)
    own = _thinned(surface_points(carving.depth, carving.alpha, cameras))
    true = _thinned(surface_points(true_depth.depth, true_depth.alpha, cameras))
    # Both are carved by one rule, so that the truth itself reaches 1: hollows that nobody sees into are solid in both.
    own_solid, true_solid = (
        carve(x.depth, x.alpha, cameras, points) for x in (carving, true_depth)
    )
    return {
        "volume_iou": overlap(own_solid, true_solid),
        "chamfer": chamfer(own, true) if len(own) else None,
        "f_score": f_score(own, true),
    }


def _thinned(points: Float[Tensor, "N 3"]) -> Float[Tensor, "M 3"]:
    """At most SURFACE_POINTS of them, evenly picked."""
    return points[:: max(1, len(points) // SURFACE_POINTS)].contiguous()


def read_objects(reading: Reading) -> list[str]:
    """What each view shows, in words, for a person: "red mug", "nothing"."""
    names = (*CATEGORY_NAMES, "nothing")
    return [
        names[category]
        if category == len(CATEGORY_NAMES)
        else f"{COLOR_NAMES[color]} {names[category]}"
        for category, color in zip(
            reading.category_1.argmax(-1).tolist(), reading.color_1.argmax(-1).tolist(), strict=True
        )
    ]
