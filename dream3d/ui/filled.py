"""What the form shows, as JSON for the page's own element, and what it sends back, as a job request."""

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dream3d.catalogue import entries
from dream3d.config import load_config_file, preset_summary
from dream3d.config.build import COMPONENTS
from dream3d.errors import ConfigError, Dream3DError
from dream3d.jobs import Job, JobRequest
from dream3d.run import resolve_device
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

SPEEDS = ("fast", "default", "balanced", "quality")
"""Presets that differ in nothing but the time they take."""
GPU_SPEEDS = ("gpu-fast", "gpu-balanced", "gpu-quality")
"""The same choice where there is a GPU and a real model can be had."""

TITLES = {
    "guidance": "Guidance",
    "guider": "Guider",
    "scene": "Representation",
    "time": "Noise levels",
    "noise": "Noise",
    "cameras": "Cameras",
    "background": "Background",
    "prior": "Prior",
    "debiasing": "Prompt debiasing",
    "stage": "Views and steps",
}
_SENT = {"prompt", "negative_prompt", "preset", "seed", "steps", "parts", "settings", "image"}
MOST_STEPS = 1_000_000
"""That the form takes; nobody means more."""


def form_data(
    preset: str, parts: Mapping[str, str], steps: int | None, pace: Pace
) -> dict[str, Any]:
    """The form of a preset with other parts in it.

    Args:
        preset: its name.
        parts: names by kind, of those that are not the preset's own.
        steps: as typed; None is the preset's number.
        pace: what past runs took.

    Returns:
        `problem` tells why the parts do not go together; there are no settings then.

    Raises:
        ConfigError: there is no such preset.
    """
    base = chosen_config(preset)
    data: dict[str, Any] = {
        "presets": presets(),
        "preset": preset,
        "summary": preset_summary(preset),
        "problem": "",
        "groups": [],
        "seconds": None,
    }
    config = base
    try:
        config = chosen_config(preset, parts)
        fields = form_fields(config)
    except Dream3DError as error:
        data["problem"] = str(error)
    else:
        data["groups"] = [_group(name, config, members) for name, members in fields.items()]
        data["seconds"] = pace.estimate(with_steps(config, steps))
    return data | {
        "prior": part_name(base.prior),
        "steps": base.stages[0].steps,
        "refused": refused(base.device),
        "parts": [_part(kind, base, parts.get(kind)) for kind in PARTS],
    }


def refused(device: str) -> str:
    """Why a run on `device` would be refused on this machine; empty when it would not."""
    try:
        resolve_device(device)
    except ConfigError as error:
        return str(error)
    return ""


@functools.cache
def presets() -> list[dict[str, Any]]:
    """All presets, those of `SPEEDS` first, published systems last; `gpu` tells which need one."""
    systems = {entry["name"]: entry for entry in entries("systems")}
    found = {entry["name"]: entry for entry in entries("presets")} | systems
    first = (*SPEEDS, *GPU_SPEEDS)
    order = [*first, *(name for name in found if name not in first)]
    return [
        {
            "name": name,
            "summary": found[name]["summary"],
            "published": name in systems,
            "gpu": found[name]["device"].startswith("cuda"),
        }
        for name in order
    ]


def _part(kind: str, base: RunConfig, chosen: str | None) -> dict[str, Any]:
    usual = part_name(getattr(base.stages[0], kind))
    return {
        "kind": kind,
        "title": TITLES[kind],
        "usual": usual,
        "chosen": chosen or usual,
        "choices": list(COMPONENTS[kind].names()),
    }


def _group(name: str, config: RunConfig, fields: list[Field]) -> dict[str, Any]:
    stage = config.stages[0]
    part = config.prior if name == "prior" else getattr(stage, name, None)
    chosen = part_name(part) if part is not None and name in COMPONENTS else ""
    return {
        "name": name,
        "title": f"{TITLES[name]}: {chosen}" if chosen else TITLES[name],
        "origin": _origin(chosen) if name == "guidance" else None,
        "fields": [field.as_data() for field in fields],
    }


