"""Evaluating what a run directory holds against the truth of its prompt."""

from pathlib import Path
from typing import Any

import torch

from dream3d.checkpoint import CheckpointStore
from dream3d.config import load_config_file
from dream3d.errors import CheckpointError, ConfigError
from dream3d.evaluation.ceiling import ceiling
from dream3d.evaluation.classifier import Evaluator, load_evaluator
from dream3d.evaluation.geometry import silhouette_iou
from dream3d.evaluation.images import psnr
from dream3d.evaluation.measure import (
    GRAY,
    RING_SIZE,
    choose_truth,
    measure,
    read_objects,
    rendered,
    show,
)
from dream3d.scenes.base import Scene
from dream3d.world.freeze import FROZEN_HASH
from dream3d.world.grammar import Caption, parse
from systems.base import RunConfig, fingerprint
from systems.reference import ReferenceSettings, load_reference

FORMAT_VERSION = 1


def evaluate_run(
    run_directory: Path | str, with_ceiling: bool = True, evaluator: Evaluator | None = None
) -> dict[str, Any]:
    """All numbers of a finished (or cancelled) run; see `measure` for what each means.

    Args:
        run_directory: holds config.yaml and checkpoints/.
        with_ceiling: also fit the same representation to true views with the run's number of steps, and measure that;
            takes about as long as rendering and optimising the run did.
        evaluator: an already loaded one, for many runs.

    Returns:
        JSON-serialisable: the numbers of `measure`, `ceiling` with the same keys (None without it), `reads` (what each
        of 16 views shows), `truth` (which member of the prompt's family it was compared with), `prompt`, `seed`,
        `world_hash`, `format_version`; with a picture also the numbers of `against_picture`.

    Raises:
        ConfigError, CheckpointError: not a run directory, or it has no usable checkpoint.
        PromptError: the prompt is not of the procedural world, so there is no truth to compare with.
        ModelError: the evaluator's weights are missing or belong to another world.
    """
    directory = Path(run_directory)
    config = read_config(directory)
    caption = parse(config.prompt)
    scene = load_scene(directory, config)
    judge = load_evaluator() if evaluator is None else evaluator
    result = evaluate_scene(scene, caption, judge)
    shown_truth = result.pop("_truth")
    result["ceiling"] = (
        ceiling(config.stages, shown_truth, caption, judge) if with_ceiling else None
    )
    return {
        "format_version": FORMAT_VERSION,
        "world_hash": FROZEN_HASH,
        "prompt": config.prompt,
        "seed": config.seed,
        **result,
        **against_picture(scene, config.reference),
    }


def against_picture(scene: Scene, settings: ReferenceSettings) -> dict[str, float]:
    """How a scene compares with the run's picture, through the camera it was taken with; nothing without a picture.

    `reference_psnr` over mid grey, `reference_iou` of what is covered, and `reference_color`: the distance in RGB of
    the two mean colours of the object, in [0, sqrt 3].
    """
    reference = load_reference(settings)
    if reference is None:
        return {}
    own = rendered(scene, settings.camera(RING_SIZE))
    picture = reference.picture(RING_SIZE, torch.device("cpu"))
    gray = torch.full((1, 1, 3), GRAY)
    means = [o.rgb.sum((0, 1, 2)) / o.alpha.sum().clamp_min(1e-6) for o in (own, picture)]
    return {
        "reference_psnr": psnr(own.over(gray), picture.over(gray)),
        "reference_iou": silhouette_iou(own.alpha, picture.alpha),
        "reference_color": (means[0] - means[1]).norm().item(),
    }


def evaluate_scene(scene: Scene, caption: Caption, evaluator: Evaluator) -> dict[str, Any]:
    """The numbers of one scene, what its views show, and the truth it was compared with (under `_truth`)."""
    shown = show(scene, evaluator)
    truth = choose_truth(shown, caption)
    numbers = measure(shown, caption, truth)
    described = {
        "seed": truth.seed,
        "yaw_deg": truth.yaw_deg,
        "colors": list(truth.thing.colors),
    }
    return {**numbers, "reads": read_objects(shown.reading), "truth": described, "_truth": truth}


def read_config(directory: Path) -> RunConfig:
    """The resolved configuration of a run.

    Raises:
        ConfigError: there is none.
    """
    path = directory / "config.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{directory} is not a run directory: it has no config.yaml. "
            'Give a directory that `dream3d generate "a red mug"` printed.'
        )
    return load_config_file(path)


def load_scene(directory: Path, config: RunConfig) -> Scene:
    """The scene of a run's newest checkpoint.

    Raises:
        CheckpointError: there is no usable one.
    """
    store = CheckpointStore(directory / "checkpoints", fingerprint(config))
    found = store.load_newest()
    if found is None:
        raise CheckpointError(
            f"{directory} has no checkpoint to evaluate; go on with `dream3d generate --resume {directory}`"
        )
    stages = config.stages[: found.stage + 1]
    settings = next(stage.scene for stage in reversed(stages) if stage.scene is not None)
    scene = settings.create(torch.Generator().manual_seed(config.seed), torch.device("cpu"))
    scene.load_state(found.scene)
    return scene
