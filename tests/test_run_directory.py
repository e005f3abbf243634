"""Files are whole or absent, directories come from prompts without obeying them, and the record is true."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dream3d import files
from dream3d.errors import ConfigError, OutputError
from dream3d.run_directory import RunDirectory, default_name, slug


def refuse(code: int):
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red mug", "a-red-mug"),
        ("", "prompt"),
        ("../../etc/passwd", "etc-passwd"),
        ("/absolute", "absolute"),
        ("$(touch x)", "touch-x"),
        ("Crème brûlée!", "creme-brulee"),
        ("一只红杯子", "prompt"),
        ("a\nb\x00c\x1b[31m", "a-b-c-31m"),
        ("x" * 10_000, "x" * 40),
        ("a " * 30, "-".join("a" * 20)),
        ("\ud800", "prompt"),
    ],
)
def test_slug(prompt: str, expected: str) -> None:
    assert slug(prompt) == expected


def test_names_differ_between_configurations() -> None:
    assert default_name("a mug", "seed: 0") != default_name("a mug", "seed: 1")
    assert default_name("一", "prompt: 一").startswith("prompt-")


def test_a_second_run_gets_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [RunDirectory.create("a mug", "x: 1\n").path for _ in range(3)]
    assert [path.parent for path in paths] == [Path("outputs")] * 3
    first = paths[0].name
    assert [path.name for path in paths] == [first, f"{first}-2", f"{first}-3"]


def test_out_must_be_new_or_empty(tmp_path: Path) -> None:
    run = RunDirectory.create("a", "x: 1\n", tmp_path / "deep" / "run")
    assert run.config_path.read_text() == "x: 1\n"
    with pytest.raises(OutputError, match="is not empty; choose another --out, or go on"):
        RunDirectory.create("a", "x: 2\n", run.path)
    assert run.config_path.read_text() == "x: 1\n"


def test_out_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="a file of that name is in the way"):
        RunDirectory.create("a", "x: 1\n", tmp_path / "file")
    with pytest.raises(OutputError, match="a part of the path is a file"):
        RunDirectory.create("a", "x: 1\n", tmp_path / "file" / "below")
    with pytest.raises(OutputError, match="the name is too long"):
        RunDirectory.create("a", "x: 1\n", tmp_path / ("n" * 300))
    assert (tmp_path / "file").read_text() == "mine"


def test_open_wants_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run directory"):
        RunDirectory.open(tmp_path)


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_a_refusing_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    path = tmp_path / "file.bin"
    files.write_bytes(path, b"old")
    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse(code))
        with pytest.raises(OutputError, match=r"cannot write .*file\.bin: ") as caught:
            files.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"], "no temporary file stays behind"
    if code == errno.ENOSPC:
        assert "the disk is full; free some space" in str(caught.value)


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:7]))
    files.write_bytes(tmp_path / "file.bin", bytes(range(100)))
    assert (tmp_path / "file.bin").read_bytes() == bytes(range(100))


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), files.atomic_path(tmp_path / "a.mp4") as temporary:
        assert temporary.suffix == ".mp4"
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_the_record_lists_the_files_there_are(tmp_path: Path) -> None:
    run = RunDirectory.create("a", "x: 1\n", tmp_path)
    run.write_record({"status": "running", "prompt": "\ud800 ${x}"})
    record = run.read_record()
    assert record["format_version"] == 1
    assert record["prompt"] == "\ud800 ${x}"
    assert record["files"] == {"config.yaml": {"path": "config.yaml", "bytes": 5}}


def test_a_damaged_or_foreign_record_is_refused(tmp_path: Path) -> None:
    run = RunDirectory.create("a", "x: 1\n", tmp_path)
    assert run.read_record() == {}
    for text, message in (
        ("{", "cannot be read"),
        ('{"format_version": 9}', "has format_version 9"),
        ("[]", "has format_version None"),
    ):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(ConfigError, match=message):
            run.read_record()


def test_metrics_forget_what_will_be_repeated_and_torn_lines(tmp_path: Path) -> None:
    run = RunDirectory.create("a", "x: 1\n", tmp_path)
    for stage, step in ((0, 1), (0, 2), (1, 1), (1, 2), (1, 3)):
        run.append_metrics({"stage": stage, "step": step, "loss": 0.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": 1, "st')
    run.drop_metrics_from(1, 2)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [(json.loads(x)["stage"], json.loads(x)["step"]) for x in lines] == [
        (0, 1),
        (0, 2),
        (1, 1),
    ]


@pytest.mark.skipif(os.name != "posix", reason="directory locks are POSIX")
def test_two_processes_do_not_work_on_one_run(tmp_path: Path) -> None:
    run = RunDirectory.create("a", "x: 1\n", tmp_path)
    code = (
        "import sys, pathlib; from dream3d.run_directory import RunDirectory\n"
        "with RunDirectory(pathlib.Path(sys.argv[1])).locked(): pass"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    root = Path(__file__).parent.parent
    with run.locked():
        done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
        assert "another process is working on the run" in done.stderr
    assert subprocess.run(command, cwd=root, check=False).returncode == 0
