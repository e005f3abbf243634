"""Writing files so that each is whole or absent, and saying plainly when the disk will not take it.

Everything dream3d leaves on disk goes through here: a temporary file in the same directory, flushed to the disk, then
renamed over the target. A crash, a full disk or a cancelled run leaves the file that was there before.
"""

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dream3d.errors import OutputError

_AGAIN = (
    "free some space and try again; a run that was begun goes on with `dream3d generate --resume`"
)
_REASONS = {
    errno.ENOSPC: f"the disk is full; {_AGAIN}",
    errno.EDQUOT: f"your disk quota is used up; {_AGAIN}",
    errno.EACCES: "permission denied; choose a directory you may write to (--out)",
    errno.EPERM: "permission denied; choose a directory you may write to (--out)",
    errno.EROFS: "the file system is read-only; choose another place (--out)",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one (--out)",
    errno.ENOTDIR: "a part of the path is a file, not a directory; choose another place (--out)",
    errno.EEXIST: "a file of that name is in the way; choose another place (--out)",
    errno.EISDIR: "a directory of that name is in the way; choose another place (--out)",
}


def output_error(path: Path, error: OSError) -> OutputError:
    """What a failed write means for the user, and what to do."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return OutputError(f"cannot write {path}: {reason}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn any OSError of the block into an OutputError about `path`."""
    try:
        yield
    except OSError as error:
        raise output_error(path, error) from error


def make_directory(path: Path) -> None:
    """Create a directory and its parents; fine if it exists.

    Raises:
        OutputError: not writable, or a file is in the way.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def _flush_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut; systems that cannot open directories do without."""
    if os.name != "posix":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path to write to; renamed to `path` when the block ends well, removed when it does not.

    The temporary name keeps the suffix, because many writers choose the format by it.

    Raises:
        OutputError: the block or the rename met an OSError.
    """
    temporary = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        with writing(path):
            yield temporary
            handle = os.open(temporary, os.O_RDWR)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            os.replace(temporary, path)
            _flush_directory(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the contents of `path`, all or nothing.

    Raises:
        OutputError: the directory is not writable, the disk is full.
    """
    with atomic_path(path) as temporary:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Replace the contents of `path` by UTF-8 text, all or nothing."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, data: Any) -> None:
    """Replace `path` by strict JSON (ASCII, no NaN), all or nothing."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def append_line(path: Path, line: str) -> None:
    """Append one line, in a single write; a line that a crash cut short is closed first.

    Raises:
        OutputError: the disk is full or the file not writable.
    """
    data = line.encode("utf-8") + b"\n"
    with writing(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(handle).st_size
            if size:
                os.lseek(handle, size - 1, os.SEEK_SET)
                data = data if os.read(handle, 1) == b"\n" else b"\n" + data
            os.write(handle, data)
        finally:
            os.close(handle)
