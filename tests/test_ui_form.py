"""The form is the configuration: every setting of every part has a control, and what is not touched changes nothing."""

import dataclasses
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dream3d.config import load_config, preset_names
from dream3d.config.build import COMPONENTS
from dream3d.errors import ConfigError
from dream3d.jobs import JobStore
from dream3d.schedules import Ramp, constant
from dream3d.ui.filled import SPEEDS, edits, form_data, read_form
from dream3d.ui.form import (
    PARTS,
    Field,
    changed_settings,
    chosen_config,
    form_fields,
    part_name,
    ramp_text,
    read_ramp,
    shown,
)
from dream3d.ui.history import Pace
from guidance.base import GUIDANCE
from guidance.guiders import GUIDERS, Guider


def all_fields(preset: str, **parts: str) -> list[Field]:
    groups = form_fields(chosen_config(preset, parts))
    return [field for group in groups.values() for field in group]


def another(field: Field) -> Any:
    """A value the setting takes and does not have."""
    if field.kind == "switch":
        return not field.value
    if field.kind == "choice":
        return next(c for c in field.choices if c != field.value)
    low, high = field.allowed.low, field.allowed.high
    if field.kind == "ramp":
        number = read_ramp(field.value, field.path)
        here = number["final"] if isinstance(number, dict) else number
        return f"{_beside(here, low, high):g}"
    if field.kind in ("whole", "number"):
        return _beside(field.value, low, high)
    return None


def _beside(value: float, low: float | None, high: float | None) -> float:
    whole = isinstance(value, int)
    for other in (
        value + 1,
        value - 1,
        value / 2,
        (value + (high or 0)) / 2,
        (value + (low or 0)) / 2,
    ):
        other = int(other) if whole else other
        if other != value and (low is None or other > low) and (high is None or other < high):
            return other
    raise AssertionError(f"nothing beside {value} in {low}..{high}")


@pytest.mark.parametrize("preset", preset_names())
def test_an_untouched_form_is_the_preset(preset: str) -> None:
    fields = all_fields(preset)
    assert changed_settings(fields, {field.path: field.value for field in fields}) == {}
    assert changed_settings(fields, {}) == {}
    assert len({field.path for field in fields}) == len(fields)


def beside(kind: str, name: str) -> dict[str, str]:
    """The part in the default preset, with another time where it wants one."""
    for more in ({}, {"time": "flow"}):
        with suppress(ConfigError):
            chosen_config("default", {kind: name, **more})
            return {kind: name, **more}
    pytest.skip(f"{name} cannot do without being told something first")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in PARTS for name in COMPONENTS[kind].names()]
)
def test_every_setting_of_every_part_can_be_changed(kind: str, name: str) -> None:
    """One at a time: the configuration takes it, and the form then shows it."""
    parts = beside(kind, name)
    fields = all_fields("default", **parts)
    own = [field for field in fields if field.path.startswith(f"{kind}.")]
    declared = {f.name for f in dataclasses.fields(COMPONENTS[kind][name]) if f.init}
    assert {field.name for field in own} == declared
    for field in own:
        value = another(field)
        if value is None:
            continue
        written = value if field.kind == "switch" else str(value)
        changed = changed_settings(fields, {field.path: written})
        assert list(changed) == [field.path]
        try:
            config = load_config("default", {**parts, **changed})
        except ConfigError as error:
            # Some settings only make sense together with another one; then the class says so.
            assert field.name in str(error) or name in str(error)
            continue
        now = getattr(getattr(config.stages[0], kind), field.name)
        assert (ramp_text(now) if field.kind == "ramp" else str(now)) == str(value)


def test_fields_know_their_bounds_and_help() -> None:
    fields = {field.path: field for field in all_fields("default")}
    rescale = fields["guidance.rescale"]
    assert rescale.kind == "number" and rescale.value == 0.5
    assert rescale.info.startswith("Share of standard-deviation rescaling")
    assert rescale.info.endswith("Allowed: 0 to 1.")
    assert fields["guidance.weight"].choices and fields["scene.antialias"].kind == "switch"
    assert fields["guidance.cfg_scale"].value == "10 -> 3"
    assert fields["views"].kind == "whole" and "steps" not in fields


def test_the_guider_has_controls_of_its_own() -> None:
    fields = {field.path: field for field in form_fields(chosen_config("default"))["guider"]}
    assert list(fields) == [f"guider.{f.name}" for f in dataclasses.fields(Guider)]
    assert fields["guider.name"].kind == "choice" and fields["guider.name"].choices == GUIDERS
    assert (
        fields["guider.eta"].info.endswith("Allowed: 0 to 1.")
        and "Apg" in fields["guider.eta"].info
    )
    written = {"guider.name": "apg", "guider.eta": "0.25", "guider.norm": "0"}
    sent = {"prompt": "a mug", "settings": {**written, "guider.rescale": "0"}}
    request = read_form(sent, "")
    config = load_config("default", request.overrides, "a mug")
    assert config.stages[0].guider == Guider("apg", eta=0.25, norm=0.0)
    assert edits(config, chosen_config("default")) == {
        "guider.name": "apg",
        "guider.eta": 0.25,
        "guider.norm": 0.0,
    }
    with pytest.raises(ConfigError, match=r"guider\.eta is 2"):
        load_config("default", {"guider.eta": 2})


