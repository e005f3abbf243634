"""Configuration: what is accepted, what is refused and how it is said, and exact round trips."""

import dataclasses
import random
from pathlib import Path

import pytest

from dream3d.config import (
    config_to_yaml,
    load_config,
    load_config_file,
    load_config_text,
    preset_names,
)
from dream3d.config.layers import merge, split_override
from dream3d.config.plain_yaml import parse_value, read_mapping, to_text
from dream3d.errors import ConfigError, PromptError
from dream3d.schedules import Ramp, constant

TWO_STAGES = """
prior: gaussian
scene: {name: canvas, size: 8}
guidance: sds
conditioning: text
steps: 7
stages:
  - {steps: 3}
  - {guidance: ism, views: 1}
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_survives_a_round_trip(name: str) -> None:
    config = load_config(name, prompt="a red mug", seed=3)
    assert load_config_text(config_to_yaml(config)) == config


@pytest.mark.parametrize(
    "override",
    [
        "guidance.cfg_scale.final=3",
        "guidance.cfg_scale={initial: 1, final: 2, start: 0.25, end: 1e-0}",
        "time=annealed",
        "time.max=9e-1",
        "cameras.elevation_deg=[-5, 5]",
        "betas=[0.0, 0.99]",
        "seed=9223372036854775807",
        "device=cpu",
        "stages.0.steps=12",
    ],
)
def test_overrides_survive_a_round_trip(override: str) -> None:
    config = load_config("gaussian", [override], "x")
    assert config != load_config("gaussian", prompt="x")
    assert load_config_text(config_to_yaml(config)) == config


def test_values_arrive_with_their_types() -> None:
    config = load_config(
        "gaussian", ["steps=100_000", "time.min=1e-3", "betas=[0, 0.5]", "guidance.cfg_scale=4"]
    )
    stage = config.stages[0]
    assert stage.steps == 100000
    assert stage.time.min == constant(0.001)  # type: ignore[attr-defined]
    assert stage.betas == (0.0, 0.5)
    assert stage.guidance.cfg_scale == constant(4.0)  # type: ignore[attr-defined]


def test_a_constant_becomes_a_schedule_by_one_of_its_ends() -> None:
    stage = load_config("gaussian", ["guidance.cfg_scale=4", "guidance.cfg_scale.final=3"]).stages[
        0
    ]
    assert stage.guidance.cfg_scale == Ramp(4.0, 3.0)  # type: ignore[attr-defined]


def test_mapping_overrides_are_values_not_text() -> None:
    config = load_config("gaussian", {"steps": 5, "guidance.cfg_scale": {"final": 2}})
    assert config.stages[0].steps == 5
    assert config.stages[0].guidance.cfg_scale.final == 2.0  # type: ignore[attr-defined]


# The whole message, so that nobody makes one worse without noticing.
MESSAGES = {
    "guidance.cfg_scal=3": "stages.0.guidance.cfg_scal is not a setting of guidance 'sds'. "
    "Did you mean 'cfg_scale'? Known: ",
    "guidance=sdss": "stages.0.guidance.name: guidance is 'sdss'; choose one of ",
    "guidance.cfg_scale=nan": "stages.0.guidance.cfg_scale is nan; choose a finite number",
    "guidance.cfg_scale=-3": "stages.0.guidance: guidance.cfg_scale is -3.0; choose a finite "
    "number of at least 0",
    "guidance.cfg_scale=abc": "stages.0.guidance.cfg_scale is 'abc'; it must be a number, or "
    "{initial, final, start, end}",
    "guidance.cfg_scale={initial: 1, finl: 2}": "stages.0.guidance.cfg_scale.finl is not a setting "
    "of a schedule. Did you mean 'final'? Known: initial, final, start, end.",
    "guidance.cfg_scale={start: 0.9, end: 0.1}": "stages.0.guidance.cfg_scale: a schedule needs 0 <= start <= "
    "end <= 1 (fractions of the stage), got start 0.9 and end 0.1",
    "guidance.weight=heavy": "stages.0.guidance.weight is 'heavy'; it must be one of ",
    "steps=1.5": "stages.0.steps is 1.5; it must be a whole number",
    "steps=true": "stages.0.steps is True; it must be a whole number",
    "steps=": "stages.0.steps is None; it must be a whole number",
    "steps=0": "stages.0: steps is 0; it must be at least 1",
    "steps.final=3": "stages.0.steps is {'initial': 40, 'final': 3}; it must be a whole number",
    "stes=3": "stes is not a setting of a run. Did you mean 'steps'? Known: ",
    "stages.1.steps=3": "stages.1.steps does not name a stage's setting; write stages.N.key with N "
    "from 0 to 0",
    "stages=3": "stages does not name a stage's setting; write stages.N.key with N from 0 to 0",
    "stages.0.stpes=3": "stages.0.stpes is not a setting of a stage. Did you mean 'steps'? Known: ",
    "betas=[1]": "stages.0.betas is [1]; it must be [a number, a number]",
    "betas=[1.5, 0.9]": "stages.0: betas is [1.5, 0.9]; choose two numbers in [0, 1)",
    "betas=[nan, 0.9]": "stages.0.betas.0 is nan; choose a finite number",
    "pixel_clip=nan": "stages.0.pixel_clip is nan; choose a finite number",
    "betas=[1": "betas=[1 is not valid: write lists as [1, 2], mappings as {a: 1}",
    "conditioning=foo": "stages.0.conditioning is 'foo'; it must be one of text, camera, multiview",
    "view_words=maybe": "stages.0.view_words is 'maybe'; it must be true or false",
    "prior.std=.nan": "prior.std is nan; choose a finite number",
    "prior.std=nan": "prior.std is nan; choose a finite number",
    "prior.std=inf": "prior.std is inf; choose a finite number",
    "prior.std=-1": "prior: prior.std is -1.0; it must be positive",
    "prior=x": "prior.name: prior is 'x'; choose one of ",
    "guidance=3": "stages.0.guidance is 3; write a name (",
    "device=3": "device is 3; choose auto, cpu, cuda or cuda:1",
    "seed=-1": "seed is -1; choose an integer in [0, 2^63)",
    "seed=1.0": "seed is 1.0; choose an integer in [0, 2^63)",
    "prompt=x": "prompt cannot be set by an override; it is the argument of the command: "
    'dream3d generate "a red mug"',
    "negative_prompt=x": "negative_prompt cannot be set by an override; it has an option of its own: "
    "--negative",
    "steps": "'steps' is not an override; write key=value, e.g. steps=200",
    "=5": "'=5' is not an override; write key=value, e.g. steps=200",
    "format_version=2": "format_version is not a setting of a run. Known: ",
    "scene.count=x": "stages.0.scene.count is 'x'; it must be a whole number",
    "scene.sh_degree.a=2": "stages.0.scene.sh_degree is {'a': 2}; it must be a whole number",
    "cameras.elevation_deg.0=2": "stages.0.cameras.elevation_deg is {'0': 2}; it must be [a number, a number]",
}


@pytest.mark.parametrize("override", MESSAGES)
def test_refusals_name_the_key_and_the_remedy(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("gaussian", [override], "x")
    message, expected = str(caught.value), MESSAGES[override]
    assert (
        message.startswith(expected) if expected[-2:] in (": ", "f ", " (") else message == expected
    )


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("view_words=false", "view_prompts is 'perp-neg' and view_words is false.*view_words=true"),
        ("guider=apg", "guider.name is 'apg' and view_prompts is 'perp-neg'.*guider.name=cfg"),
    ],
)
def test_what_perp_neg_would_leave_out_is_refused(other: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("gaussian", ["view_prompts=perp-neg", other], "x")


def test_unknown_preset() -> None:
    with pytest.raises(
        ConfigError, match=r"preset is 'gausian'; choose one of .*Did you mean 'gaussian'\?"
    ):
        load_config("gausian")
    with pytest.raises(ConfigError, match=r"preset is '\.\./"):
        load_config("../../etc/passwd")


def test_keys_at_the_top_hold_for_every_stage(tmp_path: Path) -> None:
    config = load_config_file(write(tmp_path, TWO_STAGES), prompt="x")
    first, second = config.stages
    assert (first.steps, second.steps) == (3, 7)
    assert (first.views, second.views) == (4, 1)
    assert first.scene is not None
    assert second.scene is None, (
        "a scene at the top belongs to the first stage; later ones go on with it"
    )
    assert type(second.guidance).registered_name == "ism"  # type: ignore[attr-defined]
    assert load_config_text(config_to_yaml(config)) == config


def test_overrides_reach_every_stage_or_one(tmp_path: Path) -> None:
    path = write(tmp_path, TWO_STAGES)
    config = load_config_file(path, ["steps=9", "stages.1.steps=5", "scene.size=16"], "x")
    assert [stage.steps for stage in config.stages] == [9, 5]
    assert config.stages[0].scene.size == 16  # type: ignore[union-attr]
    assert config.stages[1].scene is None


def test_another_name_forgets_the_old_settings_in_any_order(tmp_path: Path) -> None:
    base = "prior: gaussian\nscene: canvas\nguidance: sds\ntime: {name: uniform, max: 0.5}\n"
    path = write(tmp_path, base)
    for overrides in (
        ["time=annealed", "time.jitter=0.1"],
        ["time.jitter=0.1", "time.name=annealed"],
    ):
        stage = load_config_file(path, overrides, "x").stages[0]
        assert (stage.time.initial, stage.time.jitter) == (0.98, 0.1)  # type: ignore[attr-defined]


def test_extends_puts_a_preset_under_a_file(tmp_path: Path) -> None:
    config = load_config_file(write(tmp_path, "extends: gaussian\nprompt: x\nsteps: 3\n"))
    assert config == load_config("gaussian", ["steps=3"], "x")
    with pytest.raises(ConfigError, match="preset is 'nope'"):
        load_config_file(write(tmp_path, "extends: nope\nprompt: x\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: 3\nsteps: 4", "the key 'steps' is given twice"),
        ("- 1", "holds list"),
        ("[", "is not valid YAML"),
        ("[" * 5000, "is not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "is not valid YAML"),
        ("1: 2", "the key 1 is not text"),
        ("format_version: 99", "has format_version 99; this dream3d reads 1"),
        ("prior: gaussian\nguidance: sds\nprompt: x", "the first stage must name its scene"),
        ("prior: gaussian\nscene: canvas\nprompt: x", "stages.0.guidance is missing"),
        ("scene: canvas\nguidance: sds\nprompt: x", "prior.name is missing; choose one of"),
        ("extends: gaussian\nstages: []\nprompt: x", "stages must be a list"),
        ("extends: gaussian\nstages: [3]\nprompt: x", "stages must be a list"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config_file(write(tmp_path, text))
    assert message in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config_file(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config_file(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_config_file(tmp_path / "binary")


def test_the_prompt_must_be_there_and_be_text(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="has no prompt; give one"):
        load_config_file(write(tmp_path, "extends: gaussian"))
    with pytest.raises(PromptError, match="prompt is 2024; it must be text"):
        load_config_file(write(tmp_path, "extends: gaussian\nprompt: 2024"))
    with pytest.raises(PromptError, match="prompt is 3; it must be text"):
        load_config("gaussian", prompt=3)  # type: ignore[arg-type]


def test_interpolation_is_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET", "leaked")
    path = write(tmp_path, "extends: gaussian\nprompt: ${oc.env:SECRET}\n")
    assert load_config_file(path).prompt == "${oc.env:SECRET}"
    with pytest.raises(ConfigError, match=r"conditioning is '\$\{oc\.env:SECRET\}'"):
        load_config("gaussian", ["conditioning=${oc.env:SECRET}"])
    config = load_config("gaussian", ["device=${oc.env:SECRET}"])
    assert config.device == "${oc.env:SECRET}"


def test_loading_is_pure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    load_config("gaussian", prompt="x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("100_000", 100000),
        ("no", "no"),
        ("010", "010"),
        ("", None),
        ("a: b", "a: b"),
        ("a #1", "a #1"),
        ("${x}", "${x}"),
        ("[1, 2]", [1, 2]),
        ("'7'", "7"),
        ("true", True),
    ],
)
def test_scalars(text: str, value: object) -> None:
    assert parse_value(text, "key") == value
    assert split_override(f"key={text}") == ("key", value)


def test_any_text_survives_yaml(tmp_path: Path) -> None:
    rng = random.Random(0)
    nasty = [0x85, 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF, 0xD800, 0xDFFF, 0x1F600, 0x4E2D, 0x200B]
    pool = [chr(c) for c in [*range(160), *nasty]]
    path = tmp_path / "text.yaml"
    for _ in range(500):
        text = "".join(rng.choice(pool) for _ in range(rng.randint(0, 12)))
        data = {"prompt": text, "inner": {"list": [1.0, 2, text], "small": 1e-5, "none": None}}
        path.write_text(to_text(data), encoding="utf-8")
        assert read_mapping(path.read_text(encoding="utf-8"), "x") == data


def test_prompts_come_back_exactly(tmp_path: Path) -> None:
    for prompt in (
        "",
        "a\nb\r\nc",
        "null",
        "true",
        "1",
        "{a: 1}",
        "x: y",
        "#",
        "'",
        '"',
        "${a}",
        " a ",
        "\0\x1b",
    ):
        config = load_config("gaussian", prompt=prompt, negative_prompt=prompt[::-1])
        path = write(tmp_path, config_to_yaml(config))
        assert load_config_file(path) == config


def test_merge_keeps_and_replaces() -> None:
    base = {"a": {"name": "x", "k": 1}, "b": 2}
    assert merge(base, {"a": {"j": 3}}) == {"a": {"name": "x", "k": 1, "j": 3}, "b": 2}
    assert merge(base, {"a": {"name": "y"}}) == {"a": {"name": "y"}, "b": 2}
    assert base == {"a": {"name": "x", "k": 1}, "b": 2}


def test_every_setting_is_written() -> None:
    config = load_config("gaussian", prompt="x")
    stage = read_mapping(config_to_yaml(config), "x")["stages"][0]
    assert set(stage) == {field.name for field in dataclasses.fields(config.stages[0])}
