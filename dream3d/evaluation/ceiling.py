"""What the same representation reaches when it is fitted straight to true views with the same budget.

Numbers of a generated asset mean little alone: a small splat scene cannot reach a volume overlap of 1 whatever
guides it.
"""

import torch

from dream3d.evaluation.classifier import Evaluator
from dream3d.evaluation.measure import measure, show
from dream3d.evaluation.truth import Truth, training_cameras
from dream3d.scenes.base import Scene, SceneConfig
from dream3d.scenes.fit import fit_to_views
from dream3d.world.grammar import Caption

VIEWS = 48


def fitted(scene: SceneConfig, truth: Truth, steps: int, size: int, seed: int = 0) -> Scene:
    """The representation after `steps` of direct fitting to 48 true views.

    Args:
        scene: the representation's settings.
        truth: what the views show.
        steps: the run's own number of optimiser steps.
        size: side of the views in pixels.
        seed: of initialisation and the order of views.
    """
    generator = torch.Generator().manual_seed(seed)
    cameras = training_cameras(VIEWS, size)
    views = truth.render(cameras)
    made = scene.create(generator, torch.device("cpu"))
    fit_to_views(made, cameras, views.rgb, views.alpha, steps, generator)
    return made


def ceiling(
    scene: SceneConfig, truth: Truth, caption: Caption, steps: int, size: int, evaluator: Evaluator
) -> dict[str, float | bool | None]:
    """The numbers of `measure` for a direct fit to the same truth a run is compared with."""
    shown = show(fitted(scene, truth, steps, size), evaluator)
    return measure(shown, caption, truth)
