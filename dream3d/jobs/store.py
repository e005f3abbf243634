"""All jobs below one directory, for whoever submits, watches or stops them.

    ROOT/0123456789abcdef/
        job.json            what was asked; written once
        config.yaml         the same, resolved; a picture or mesh it names lies beside it
        status.json         queued, running, done, failed, cancelled; replaced as a whole
        lease-000001.json   who owns the job, see `dream3d.jobs.lease`
        progress.json       step, loss, time left
        events.jsonl        what happened, in order
        cancel              there when somebody asked for the job to stop
        log.txt             what the worker wrote to standard error
        run/                the run directory

A client talks to a worker by these files only. Whoever changes the status owns the lease while it does. Nothing is kept
in memory that the files do not say, so any client may die, and any other may go on.
"""

import os
import re
import secrets
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from dream3d.errors import ConfigError, OutputError
from dream3d.files import make_directory, write_text
from dream3d.jobs import lease as leases
from dream3d.jobs.lease import Lease, LeaseTaken
from dream3d.jobs.records import (
    ENDED,
    Job,
    JobRequest,
    Manifest,
    State,
    append_event,
    read_events,
    read_object,
    write_status,
)
from dream3d.run_directory import RunDirectory

_ID = re.compile(r"[0-9a-f]{16}")


