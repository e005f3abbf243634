"""Batches: what a file says, what is made of it, and that running again or twice changes nothing."""

import csv
import html
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dream3d.batch.exports import make_exports, read_formats
from dream3d.batch.lines import Line, read_lines, seed_list
from dream3d.batch.plan import Defaults, make_plan, shard
from dream3d.batch.run import Batch, Row
from dream3d.batch.slurm import parameters
from dream3d.batch.summary import contact_html, results_csv
from dream3d.cli.main import main
from dream3d.errors import AssetError, ConfigError
from dream3d.export.formats.base import FORMATS, export_name
from dream3d.jobs import Job, JobStore

PATIENCE = 900.0
"""Seconds to wait for a state; the machine may be busy."""

QUICK = ["--preset", "gaussian", "scene=canvas", "steps=6", "checkpoint_every=2"]


def lines_of(tmp_path: Path, name: str, text: str) -> list[Line]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_lines(path)


# Files.


def test_three_kinds_say_the_same(tmp_path: Path) -> None:
    text = lines_of(tmp_path, "a.txt", "\ufeff# birds\na red duck\n\n  a blue rabbit \n")
    assert [(line.number, line.prompt) for line in text] == [
        (2, "a red duck"),
        (4, "a blue rabbit"),
    ]
    table = lines_of(
        tmp_path,
        "a.csv",
        "prompt,negative,seed,preset,overrides,guidance.cfg_scale\n"
        '"a red, ""big""\nduck",bad,3,fast,steps=200; views=2,6\n'
        "a blue rabbit,,,,,\n",
    )
    records = lines_of(
        tmp_path,
        "a.jsonl",
        json.dumps(
            {
                "prompt": 'a red, "big"\nduck',
                "negative_prompt": "bad",
                "seed": 3,
                "preset": "fast",
                "overrides": {"steps": 200, "views": 2, "guidance.cfg_scale": 6},
            }
        )
        + '\n"a blue rabbit"\n',
    )
    for one, other in zip(table, records, strict=True):
        assert (one.prompt, one.negative, one.seeds, one.preset, dict(one.overrides)) == (
            other.prompt,
            other.negative,
            other.seeds,
            other.preset,
            dict(other.overrides),
        )
    assert table[0].overrides == {"steps": 200, "views": 2, "guidance.cfg_scale": 6}
    assert not any(line.problem for line in [*text, *table, *records])


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.jsonl", "{", "not JSON"),
        ("a.jsonl", "[1]", "neither a JSON object nor a string"),
        ("a.jsonl", '{"prompt": 3}', "must be text"),
        ("a.jsonl", '{"seed": 1}', "there is no prompt"),
        ("a.jsonl", '{"prompt": "x", "seed": -1}', "choose integers"),
        ("a.jsonl", '{"prompt": "x", "seed": 9223372036854775808}', "choose integers"),
        ("a.jsonl", '{"prompt": "x", "sede": 1}', "unknown keys sede"),
        ("a.jsonl", '{"prompt": "x", "overrides": 1}', "overrides is 1"),
        ("a.csv", "prompt,seed\nx,1,2\n", "3 cells under 2"),
        ("a.csv", 'prompt\n"x', "not CSV from here on"),
        ("a.csv", "prompt,overrides\nx,steps\n", "is not an override"),
    ],
)
def test_a_bad_line_says_why(tmp_path: Path, name: str, text: str, problem: str) -> None:
    assert problem in lines_of(tmp_path, name, text)[-1].problem


def test_bad_files_are_refused(tmp_path: Path) -> None:
    for name, text, message in (
        ("a.doc", "x", "neither .txt"),
        ("a.txt", "# nothing\n", "holds no prompts"),
        ("a.csv", "a red duck\n", "one of them prompt"),
    ):
        with pytest.raises(ConfigError, match=message):
            lines_of(tmp_path, name, text)
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_lines(tmp_path / "b.txt")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_lines(tmp_path / "none.txt")


def test_lines_times_seeds_by_content() -> None:
    lines = [
        Line(1, "a duck"),
        Line(2, "a cat", seeds=(7,)),
        Line(3, "a duck"),
        Line(4, "x", preset="no-such"),
        Line(5, "x", problem="bad"),
    ]
    defaults = Defaults("gaussian", seeds=(0, 1), overrides={"steps": 5})
    plan = make_plan(lines, defaults)
    assert [(item.line, item.seed) for item in plan] == [(1, 0), (1, 1), (2, 7), (4, 0), (5, None)]
    assert [bool(item.problem) for item in plan] == [False, False, False, True, True]
    assert [item.job for item in plan] == [item.job for item in make_plan(lines, defaults)]
    other = make_plan(lines, Defaults("gaussian", seeds=(0, 1), overrides={"steps": 6}))
    assert plan[0].job != other[0].job, "another content is another job"
    shards = [shard(plan, f"{i}/3") for i in (1, 2, 3)]
    assert sorted(i.line for part in shards for i in part) == sorted(i.line for i in plan)
    for bad in ("0/3", "4/3", "x", "1/0", "1", "-1/2"):
        with pytest.raises(ConfigError, match="--shard"):
            shard(plan, bad)


