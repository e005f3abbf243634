"""What the form's events do: read the form, queue a job, tell how long it will take, fill the form from a past run."""

import html
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import gradio as gr

from dream3d.config import load_config_file, preset_summary
from dream3d.errors import ConfigError, Dream3DError
from dream3d.jobs import JobRequest
from dream3d.ui.form import (
    PARTS,
    Field,
    changed_settings,
    chosen_config,
    form_fields,
    other_parts,
    part_name,
)
from dream3d.ui.history import Pace
from dream3d.ui.jobs import UserJobs
from systems.base import RunConfig


class Chosen(NamedTuple):
    """The form's main controls, in their order."""

    prompt: str
    negative: str
    preset: str
    seed: float | None
    steps: float | None
    parts: tuple[str, ...]


SPEEDS = ("fast", "default", "balanced", "quality")


class Handlers:
    """The page's event handlers.

    Args:
        jobs: where runs are queued and found.
    """

    def __init__(self, jobs: UserJobs) -> None:
        self.jobs = jobs
        self.pace = Pace(jobs.store)

    def submit(
        self, chosen: Chosen, fields: list[Field], values: list[Any], request: gr.Request
    ) -> tuple[str, str]:
        """Queue a run; returns its id and no problem, or no id and the problem."""
        try:
            job = self.jobs.submit(read_form(chosen, fields, values, user_of(request)))
        except Dream3DError as error:
            return "", problem(str(error))
        return job, ""

    def choose_speed(self, speed: str) -> tuple[Any, ...]:
        """One of the plain presets with what `choose_preset` tells, or the list of all of them and nothing else."""
        if speed == "other":
            return gr.update(visible=True), *((gr.skip(),) * (2 + len(PARTS)))
        return gr.update(value=speed, visible=False), *self.choose_preset(speed)

    def choose_preset(self, preset: str) -> tuple[Any, ...]:
        """Steps of a preset, no edits, and its parts."""
        config = chosen_config(preset)
        return config.stages[0].steps, {}, *parts_of(config)

    def about(self, preset: str, steps: float | None, *parts: str) -> str:
        """What the preset is and how long the run is likely to take here."""
        try:
            config = chosen_config(preset, named(parts))
            seconds = self.pace.estimate(with_steps(config, steps))
        except Dream3DError as error:
            return problem(str(error))
        time = (
            "No run like it was made on this machine yet, so there is no estimate."
            if seconds is None
            else f"About <strong>{duration(seconds)}</strong> on this machine."
        )
        return f'<p class="dream-about">{html.escape(preset_summary(preset))} {time}</p>'

    def load(self, request: gr.Request) -> tuple[Any, ...]:
        """The form as it is at first, or as a past run had it when the address says `?from=ID`."""
        origin = str(request.query_params.get("from", ""))
        nothing = (gr.skip(),) * (7 + len(PARTS))
        if not origin:
            return nothing
        try:
            job = self.jobs.get(origin, user_of(request))
            config = load_config_file(self.jobs.store.directory(origin) / "config.yaml")
            parts = parts_of(config)
            changed = edits(config, chosen_config(job.request.preset, named(parts)))
        except Dream3DError:
            return nothing
        preset = job.request.preset
        speed = preset if preset in SPEEDS else "other"
        return (
            job.request.prompt,
            job.request.negative_prompt,
            speed,
            gr.update(value=preset, visible=speed == "other"),
            config.seed,
            config.stages[0].steps,
            changed,
            *parts,
        )


def parts_of(config: RunConfig) -> tuple[str, ...]:
    """Names of the first stage's parts, in the order of `PARTS`."""
    return tuple(part_name(getattr(config.stages[0], kind)) for kind in PARTS)


def named(parts: Sequence[str]) -> dict[str, str | None]:
    """Parts by kind, from their names in the order of `PARTS`."""
    return dict(zip(PARTS, parts, strict=False))


def user_of(request: gr.Request) -> str:
    """Who sent an event; "" where everybody may."""
    state = getattr(request.request, "state", None)
    return str(getattr(state, "user", "") or "")


def read_form(chosen: Chosen, fields: list[Field], values: list[Any], user: str) -> JobRequest:
    """A job request from the form.

    Raises:
        ConfigError, PromptError: something in it cannot be used; the message says what.
    """
    base = chosen_config(chosen.preset)
    overrides = other_parts(base, named(chosen.parts))
    if chosen.steps is None or int(chosen.steps) < 1:
        raise ConfigError("steps is empty; give a whole number of at least 1")
    if int(chosen.steps) != base.stages[0].steps:
        overrides["steps"] = int(chosen.steps)
    overrides |= changed_settings(fields, values)
    return JobRequest(
        prompt=chosen.prompt or "",
        preset=chosen.preset,
        seed=int(chosen.seed or 0),
        negative_prompt=chosen.negative or "",
        overrides=overrides,
        owner=user,
    )


def edits(config: RunConfig, base: RunConfig) -> dict[str, Any]:
    """What the controls of `config` show where they differ from those of `base`."""
    usual = {f.path: f.value for group in form_fields(base).values() for f in group}
    now = {f.path: f.value for group in form_fields(config).values() for f in group}
    return {path: value for path, value in now.items() if usual.get(path, value) != value}


def with_steps(config: RunConfig, steps: float | None) -> RunConfig:
    """The configuration with another number of steps in every stage."""
    if not steps:
        return config
    stages = [replace(stage, steps=max(1, int(steps))) for stage in config.stages]
    return replace(config, stages=stages)


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def problem(message: str) -> str:
    """A message that cannot be overlooked, escaped."""
    return f'<p class="dream-problem" role="alert">{html.escape(message)}</p>' if message else ""
