"""Who owns a job: leases in numbered files, so that of several takers exactly one wins and no lock has to be broken.

    lease-000001.json   the first owner's, in full before it has its name
    lease-000002.json   the next one's, possible only once the first was released or its owner is dead

Taking a lease creates the file after the newest, which the file system lets one process do (a hard link, or O_EXCL
where there are none). Nothing is stolen: an owner that was taken for dead finds a later file than its own and stops.
The heartbeat is the file's modification time, which even a full disk takes. On the owner's own machine its process is
asked instead, by number and start time, so a death shows at once and a reused number deceives nobody.
"""

import errno
import json
import os
import re
import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dream3d.errors import ConfigError
from dream3d.files import write_json, writing
from dream3d.jobs.process import is_alive, machine, started

FORMAT_VERSION = 1
SECONDS = 30.0
"""An owner on another machine that has not been heard for this long is taken for dead."""

BEAT = 2.0
"""Seconds between heartbeats."""

_NAME = re.compile(r"lease-(\d{6})\.json")


class LeaseTaken(ConfigError):
    """Another process owns the job."""


@dataclass(frozen=True)
class Lease:
    """One ownership of a job.

    Attributes:
        number: 1 for the first owner.
        role: "worker" runs the job, "client" only changes its records.
        machine, pid, began: the owner, see `dream3d.jobs.process`.
        host: for people.
        taken: Unix time.
        slot: which of the machine's places the worker has; -1 for clients.
        checkpoint: name of the newest checkpoint when it was taken: what this owner adds is progress.
        released: the owner is through and said so.
    """

    number: int
    role: Literal["worker", "client"]
    machine: str
    pid: int
    began: str
    host: str
    taken: float
    slot: int = -1
    checkpoint: str = ""
    released: bool = False


def _path(directory: Path, number: int) -> Path:
    return directory / f"lease-{number:06d}.json"


def numbers(directory: Path) -> list[int]:
    """Numbers of all leases a job ever had, ascending."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)


def read(directory: Path, number: int) -> Lease | None:
    """The lease `number`; None when the file is missing or not (yet) whole."""
    try:
        data: dict[str, Any] = json.loads(_path(directory, number).read_text(encoding="utf-8"))
        if data.pop("format_version") != FORMAT_VERSION:
            return None
        return Lease(**data)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def newest(directory: Path) -> Lease | None:
    """The latest lease; None when nobody ever owned the job."""
    known = numbers(directory)
    return read(directory, known[-1]) if known else None


def heard(directory: Path, number: int) -> float:
    """Unix time of the lease's last heartbeat; 0 when it is gone."""
    try:
        return _path(directory, number).stat().st_mtime
    except OSError:
        return 0.0


def is_live(directory: Path, lease: Lease, seconds: float = SECONDS) -> bool:
    """Whether the owner still works on the job."""
    if lease.released:
        return False
    if lease.machine == machine():
        return is_alive(lease.pid, lease.began)
    return time.time() - heard(directory, lease.number) < seconds


def owner(directory: Path, seconds: float = SECONDS) -> Lease | None:
    """The lease of the process that works on the job now; None when nobody does."""
    lease = newest(directory)
    return lease if lease is not None and is_live(directory, lease, seconds) else None


def take(
    directory: Path,
    role: Literal["worker", "client"],
    pid: int | None = None,
    slot: int = -1,
    checkpoint: str = "",
    seconds: float = SECONDS,
) -> Lease:
    """Own the job, for this process or for `pid`, a process of this machine.

    Raises:
        LeaseTaken: somebody else owns it, or was faster.
        OutputError: the lease cannot be written.
    """
    number = (numbers(directory) or [0])[-1]
    if number:
        before = read(directory, number)
        half_written = before is None and time.time() - heard(directory, number) < seconds
        if half_written or (before is not None and is_live(directory, before, seconds)):
            raise LeaseTaken(f"another process is working on job {directory.name}; wait for it")
    pid = os.getpid() if pid is None else pid
    began = started(pid)
    if began is None:
        raise LeaseTaken(f"process {pid}, which was to own job {directory.name}, has ended")
    place, host = machine(), machine().split(" ")[0]
    lease = Lease(number + 1, role, place, pid, began, host, time.time(), slot, checkpoint)
    _create(_path(directory, lease.number), lease)
    return lease


def _create(path: Path, lease: Lease) -> None:
    """Give `path` to one process; it is whole from the first moment wherever there are hard links."""
    text = json.dumps({"format_version": FORMAT_VERSION, **asdict(lease)}, indent=2) + "\n"
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.partial")
    with writing(path):
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                os.write(handle, text.encode())
                os.fsync(handle)
            finally:
                os.close(handle)
            try:
                os.link(temporary, path)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                    raise
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                try:
                    os.write(handle, text.encode())
                finally:
                    os.close(handle)
        except FileExistsError as error:
            raise LeaseTaken(f"another process was faster to take {path.parent.name}") from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def release(directory: Path, lease: Lease) -> None:
    """Give the job back; the last thing an owner does."""
    if is_current(directory, lease):
        document = {"format_version": FORMAT_VERSION, **asdict(lease), "released": True}
        write_json(_path(directory, lease.number), document)


def is_current(directory: Path, lease: Lease) -> bool:
    """Whether nobody took the job after this lease's owner."""
    known = numbers(directory)
    return bool(known) and known[-1] == lease.number


def beat(directory: Path, lease: Lease) -> bool:
    """A heartbeat; False when the job was given to somebody else, whereupon the owner must stop."""
    if not is_current(directory, lease):
        return False
    with suppress(OSError):
        os.utime(_path(directory, lease.number))
    return True


def fruitless(directory: Path) -> int:
    """Workers in a row, up to the newest, that began at the same checkpoint since a client last set the job's state."""
    count, at = 0, None
    for number in reversed(numbers(directory)):
        lease = read(directory, number)
        if lease is None or lease.role != "worker" or (at is not None and lease.checkpoint != at):
            break
        at = lease.checkpoint
        count += 1
    return count
