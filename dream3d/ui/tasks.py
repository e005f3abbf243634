"""Work the server does for a finished job beside serving it: one short process at a time, never inside the server.

What a task makes lies in the job's directory, so that it is done once and outlives the server.
"""

import json
import queue
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dream3d.jobs.scheduler import environment
from dream3d.jobs.store import JobStore

SECONDS_AT_MOST = 900.0
WAITING_AT_MOST = 64


@dataclass(frozen=True)
class TaskState:
    """How a task stands.

    Attributes:
        state: "running" also while it waits for another one.
        message: why it failed, or empty.
    """

    state: Literal["running", "failed"]
    message: str = ""


class Tasks:
    """Runs `dream3d ...` commands one after another in a thread of its own.

    Args:
        store: whose jobs they are for.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._states: dict[tuple[str, str], TaskState] = {}
        self._queue: queue.Queue[tuple[tuple[str, str], list[str], Path | None]] = queue.Queue(
            WAITING_AT_MOST
        )
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def state(self, job: str, name: str) -> TaskState | None:
        """How the task stands; None when it was never asked for, or is done."""
        return self._states.get((job, name))

    def start(self, job: str, name: str, arguments: list[str], answer: Path | None = None) -> bool:
        """Run `dream3d ARGUMENTS --json`; what it prints becomes the file `answer`.

        Returns:
            False when too many tasks wait.
        """
        with self._lock:
            known = self._states.get((job, name))
            if known is not None and known.state == "running":
                return True
            try:
                self._queue.put_nowait(((job, name), arguments, answer))
            except queue.Full:
                return False
            self._states[job, name] = TaskState("running")
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
        return True

    def _work(self) -> None:
        while True:
            key, arguments, answer = self._queue.get()
            message = self._run(arguments, answer)
            with self._lock:
                if message is None:
                    self._states.pop(key, None)
                else:
                    self._states[key] = TaskState("failed", message)

    def _run(self, arguments: list[str], answer: Path | None) -> str | None:
        """None when all went well, else what to tell."""
        command = [sys.executable, "-m", "dream3d.cli.main", *arguments, "--json"]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=SECONDS_AT_MOST,
                env=environment(self._store, 0),
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        try:
            data: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            data = {}
        if done.returncode:
            return data.get("error", {}).get("message") or f"it ended with {done.returncode}"
        if answer is not None:
            from dream3d.files import write_json

            write_json(answer, data)
        return None