class JobStore:
    """The jobs below one directory. Any number of stores, in any number of processes, may share it.

    Args:
        root: where jobs live; made when the first is submitted.
        at_once: jobs that may run on this machine at a time; one keeps two cores busy. With `gpus` their number.
        queue_limit: jobs that may wait; None is no limit.
        gpus: values of CUDA_VISIBLE_DEVICES, one worker each; empty leaves the choice to the run.
        lease_seconds: how long an owner on another machine may be silent.
    """

    def __init__(
        self,
        root: Path,
        at_once: int = 1,
        queue_limit: int | None = 100,
        gpus: Sequence[str] = (),
        lease_seconds: float = leases.SECONDS,
    ) -> None:
        self.root = Path(root)
        self.at_once = len(gpus) or at_once
        self.queue_limit = queue_limit
        self.gpus = tuple(gpus)
        self.lease_seconds = lease_seconds
        self._manifests: dict[str, Manifest] = {}
        for name, limit in (("at_once", self.at_once), ("queue_limit", queue_limit)):
            if limit is not None and limit < 1:
                raise ConfigError(f"{name} is {limit}; it must be at least 1")

    # Looking.

    def exists(self, job: str) -> bool:
        """Whether `job` is the id of a job here; any text may be asked."""
        return bool(_ID.fullmatch(job)) and (self.root / job / "job.json").is_file()

    def directory(self, job: str) -> Path:
        """The job's own directory.

        Raises:
            ConfigError: there is no such job, or `job` is no id at all.
        """
        if not self.exists(job):
            raise ConfigError("there is no such job (any more); `dream3d jobs list` names them")
        return self.root / job

    def run_path(self, job: str) -> Path:
        """The job's run directory; it exists once the worker has loaded."""
        return self.directory(job) / "run"

    def ids(self) -> list[str]:
        """Ids of all jobs, in no order."""
        try:
            return [name for name in os.listdir(self.root) if self.exists(name)]
        except FileNotFoundError:
            return []

    def manifest(self, job: str) -> Manifest:
        """What was asked.

        Raises:
            ConfigError: no such job, or its manifest is damaged.
        """
        if job not in self._manifests:
            self._manifests[job] = Manifest.read(self.directory(job) / "job.json")
        elif not self.exists(job):
            del self._manifests[job]
        return self._manifests.get(job) or Manifest.read(self.directory(job) / "job.json")

    def state(self, job: str) -> State:
        """Its state alone, which is quicker to learn than all of `status`."""
        return self._state(self.directory(job))[0]

    def _state(self, directory: Path) -> tuple[State, bool, dict[str, Any]]:
        """State, whether a process works on it, and status.json."""
        # The lease is read first: an owner writes the last status before it gives the lease back.
        lease = leases.newest(directory)
        live = lease is not None and leases.is_live(directory, lease, self.lease_seconds)
        status = read_object(directory / "status.json")
        state: State = status.get("state", "queued")
        worker = lease is not None and lease.role == "worker"
        if state in ("queued", "running") and worker:
            return ("running" if live else "lost"), live, status
        return ("lost" if state == "running" else state), live and worker, status

    def status(self, job: str) -> Job:
        """The job as it stands.

        Raises:
            ConfigError: there is no such job.
        """
        manifest = self.manifest(job)
        directory = self.directory(job)
        state, live, status = self._state(directory)
        progress = read_object(directory / "progress.json")
        run = RunDirectory(directory / "run")
        preview = run.path / "preview.png"
        message = str(status.get("message", ""))
        if state == "lost":
            message = "the process that made it was lost; resume it"
        return Job(
            id=job,
            state=state,
            request=manifest.request,
            created=manifest.created,
            since=float(status.get("since", manifest.created)),
            live=live,
            steps=manifest.steps,
            step=int(progress.get("step", 0)),
            stage=int(progress.get("stage", 0)),
            stages=int(progress.get("stages", 1)),
            seconds_left=progress.get("seconds_left") if state == "running" else None,
            loss=progress.get("loss"),
            message=message,
            error=str(status.get("error", "")),
            attempts=self._attempts(directory),
            position=self._position(manifest) if state == "queued" else None,
            preview=preview.stat().st_mtime_ns if preview.is_file() else 0,
            files=run.files(),
            warnings=tuple(progress.get("warnings", ())),
            tags=manifest.tags,
        )

    @staticmethod
    def _attempts(directory: Path) -> int:
        held = (leases.read(directory, number) for number in leases.numbers(directory))
        return sum(lease is not None and lease.role == "worker" for lease in held)

    def _position(self, manifest: Manifest) -> int:
        mine = (manifest.created, manifest.id)
        return sum((other.created, other.id) < mine for other in self._waiting())

    def _waiting(self) -> list[Manifest]:
        """Manifests of queued jobs, the longest waiting first."""
        found = []
        for job in self.ids():
            with suppress(ConfigError):
                if self.state(job) == "queued":
                    found.append(self.manifest(job))
        return sorted(found, key=lambda manifest: (manifest.created, manifest.id))

    def list_jobs(self, owner: str | None = None) -> list[Job]:
        """All jobs, the newest first; those of one owner when it is given."""
        found = []
        for job in self.ids():
            with suppress(ConfigError):
                if owner is None or self.manifest(job).request.owner == owner:
                    found.append(self.status(job))
        return sorted(found, key=lambda job: (job.created, job.id), reverse=True)

    def events(self, job: str, after: int = 0) -> tuple[list[dict[str, Any]], int]:
        """What happened since `after` (0: all), and the value to give the next time.

        Every event has `time` (Unix) and `event`: queued, started, preview, checkpoint, out-of-memory, warning, cancel,
        stopping, done, failed, cancelled, lost, resumed.
        """
        return read_events(self.directory(job) / "events.jsonl", after)

    # Changing.

    def submit(
        self,
        request: JobRequest,
        tags: Mapping[str, Any] | None = None,
        job: str | None = None,
        start: bool = True,
    ) -> str:
        """Queue a job and start it when there is room; returns its id at once.

        Args:
            request: what to make.
            tags: kept with the job; JSON types.
            job: the id, sixteen hex digits made by the caller from the content of the request: submitting the same one
                again changes nothing. None draws one.
            start: False only queues it; somebody must call `tend`.

        Raises:
            PromptError, ConfigError: the request cannot be carried out, or too many jobs wait.
            OutputError: the job's directory cannot be made.
        """
        if job is not None and not _ID.fullmatch(job):
            raise ConfigError(f"'{job}' is no job id; ids are sixteen hex digits")
        if job is not None and self.exists(job):
            return job
        if self.queue_limit is not None and len(self._waiting()) >= self.queue_limit:
            raise ConfigError(
                f"{self.queue_limit} jobs are waiting already; try again when some are done"
            )
        text = request.config_text()
        job = job or secrets.token_hex(8)
        self._create(Manifest(job, request, time.time(), _steps(text), dict(tags or {})), text)
        if start:
            self.tend()
        return job

    def _create(self, manifest: Manifest, config_text: str) -> None:
        """Build the directory under another name and give it its own when it is whole."""
        make_directory(self.root)
        temporary = self.root / f".new-{secrets.token_hex(8)}"
        make_directory(temporary)
        try:
            write_text(temporary / "config.yaml", with_own_files(config_text, temporary))
            manifest.write(temporary / "job.json")
            write_status(temporary / "status.json", "queued")
            append_event(temporary / "events.jsonl", "queued")
            with suppress(FileExistsError):
                os.rename(temporary, self.root / manifest.id)
        except OSError as error:
            # The name is taken: another process submitted the same content a moment earlier.
            if not self.exists(manifest.id):
                raise OutputError(f"cannot write {self.root / manifest.id}: {error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @contextmanager
    def _owning(self, job: str) -> Iterator[Path]:
        """Own the job while its records are changed."""
        directory = self.directory(job)
        lease = leases.take(directory, "client", seconds=self.lease_seconds)
        try:
            yield directory
        finally:
            if directory.is_dir():
                leases.release(directory, lease)

    def cancel(self, job: str) -> None:
        """Ask a job to stop. A running one saves a checkpoint and what there is; one that has ended stays as it is.

        Raises:
            ConfigError: there is no such job.
        """
        directory = self.directory(job)
        if self.state(job) in ("done", "failed", "cancelled"):
            return
        # First the wish, then the attempt to fulfil it: a worker that takes the job in between finds the wish.
        write_text(directory / "cancel", "")
        with suppress(LeaseTaken), self._owning(job):
            if self.state_of_record(directory) in ("queued", "running"):
                write_status(directory / "status.json", "cancelled", "cancelled")
                append_event(directory / "events.jsonl", "cancelled")

    @staticmethod
    def state_of_record(directory: Path) -> State:
        """What status.json says, whoever owns the job."""
        return read_object(directory / "status.json").get("state", "queued")

    def resume(self, job: str, start: bool = True) -> None:
        """Queue a job that was cancelled, failed or lost; it goes on at its last checkpoint, bit for bit.

        Raises:
            ConfigError: there is no such job, it is done, waiting or running, or still saving what there is.
        """
        directory = self.directory(job)
        state = self.state(job)
        if state not in ENDED or state == "done":
            raise ConfigError(f"job {job} is {state}; only one that ended unfinished is resumed")
        with self._owning(job):
            if state == "lost":
                append_event(directory / "events.jsonl", "lost")
            (directory / "cancel").unlink(missing_ok=True)
            write_status(directory / "status.json", "queued")
            append_event(directory / "events.jsonl", "resumed")
        if start:
            self.tend()

    def delete(self, job: str) -> None:
        """Remove a job and all its files.

        Raises:
            ConfigError: there is no such job, or a process works on it; cancel it first.
        """
        with self._owning(job) as directory:
            # In one step out of sight; a crash while the files go leaves nothing that looks like a job.
            trash = self.root / f".deleted-{secrets.token_hex(8)}"
            try:
                os.rename(directory, trash)
            except OSError as error:
                raise OutputError(f"cannot remove {directory}: {error}") from error
        self._manifests.pop(job, None)
        shutil.rmtree(trash, ignore_errors=True)

    def kill(self, job: str) -> None:
        """End a worker of this machine that does not react, at once; its job is then lost and can be resumed."""
        lease = self.worker(job)
        if lease is not None and lease.machine == leases.machine():
            with suppress(ProcessLookupError):
                os.kill(lease.pid, signal.SIGKILL)

    def worker(self, job: str) -> Lease | None:
        """Who works on the job now; None when nobody does."""
        lease = leases.owner(self.directory(job), self.lease_seconds)
        return lease if lease is not None and lease.role == "worker" else None

    def tend(self) -> list[str]:
        """Start waiting jobs while there is room on this machine; returns the ids of those started.

        Every submission, every ending worker and `wait` call this; whoever watches jobs for long should too.
        """
        from dream3d.jobs.scheduler import tend

        return tend(self)

    def wait(self, job: str, seconds: float, until: Sequence[State] = ENDED) -> Job:
        """Block until the job's state is one of `until` and, where that is an end, nobody works on it any more.

        Raises:
            TimeoutError: it is not after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            found = self.status(job)
            if found.state in until and not (found.live and found.state in ENDED):
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"job {job} is still {found.state} after {seconds} s")
            self.tend()
            time.sleep(0.1)


def with_own_files(config_text: str, directory: Path) -> str:
    """The configuration of a job whose picture and meshes, if any, lie in its own `directory`: they are copied there.

    Raises:
        PictureError, ConfigError: one cannot be used.
    """
    from dream3d.config import config_to_yaml, load_config_text
    from systems.own_meshes import keep_meshes, read_meshes, with_own_meshes
    from systems.reference import keep, kept, load_reference

    config = load_config_text(config_text)
    reference = load_reference(config.reference)
    keep(reference, directory)
    keep_meshes(read_meshes(config), directory)
    return config_to_yaml(
        with_own_meshes(replace(config, reference=kept(reference, config.reference)))
    )


def _steps(config_text: str) -> int:
    from dream3d.config import load_config_text

    return sum(stage.steps for stage in load_config_text(config_text).stages)
