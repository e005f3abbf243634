"""What people type, what disks do, what crashes leave: a clear error or the right result, nothing lost or leaked."""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import dream3d
from dream3d.cli.main import main
from dream3d.config import load_config, load_config_file
from dream3d.errors import Cancelled, Dream3DError, NumericsError, OutputError, PromptError
from dream3d.export import pictures
from dream3d.priors.base import Prior
from dream3d.priors.embedded import PACKAGED
from dream3d.priors.gaussian import ClosedFormPrior
from dream3d.scenes.splats import Splats
from dream3d.scenes.splats_mesh import ColoredMesh
from dream3d.train import StepReport
from dream3d.world.grammar import parse

PROMPTS = {
    "empty": "",
    "long": "a mug " * 1666 + "long",
    "control characters": "a\x00b\x1b[31mc\x7f\x08",
    "unicode": "一只红色的杯子 ☕ ñ \u202e\ufeff\u2028",
    "interpolation": "${oc.env:HOME}",
    "quotes": "a \"quoted\" 'mug'",
    "path": "../../x",
    "comment": "a mug #1",
    "mapping": "statue: marble",
    "flow mapping": "{a: 1}",
    "option": "--help me",
    "newline": "a red\nmug\r\n",
    "shell": "$(touch x)",
}
# Stands for the mesh in tests that are not about it: extracting a true one takes seconds.
TETRAHEDRON = ColoredMesh(
    np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
    np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]),
    np.full((4, 3), 0.5),
)
SMALL = ["steps=5", "scene.count=50", "scene.max_count=60", "render_size=16", "preview_every=3"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pictures, "FRAMES", 2)
    monkeypatch.setattr(Splats, "to_mesh", lambda scene, max_faces: TETRAHEDRON)
    monkeypatch.setenv("HOME", "/secret/home")
    monkeypatch.chdir(tmp_path)


def everything_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def losses(directory: Path) -> list[float]:
    return [
        json.loads(line)["loss"] for line in (directory / "metrics.jsonl").read_text().splitlines()
    ]


