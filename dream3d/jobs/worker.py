"""The process that owns a job and runs it: `python -m dream3d.jobs.worker ROOT ID`, started by the scheduler.

It waits on standard input for the number of its lease, beats its heart, runs, and leaves a status; a SIGTERM or the
file `cancel` stops it after the step at hand.
"""

import argparse
import json
import os
import secrets
import signal
import sys
import threading
import time
import traceback
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from dream3d.errors import Cancelled, Dream3DError, OutputError
from dream3d.files import writing
from dream3d.jobs import lease as leases
from dream3d.jobs.lease import Lease
from dream3d.jobs.records import State, append_event, write_status
from dream3d.jobs.store import JobStore
from dream3d.run_directory import RunDirectory
from dream3d.startup import collect_seldom

if TYPE_CHECKING:
    from dream3d.train import StepReport

SECONDS_BETWEEN_REPORTS = 0.25
RESERVE_BYTES = 32768
SUPERSEDED = 3
"""Exit status of a worker whose job was given to another one."""


def main(arguments: list[str] | None = None) -> int:
    """Run one job; returns 0 whenever its status tells how it ended."""
    collect_seldom()
    parser = argparse.ArgumentParser(prog="dream3d.jobs.worker", description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("job")
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--lease-seconds", type=float, default=leases.SECONDS)
    parser.add_argument("--gpu", action="append", default=[])
    given = parser.parse_args(arguments)
    number = sys.stdin.readline().strip()
    if not number:
        return 0  # whoever started this process died before the job was in its name
    store = JobStore(given.root, given.at_once, gpus=given.gpu, lease_seconds=given.lease_seconds)
    directory = store.directory(given.job)
    lease = leases.read(directory, int(number))
    if lease is None or not leases.is_current(directory, lease):
        return SUPERSEDED
    worker = Worker(directory, lease)
    with suppress(ValueError):
        for caught in (signal.SIGTERM, signal.SIGINT):
            signal.signal(caught, worker.note_signal)
    worker.own()
    if worker.signal is None:
        # A worker that was told to go is not the one to start another.
        with suppress(Dream3DError):
            store.tend()
    return 0


def run_here(store: JobStore, job: str) -> State:
    """Own a waiting job and run it in this process, which belongs to a cluster's scheduler; returns how it ended.

    Raises:
        LeaseTaken: another process has it.
    """
    directory = store.directory(job)
    at = RunDirectory(directory / "run").newest_checkpoint()
    lease = leases.take(directory, "worker", checkpoint=at, seconds=store.lease_seconds)
    Worker(directory, lease).own()
    return store.state(job)


def beat_until(ended: threading.Event, directory: Path, lease: Lease) -> None:
    """Heartbeats, from a thread of their own; ends the process as soon as the job is somebody else's."""
    while not ended.wait(leases.BEAT):
        if not leases.beat(directory, lease):
            # Taken over by a machine that thought this one dead: not one more byte may be written here.
            os._exit(SUPERSEDED)


class Worker:
    """One job in the making.

    Args:
        directory: of the job.
        lease: held by this process.
    """

    def __init__(self, directory: Path, lease: Lease) -> None:
        self.directory = directory
        self.lease = lease
        self.run_directory = RunDirectory(directory / "run")
        self.signal: int | None = None
        self.steps: list[int] = []
        self.progress: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.paces: deque[float] = deque(maxlen=20)
        self.last_step = self.last_report = 0.0
        self.checkpoint = lease.checkpoint

    def own(self) -> None:
        """Run with a heart that beats, then give the job back."""
        ended = threading.Event()
        arguments = (ended, self.directory, self.lease)
        beating = threading.Thread(target=beat_until, args=arguments, daemon=True)
        beating.start()
        try:
            self.run()
        finally:
            ended.set()
            beating.join()
            with suppress(Dream3DError):
                leases.release(self.directory, self.lease)

    def note_signal(self, number: int, _frame: FrameType | None) -> None:
        """Remember a SIGTERM or SIGINT; the run asks between steps."""
        self.signal = number

    def should_stop(self) -> bool:
        """Whether a signal came, or somebody left the file `cancel`."""
        return self.signal is not None or (self.directory / "cancel").exists()

    def run(self) -> None:
        """Make the asset and leave a last status, whatever happens."""
        try:
            reserve(self.directory)
            self.tell("started", pid=self.lease.pid, host=self.lease.host, slot=self.lease.slot)
            self.set_status("running")
            if (self.directory / "cancel").exists():
                self.finish("cancelled", "cancelled")
            else:
                self.finish(*self.generate())
        except Cancelled:
            self.finish("cancelled", self.why_stopped())
        except Dream3DError as error:
            print(f"dream3d: {error}", file=sys.stderr)
            self.finish("failed", str(error), type(error).__name__)
        except Exception as error:
            traceback.print_exc()
            message = f"a bug in dream3d: {error}; log.txt in the job's directory has the details"
            self.finish("failed", message, type(error).__name__)

    def generate(self) -> tuple[State, str]:
        """Begin the run or go on with it; returns the last state and its message."""
        from dream3d.config import load_config_file
        from dream3d.generation import generate_run, resume_run

        config = load_config_file(self.directory / "config.yaml")
        self.steps = [stage.steps for stage in config.stages]
        path = self.run_directory.path
        on_step, should_stop, on_event = self.on_step, self.should_stop, self.on_event
        if self.run_directory.config_path.is_file():
            result = resume_run(path, on_step, should_stop, on_event)
        else:
            clear_unborn(path)
            result = generate_run(config, path, on_step, should_stop, on_event=on_event)
        told = result.record.get("warnings", [])
        self.warnings += [message for message in told if message not in self.warnings]
        self.report(force=True)
        return ("done", "") if result.status == "done" else ("cancelled", self.why_stopped())

    def why_stopped(self) -> str:
        """For the status: a signal, or somebody's wish."""
        if self.signal is not None and not (self.directory / "cancel").exists():
            return f"stopped by {signal.Signals(self.signal).name}"
        return "cancelled"

    def on_step(self, report: "StepReport") -> None:
        """Keep progress.json fresh; tell of previews and checkpoints."""
        now = time.monotonic()
        if self.last_step:
            self.paces.append(now - self.last_step)
        self.last_step = now
        done = sum(self.steps[: report.stage]) + report.step
        left = sum(self.steps) - done
        pace = sum(self.paces) / len(self.paces) if self.paces else None
        self.progress = {
            "step": done,
            "stage": report.stage,
            "stages": report.stages,
            "loss": report.loss if abs(report.loss) < float("inf") else None,
            "seconds_left": None if pace is None else round(pace * left, 2),
        }
        if report.preview_due and report.step < report.steps:
            self.tell("preview", stage=report.stage, step=report.step)
        self.report(force=left == 0)

    def report(self, force: bool = False) -> None:
        """Write progress.json, at most every `SECONDS_BETWEEN_REPORTS`."""
        now = time.monotonic()
        if not force and now - self.last_report < SECONDS_BETWEEN_REPORTS:
            return
        self.last_report = now
        newest = self.run_directory.newest_checkpoint()
        if newest != self.checkpoint:
            self.checkpoint = newest
            self.tell("checkpoint", name=newest)
        data = {**self.progress, "warnings": self.warnings}
        if self.progress:
            write_quickly(self.directory / "progress.json", data)

    def on_event(self, kind: str, data: dict[str, Any]) -> None:
        """What the run tells between steps."""
        self.tell(kind, **data)
        if "message" in data:
            self.warnings.append(data["message"])
        self.report(force=True)
        if kind == "stopping":
            self.set_status("cancelled", self.why_stopped())

    def tell(self, kind: str, **data: Any) -> None:
        """Add an event; a full disk must not end the run on account of its diary."""
        with suppress(OutputError):
            append_event(self.directory / "events.jsonl", kind, **data)

    def set_status(self, state: State, message: str = "", error: str = "") -> None:
        """Replace the status, on a full disk with the help of the reserve.

        Raises:
            OutputError: not even that helped.
        """
        path = self.directory / "status.json"
        try:
            write_status(path, state, message, error)
        except OutputError:
            (self.directory / "reserve").unlink(missing_ok=True)
            write_status(path, state, message, error)

    def finish(self, state: State, message: str, error: str = "") -> None:
        """The last status and event. When neither can be written the job will show as lost, which is true."""
        with suppress(OutputError):
            self.set_status(state, message, error)
        (self.directory / "reserve").unlink(missing_ok=True)
        self.tell(state, message=message)


def reserve(directory: Path) -> None:
    """Set room aside so that a full disk can be told of.

    Raises:
        OutputError: the disk is full already.
    """
    with writing(directory / "reserve"):
        (directory / "reserve").write_bytes(os.urandom(RESERVE_BYTES))


def write_quickly(path: Path, data: dict[str, Any]) -> None:
    """Replace a file whose loss in a power cut would not matter; when it cannot be written the old one stays."""
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.partial")
    try:
        temporary.write_text(json.dumps(data, allow_nan=False), encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def clear_unborn(run: Path) -> None:
    """Remove what a worker left that died while it made the run directory, before there was a configuration in it."""
    if run.is_dir() and not (run / "config.yaml").exists():
        for leftover in run.iterdir():
            leftover.unlink()


if __name__ == "__main__":
    sys.exit(main())
