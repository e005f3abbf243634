"""What the same representation reaches when it is fitted straight to true views with the same budget.

Numbers of a generated asset mean little alone: a small splat scene cannot reach a volume overlap of 1 whatever
guides it.
"""

from collections.abc import Sequence

import torch

from dream3d.evaluation.classifier import Evaluator
from dream3d.evaluation.measure import measure, show
from dream3d.evaluation.truth import Truth, training_cameras
from dream3d.run import next_scene
from dream3d.scenes.base import Scene
from dream3d.scenes.fit import fit_to_views
from dream3d.world.grammar import Caption
from systems.base import Stage

VIEWS = 48


def fitted(stages: Sequence[Stage], truth: Truth, seed: int = 0) -> Scene:
    """The scene a run ends with when true views take the place of its guidance.

    Every stage has its own number of steps and size of images, and a stage that converts the scene before it does so
    here too: what is measured is the run's own way, with nothing in doubt.

    Args:
        stages: of the run.
        truth: what the 48 views show.
        seed: of initialisation and the order of views.
    """
    generator, cpu = torch.Generator().manual_seed(seed), torch.device("cpu")
    first = stages[0].scene
    assert first is not None, "a run's first stage names its scene"
    scene = first.create(generator, cpu)
    for index, stage in enumerate(stages):
        if index > 0:
            scene = next_scene(stage, scene, generator, cpu)
        cameras = training_cameras(VIEWS, stage.render_size)
        views = truth.render(cameras)
        fit_to_views(scene, cameras, views.rgb, views.alpha, stage.steps, generator)
    return scene


def ceiling(
    stages: Sequence[Stage], truth: Truth, caption: Caption, evaluator: Evaluator
) -> dict[str, float | bool | None]:
    """The numbers of `measure` for a direct fit to the same truth a run is compared with."""
    shown = show(fitted(stages, truth), evaluator)
    return measure(shown, caption, truth)
