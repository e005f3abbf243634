"""A batch on a Ray cluster: a task for each asset, placed where there is room, begun again when its machine dies."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dream3d.batch.attend import attend
from dream3d.batch.run import Batch
from dream3d.errors import ConfigError
from dream3d.jobs import ENDED

SECONDS_BETWEEN_LOOKS = 1.0


def run_on_ray(
    batch: Batch,
    address: str,
    told: Callable[[Batch], None],
    should_stop: Callable[[], bool],
) -> bool:
    """As `Batch.run`, on the cluster at `address`; "local" starts one on this machine.

    The cluster's machines share the batch's directory and have dream3d installed.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at `address`.
    """
    ray = _ray()
    _connect(ray, address)
    try:
        gpus = 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0
        task = ray.remote(attend).options(
            num_cpus=1, num_gpus=gpus, max_retries=max(1, batch.retries)
        )
        batch.submit()
        batch.look()
        tasks = {_start(task, batch, row.item.job): row.item.job for row in batch.waiting()}
        begun = {job: 1 for job in tasks.values()}
        while tasks:
            ended, _ = ray.wait(list(tasks), timeout=SECONDS_BETWEEN_LOOKS)
            batch.look()
            told(batch)
            if should_stop():
                _stop(ray, batch, list(tasks))
                return False
            for reference in ended:
                job = tasks.pop(reference)
                state = batch.store.state(job)
                # Ray gave the task up. The job itself is as good as ever, so it gets another one.
                if (state not in ENDED or state == "lost") and begun[job] <= batch.retries:
                    begun[job] += 1
                    tasks[_start(task, batch, job)] = job
        batch.look()
        told(batch)
        return True
    finally:
        ray.shutdown()


def _start(task: Any, batch: Batch, job: str) -> Any:
    root = str(batch.store.root.resolve())
    return task.remote(root, job, batch.retries, batch.store.lease_seconds)


def _ray() -> Any:
    # Ray reports usage home and talks on standard output unless told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "--ray needs Ray, which is not installed: pip install 'dream3d[cluster]'"
        ) from error
    return ray


def _connect(ray: Any, address: str) -> None:
    package = str(Path(__file__).parent.parent.parent)
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    options: dict[str, Any] = {
        "log_to_driver": False,
        "runtime_env": {"env_vars": {"PYTHONPATH": path}},
    }
    if address == "local":
        options |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"there is no Ray cluster at '{address}' ({error}); give HOST:PORT, auto or local"
        ) from error


def _stop(ray: Any, batch: Batch, tasks: list[Any]) -> None:
    """Ask every unfinished job to save and stop, and wait until they have."""
    batch.stopping = True
    for row in batch.waiting():
        batch.store.cancel(row.item.job)
    ray.wait(tasks, num_returns=len(tasks), timeout=60.0)
    batch.look()
