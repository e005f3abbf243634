"""The batch itself: submit, watch, retry the lost, until every item has ended. Re-running goes on where it was."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from dream3d.batch.plan import Item
from dream3d.errors import ConfigError, Dream3DError
from dream3d.jobs import ENDED, Job, JobStore, State
from dream3d.jobs import lease as leases

SECONDS_BETWEEN_LOOKS = 0.5
BY_SIGNAL = "stopped by "
"""How the message of a job begins that somebody stopped from outside, not on its own account."""


@dataclass
class Row:
    """An item as it stands.

    Attributes:
        item: of the plan.
        job: None until it was submitted, and for items that cannot be.
        over: nothing more will be done about it in this batch.
        exports: files beside the run, made by `dream3d.batch.exports`.
        export_problem: why one could not be made, or empty.
    """

    item: Item
    job: Job | None = None
    over: bool = False
    exports: tuple[str, ...] = ()
    export_problem: str = ""

    @property
    def state(self) -> State:
        """The job's state; "failed" for an item that is none."""
        if self.item.problem:
            return "failed"
        return self.job.state if self.job is not None else "queued"

    @property
    def message(self) -> str:
        """What is wrong, or empty."""
        told = self.item.problem or (self.job.message if self.job is not None else "")
        return told or self.export_problem


class Batch:
    """One batch in one directory; others may work on the same.

    Args:
        items: of the whole plan, for the tables.
        out: `jobs` lies below it.
        mine: ids that this process sees to, those of its shard.
        store: below `out`.
        retries: how often a job whose worker dies without a new checkpoint is begun again.
    """

    def __init__(
        self, items: Sequence[Item], mine: set[str], store: JobStore, retries: int = 3
    ) -> None:
        self.rows = [Row(item, over=bool(item.problem)) for item in items]
        self.mine = mine
        self.store = store
        self.retries = retries
        self.began = time.monotonic()
        self.stopping = False
        self._done_before: int | None = None

    def submit(self) -> None:
        """Queue what is not there yet and go on with what an earlier batch left unfinished."""
        for row in self.rows:
            request, job = row.item.request, row.item.job
            if request is None or job not in self.mine:
                row.over = True
                continue
            try:
                tags = {"line": row.item.line}
                self.store.submit(request, tags, job, start=False)
                if self.store.state(job) in ("failed", "cancelled", "lost"):
                    self._again(job)
            except Dream3DError as error:
                row.item = Item(row.item.line, row.item.prompt, row.item.seed, problem=str(error))
                row.over = True

    def _again(self, job: str) -> None:
        # Another batch may have been faster, or the worker is still saving what there is.
        with suppress(ConfigError):
            self.store.resume(job, start=False)

    def look(self) -> None:
        """Learn how every job stands; begin again what was lost."""
        for row in self.rows:
            if row.item.request is None or (row.over and row.state in ENDED):
                continue
            if not self.store.exists(row.item.job):
                row.over = row.item.job not in self.mine
                continue
            row.job = self.store.status(row.item.job)
            if row.item.job in self.mine and row.job.state in ENDED and not row.job.live:
                again = worth_another(self.store, row.job, self.retries)
                row.over = self.stopping or not again
                if not row.over:
                    self._again(row.item.job)

    @property
    def over(self) -> bool:
        """Whether every item of this process has ended."""
        return all(row.over for row in self.rows)

    def waiting(self) -> list[Row]:
        """The rows of this process that have not ended."""
        return [row for row in self.rows if not row.over and row.item.job in self.mine]

    def seconds_left(self) -> float | None:
        """From the steps made since this process began and those to go; None until there are some."""
        jobs = [row.job for row in self.rows if row.job is not None and row.item.job in self.mine]
        done = sum(job.step for job in jobs)
        if self._done_before is None:
            self._done_before = done
        made = done - self._done_before
        ended = sum(job.steps - job.step for job in jobs if job.state in ENDED)
        left = sum(job.steps for job in jobs) - done - ended
        return (time.monotonic() - self.began) / made * left if made > 0 else None

    def run(self, told: Callable[["Batch"], None], should_stop: Callable[[], bool]) -> bool:
        """Work until everything of this process has ended; False when it was stopped before.

        Args:
            told: after every look.
            should_stop: asked after every look; True stops the workers here with checkpoints.
        """
        self.submit()
        while True:
            self.store.tend()
            self.look()
            told(self)
            if self.over:
                return True
            if should_stop():
                self.stop()
                self.look()
                return False
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def stop(self) -> None:
        """SIGTERM to the workers of this batch on this machine, and wait until they have saved."""
        self.stopping = True
        working = []
        for row in self.rows:
            if row.item.job in self.mine and self.store.exists(row.item.job):
                lease = self.store.worker(row.item.job)
                if lease is not None and lease.machine == leases.machine():
                    with suppress(ProcessLookupError):
                        os.kill(lease.pid, signal.SIGTERM)
                    working.append(row.item.job)
        while any(self.store.worker(job) is not None for job in working):
            time.sleep(0.1)


def worth_another(store: JobStore, job: Job, retries: int) -> bool:
    """Whether an ended job is begun again: it was lost, or stopped by a signal from outside.

    One whose workers die again and again at the same checkpoint is given up.
    """
    if job.state == "lost":
        return leases.fruitless(store.directory(job.id)) <= retries
    return job.state == "cancelled" and job.message.startswith(BY_SIGNAL)
