"""A system is data: which prior, and a list of stages that each say what is optimised and how."""

from dataclasses import dataclass, field

from dream3d.priors.base import PriorConfig
from dream3d.scenes.base import SceneConfig
from guidance.base import Guidance

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Stage:
    """One optimisation: a scene under a guidance, for a number of steps.

    Attributes:
        steps: optimiser steps.
        views: cameras rendered per step.
        render_size: side of the rendered images in pixels (the prior resamples to its own size).
        scene, guidance, time, noise, cameras, background: chosen by `name` from their registries.
        conditioning: how much the prior is told of the view: "text" (view words only), "camera" (words and camera),
            "multiview" (all views of a step are one object seen from `views` cameras, denoised jointly).
        preview_every: steps between previews.
        checkpoint_every: steps between checkpoints.
    """

    scene: SceneConfig
    guidance: Guidance
    time: "TimeSampler"
    noise: "NoiseSource"
    cameras: "CameraSampler"
    background: "BackgroundSampler"
    steps: int = 400
    views: int = 4
    render_size: int = 64
    conditioning: str = "camera"
    preview_every: int = 20
    checkpoint_every: int = 100


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's result; `config.yaml` is this, resolved."""

    prompt: str
    prior: PriorConfig
    stages: list[Stage] = field(default_factory=list)
    negative_prompt: str = ""
    seed: int = 0
    device: str = "auto"
    format_version: int = FORMAT_VERSION