def test_seeds() -> None:
    assert seed_list("") == () and seed_list("0, 1,1") == (0, 1) and seed_list(5) == (5,)
    for bad in ("a", "1.5", [True], [None], "1,,2"):
        with pytest.raises(ConfigError):
            seed_list(bad)


EVIL = (
    '<script>alert(1)</script>" onload="x',
    "=HYPERLINK(1)",
    "../../etc/passwd",
    "${oc.env:HOME} $(touch x) `touch y`\n#SBATCH --wrap=x",
)


@pytest.mark.parametrize("prompt", EVIL)
def test_a_prompt_is_data_in_every_summary(prompt: str, tmp_path: Path) -> None:
    plan = make_plan([Line(1, prompt)], Defaults("gaussian"))
    assert plan[0].request is not None, plan[0].problem
    job = Job(plan[0].job, "done", plan[0].request, 0.0, 1.0, files={"preview.png": 1})
    rows = [Row(plan[0], job)]
    page = contact_html(rows)
    assert html.escape(prompt) in page and "<script" not in page
    assert prompt not in page or not any(c in prompt for c in "<\"&'")
    (record,) = csv.DictReader(results_csv(rows).splitlines(keepends=True))
    assert record["prompt"].lstrip("'") == prompt
    assert record["prompt"][0] not in "=+-@"
    store = JobStore(tmp_path / "jobs", queue_limit=None)
    Batch(plan, {plan[0].job}, store).submit()
    assert [p.name for p in tmp_path.iterdir()] == ["jobs"]
    assert [p.name for p in (tmp_path / "jobs").iterdir()] == [plan[0].job]


@pytest.mark.parametrize(
    "text", ["x", "a=b\n#SBATCH --wrap=id", "a=$(id)", "a=`id`", "a=b c", "A=b", "a='b'", "a=b;c"]
)
def test_nothing_gets_into_a_batch_script(text: str) -> None:
    with pytest.raises(ConfigError, match="--slurm has"):
        parameters(text)


def test_slurm_settings() -> None:
    text = "slurm_partition=gpu,timeout_min=240,slurm_mem=32G"
    assert parameters(text) == {"slurm_partition": "gpu", "timeout_min": 240, "slurm_mem": "32G"}
    assert parameters("") == {}


# With workers.


def batch(tmp_path: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "dream3d.cli.main", "batch", *arguments]
    path = str(Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": path}
    log = (tmp_path / "batch.log").open("ab")
    return subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=tmp_path)


def test_a_batch_and_the_same_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = tmp_path / "prompts.jsonl"
    evil = "<b>a duck</b>"
    prompts.write_text(f'{json.dumps(evil)}\n{{"prompt": "x", "preset": "none"}}\n{{broken\n')
    out = tmp_path / "out"
    command = ["batch", str(prompts), "--out", str(out), "--quiet", "--json", *QUICK]
    assert main(command) == 2, "one line failed"
    said = json.loads(capsys.readouterr().out)
    assert [item["state"] for item in said["items"]] == ["done", "failed", "failed"]
    assert "preset is 'none'" in said["items"][1]["message"]
    files = {"jobs", "results.csv", "contact.html", "contact.png"}
    assert {path.name for path in out.iterdir()} == files
    with Image.open(out / "contact.png") as sheet:
        assert sheet.size == (480, 204)
        assert len(sheet.crop((0, 0, 160, 160)).getcolors(10**6)) > 20, "a picture, not a grey tile"
        assert len(sheet.crop((160, 0, 320, 160)).getcolors(10**6)) == 1
    job = said["items"][0]["job"]
    asset = out / "jobs" / job / "run" / "preview.png"
    before = asset.stat().st_mtime_ns
    assert main(command) == 2
    again = json.loads(capsys.readouterr().out)
    assert again["items"][0] == said["items"][0], "nothing was made again"
    assert asset.stat().st_mtime_ns == before
    assert f'src="jobs/{job}/run/preview.png"' in (out / "contact.html").read_text()


