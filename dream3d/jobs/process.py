"""Which process is meant: a number alone is reused, a number with its start time on one boot of one machine is not."""

import functools
import os
import platform
from contextlib import suppress
from pathlib import Path

_STAT_STATE, _STAT_STARTED = 0, 19  # fields after the command's name in /proc/PID/stat


@functools.cache
def machine() -> str:
    """This machine since it was started: host, boot and, on Linux, the space its process numbers live in."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def started(pid: int) -> str | None:
    """When process `pid` of this machine began, as an opaque text; None when there is no such process.

    A process that has ended and waits for its parent (a zombie) counts as none.
    """
    if pid <= 0:
        return None
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            text = stat.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        # The name may hold spaces and parentheses; what follows its last parenthesis is numbers.
        fields = text.rpartition(")")[2].split()
        return None if fields[_STAT_STATE] in "ZXx" else fields[_STAT_STARTED]
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return repr(process.create_time())
    except psutil.Error:
        return None


def is_alive(pid: int, began: str) -> bool:
    """Whether the process that had number `pid` and began at `began` (from `started`) still runs on this machine."""
    return started(pid) == began
