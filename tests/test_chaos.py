"""Kill -9 of workers, a watching client and the batch, at twenty random moments: nothing is lost or made twice."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dream3d.batch.lines import Line
from dream3d.batch.plan import Defaults, make_plan
from dream3d.jobs import JobStore
from dream3d.run_directory import RunDirectory

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="signals and sessions are POSIX"),
]

PATIENCE = 600.0
"""Seconds to wait for a state; the machine may be busy."""

KILLS = {"worker": 10, "client": 5, "batch": 5}
STEPS = 60
PROMPTS = ("a duck", "a cat", "a mug", "a car", "a boat")
SETTINGS = {"scene": "canvas", "steps": STEPS, "checkpoint_every": 4, "preview_every": 20}

CLIENT = """
import sys, time
from pathlib import Path
from dream3d.jobs import JobStore
store = JobStore(Path(sys.argv[1]), queue_limit=None)
while True:
    store.tend()
    store.list_jobs()
    time.sleep(0.05)
"""

UNDISTURBED = """
import json, sys
from pathlib import Path
from dream3d.config import load_config
from dream3d.generation import generate_run
for job, prompt in json.loads(sys.argv[2]).items():
    generate_run(load_config("gaussian", json.loads(sys.argv[3]), prompt), Path(sys.argv[1]) / job)
"""


def spawn(*arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    null = subprocess.DEVNULL
    return subprocess.Popen(
        [sys.executable, *arguments], stdin=null, stdout=null, stderr=null, env=environment
    )


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE} s for {what}")
        time.sleep(0.004)


def steps_done(run: Path) -> int:
    try:
        return (run / "metrics.jsonl").read_bytes().count(b"\n")
    except OSError:
        return 0


def kill_a_worker(store: JobStore, step: int) -> None:
    """SIGKILL the process of a job that has done at least `step` steps; at 0 it may not even have loaded."""

    def found() -> bool:
        for job in store.ids():
            lease = store.worker(job)
            if lease is not None and steps_done(store.run_path(job)) >= step:
                os.kill(lease.pid, signal.SIGKILL)
                return True
        return False

    until(found, f"a worker at step {step}")


def test_twenty_kills(tmp_path: Path) -> None:
    draw = random.Random(5)
    moments = [victim for victim, count in KILLS.items() for _ in range(count)]
    draw.shuffle(moments)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    plan = make_plan(
        [Line(n, prompt) for n, prompt in enumerate(PROMPTS)],
        Defaults("gaussian", overrides=SETTINGS),
    )
    out, store = tmp_path / "out", JobStore(tmp_path / "out" / "jobs", queue_limit=None)
    command = ["-m", "dream3d.cli.main", "batch", str(tmp_path / "prompts.txt"), "--quiet"]
    command += ["--out", str(out), "--preset", "gaussian", "--retries", "1000"]
    command += [f"{key}={value}" for key, value in SETTINGS.items()]
    others: dict[str, subprocess.Popen] = {}

    def alive(victim: str) -> subprocess.Popen:
        """The batch or the client, begun (again) when it is gone."""
        if victim not in others or others[victim].poll() is not None:
            arguments = command if victim == "batch" else ["-c", CLIENT, str(store.root)]
            others[victim] = spawn(*arguments)
        return others[victim]

    killed = 0
    try:
        for victim in moments:
            alive("batch")
            alive("client")
            if victim == "worker":
                kill_a_worker(store, draw.randrange(STEPS))
            else:
                # Somewhere between its birth and some way into its loop.
                for _ in range(draw.randrange(200)):
                    time.sleep(0.005)
                alive(victim).kill()
                alive(victim).wait()
            killed += 1
        until(lambda: alive("batch").poll() == 0, "the batch to end")
    finally:
        for process in others.values():
            process.kill()
            process.wait()
    assert killed == 20
    assert sorted(store.ids()) == sorted(item.job for item in plan), "no job lost, none invented"
    compare(store, {item.job: item.prompt for item in plan}, tmp_path / "undisturbed")


def compare(store: JobStore, prompts: dict[str, str], reference: Path) -> None:
    """Every job is done, once, and equals a run that nobody disturbed, bit for bit."""
    import json

    from safetensors import safe_open

    arguments = (json.dumps(prompts), json.dumps(SETTINGS))
    assert spawn("-c", UNDISTURBED, str(reference), *arguments).wait(PATIENCE) == 0
    for job in prompts:
        events = [event["event"] for event in store.events(job)[0]]
        assert store.state(job) == "done"
        assert events.count("done") <= 1, "completed once"
        run, whole = RunDirectory(store.run_path(job)), RunDirectory(reference / job)
        assert [row["step"] for row in run.metrics()] == list(range(1, STEPS + 1))
        losses = [[row["loss"] for row in r.metrics()] for r in (run, whole)]
        assert losses[0] == losses[1]
        previews = [(r.path / "preview.png").read_bytes() for r in (run, whole)]
        assert previews[0] == previews[1]
        tensors = []
        for r in (run, whole):
            path = r.path / "checkpoints" / r.newest_checkpoint()
            with safe_open(path, framework="np") as file:
                tensors.append({k: file.get_tensor(k).tobytes() for k in file.keys()})  # noqa: SIM118
        assert tensors[0] == tensors[1]
