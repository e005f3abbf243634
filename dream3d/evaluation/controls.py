"""Controls: cases whose right answer is known, so that the laboratory itself can be checked."""

from collections.abc import Sequence

import numpy as np
import torch

from dream3d.evaluation.alignment import is_janus, recall
from dream3d.evaluation.classifier import CATEGORY_NAMES, COLOR_NAMES, Evaluator
from dream3d.evaluation.examples import draw_caption, two_faced
from dream3d.evaluation.measure import rendered, ring_cameras
from dream3d.rendering import RenderOutput
from dream3d.scenes.base import Scene
from dream3d.world.catalog import CATEGORIES
from dream3d.world.grammar import Caption
from dream3d.world.objects import build_object
from dream3d.world.render import render_object
from dream3d.world.solid import Solid, pack


def true_ring(thing: Solid) -> RenderOutput:
    """What the laboratory's 16 cameras see of a true solid."""
    return render_object(thing, ring_cameras())


def shuffled_alignment(evaluator: Evaluator, objects: int = 48, seed: int = 0) -> float:
    """Mean alignment of true objects with each other's prompts, in [0, 1]; should be low.

    Args:
        evaluator: what is checked.
        objects: each is compared with the prompt of the next one.
        seed: of the objects.
    """
    rng = np.random.default_rng([seed, 40])
    things = [build_object(draw_caption(rng), rng) for _ in range(objects)]
    shares = [
        recall(other.caption, evaluator.read_render(true_ring(thing.solid))).share.mean()
        for thing, other in zip(things, [*things[1:], things[0]], strict=True)
    ]
    return torch.stack(shares).mean().item()


def untouched_alignment(
    evaluator: Evaluator, scenes: Sequence[Scene], prompts: int = 48, seed: int = 0
) -> float:
    """Mean alignment of scenes as they are before any step with random prompts, in [0, 1]; should be low."""
    rng = np.random.default_rng([seed, 41])
    captions = [draw_caption(rng) for _ in range(prompts)]
    readings = [evaluator.read_render(rendered(scene, ring_cameras())) for scene in scenes]
    shares = [recall(caption, reading).share.mean() for reading in readings for caption in captions]
    return torch.stack(shares).mean().item()


def janus_rate(evaluator: Evaluator, objects: int = 100, seed: int = 0) -> tuple[float, float]:
    """How often front-marked objects are called Janus: as they are, and with a second face at the back.

    Args:
        evaluator: what is checked.
        objects: drawn evenly over categories and colours; each is read with one face and with two.
        seed: of the objects.
    """
    rng = np.random.default_rng([seed, 42])
    fronts = [name for name in CATEGORY_NAMES if CATEGORIES[name].has_front]
    azimuth = ring_cameras().azimuth_deg
    found = np.zeros((objects, 2), dtype=bool)
    for number in range(objects):
        name = fronts[number % len(fronts)]
        color = COLOR_NAMES[int(rng.integers(len(COLOR_NAMES)))]
        thing = build_object(Caption(((color, name),)), rng)
        for column, solid in enumerate((thing.solid, pack(two_faced(thing.parts)))):
            found[number, column] = is_janus(evaluator.read_render(true_ring(solid)), azimuth)
    single, double = found.mean(axis=0).tolist()
    return single, double
