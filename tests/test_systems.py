"""Published systems: every file in `systems/` loads, says where it comes from, and runs."""

import re
from pathlib import Path

import pytest
import torch

from dream3d.catalogue import entries
from dream3d.config import config_to_yaml, load_config, load_config_text
from dream3d.config.layers import preset_names, preset_summary, system_names
from dream3d.errors import ConfigError
from dream3d.run import run_system
from dream3d.ui.filled import GPU_SPEEDS
from guidance.base import Guidance

TINY = {"steps": 2, "views": 2, "render_size": 16, "prior": "gaussian"}
TINY_SCENES = {
    "nerf": {"scene.levels": 2, "scene.occupancy_cells": 8, "scene.step": 0.2},
    "splats": {"scene.count": 60, "scene.max_count": 80},
}


def test_systems_and_presets_do_not_share_names() -> None:
    assert len(system_names()) >= 10
    assert not set(system_names()) & set(preset_names())
    assert [entry["name"] for entry in entries("systems")] == system_names()


@pytest.mark.parametrize("name", system_names())
def test_a_system_repeats_from_its_resolved_file(name: str) -> None:
    config = load_config(name, prompt="a red mug")
    assert load_config_text(config_to_yaml(config)) == config


@pytest.mark.parametrize("name", system_names())
def test_a_system_names_paper_and_year_first(name: str) -> None:
    first = preset_summary(name)
    assert re.search(r"\(.+ 20\d\d\)", first), first


@pytest.mark.parametrize("name", system_names())
def test_a_system_uses_its_guidance_of_the_same_paper(name: str) -> None:
    """Its own algorithm, not the default's: what it extends must not show through."""
    config = load_config(name, prompt="a red mug")
    first = config.stages[0].guidance
    assert isinstance(first, Guidance)
    plain = load_config("default", prompt="a red mug").stages[0]
    assert (first, config.stages[0].time) != (plain.guidance, plain.time)


@pytest.mark.parametrize("name", GPU_SPEEDS)
def test_a_preset_for_gpus_says_what_it_is(name: str) -> None:
    """A real model on CUDA, whose summary tells that nobody has tried it; the plain ones are for any machine."""
    config = load_config(name, prompt="a red mug")
    prior = type(config.prior).registered_name  # type: ignore[attr-defined]
    assert config.device == "cuda" and prior in ("stable-diffusion", "mvdream")
    assert config.stages[0].conditioning == ("multiview" if prior == "mvdream" else "text")
    summary = preset_summary(name)
    assert summary.startswith("GPU: ") and summary.endswith("Never run by us.")
    plain = load_config(name.removeprefix("gpu-"))
    assert plain.device == "auto" and type(plain.prior).registered_name == "embedded"  # type: ignore[attr-defined]
    steps = [load_config(other).stages[0].steps for other in GPU_SPEEDS]
    assert steps == sorted(steps) and len(set(steps)) == 3


@pytest.mark.parametrize("name", [*system_names(), *GPU_SPEEDS])
def test_a_system_runs(name: str, tmp_path: Path) -> None:
    scene = type(load_config(name).stages[0].scene).registered_name  # type: ignore[union-attr]
    settings = {**TINY, **TINY_SCENES[scene], "device": "cpu"}
    if load_config(name).second is not None:
        settings["second.prior"] = "gaussian"
    config = load_config(name, settings, prompt="a red mug")
    made = run_system(config, tmp_path)
    assert made.status == "finished"
    assert all(bool(torch.isfinite(p).all()) for p in made.scene.parameters().values())


def test_an_unknown_name_lists_both() -> None:
    with pytest.raises(ConfigError, match=r"default.*dreamfusion.*Did you mean.*dreamfusion"):
        load_config("dreamfuson")
