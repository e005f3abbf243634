"""Kill -9 of workers, the web server and the batch, at twenty random moments: nothing is lost or made twice."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors import safe_open

from dream3d.batch.lines import Line
from dream3d.batch.plan import Defaults, make_plan
from dream3d.jobs import JobStore
from dream3d.jobs.lease import Lease
from dream3d.jobs.process import is_alive
from dream3d.run_directory import RunDirectory

pytest.importorskip("gradio", reason="the web page is an extra: pip install 'dream3d[ui]'")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="signals and sessions are POSIX"),
]

PATIENCE = 600.0
"""Seconds to wait for a state; the machine may be busy."""

KILLS = {"worker": 10, "ui": 5, "batch": 5}
STEPS = 60
PROMPTS = ("a duck", "a cat", "a mug", "a car")
SETTINGS = {"scene": "canvas", "steps": STEPS, "checkpoint_every": 4, "preview_every": 20}

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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Chaos:
    """A batch, a web server over the same jobs that gets some of its own, and what it takes to kill either or a worker.

    Args:
        directory: of the test.
    """

    def __init__(self, directory: Path) -> None:
        self.file, self.out = directory / "prompts.txt", directory / "out"
        self.store = JobStore(self.out / "jobs", queue_limit=None)
        self.processes: dict[str, subprocess.Popen] = {}
        self.prompts = list(PROMPTS)
        self.file.write_text("\n".join(self.prompts))
        self.port = free_port()
        self.sent: dict[str, str] = {}

    def alive(self, who: str) -> subprocess.Popen:
        """The batch or the web server, begun (again) when it is gone."""
        if who not in self.processes or self.processes[who].poll() is not None:
            batch = ["-m", "dream3d.cli.main", "batch", str(self.file), "--out", str(self.out)]
            batch += ["--quiet", "--preset", "gaussian", "--retries", "1000"]
            batch += [f"{key}={value}" for key, value in SETTINGS.items()]
            ui = ["-m", "dream3d.cli.main", "ui", "--root", str(self.store.root)]
            ui += ["--port", str(self.port)]
            self.processes[who] = spawn(*(batch if who == "batch" else ui))
        return self.processes[who]

    def ask_for(self, prompt: str) -> None:
        """Queue a job over HTTP as soon as the server answers; what it promised must be there whatever follows."""
        body = {"prompt": prompt, "preset": "gaussian", "settings": SETTINGS}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/jobs",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )

        def answered() -> bool:
            self.alive("ui")
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                    self.sent[json.load(answer)["job"]["id"]] = prompt
            except urllib.error.URLError:
                time.sleep(0.1)
                return False
            return True

        until(answered, "the web server to take a job")

    def kill(self, who: str) -> None:
        """SIGKILL the batch or the web server."""
        # One and the same process: asked for again it might be a new one, for which one would wait for ever.
        process = self.alive(who)
        process.kill()
        process.wait(PATIENCE)

    def over(self) -> bool:
        """Whether the batch has ended well and the server's jobs are done; what was lost is begun again.

        The batch resumes its own jobs; those of the page wait for somebody to press Resume.
        """
        for job in self.sent:
            if self.store.state(job) == "lost":
                self.store.resume(job)
        self.alive("ui")
        ended = self.processes["batch"].poll() == 0 or self.alive("batch").poll() == 0
        return ended and all(self.store.state(job) == "done" for job in self.sent)

    def worker_at(self, step: int) -> Lease:
        """Wait for a worker that has done `step` steps, at 0 perhaps while it loads."""
        found: list[Lease] = []

        def look() -> bool:
            self.alive("batch")
            self.alive("ui")
            jobs = self.store.ids()
            for job in jobs:
                lease = self.store.worker(job)
                if lease is not None and steps_done(self.store.run_path(job)) >= step:
                    found.append(lease)
                    return True
            queued = len(jobs) == len(self.prompts) + len(self.sent)
            if queued and all(self.store.state(job) == "done" for job in jobs):
                # Faster than the killer: there must be somebody left to kill. One more at a time: a batch takes
                # seconds to begin, and until it has, all of those that are there are still done.
                self.prompts.append(f"thing {len(self.prompts)}")
                self.file.write_text("\n".join(self.prompts))
                self.kill("batch")
            return False

        until(look, f"a worker at step {step}")
        return found[0]

    def plan(self) -> dict[str, str]:
        """Prompts by the id of their job."""
        lines = [Line(number, prompt) for number, prompt in enumerate(self.prompts)]
        items = make_plan(lines, Defaults("gaussian", overrides=SETTINGS))
        return {item.job: item.prompt for item in items} | self.sent

    def end(self) -> None:
        """Leave no process behind."""
        for process in self.processes.values():
            process.kill()
            process.wait(PATIENCE)


def test_twenty_kills(tmp_path: Path) -> None:
    draw = random.Random(5)
    moments = [victim for victim, count in KILLS.items() for _ in range(count)]
    draw.shuffle(moments)
    chaos = Chaos(tmp_path)
    try:
        for victim in moments:
            # The moment is a step of some job, not a time: a slow machine meets it all the same.
            worker = chaos.worker_at(draw.randrange(STEPS))
            if victim == "worker":
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
                until(lambda: not is_alive(worker.pid, worker.began), "the worker's death")  # noqa: B023
            else:
                if victim == "ui":
                    chaos.ask_for(f"sent {len(chaos.sent)}")
                chaos.kill(victim)
        until(chaos.over, "the batch to end")
    finally:
        chaos.end()
    plan = chaos.plan()
    assert len(moments) == 20 and len(chaos.sent) == KILLS["ui"]
    assert sorted(chaos.store.ids()) == sorted(plan), "no job lost, none invented"
    compare(chaos.store, plan, tmp_path / "undisturbed")


def compare(store: JobStore, prompts: dict[str, str], reference: Path) -> None:
    """Every job is done, once, and equals a run that nobody disturbed, bit for bit."""
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
