"""Whether the evaluator can be trusted: its accuracy on fresh true renders."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dream3d.cameras import orbit_cameras
from dream3d.evaluation.alignment import recall, views_right
from dream3d.evaluation.classifier import CATEGORY_NAMES, NOTHING, SIZE, Evaluator, Reading
from dream3d.evaluation.examples import render_examples, shows_all
from dream3d.evaluation.negatives import negatives
from dream3d.world.backgrounds import random_backgrounds
from dream3d.world.catalog import CATEGORIES, PRIMITIVES
from dream3d.world.grammar import Caption, random_caption
from dream3d.world.objects import build_object
from dream3d.world.render import part_images

CATEGORY_BAR = 0.98
COLOR_BAR = 0.98
VIEW_BAR = 0.95
IN_VIEW = 0.02


@dataclass(frozen=True)
class Accuracy:
    """Shares read right on fresh true renders at elevations from -10 to 60 degrees.

    Attributes:
        category, color: of every object shown, alone or in a pair. Views in which one of a pair fills less than IN_VIEW
            of the image do not count.
        pair_category, pair_color: of images of pairs, both objects right.
        both: of all images, every category and every colour right.
        relation: how many objects there are and how they stand.
        view: the side, within 15 degrees of a bin's centre, of single front-marked objects.
        marker: whether the front's mark is in view, where that is clear.
        objectness: images without an object that are called so.
        confusions: (true, read, times) of the most frequent mistakes in the category of single objects.
        images: how many with objects were read.
    """

    category: float
    color: float
    pair_category: float
    pair_color: float
    both: float
    relation: float
    view: float
    marker: float
    objectness: float
    confusions: list[tuple[str, str, int]]
    images: int

    @property
    def accepted(self) -> bool:
        """The bars below which the evaluator is not used."""
        return (
            self.category >= CATEGORY_BAR
            and self.color >= COLOR_BAR
            and self.view >= VIEW_BAR
            and self.objectness >= CATEGORY_BAR
        )


def draw_evenly(rng: np.random.Generator) -> Caption:
    """Any category in any colour; one in four is a pair, half of those one on the other."""
    return random_caption(
        rng,
        "all",
        pair_share=0.25,
        colorless_share=0.0,
        primitive_share=len(PRIMITIVES) / len(CATEGORIES),
    )


@dataclass(frozen=True)
class _Tally:
    caption: Caption
    reading: Reading
    azimuth_deg: torch.Tensor
    labels: dict[str, torch.Tensor]


def measure_accuracy(
    evaluator: Evaluator,
    objects: int = 1000,
    seed: int = 0,
    draw: Callable[[np.random.Generator], Caption] = draw_evenly,
) -> Accuracy:
    """Read fresh objects, lit, each from four sides over random backgrounds.

    Args:
        evaluator: what is measured.
        objects: how many.
        seed: of the objects, sides and backgrounds.
        draw: what they are, colours named; the default draws all combinations evenly.
    """
    rng = np.random.default_rng([seed, 77])
    generator = torch.Generator().manual_seed(seed)
    everything = [_read_one(evaluator, draw(rng), rng, generator) for _ in range(objects)]
    tallies = [tally for tally in everything if tally is not None]
    recalls = [recall(t.caption, t.reading) for t in tallies]
    counts = [len(t.caption.objects) for t in tallies]
    right, asked, marker_right, marker_asked = 0.0, 0, 0, 0
    for tally in tallies:
        if len(tally.caption.objects) == 1 and CATEGORIES[tally.caption.objects[0][1]].has_front:
            right += views_right(tally.reading, tally.azimuth_deg).sum().item()
            asked += len(tally.reading)
        clear = tally.labels["marker"] >= 0
        marker_right += ((tally.reading.marker > 0.5) == tally.labels["marker"])[clear].sum().item()
        marker_asked += int(clear.sum())
    relation = torch.cat([t.reading.relation.argmax(-1) == t.labels["relation"] for t in tallies])
    return Accuracy(
        category=_mean([r.categories for r in recalls], counts),
        color=_mean([r.colors for r in recalls], counts),
        pair_category=_mean([r.category for r in recalls], [c == 2 for c in counts]),
        pair_color=_mean([r.color for r in recalls], [c == 2 for c in counts]),
        both=torch.cat([r.category * r.color for r in recalls]).mean().item(),
        relation=relation.float().mean().item(),
        view=right / max(asked, 1),
        marker=marker_right / max(marker_asked, 1),
        objectness=_objectness(evaluator, objects, generator),
        confusions=_confusions(tallies),
        images=len(relation),
    )


def _mean(values: list[torch.Tensor], weights: Sequence[float]) -> float:
    """Weighted mean over the views of all objects; 1 where nothing has weight."""
    total = sum(w * len(v) for v, w in zip(values, weights, strict=True))
    found = sum(w * v.sum().item() for v, w in zip(values, weights, strict=True))
    return found / total if total else 1.0


def _read_one(
    evaluator: Evaluator, caption: Caption, rng: np.random.Generator, generator: torch.Generator
) -> _Tally | None:
    thing = build_object(caption, rng)
    offset = rng.uniform(-15.0, 15.0, 4)
    azimuth = torch.from_numpy((45.0 * rng.integers(8, size=4) + offset) % 360.0).float()
    elevation = torch.from_numpy(rng.uniform(-10.0, 60.0, 4)).float()
    distance = torch.from_numpy(3.2 * rng.uniform(0.95, 1.05, 4)).float()
    cameras = orbit_cameras(azimuth, elevation, distance, size=SIZE)
    cameras = cameras[shows_all(thing.solid, part_images(thing, cameras), IN_VIEW)]
    if not len(cameras):
        return None
    examples = render_examples(thing, cameras)
    pixels = examples.rgba.float() / 255.0
    backgrounds = random_backgrounds(len(pixels), SIZE, generator)
    images = pixels[..., :3] + (1.0 - pixels[..., 3:]) * backgrounds
    return _Tally(thing.caption, evaluator.read(images), cameras.azimuth_deg, examples.labels)


def _objectness(evaluator: Evaluator, count: int, generator: torch.Generator) -> float:
    pixels = negatives(count, SIZE, generator)
    backgrounds = random_backgrounds(len(pixels), SIZE, generator)
    reading = evaluator.read(pixels[..., :3] + (1.0 - pixels[..., 3:]) * backgrounds)
    return (reading.category_1.argmax(-1) == NOTHING).float().mean().item()


def _confusions(tallies: list[_Tally], most: int = 20) -> list[tuple[str, str, int]]:
    names = (*CATEGORY_NAMES, "nothing")
    mistakes: Counter[tuple[str, str]] = Counter()
    for tally in tallies:
        if len(tally.caption.objects) == 1:
            true = tally.caption.objects[0][1]
            for read in tally.reading.category_1.argmax(-1).tolist():
                if names[read] != true:
                    mistakes[true, names[read]] += 1
    return [(true, read, times) for (true, read), times in mistakes.most_common(most)]