def test_finished_assets_are_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, and only what is done; what cannot be made is told and stops nothing."""
    made: list[str] = []

    def encode(asset: Any, name: str, path: Path, options: Any) -> None:
        if name == "stl":
            raise AssetError("no surface")
        made.append(path.name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")

    monkeypatch.setattr("dream3d.batch.exports.load_asset", lambda path: path)
    monkeypatch.setattr("dream3d.batch.exports.export_asset", encode)
    store = JobStore(tmp_path / "jobs", queue_limit=None)
    plan = make_plan([Line(1, "a duck"), Line(2, "a cat")], Defaults("gaussian"))
    rows = [Row(item) for item in plan]
    for row, state in zip(rows, ("done", "failed"), strict=True):
        assert row.item.request is not None
        store.submit(row.item.request, {}, row.item.job, start=False)
        row.job = Job(row.item.job, state, row.item.request, 0.0, 1.0)
    formats = read_formats("glb, stl,usdz" if FORMATS["usdz"].missing() is None else "glb,stl,ply")
    make_exports(rows, store, formats)
    make_exports(rows, store, formats)
    assert made == [export_name(name) for name in formats if name != "stl"]
    assert rows[0].exports == tuple(made) and rows[1].exports == ()
    assert rows[0].message == "stl: no surface"
    assert f'href="jobs/{plan[0].job}/exports/export-glb.glb"' in contact_html(rows)
    with pytest.raises(ConfigError, match="--export names 'doc'; choose from"):
        read_formats("doc")


@pytest.mark.slow
def test_two_batches_share_one_directory(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a duck\na cat\n")
    arguments = ["prompts.txt", "--out", "out", "--seeds", "0,1", *QUICK]
    both = [batch(tmp_path, *arguments) for _ in range(2)]
    for process in both:
        assert process.wait(PATIENCE) == 0, (tmp_path / "batch.log").read_text()
    store = JobStore(tmp_path / "out" / "jobs")
    jobs = store.list_jobs()
    assert [job.state for job in jobs] == ["done"] * 4
    assert [job.attempts for job in jobs] == [1] * 4, "each was made once"


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a duck\n")
    arguments = ["prompts.txt", "--out", "out", *QUICK[:-2], "steps=600"]
    process = batch(tmp_path, *arguments)
    store = JobStore(tmp_path / "out" / "jobs")
    deadline = time.monotonic() + PATIENCE
    while not any(job.step for job in store.list_jobs()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) in (130, 0), (tmp_path / "batch.log").read_text()
    (job,) = store.list_jobs()
    assert not job.live
    if job.state != "done":  # it may have been faster than the signal
        assert job.state == "cancelled" and os.listdir(store.run_path(job.id) / "checkpoints")
    assert batch(tmp_path, *arguments).wait(PATIENCE) == 0
    assert store.state(job.id) == "done"


@pytest.mark.slow
def test_on_a_ray_cluster_with_a_worker_killed(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray has no wheel for this Python, or is not installed")
    (tmp_path / "prompts.txt").write_text("a duck\na cat\n")
    arguments = ["prompts.txt", "--out", "out", "--ray", "local", *QUICK[:-2], "steps=400"]
    process = batch(tmp_path, *arguments)
    store = JobStore(tmp_path / "out" / "jobs")
    deadline, killed = time.monotonic() + PATIENCE, None
    while killed is None and time.monotonic() < deadline and process.poll() is None:
        for job in store.list_jobs():
            lease = store.worker(job.id)
            if lease is not None and lease.pid != process.pid and job.step:
                os.kill(lease.pid, signal.SIGKILL)
                killed = job.id
                break
        time.sleep(0.01)
    assert process.wait(PATIENCE) == 0, (tmp_path / "batch.log").read_text()
    assert killed is not None
    assert [job.state for job in store.list_jobs()] == ["done", "done"]
    assert store.status(killed).attempts >= 2
    kinds = [event["event"] for event in store.events(killed)[0]]
    assert kinds.count("done") == 1 and "lost" in kinds


@pytest.mark.slow
def test_through_submitit(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed")
    (tmp_path / "prompts.txt").write_text("a duck\na cat\n")
    settings = "cluster=local,tasks=2,timeout_min=60"
    arguments = ["prompts.txt", "--out", "out", "--slurm", settings, *QUICK]
    process = batch(tmp_path, *arguments)
    assert process.wait(PATIENCE) == 0, (tmp_path / "batch.log").read_text()
    jobs = JobStore(tmp_path / "out" / "jobs").list_jobs()
    assert [(job.state, job.attempts) for job in jobs] == [("done", 1)] * 2


def test_a_preempted_task_is_queued_again_as_it_was() -> None:
    pytest.importorskip("submitit", reason="submitit is not installed")
    from dream3d.batch.slurm import Drain

    work = Drain("root", ["0" * 16], 3, 30.0)
    assert work.checkpoint().function == work
