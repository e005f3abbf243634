"""How numba kernels are compiled and how many threads they get."""

import functools
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import torch
from numba.core import event

# Numba's "workqueue" threading layer, the only one on some platforms, must not be entered twice at a time.
_ENTERED = threading.RLock()
# Numba tells of real compilations only, not of machine code that is read back from the disk.
_COMPILATIONS = event.TimingListener()
event.register("numba:compile", _COMPILATIONS)


@functools.cache
def _sources_digest(directory: Path) -> str:
    """A digest of every module of a directory, and of this one."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(directory.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: compile with numba, keep the machine code on disk.

    Numba's own cache notices only that a kernel's own file changed, not that a constant or a kernel it uses from
    another file did, and would go on with stale code. Here the cache is valid for one state of all files beside it.

    Args:
        **options: of `numba.njit`; division by zero follows IEEE, as in numpy.
    """

    def compile_lazily(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(cache=True, error_model="numpy", **options)(function)
        cache_file = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
        if cache_file is not None:  # None where no directory is writable: then nothing is cached
            cache_file._source_stamp = _sources_digest(Path(function.__code__.co_filename).parent)
        return dispatcher

    return compile_lazily


@contextmanager
def kernel_threads() -> Iterator[int]:
    """Let kernels inside the block use as many threads as torch does; yields that number."""
    most: int = numba.config.NUMBA_NUM_THREADS  # pyright: ignore[reportAttributeAccessIssue]
    count = max(1, min(torch.get_num_threads(), most))
    with _ENTERED:
        numba.set_num_threads(count)
        yield count


def compilation_seconds() -> float:
    """What this process has spent on compiling kernels so far; 0 when all of them were on disk."""
    return _COMPILATIONS.duration if _COMPILATIONS.done else 0.0
