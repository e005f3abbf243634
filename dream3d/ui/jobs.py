"""Jobs of the web page: each is a process of its own with a directory of its own, so that no closed tab ends a run.

    outputs/app/0123456789abcdef/
        job.json       prompt, preset, seed, process number
        answer.json    what `dream3d generate --json` printed
        log.txt        what it wrote to standard error
        run/           the run directory

The server only starts processes, reads these files and sends SIGTERM; a restarted server finds its jobs again.
"""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dream3d.errors import ConfigError, PromptError
from dream3d.files import make_directory, write_json
from dream3d.run_directory import RunDirectory

FORMAT_VERSION = 1
MAX_PROMPT = 1000
_ID = re.compile(r"[0-9a-f]{16}")

State = Literal["waiting", "running", "done", "cancelled", "failed"]


@dataclass(frozen=True)
class JobView:
    """What there is to show of a job right now.

    Attributes:
        state: "waiting" until the first step.
        prompt: of the job.
        step, steps: optimiser steps done and in all; 0 when not known yet.
        seconds_left: estimate for the optimisation; None without one.
        loss: of the last step.
        message: why it failed, or empty.
        files: the run's files that exist, by name.
    """

    state: State
    prompt: str
    step: int = 0
    steps: int = 0
    seconds_left: float | None = None
    loss: float | None = None
    message: str = ""
    files: dict[str, Path] | None = None


class Jobs:
    """All jobs below one directory.

    Args:
        root: where jobs live.
        at_once: jobs that may run at a time; one keeps two cores busy.
    """

    def __init__(self, root: Path, at_once: int = 1) -> None:
        self.root = root
        self.at_once = at_once
        self._children: dict[str, subprocess.Popen] = {}

    def start(self, prompt: str, preset: str, seed: int, *settings: str) -> str:
        """Begin a job; returns its id at once.

        Args:
            prompt: what to make.
            preset: name of a preset.
            seed: of all randomness.
            settings: further `key=value` overrides.

        Raises:
            PromptError: the prompt is too long, or holds what no process can be given.
            ConfigError: too many jobs are running.
            OutputError: the job's directory cannot be made.
        """
        if len(prompt) > MAX_PROMPT:
            raise PromptError(
                f"the prompt has {len(prompt)} characters; at most {MAX_PROMPT}, please"
            )
        if "\0" in prompt:
            raise PromptError("the prompt holds the character U+0000; remove it")
        running = [job for job in self._children if self.view(job).state in ("waiting", "running")]
        if len(running) >= self.at_once:
            raise ConfigError("another asset is being made; wait until it is done, or cancel it")
        job = secrets.token_hex(8)
        directory = self.root / job
        make_directory(directory)
        # A list of arguments and never a shell: the prompt is data.
        command = [sys.executable, "-m", "dream3d.cli.main", "generate", "--json"]
        command += ["--preset", preset, "--seed", str(seed), "--out", str(directory / "run")]
        command += [*settings, "--", prompt]
        with (
            (directory / "answer.json").open("wb") as out,
            (directory / "log.txt").open("wb") as log,
        ):
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": _import_path()},
            )
        self._children[job] = child
        about = {"prompt": prompt, "preset": preset, "seed": seed, "process": child.pid}
        write_json(directory / "job.json", {"format_version": FORMAT_VERSION, **about})
        return job

    def exists(self, job: str) -> bool:
        """Whether `job` is the id of a job here; any text may be asked."""
        return bool(_ID.fullmatch(job)) and (self.root / job / "job.json").is_file()

    def cancel(self, job: str) -> None:
        """Ask a running job to stop; it saves a checkpoint and what there is. Nothing happens to others."""
        if not self.exists(job):
            return
        child = self._children.get(job)
        if child is not None:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        elif RunDirectory(self.root / job / "run").is_busy():
            # Started by an earlier server. The lock proves that the process is still the job's own.
            os.kill(int(self._about(job)["process"]), signal.SIGTERM)

    def view(self, job: str) -> JobView:
        """The job as it stands.

        Raises:
            ConfigError: there is no such job.
        """
        if not self.exists(job):
            raise ConfigError("there is no such job any more; start a new one")
        prompt = str(self._about(job)["prompt"])
        run = RunDirectory(self.root / job / "run")
        child = self._children.get(job)
        alive = child.poll() is None if child is not None else run.is_busy()
        record = _read(run.path / "result.json")
        rows = run.metrics()
        steps = int(record.get("steps", {}).get("total", 0))
        progress: dict[str, Any] = {"prompt": prompt, "steps": steps, "files": _files(run)}
        if rows:
            progress |= {"step": len(rows), "loss": rows[-1].get("loss")}
        if alive:
            progress["seconds_left"] = _seconds_left(rows, steps)
            return JobView("running" if rows else "waiting", **progress)
        if record.get("status") in ("done", "cancelled"):
            return JobView(record["status"], **progress)
        error = record.get("error") or _read(self.root / job / "answer.json").get("error")
        message = error["message"] if error else "the process that made it was lost"
        return JobView("failed", **progress, message=message)

    def _about(self, job: str) -> dict[str, Any]:
        return _read(self.root / job / "job.json")


def _import_path() -> str:
    """PYTHONPATH with which the child finds the same dream3d as this process, wherever it was started."""
    package = str(Path(__file__).parent.parent.parent)
    before = os.environ.get("PYTHONPATH")
    return package if not before else os.pathsep.join([package, before])


def _read(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one while the file is missing or half written."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _files(run: RunDirectory) -> dict[str, Path]:
    return {name: run.path / name for name in run.files()}


def _seconds_left(rows: list[dict[str, Any]], steps: int) -> float | None:
    """From the pace of the last steps, which is steadier than that of the first."""
    recent = rows[-20:]
    if len(recent) < 2 or not steps:
        return None
    pace = (recent[-1]["seconds"] - recent[0]["seconds"]) / (len(recent) - 1)
    return max(0.0, pace * (steps - len(rows)))
