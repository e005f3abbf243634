"""Seeing a job through in a process of a cluster: run it, wait for whoever runs it, begin it again when it was lost."""

import time
from contextlib import suppress
from pathlib import Path

from dream3d.batch.run import worth_another
from dream3d.errors import ConfigError
from dream3d.jobs import ENDED, JobStore, State
from dream3d.jobs.worker import run_here

SECONDS_BETWEEN_LOOKS = 1.0


def attend(root: str, job: str, retries: int, lease_seconds: float) -> State:
    """Return once the job has ended for good.

    Args:
        root: of the jobs; the cluster's machines share it.
        job: id.
        retries: see `dream3d.batch.run.Batch`.
        lease_seconds: how long the owner on another machine may be silent.
    """
    store = JobStore(Path(root), queue_limit=None, lease_seconds=lease_seconds)
    while True:
        found = store.status(job)
        if found.state == "queued":
            # Somebody else may be faster.
            with suppress(ConfigError):
                run_here(store, job)
                continue
        elif found.state in ENDED and not found.live:
            if not worth_another(store, found, retries):
                return found.state
            with suppress(ConfigError):
                store.resume(job, start=False)
            continue
        time.sleep(SECONDS_BETWEEN_LOOKS)


def drain(root: str, jobs: list[str], retries: int, lease_seconds: float) -> None:
    """Run whatever of `jobs` nobody else runs until all have ended: any number of processes share the work."""
    store = JobStore(Path(root), queue_limit=None, lease_seconds=lease_seconds)
    left = list(jobs)
    while left:
        busy = 0
        for job in list(left):
            found = store.status(job)
            if found.live or found.state == "running":
                busy += 1
            elif found.state == "queued" or worth_another(store, found, retries):
                attend(root, job, retries, lease_seconds)
            else:
                left.remove(job)
        if busy:
            time.sleep(SECONDS_BETWEEN_LOOKS)