@functools.cache
def _origin(guidance: str) -> dict[str, str]:
    entry = next(entry for entry in entries("guidance") if entry["name"] == guidance)
    return {key: entry[key] for key in ("summary", "formula", "paper")}


def filled_from(job: Job, jobs: UserJobs) -> dict[str, Any]:
    """What to write into the form so that it asks for the run of `job` again.

    Raises:
        ConfigError: its configuration can no longer be read.
    """
    config = load_config_file(jobs.store.directory(job.id) / "config.yaml")
    request = job.request
    base = chosen_config(request.preset)
    parts = other_parts(base, {kind: part_name(getattr(config.stages[0], kind)) for kind in PARTS})
    steps = config.stages[0].steps
    return {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "preset": request.preset,
        "seed": config.seed,
        "steps": None if steps == base.stages[0].steps else steps,
        "parts": parts,
        "settings": edits(config, chosen_config(request.preset, parts)),
        "image": config.reference.image,
    }


def edits(config: RunConfig, base: RunConfig) -> dict[str, Any]:
    """What the controls of `config` show where they differ from those of `base`."""
    usual = {f.path: f.value for group in form_fields(base).values() for f in group}
    now = {f.path: f.value for group in form_fields(config).values() for f in group}
    return {path: value for path, value in now.items() if usual.get(path, value) != value}


def read_form(data: Any, user: str) -> JobRequest:
    """A job request from what the form sends.

    Args:
        data: `prompt`, `negative_prompt`, `preset`, `seed`, `steps` (null is the preset's), `parts` (names by kind),
            `settings` (what is written in their controls, by path) and `image` (an upload, or a path).
        user: who sent it.

    Raises:
        ConfigError, PromptError: something in it cannot be used; the message says what.
    """
    if not isinstance(data, dict) or not set(data) <= _SENT:
        raise ConfigError(f"the form sends an object of {', '.join(sorted(_SENT))}")
    parts, written = data.get("parts") or {}, data.get("settings") or {}
    if not isinstance(parts, dict) or not isinstance(written, dict) or not set(parts) <= set(PARTS):
        raise ConfigError(f"parts and settings must be objects; parts are {', '.join(PARTS)}")
    if not all(isinstance(name, str) for name in parts.values()):
        raise ConfigError("parts are names, e.g. {'guidance': 'ism'}")
    preset = data.get("preset", "default")
    base = chosen_config(preset)
    overrides = other_parts(base, parts)
    config = chosen_config(preset, parts)
    steps = _whole(data.get("steps"), "steps", 1, MOST_STEPS)
    if steps is not None and steps != base.stages[0].steps:
        overrides["steps"] = steps
    if image := data.get("image"):
        overrides["reference.image"] = str(image)
    fields = [field for group in form_fields(config).values() for field in group]
    return JobRequest(
        prompt=data.get("prompt") or "",
        preset=preset,
        seed=_whole(data.get("seed"), "seed", 0, 2**63 - 1) or 0,
        negative_prompt=data.get("negative_prompt") or "",
        overrides=overrides | changed_settings(fields, written),
        owner=user,
    )


def _whole(value: Any, name: str, least: int, most: int) -> int | None:
    """A whole number as text or number; None stays None."""
    if value is None:
        return None
    text = str(value).strip()
    if not text:
        raise ConfigError(f"{name} is empty; give a whole number from {least} to {most:,}")
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise ConfigError(f"{name} is {text[:40]}; give a whole number from {least} to {most:,}")
    return int(text)


def with_steps(config: RunConfig, steps: int | None) -> RunConfig:
    """The configuration with another number of steps in every stage."""
    if not steps:
        return config
    return replace(config, stages=[replace(stage, steps=steps) for stage in config.stages])