def test_a_sum_is_written_as_names_and_shares() -> None:
    fields = all_fields("default", guidance="sum")
    shown = {field.path: field.value for field in fields}
    assert shown["guidance.parts"] == "sds, classifier-score"
    written = {"guidance.parts": "sds, ism", "guidance.shares": "1, 0 -> 0.5"}
    changed = changed_settings(fields, written)
    guidance = load_config("default", {"guidance": "sum", **changed}).stages[0].guidance
    assert [part_name(part) for part in guidance.parts] == ["sds", "ism"]  # type: ignore[attr-defined]
    assert guidance.shares == (constant(1.0), Ramp(0.0, 0.5))  # type: ignore[attr-defined]


def test_no_control_shows_an_object_of_the_program() -> None:
    for name in GUIDANCE.names():
        part = GUIDANCE[name]()
        for field in dataclasses.fields(part):
            value = str(shown(getattr(part, field.name)))
            assert "(" not in value, f"guidance.{field.name} of {name} shows {value}"
    assert not [field.path for field in all_fields("default") if "(" in str(field.value)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7.5", 7.5),
        (" 10 -> 3 ", {"initial": 10.0, "final": 3.0}),
        ("10 → 3", {"initial": 10.0, "final": 3.0}),
        ("1e-2 -> 0 @ 0.25..0.75", {"initial": 0.01, "final": 0.0, "start": 0.25, "end": 0.75}),
        ("-1", -1.0),
    ],
)
def test_schedules_are_written_as_text(text: str, value: Any) -> None:
    assert read_ramp(text, "x") == value


@pytest.mark.parametrize("ramp", [constant(7.5), Ramp(10.0, 3.0), Ramp(0.98, 0.5, 0.0, 0.5)])
def test_schedules_come_back(ramp: Ramp) -> None:
    read = read_ramp(ramp_text(ramp), "x")
    again = Ramp(**read) if isinstance(read, dict) else constant(read)
    assert again == ramp


@pytest.mark.parametrize(
    "text", ["", "high", "1 ->", "1 -> 2 @ 3", "${oc.env:HOME}", "{initial: 1}"]
)
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"guidance\.cfg_scale is"):
        read_ramp(text, "guidance.cfg_scale")


@pytest.mark.parametrize(
    ("path", "written", "what"),
    [
        ("guidance.strength", "1", "guidance.strength is not a setting of what is chosen"),
        ("prior.__class__", "1", "is not a setting"),
        ("guidance.rescale", "", "guidance.rescale is empty; give a value, e.g. 0.5"),
        ("guidance.rescale", "much", "guidance.rescale is 'much'; it must be a number"),
        ("views", "2.5", "views is 2.5; it must be a whole number"),
        ("scene.antialias", "yes", "scene.antialias is 'yes'; it is a switch"),
        ("cameras.elevation_deg", "{}", "write values with commas"),
    ],
)
def test_what_cannot_be_read_is_refused(path: str, written: Any, what: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(what)):
        changed_settings(all_fields("default"), {path: written})


def test_the_forms_request() -> None:
    """Only what was changed is in it, and a part that is the preset's own is no change."""
    sent = {
        "prompt": "a mug",
        "preset": "default",
        "seed": "7",
        "steps": "400",
        "parts": {"guidance": "ism", "scene": "splats"},
        "settings": {"guidance.cfg_scale": "5 -> 2", "scene.antialias": True},
    }
    request = read_form(sent, "ada")
    schedule = {"initial": 5.0, "final": 2.0}
    assert request.overrides == {"guidance": "ism", "guidance.cfg_scale": schedule}
    assert (request.prompt, request.seed, request.owner) == ("a mug", 7, "ada")
    assert read_form({**sent, "steps": "12"}, "").overrides["steps"] == 12  # type: ignore[call-overload]
    assert "steps" not in read_form({**sent, "steps": None}, "").overrides


@pytest.mark.parametrize(
    ("sent", "what"),
    [
        ([], "the form sends an object"),
        ({"out": "/tmp/x"}, "the form sends an object"),
        ({"parts": {"prior": "oracle"}}, "parts are scene, guidance"),
        ({"parts": {"scene": {"name": "nerf"}}}, "parts are names"),
        ({"steps": ""}, "steps is empty"),
        ({"steps": "0"}, "steps is 0; give a whole number from 1 to 1,000,000"),
        ({"steps": "1000001"}, "steps is 1000001; give a whole number from 1 to 1,000,000"),
        ({"seed": "-1"}, "seed is -1"),
        ({"seed": str(2**63)}, "from 0 to 9,223,372,036,854,775,807"),
        ({"preset": "../x"}, "preset is '../x'"),
    ],
)
def test_forms_that_cannot_be_meant(sent: Any, what: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(what)):
        read_form({"prompt": "a mug", **sent} if isinstance(sent, dict) else sent, "")


def test_the_form_is_told_in_json() -> None:
    form = form_data("default", {"guidance": "ism"}, 10, Pace(JobStore(Path("nowhere"))))
    assert json.loads(json.dumps(form)) == form and form["seconds"] is None
    guidance = form["groups"][0]
    assert guidance["title"] == "Guidance: ism" and guidance["origin"]["paper"]
    assert {part["kind"]: part["chosen"] for part in form["parts"]}["guidance"] == "ism"
    assert [preset["name"] for preset in form["presets"]][:4] == list(SPEEDS)
    broken = form_data("default", {"guidance": "rfds"}, None, Pace(JobStore(Path("nowhere"))))
    assert broken["problem"] and broken["groups"] == []


def test_another_part_starts_from_its_own_defaults() -> None:
    config = chosen_config("default", {"scene": "nerf", "guidance": "ism"})
    assert part_name(config.stages[0].scene) == "nerf"
    assert config.stages[0].guidance == GUIDANCE["ism"]()