@pytest.mark.parametrize("name", PROMPTS)
def test_any_prompt_runs_with_a_prior_that_takes_any(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = PROMPTS[name]
    assert main(["generate", "--preset", "gaussian", "--json", *SMALL, "--", prompt]) == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert (record["status"], record["prompt"]) == ("done", prompt)
    run = tmp_path / record["directory"]
    assert run.parent == tmp_path / "outputs"
    assert everything_in(tmp_path)[0] == "outputs"
    assert [p for p in everything_in(tmp_path) if not p.startswith("outputs")] == []
    assert load_config_file(run / "config.yaml") == load_config("gaussian", SMALL, prompt)
    assert (
        main(["generate", "--config", str(run / "config.yaml"), "--out", "again", "--quiet"]) == 0
    )
    assert (tmp_path / "again" / "config.yaml").read_bytes() == (run / "config.yaml").read_bytes()
    assert losses(tmp_path / "again") == losses(run)
    asset = (run / "asset.ply").read_bytes()
    assert asset == (tmp_path / "again" / "asset.ply").read_bytes()
    assert b"/secret/home" not in captured.out.encode() + (run / "config.yaml").read_bytes()


def test_a_newline_separates_words() -> None:
    assert parse(PROMPTS["newline"]) == parse("a red mug")


@pytest.mark.parametrize("name", [name for name in PROMPTS if name != "newline"])
def test_the_procedural_world_refuses_what_it_does_not_know(name: str) -> None:
    with pytest.raises(PromptError) as caught:
        parse(PROMPTS[name])
    message = str(caught.value)
    assert message.isprintable() and len(message) < 2000
    assert "/secret/home" not in message


shipped = pytest.mark.skipif(
    not PACKAGED.is_dir(),
    reason="this checkout has no embedded prior; train it with `dream3d prior train`",
)


@shipped
@pytest.mark.parametrize("name", [name for name in PROMPTS if name != "newline"])
def test_the_embedded_prior_refuses_and_leaves_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--preset", "default", "--quiet", "--", PROMPTS[name]]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("dream3d: ") and "Traceback" not in captured.err
    assert "\x1b" not in captured.err and "/secret/home" not in captured.err
    assert everything_in(tmp_path) == []


@shipped
@pytest.mark.parametrize("damage", ["truncated", "missing", "changed"])
def test_damaged_weights(damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "weights"
    shutil.copytree(PACKAGED, copy)
    victim = max(copy.rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    whole = victim.read_bytes()
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_bytes(whole[:1000] if damage == "truncated" else whole[:-1] + b"\x55")
    assert main(["generate", "a red mug", "--quiet", "--out", "run", f"prior.path={copy}"]) == 2
    message = capsys.readouterr().err
    assert "reinstall dream3d" in message and "Traceback" not in message
    assert not (tmp_path / "run").exists()


def test_negative_prompts_are_data_too(tmp_path: Path) -> None:
    negative = "${oc.env:HOME}: {a}\n"
    result = dream3d.generate("x", "gaussian", negative_prompt=negative, overrides={"steps": 1})
    assert load_config_file(result.directory / "config.yaml").negative_prompt == negative


def test_a_refusal_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "x", "--preset", "gaussian", "device=cuda:77"]) == 2
    assert main(["generate", "x", "--preset", "gaussian", "setps=3"]) == 2
    assert everything_in(tmp_path) == []
    assert "Traceback" not in capsys.readouterr().err


ROOT = Path(__file__).parent.parent


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """Root may write everywhere, so for the time of a test it is nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        if not os.access(ROOT / "configs", os.R_OK, effective_ids=True):
            pytest.skip("the checkout lies where nobody but root may look")
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """A directory nobody may write to, in one everybody may enter. Everything needed has been imported."""
    assert main(["generate", "x", "--preset", "gaussian", "device=cuda:77"]) == 2
    tmp_path.chmod(0o755)
    directory = tmp_path / "locked"
    directory.mkdir(mode=0o555)
    return directory


def test_a_directory_without_permission(
    locked: Path, ordinary_user: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "x", "--preset", "gaussian", "--out", f"{locked.name}/run"]) == 2
    assert "permission denied; choose a directory you may write to" in capsys.readouterr().err


def test_output_that_refuses_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main(["generate", "x", "--preset", "gaussian", "--out", "run"]) == 2
    assert (
        "permission denied; choose a directory you may write to (--out)" in capsys.readouterr().err
    )


def test_a_disk_that_fills_up_keeps_what_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    write = os.write

    def full(handle: int, data: bytes) -> int:
        if list((out / "checkpoints").glob("stage*")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data)

    settings = [
        "scene.count=50",
        "scene.max_count=60",
        "render_size=16",
        "steps=9",
        "checkpoint_every=4",
    ]
    command = ["generate", "x", "--preset", "gaussian", "--quiet", *settings]
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        assert main([*command, "--out", str(out)]) == 2
    message = capsys.readouterr().err
    assert "the disk is full; free some space" in message
    assert "--resume" in message
    assert not [name for name in everything_in(out) if "partial" in name]
    assert json.loads((out / "result.json").read_text())["status"] == "running"
    assert main(["generate", "--resume", str(out), "--quiet"]) == 0
    assert main([*command, "--out", "unbroken"]) == 0
    assert losses(out) == losses(tmp_path / "unbroken")
    assert (out / "asset.ply").read_bytes() == (tmp_path / "unbroken" / "asset.ply").read_bytes()


def cancelled_at(step: int, out: Path, *overrides: str) -> None:
    def stop(report: StepReport) -> None:
        if report.step == step:
            raise Cancelled("enough")

    settings = dict(text.split("=") for text in (*SMALL[1:], "steps=9", *overrides))
    values = {key: int(value) for key, value in settings.items()}
    result = dream3d.generate("a mug", "gaussian", 3, out, overrides=values, on_step=stop)
    assert result.status == "cancelled"
    assert result.record["steps"] == {"done": step, "total": 9}
    assert {"preview.png", "asset.ply"} <= set(result.files)


def test_a_stopped_run_goes_on_as_if_unbroken(tmp_path: Path) -> None:
    cancelled_at(4, tmp_path / "run")
    result = dream3d.resume(tmp_path / "run")
    assert result.status == "done"
    whole = dream3d.generate(
        "a mug",
        "gaussian",
        3,
        tmp_path / "whole",
        overrides={
            "steps": 9,
            "scene.count": 50,
            "scene.max_count": 60,
            "render_size": 16,
            "preview_every": 3,
        },
    )
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert result.files["asset.ply"].read_bytes() == whole.files["asset.ply"].read_bytes()
    again = dream3d.resume(tmp_path / "run")
    assert (again.status, again.scene) == ("done", None)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_a_damaged_checkpoint(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    cancelled_at(5, out, "checkpoint_every=3")
    checkpoints = sorted((out / "checkpoints").iterdir())
    whole = checkpoints[-1].read_bytes()
    wreck = {
        "truncated": whole[: len(whole) // 2],
        "garbage": b"\x80\x04garbage" * 20,
        "empty": b"",
    }[damage]
    checkpoints[-1].write_bytes(wreck)
    assert main(["generate", "--resume", str(out), "--quiet"]) == 0, "goes back to the one before"
    assert [json.loads(x)["step"] for x in (out / "metrics.jsonl").read_text().splitlines()] == [
        *range(1, 10)
    ]
    capsys.readouterr()
    record = json.loads((out / "result.json").read_text())
    (out / "result.json").write_text(json.dumps({**record, "status": "cancelled"}))
    for path in (out / "checkpoints").iterdir():
        path.write_bytes(wreck)
    before = (out / "asset.ply").read_bytes()
    assert main(["generate", "--resume", str(out), "--quiet"]) == 2
    message = capsys.readouterr().err
    assert "is damaged" in message and "Traceback" not in message
    assert (out / "asset.ply").read_bytes() == before
    assert json.loads((out / "result.json").read_text())["status"] == "failed"


def test_a_damaged_config_or_record_cannot_be_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cancelled_at(2, tmp_path / "run")
    record = (tmp_path / "run" / "result.json").read_text()
    (tmp_path / "run" / "result.json").write_text(record[:20])
    assert main(["generate", "--resume", "run"]) == 2
    assert "result.json cannot be read" in capsys.readouterr().err
    (tmp_path / "run" / "config.yaml").write_text("steps: [")
    assert main(["generate", "--resume", "run"]) == 2
    assert "is not valid YAML" in capsys.readouterr().err


def test_a_failure_is_recorded_and_raised(tmp_path: Path) -> None:
    def explode(report: StepReport) -> None:
        raise NumericsError("the numbers are gone")

    with pytest.raises(NumericsError):
        dream3d.generate("x", "gaussian", out=tmp_path / "run", on_step=explode)
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert record["status"] == "failed"
    assert record["error"] == {"type": "NumericsError", "message": "the numbers are gone"}


def test_a_bug_is_recorded_and_keeps_its_traceback(tmp_path: Path) -> None:
    def bug(report: StepReport) -> None:
        raise ZeroDivisionError("oops")

    with pytest.raises(ZeroDivisionError):
        dream3d.generate("x", "gaussian", out=tmp_path / "run", on_step=bug)
    assert (
        json.loads((tmp_path / "run" / "result.json").read_text())["error"]["type"]
        == "ZeroDivisionError"
    )


def test_an_asset_that_is_not_finite_fails_the_run(tmp_path: Path) -> None:
    def poison(report: StepReport) -> None:
        if report.step == report.steps:
            report.scene.parameters()["means"].data[0] = float("nan")

    with pytest.raises(Dream3DError, match="not finite"):
        dream3d.generate(
            "x", "gaussian", out=tmp_path / "run", overrides={"steps": 2}, on_step=poison
        )
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"
    assert not (tmp_path / "run" / "asset.ply").exists()


def test_the_api_refuses_like_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        dream3d.generate("x", "gaussian", out=tmp_path / "full")
    assert everything_in(tmp_path) == ["full", "full/thesis.txt"]


REFUSED_AT_LOAD = {
    "guidance.cfg_scale=.nan": "guidance.cfg_scale.initial is nan",
    "guidance.cfg_scale=-2": "guidance.cfg_scale is -2",
    "time.min=0.9": "time.min .0.9. exceeds time.max|time.min",
    "guidance=cfd": "its time must fall from step",
    "guidance={name: sum, parts: [cfd], shares: [1]}": "its time must fall from step",
    "view_prompts=foo": "view_prompts is",
}


@pytest.mark.parametrize("override", REFUSED_AT_LOAD)
def test_settings_that_cannot_work_are_refused_before_anything_is_written(
    override: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["generate", "a mug", "--preset", "gaussian", "time.max=0.5", override]
    assert main(options) == 2
    message = capsys.readouterr().err
    assert re.search(REFUSED_AT_LOAD[override], message), message
    assert "Traceback" not in message and everything_in(tmp_path) == []


def test_four_jointly_denoised_views_cannot_be_three(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "a red mug", "views=3", "--preset", "fast"]) == 2
    message = capsys.readouterr().err
    assert (
        "stages.0.views is 3, but prior 'embedded' denoises 4 views of an object together"
        in message
    )
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize("name", ["vsd", "esd"])
def test_a_companion_is_asked_of_no_prior_without_one(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClosedFormPrior, "companion", Prior.companion)
    assert main(["generate", "a mug", "--preset", "gaussian", f"guidance={name}"]) == 2
    message = capsys.readouterr().err
    assert (
        f"guidance is '{name}', which needs a trainable companion, and prior 'gaussian'" in message
    )
    assert everything_in(tmp_path) == []
