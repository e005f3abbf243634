"""The command line: what it prints, where, with which exit status; stopping and going on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import dream3d
from dream3d.cli.main import COMMANDS, main, printable
from dream3d.export import pictures
from dream3d.scenes.splats import Splats
from dream3d.scenes.splats_mesh import ColoredMesh

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "dream3d.cli.main"]
# Stands for the mesh in tests that are not about it: extracting a true one takes seconds.
TETRAHEDRON = ColoredMesh(
    np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
    np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]),
    np.full((4, 3), 0.5),
)
TINY = ["--preset", "gaussian", "--quiet"]


@pytest.fixture(autouse=True)
def short_films(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "FRAMES", 4)
    monkeypatch.setattr(Splats, "to_mesh", lambda scene, max_faces: TETRAHEDRON)


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def only_json(text: str) -> dict:
    value, end = json.JSONDecoder().raw_decode(text)
    assert text[end:].strip() == "", "one JSON object on standard output and nothing else"
    assert value["format_version"] == 1
    return value


def test_help_is_quick_and_loads_no_torch() -> None:
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run(
            [*COMMAND, "--help"], capture_output=True, text=True, cwd=ROOT, check=True
        )
        seconds.append(time.perf_counter() - began)
    assert all(name in done.stdout for name in COMMANDS)
    assert min(seconds) < 0.5
    code = "import sys; from dream3d.cli.main import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False
        ).returncode
        == 0
    )


def test_the_package_runs_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dream3d", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0 and all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*name.split(), "--help"])
    assert caught.value.code == 0
    assert f"usage: dream3d {name}" in capsys.readouterr().out


def test_generate_prints_the_run_directory_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "generate",
        "a red mug",
        "--preset",
        "gaussian",
        "--out",
        tmp_path / "run",
        "steps=5",
        "--profile",
    )
    status, out, err = run(capsys, *arguments)
    assert status == 0
    assert out == f"{tmp_path / 'run'}\n"
    assert "step 1/5  loss " in err
    assert "step 5/5  loss " in err
    assert "export preview.png" in err
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (record["status"], record["prompt"], record["seed"]) == ("done", "a red mug", 0)
    assert record["steps"] == {"done": 5, "total": 5}
    assert record["versions"]["dream3d"] == dream3d.__version__
    assert record["peak_memory_megabytes"] > 10
    assert record["error"] is None
    assert set(record["files"]) >= {
        "config.yaml",
        "metrics.jsonl",
        "preview.png",
        "turntable.mp4",
        "asset.ply",
        "asset.glb",
    }
    for name, about in record["files"].items():
        assert (tmp_path / "run" / name).stat().st_size == about["bytes"] > 0
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def test_options_and_settings_mix_in_any_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "generate",
        "--seed",
        "7",
        "a mug",
        "steps=4",
        *TINY,
        "views=1",
        "--negative",
        "a cat",
    )
    status, out, _ = run(capsys, *arguments, "--json", "--out", tmp_path / "run")
    record = only_json(out)
    assert status == 0
    assert (record["prompt"], record["negative_prompt"], record["seed"]) == ("a mug", "a cat", 7)
    assert record["directory"] == str(tmp_path / "run")
    assert "views: 1" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "prompt"),
    [
        (["--", "--help me"], "--help me"),
        (["--help me"], "--help me"),
        (["steps=2", "--", "--json"], "--json"),
        (["--", "a=b", "steps=2"], "a=b"),
        (["a=b"], "a=b"),
        (["-"], "-"),
        ([""], ""),
    ],
)
def test_prompts_that_look_like_options(
    arguments: list[str], prompt: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*TINY, "--json", "--out", str(tmp_path / "run"), "preview_every=9"]
    place = 0 if "--" in arguments else len(arguments)
    status, out, _ = run(capsys, "generate", *arguments[:place], *options, *arguments[place:])
    assert status == 0
    assert only_json(out)["prompt"] == prompt


# The whole line on standard error.
MISTAKES = {
    (): None,
    ("foo",): f"unknown command 'foo'; choose one of {', '.join(COMMANDS)}.",
    (
        "a red mug",
    ): "unknown command 'a red mug'; a prompt goes after `generate`: dream3d generate \"a red mug\"",
    ("generate",): 'what to make is missing: dream3d generate "a red mug"',
    ("generate", "x", "--presett=y"): "unrecognized arguments: --presett=y (text that begins "
    "with a dash goes after `--`); see `dream3d generate --help`",
    ("generate", "x", "--seed", "one"): "--seed is 'one'; choose an integer in [0, 2^63)",
    (
        "generate",
        "x",
        "--preset",
        "gaussian",
        "--seed",
        "-1",
    ): "seed is -1; choose an integer in [0, 2^63)",
    (
        "generate",
        "x",
        "--preset",
        "gaussian",
        "stepps=3",
    ): "stepps is not a setting of a run. Did you mean 'steps'?",
    (
        "generate",
        "x",
        "--preset",
        "gaussian",
        "two",
    ): "'two' is not an override; write key=value, e.g. steps=200",
    (
        "generate",
        "x",
        "--preset",
        "a",
        "--config",
        "b",
    ): "--config and --preset exclude each other; a file holds all settings",
    ("generate", "--config", "nowhere.yaml"): "cannot read nowhere.yaml: No such file or directory",
    ("generate", "--resume", "nowhere"): "nowhere is not a run directory: it has no config.yaml.",
    (
        "generate",
        "x",
        "--resume",
        "y",
        "--seed",
        "1",
    ): "--resume goes on with a run as it was begun, so --seed, a "
    "prompt or settings cannot be given with it",
    (
        "generate",
        "x",
        "--preset",
        "gaussian",
        "device=cuda:77",
    ): "device is 'cuda:77', but torch sees no such GPU",
    (
        "generate",
        "x",
        "--preset",
        "gaussian",
        "device=toaster",
    ): "device is 'toaster'; choose auto, cpu,",
    ("config", "nope"): "preset is 'nope'; choose one of ",
    ("world",): "`dream3d world` is a group of commands; choose one of world show",
    (
        "prior",
        "trian",
    ): "`dream3d prior` is a group of commands; choose one of prior train, prior sample, prior "
    "evaluate",
    ("genrate", "x"): "unknown command 'genrate'; choose one of ",
    ("prior", "sample"): 'what to draw is missing: dream3d prior sample "a red mug"',
    ("prior", "sample", "x", "--steps", "0"): "--steps is 0; choose 1 to 1000",
    (
        "prior",
        "sample",
        "x",
        "--prior",
        "gaussian",
        "--views",
        "frnt",
    ): "--views has 'frnt'; choose of ",
    ("evaluate", "nowhere"): "nowhere is not a run directory: it has no config.yaml.",
    ("world", "show", "--color", "rde"): "--color is 'rde'; choose one of ",
    ("list",): "the following arguments are required: kind",
    ("list", "cats"): "argument kind: invalid choice: 'cats'",
}


@pytest.mark.parametrize("arguments", [key for key in MISTAKES if key])
def test_mistakes_are_one_message_and_status_two(
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    message = err.removeprefix(f"dream3d {dream3d.__version__}: loading\n")
    assert message.startswith(f"dream3d: {MISTAKES[arguments]}"), err
    assert message.count("\n") == 1
    status, out, _ = run(capsys, *arguments, "--json")
    failure = only_json(out)
    assert (status, failure["status"]) == (2, "failed")
    assert failure["error"]["message"].startswith(str(MISTAKES[arguments]))


@pytest.mark.parametrize(
    "kind", ["priors", "guidance", "scenes", "renderers", "systems", "presets"]
)
def test_list(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "list", kind, "--json")
    items = only_json(out)["items"]
    assert status == 0
    assert all(item["summary"] for item in items)
    names = [item["name"] for item in items]
    assert names == sorted(set(names))
    expected = {
        "priors": "gaussian",
        "guidance": "sds",
        "renderers": "splats/torch",
        "presets": "gaussian",
    }
    assert expected.get(kind, names[0] if names else None) in [*names, None]
    assert run(capsys, "list", kind)[1].count("\n") == max(1, len(names)) or not names


def test_list_tells_settings_with_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "list", "guidance", "--json")
    sds = next(item for item in only_json(out)["items"] if item["name"] == "sds")
    scale = next(setting for setting in sds["settings"] if setting["name"] == "cfg_scale")
    assert scale["type"] == "a number, or {initial, final, start, end}"
    assert isinstance(scale["default"], float)


def test_list_tells_where_a_guidance_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "list", "guidance", "--json")
    items = {item["name"]: item for item in only_json(out)["items"]}
    assert all(item["paper"] and item["formula"] for item in items.values())
    assert items["sds"]["evaluations"] == {"least": 2, "most": 2}
    assert items["noise-free-score"]["evaluations"] == {"least": 2, "most": 3}
    assert items["coupled-score"]["experimental"] and not items["sds"]["experimental"]


def test_config_prints_what_generate_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, "config", "gaussian", "steps=3")
    assert status == 0
    (tmp_path / "mine.yaml").write_text(out)
    arguments = (
        "generate",
        "a cat",
        "--config",
        tmp_path / "mine.yaml",
        "--quiet",
        "--json",
        "--out",
        tmp_path / "r",
    )
    record = only_json(run(capsys, *arguments)[1])
    assert (record["prompt"], record["steps"]["done"]) == ("a cat", 3)
    status, out, _ = run(capsys, "config", "gaussian", "--json")
    assert only_json(out)["config"]["prior"]["name"] == "gaussian"


def test_repeating_from_a_config_file_gives_the_same_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "generate", "a mug", *TINY, "--out", tmp_path / "a", "steps=6", "--seed", "5")
    run(
        capsys,
        "generate",
        "--config",
        tmp_path / "a" / "config.yaml",
        "--out",
        tmp_path / "b",
        "--quiet",
    )

    def losses(name: str) -> list[float]:
        return [
            json.loads(line)["loss"]
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]

    assert losses("a") == losses("b")
    assert len(losses("a")) == 6
    for name in ("config.yaml", "preview.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_keeps_what_there_is(tmp_path: Path, number: int, status: int) -> None:
    out = tmp_path / "run"
    command = [
        *COMMAND,
        "generate",
        "a mug",
        "--preset",
        "gaussian",
        "--out",
        str(out),
        "--json",
        "scene=canvas",
        "steps=1000000",
    ]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while "step " not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == status, stderr
    assert "Traceback" not in stderr
    record = only_json(stdout)
    assert record["status"] == "cancelled"
    done = record["steps"]["done"]
    assert 0 < done < 1000000
    assert {"preview.png", "turntable.mp4", "metrics.jsonl"} <= set(record["files"])
    assert f"stage-00-step-{done:07d}.safetensors" in os.listdir(out / "checkpoints")
    assert len((out / "metrics.jsonl").read_text().splitlines()) == done


def test_the_first_line_comes_within_a_second() -> None:
    command = [*COMMAND, "generate", "a mug", "--preset", "gaussian", "nonsense"]
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    seconds = time.perf_counter() - began
    process.communicate()
    assert line.endswith("loading\n")
    assert seconds < 1.0


def test_messages_cannot_drive_the_terminal() -> None:
    assert printable("a\x1b[31mb\u202e\ud800\nc") == "a\\x1b[31mb\\u202e\\ud800\nc"


def test_a_reader_that_goes_away_is_no_error() -> None:
    process = subprocess.Popen(
        [*COMMAND, "--help"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0


def test_export_writes_what_a_run_made_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, _ = run(capsys, "generate", "x", *TINY, "--out", tmp_path / "run")
    assert status == 0
    target = tmp_path / "ünïcode name;$(x).glb"
    status, out, _ = run(
        capsys, "export", tmp_path / "run", "--format", "glb", "--out", target, "--json"
    )
    told = only_json(out)
    assert status == 0 and told["path"] == str(target) and told["bytes"] == target.stat().st_size
    assert told["details"]["faces"] == 4
    status, out, _ = run(capsys, "list", "formats", "--json")
    assert {"glb", "ply", "mp4"} <= {item["name"] for item in only_json(out)["items"]}
    for arguments, message in (
        (["--format", "glbb"], "Did you mean 'glb'"),
        (["--format", "glb", "--faces", "3"], "faces is 3; choose an integer from 4"),
        (["--format", "glb", "--out", str(tmp_path)], "is a directory"),
        (["--format", "mp4", "--channel", "uv"], "choose one of rgb, normal, depth"),
    ):
        status, _, err = run(capsys, "export", tmp_path / "run", *arguments)
        assert status == 2 and message in err
    status, _, err = run(capsys, "export", tmp_path, "--format", "glb")
    assert status == 2 and "not a run directory" in err
