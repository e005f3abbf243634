"""A batch as a SLURM array, by submitit: every task takes what is left; a preempted one is queued again."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dream3d.batch.attend import drain
from dream3d.batch.run import SECONDS_BETWEEN_LOOKS, Batch
from dream3d.errors import ConfigError
from dream3d.jobs import ENDED

MOST_TASKS = 64
_KEY = re.compile(r"[a-z][a-z0-9_]{0,40}")
_VALUE = re.compile(r"[\w.:/@+-]{0,200}", re.ASCII)


@dataclass(frozen=True)
class Drain:
    """What a task runs; submitit asks it what to queue again when SLURM takes the machine away.

    Attributes:
        root, jobs, retries, lease_seconds: see `dream3d.batch.attend.drain`.
    """

    root: str
    jobs: list[str]
    retries: int
    lease_seconds: float

    def __call__(self) -> None:
        """Work until nothing is left."""
        drain(self.root, self.jobs, self.retries, self.lease_seconds)

    def checkpoint(self) -> Any:
        """The same once more: jobs go on at their last checkpoints, ended ones are skipped."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def parameters(text: str) -> dict[str, Any]:
    """Settings of the executor from "slurm_partition=gpu,timeout_min=240"; integers where they look it.

    Raises:
        ConfigError: malformed; a value could otherwise put lines into the batch script.
    """
    found: dict[str, Any] = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not (equals and _KEY.fullmatch(key) and _VALUE.fullmatch(value)):
            raise ConfigError(
                f"--slurm has {pair!r}; write key=value,key=value with submitit's names, e.g. "
                "slurm_partition=gpu,timeout_min=240,gpus_per_node=1"
            )
        found[key] = int(value) if value.isdecimal() else value
    return found


def run_on_slurm(
    batch: Batch,
    text: str,
    told: Callable[[Batch], None],
    should_stop: Callable[[], bool],
) -> bool:
    """As `Batch.run`, by an array of at most `MOST_TASKS` tasks.

    Args:
        batch: its directory is on a disk that the nodes share.
        text: see `parameters`; `tasks` is the size of the array, `cluster` submitit's (slurm, local, debug).
        told: as for `Batch.run`.
        should_stop: as for `Batch.run`.

    Raises:
        ConfigError: submitit is not installed, refuses a setting, or finds no SLURM.
    """
    given = parameters(text)
    executor = _executor(batch, given)
    batch.submit()
    batch.look()
    jobs = [row.item.job for row in batch.waiting()]
    root = str(batch.store.root.resolve())
    count = min(int(given.get("tasks", 8)), MOST_TASKS, max(1, len(jobs)))
    # Each begins at another place, so that they do not all reach for the same job.
    starts = [len(jobs) * index // count for index in range(count)]
    drains = [
        Drain(root, jobs[at:] + jobs[:at], batch.retries, batch.store.lease_seconds)
        for at in starts
    ]
    tasks = [executor.submit(work) for work in drains] if count == 1 else _array(executor, drains)
    while True:
        batch.look()
        told(batch)
        if batch.over:
            return True
        if should_stop():
            batch.stopping = True
            for row in batch.waiting():
                batch.store.cancel(row.item.job)
            for task in tasks:
                task.cancel()
            batch.look()
            return False
        if all(task.done() for task in tasks):
            # Nobody is left who would go on with what is not over.
            batch.look()
            return all(row.over or row.state in ENDED for row in batch.rows)
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _array(executor: Any, drains: list[Drain]) -> list[Any]:
    with executor.batch():
        return [executor.submit(work) for work in drains]


def _executor(batch: Batch, given: dict[str, Any]) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise ConfigError(
            "--slurm needs submitit, which is not installed: pip install 'dream3d[cluster]'"
        ) from error
    cluster = given.get("cluster")
    folder = batch.store.root.resolve().parent / "slurm"
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(
            name="dream3d",
            **{key: value for key, value in given.items() if key not in ("cluster", "tasks")},
        )
    except (RuntimeError, ValueError, NameError, TypeError) as error:
        raise ConfigError(f"submitit refuses: {error}") from error
    return executor
