"""A system is data: which prior, and a list of stages that each say what is optimised and how."""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from dream3d.background_samplers import BackgroundSampler, RandomBackground
from dream3d.camera_samplers import CameraSampler, OrbitCameras
from dream3d.errors import ConfigError
from dream3d.noise_sources import FreshNoise, NoiseSource
from dream3d.priors.base import PriorConfig
from dream3d.prompt_debiasing import DebiasingSettings
from dream3d.prompts import ViewPrompts
from dream3d.scenes.base import SceneConfig
from dream3d.schedules import Ramp, constant
from dream3d.time_samplers import TimeSampler, UniformTime
from guidance.base import Guidance
from guidance.guiders import Guider
from systems.reference import ReferenceSettings
from systems.second import SecondPrior

FORMAT_VERSION = 1

Start = Literal["fresh", "previous"]
"""What a stage's own scene starts from: its settings alone, or the scene of the stage before, converted."""
Conditioning = Literal["text", "camera", "multiview"]
"""How much the prior is told of the view: view words only; words and camera; all views of a step denoised jointly."""


@dataclass(frozen=True)
class Stage:
    """One optimisation: a scene under a guidance, for a number of steps.

    Attributes:
        scene: what is optimised; None goes on with the scene of the stage before.
        start: "fresh" creates the scene from its settings; "previous" converts the scene of the stage before into it.
        guidance, time, noise, cameras, background: chosen by `name` from their registries.
        steps: optimiser steps.
        views: cameras rendered per step.
        render_size: side of the rendered images in pixels (the prior resamples to its own size).
        conditioning: "text" (view words only), "camera" (and the camera itself), "multiview" (all views of a step are
            one object seen from `views` cameras, denoised jointly).
        view_words: append ", front left view" and the like to the prompt of each view.
        view_prompts: how they are: "bins" (the nearest of eight directions), "interpolated" (embeddings of the two
            nearest sides, mixed) or "perp-neg" (so mixed, and every guided prediction kept away from the other sides,
            at two more network evaluations).
        guider: how the predictions under the prompt and the empty prompt are mixed, for every rule that guides.
        betas: Adam's decay rates; the first is the momentum that a fixed-noise flow wants at 0.
        entry_clip: bound on every entry of the guidance's gradient on the latents; 0 is off (D-SDS: 2 rising to 8).
        norm_clip: largest Euclidean norm of that gradient, per object; 0 is off.
        pixel_clip: largest gradient per pixel and channel that priors hand a view's picture, direction kept; of that
            view's own summed loss, as published (Dreamer-XL: 0.05), so that neither the number of views nor the size
            of the latents matters; 0 is off.
        preview_every: steps between previews.
        checkpoint_every: steps between checkpoints; 0 keeps only the one at the end of the stage.
    """

    guidance: Guidance
    scene: SceneConfig | None = None
    start: Start = "fresh"
    time: TimeSampler = field(default_factory=UniformTime)
    noise: NoiseSource = field(default_factory=FreshNoise)
    cameras: CameraSampler = field(default_factory=OrbitCameras)
    background: BackgroundSampler = field(default_factory=RandomBackground)
    steps: int = 400
    views: int = 4
    render_size: int = 64
    conditioning: Conditioning = "camera"
    view_words: bool = True
    view_prompts: ViewPrompts = "bins"
    guider: Guider = field(default_factory=Guider)
    betas: tuple[float, float] = (0.9, 0.99)
    entry_clip: Ramp = field(default_factory=lambda: constant(0.0))
    norm_clip: Ramp = field(default_factory=lambda: constant(0.0))
    pixel_clip: float = 0.0
    preview_every: int = 20
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        for name, low in (
            ("steps", 1),
            ("views", 1),
            ("render_size", 4),
            ("preview_every", 1),
            ("checkpoint_every", 0),
        ):
            if getattr(self, name) < low:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {low}")
        if self.start not in ("fresh", "previous"):
            raise ConfigError(f"start is '{self.start}'; choose fresh or previous")
        if self.start == "previous" and self.scene is None:
            raise ConfigError(
                "start is 'previous' and scene is missing; name the scene to convert to, or leave start out to go on "
                "with the scene as it is"
            )
        if self.conditioning not in ("text", "camera", "multiview"):
            raise ConfigError(
                f"conditioning is '{self.conditioning}'; choose one of text, camera, multiview"
            )
        if self.view_prompts not in get_args(ViewPrompts):
            choices = ", ".join(get_args(ViewPrompts))
            raise ConfigError(f"view_prompts is '{self.view_prompts}'; choose one of {choices}")
        if self.view_prompts != "bins" and not self.view_words:
            raise ConfigError(
                f"view_prompts is '{self.view_prompts}' and view_words is false, so that no view is named; choose "
                "view_words=true or view_prompts=bins"
            )
        if self.view_prompts == "perp-neg" and self.guider.name != "cfg":
            raise ConfigError(
                f"guider.name is '{self.guider.name}' and view_prompts is 'perp-neg', which mixes the predictions in "
                "its own way; choose guider.name=cfg or view_prompts=interpolated"
            )
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ConfigError(f"betas is {list(self.betas)}; choose two numbers in [0, 1)")
        for name in ("entry_clip", "norm_clip"):
            ramp: Ramp = getattr(self, name)
            for value in (ramp.initial, ramp.final):
                if not 0.0 <= value < math.inf:
                    raise ConfigError(f"{name} is {value}; choose 0 (off) or a positive bound")
        if not 0.0 <= self.pixel_clip < math.inf:
            raise ConfigError(f"pixel_clip is {self.pixel_clip}; choose 0 (off) or a positive size")
        if self.guidance.needs_falling_time and not self.time.falls:
            name, time = (type(part).registered_name for part in (self.guidance, self.time))  # type: ignore[attr-defined]
            raise ConfigError(
                f"guidance '{name}' follows the prior's flow from noise to picture, so its time must fall from step "
                f"to step, the same for all views; time is '{time}', which draws at random. Choose "
                "time={name: annealed, law: linear, jitter: 0}, or time=flow or time=dreamtime"
            )


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's result; `config.yaml` is this, resolved.

    Attributes:
        prompt: what to make; data, never parsed as anything else.
        prior: the diffusion prior.
        stages: at least one; the first names its scene.
        negative_prompt: what to avoid; replaces the empty prompt in classifier-free guidance.
        seed: of all randomness, in [0, 2^63).
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1".
        reference: a picture the object must look like from one side, in every stage.
        second: another prior that looks at the same renders, or None.
        debiasing: whether a view's prompt loses words that speak for another view.
    """

    prompt: str
    prior: PriorConfig
    stages: list[Stage] = field(default_factory=list)
    negative_prompt: str = ""
    seed: int = 0
    device: str = "auto"
    reference: ReferenceSettings = field(default_factory=ReferenceSettings)
    second: SecondPrior | None = None
    debiasing: DebiasingSettings = field(default_factory=DebiasingSettings)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("stages is empty; a run needs at least one stage")
        if self.stages[0].scene is None:
            raise ConfigError("stages[0].scene is missing; the first stage must name its scene")
        if self.stages[0].start == "previous":
            raise ConfigError(
                "stages[0].start is 'previous', but there is no stage before it; choose fresh"
            )
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}; choose an integer in [0, 2^63)")
        if self.debiasing.model and not any(stage.view_words for stage in self.stages):
            raise ConfigError(
                f"debiasing.model is '{self.debiasing.model}', and no stage names views in its prompt; choose "
                "view_words=true, or leave it empty"
            )
        if self.second is not None:
            for stage in self.stages:
                self.second.of(stage)  # refuses what does not go together


# What may change between a run and its resumption without changing the result. A picture is known by its hash.
_BYSTANDERS = frozenset({"preview_every", "checkpoint_every", "device", "image"})

# What came later and says nothing here is left out too, so that earlier runs can still be resumed.
_ABSENT = (("second", None), ("debiasing", DebiasingSettings()))


def _described(value: Any) -> Any:
    """`value` as JSON data, dataclasses with their class name, bystanders left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: _by_content(getattr(value, f.name))
            if f.name == "mesh"
            else _described(getattr(value, f.name))
            for f in dataclasses.fields(value)
            if f.name not in _BYSTANDERS and (f.name, getattr(value, f.name)) not in _ABSENT
        }
        return {"class": type(value).__name__, **fields}
    if isinstance(value, list | tuple):
        return [_described(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _described(item) for key, item in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _by_content(name: str) -> str:
    """A file by its content, wherever it lies; what is no file by its name."""
    try:
        return hashlib.sha256(Path(name).read_bytes()).hexdigest()
    except OSError:
        return name


def fingerprint(config: RunConfig) -> str:
    """A short hash of everything in `config` that decides the result, to recognise a checkpoint's own run."""
    text = json.dumps(_described(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
