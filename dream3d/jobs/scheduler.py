"""Starts waiting jobs while this machine has room. There is no daemon: every party that changes the queue tends it."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dream3d.errors import Dream3DError
from dream3d.files import writing
from dream3d.jobs import lease as leases
from dream3d.jobs.lease import Lease
from dream3d.run_directory import RunDirectory

if TYPE_CHECKING:
    from dream3d.jobs.store import JobStore

SECONDS_UNTIL_SWEPT = 3600.0
PATIENCE = 10.0
"""Seconds to wait for another process that tends the same queue, which takes milliseconds."""


def tend(store: "JobStore") -> list[str]:
    """Start as many waiting jobs as there is room for; see `JobStore.tend`."""
    if not store.root.is_dir():
        return []
    started: list[str] = []
    with _alone(store.root) as alone:
        if not alone:
            return []
        sweep(store.root)
        free = sorted(set(range(store.at_once)) - {lease.slot for lease in here(store)})
        if not free:
            return []
        for manifest in store._waiting():
            if not free:
                break
            with suppress(Dream3DError):
                start(store, manifest.id, free[0])
                started.append(manifest.id)
                free.pop(0)
    return started


def sweep(root: Path) -> None:
    """Remove what clients left that died while they made or deleted a job; nobody knows it by a name."""
    for path in root.glob(".*-*"):
        unborn = path.name.startswith((".new-", ".deleted-"))
        with suppress(OSError):
            if unborn and time.time() - path.stat().st_mtime > SECONDS_UNTIL_SWEPT:
                shutil.rmtree(path, ignore_errors=True)


def here(store: "JobStore") -> list[Lease]:
    """Leases of the workers that run on this machine now."""
    found = []
    for job in store.ids():
        lease = leases.owner(store.root / job, store.lease_seconds)
        if lease is not None and lease.role == "worker" and lease.machine == leases.machine():
            found.append(lease)
    return found


def start(store: "JobStore", job: str, slot: int) -> None:
    """Begin a worker for a queued job.

    The worker waits for a word before it does anything, and hears it once the job is in its name: a client that dies in
    between leaves neither a job without an owner nor a worker without a job.

    Raises:
        LeaseTaken: somebody else was faster.
        OutputError: the lease or the log cannot be written.
    """
    directory = store.root / job
    with writing(directory / "log.txt"), (directory / "log.txt").open("ab") as log:
        child = subprocess.Popen(
            worker_command(store, job),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment(store, slot),
        )
    assert child.stdin is not None
    try:
        at = RunDirectory(directory / "run").newest_checkpoint()
        lease = leases.take(directory, "worker", child.pid, slot, at, store.lease_seconds)
        # A worker that died at birth leaves a lease whose owner is dead, which is what there is to say of it.
        with suppress(OSError):
            child.stdin.write(f"{lease.number}\n".encode())
            child.stdin.flush()
    finally:
        with suppress(OSError):
            child.stdin.close()


def worker_command(store: "JobStore", job: str) -> list[str]:
    """The command line of a worker: numbers, an id made here and the root; nothing a user wrote."""
    command = [sys.executable, "-m", "dream3d.jobs.worker", str(store.root.resolve()), job]
    command += ["--at-once", str(store.at_once), "--lease-seconds", str(store.lease_seconds)]
    return command + [f"--gpu={gpu}" for gpu in store.gpus]


def environment(store: "JobStore", slot: int) -> dict[str, str]:
    """The worker's environment: this dream3d first on the path, its own GPU, its share of the cores."""
    # Wherever the client was started, the worker finds the same dream3d.
    package = str(Path(__file__).parent.parent.parent)
    before = os.environ.get("PYTHONPATH")
    path = package if not before else os.pathsep.join([package, before])
    values = {**os.environ, "PYTHONPATH": path}
    if store.gpus:
        values["CUDA_VISIBLE_DEVICES"] = store.gpus[slot]
    if store.at_once > 1:
        share = str(max(1, (os.cpu_count() or 1) // store.at_once))
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
            values.setdefault(name, share)
    return values


@contextmanager
def _alone(root: Path) -> Iterator[bool]:
    """Let one process of this machine count and start at a time; the lock dies with its holder. False: no luck."""
    if os.name != "posix":
        yield True
        return
    import fcntl

    try:
        handle = os.open(root / ".queue", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        # A read-only or full disk: nothing could be started either.
        yield False
        return
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    yield False
                    return
                time.sleep(0.01)
            except OSError:
                break  # a file system without locks: the leases still keep every job to one worker
        yield True
    finally:
        os.close(handle)
