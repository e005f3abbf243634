"""Time every backend that runs on a GPU beside the torch reference on the same GPU: `bench kernels --device cuda`.

One pass is forward and backward. Passes are timed by the GPU's own events, from an empty queue to an empty queue, after
some that compile and warm; what two backends computed is compared before either is timed. Peak memory is torch's, above
what the data take: what a package allocates by itself is not in it.
"""

import math
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dream3d.bench import kernel_cases as cases
from dream3d.bench.kernels import difference, machine
from dream3d.bench.mesh_kernels import rasterize_interpolate
from dream3d.errors import ConfigError
from dream3d.files import write_json
from dream3d.run import resolve_device
from renderers.backends import BACKENDS, Backend

APART = 0.02
"""Largest relative difference from the reference, in norm; more, and there is nothing to rank."""
WARM, WARM_SECONDS = 3, 0.3
"""Passes before the timed ones, and how long they may take together."""
TIMED_SECONDS = 1.0
"""After which no timed pass is begun."""
LONG_SECONDS = 2.0
"""A first pass of the reference, which compiles nothing, that takes longer is its only one."""
FIRST_SECONDS = 20.0
"""A backend's first pass may take this long, importing and compiling included."""
OURS = ("torch", "warp")


@dataclass(frozen=True)
class Task:
    """One operation at one size.

    Attributes:
        op: its name.
        case: the size.
        renderer: whose backends take part.
        make: the operation on data of a device.
        only: the backends of that renderer that do this; empty for all.
    """

    op: str
    case: str
    renderer: str
    make: Callable[[str], cases.Pass]
    only: tuple[str, ...] = ()


def _with(make: Callable[..., cases.Pass], *size: int) -> Callable[[str], cases.Pass]:
    return partial(_on, make, size)


def _on(make: Callable[..., cases.Pass], size: tuple[int, ...], device: str) -> cases.Pass:
    return make(*size, device=device)


GRIDS, COMPOSITES, MARCHES = (
    ("torch", "warp", "tinycudann"),
    ("torch", "warp", "nerfacc"),
    ("torch", "warp"),
)
TASKS: tuple[Task, ...] = (
    Task("splats", "20k/256", "splats", _with(cases.splats, 20_000, 256)),
    Task("splats", "100k/512", "splats", _with(cases.splats, 100_000, 512)),
    Task("hash_grid", "200k/2^15", "volume", _with(cases.hash_grid, 200_000, 15), GRIDS),
    Task("hash_grid", "1M/2^19", "volume", _with(cases.hash_grid, 1_000_000, 19), GRIDS),
    Task("march", "65536x96", "volume", _with(cases.march_rays, 65_536, 96), MARCHES),
    Task("composite", "65536x96", "volume", _with(cases.composite_rays, 65_536, 96), COMPOSITES),
    Task("rasterize_interpolate", "5k/512", "mesh", _with(rasterize_interpolate, 4, 512)),
    Task("rasterize_interpolate", "82k/1024", "mesh", _with(rasterize_interpolate, 6, 1024)),
)


class TooSlow(Exception):
    """Something took longer than it may."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise `TooSlow` in what takes longer, also in what waits for another process, such as a compiler.

    Only in the main thread, and where the system has alarms; elsewhere nothing is limited.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() != threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TooSlow(
            f"its first pass took over {seconds:g} s; give it more with --limit, or let it compile before"
        )

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def milliseconds(
    run: Callable[[], object], rounds: int, device: torch.device, seconds: float = TIMED_SECONDS
) -> list[float]:
    """How long each of so many passes takes; fewer, but one, where they take more than `seconds` together."""
    spent: list[float] = []
    while not spent or (len(spent) < rounds and sum(spent) < 1e3 * seconds):
        if device.type != "cuda":
            began = time.perf_counter()
            run()
            spent.append(1e3 * (time.perf_counter() - began))
            continue
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize(device)
        spent.append(begin.elapsed_time(end))
    return spent


def peak_megabytes(run: Callable[[], object], device: torch.device) -> float | None:
    """The most memory torch held during one pass above what it held before; None without a GPU."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return round((torch.cuda.max_memory_allocated(device) - before) / 2**20, 1)


@dataclass
class Bout:
    """A task's data on a device, and what the reference made of them once it ran.

    Attributes:
        task: what is timed.
        run: one pass on a backend.
        true: the reference's results.
        reference: its milliseconds.
    """

    task: Task
    run: cases.Pass
    true: list[Tensor] | None = None
    reference: float | None = None


def time_backend(
    bout: Bout,
    backend: Backend,
    rounds: int,
    device: torch.device,
    limit: float = FIRST_SECONDS,
) -> dict[str, Any]:
    """One row; `skipped` says why where there is nothing to tell. The reference has to come first."""
    task = bout.task
    row: dict[str, Any] = {"op": task.op, "case": task.case, "backend": backend.name}
    if backend.missing:
        return {**row, "skipped": f"{', '.join(backend.missing)} is not installed"}
    run = partial(bout.run, backend.name)
    first: list[Tensor] = []

    def first_pass() -> None:
        first.extend(value.detach() for value in run())

    try:
        with at_most(limit):
            spent = milliseconds(first_pass, 1, device)
        peak = None
        if backend.name != "torch" or spent[0] < 1e3 * LONG_SECONDS:
            milliseconds(run, WARM, device, WARM_SECONDS)
            spent = milliseconds(run, rounds, device)
            peak = peak_megabytes(run, device)
    except (
        RuntimeError,
        ConfigError,
        AssertionError,
        TooSlow,
    ) as error:  # packages fail in many ways
        said = str(error).strip().splitlines()
        return {**row, "skipped": said[0] if said else type(error).__name__}
    if backend.name == "torch":
        bout.true, bout.reference = first, min(spent)
    row |= {"ms": round(min(spent), 3), "ms_median": round(statistics.median(spent), 3)}
    row |= {"passes": len(spent), "ratio": None, "peak_mb": peak, "difference": None}
    if bout.true is not None and bout.reference is not None:
        apart = difference(first, bout.true)
        if math.isfinite(apart):  # results of other shapes are infinitely far apart
            row["difference"] = float(f"{apart:.2g}")
        if apart <= APART:
            row["ratio"] = round(bout.reference / max(min(spent), 1e-6), 2)
    return row


def _taking_part(task: Task, device: torch.device) -> list[Backend]:
    """The task's backends for a device, the torch reference first."""
    some = [b for b in BACKENDS if b.renderer == task.renderer and device.type in b.devices]
    some = [b for b in some if b.name != "numba" and (not task.only or b.name in task.only)]
    return sorted(some, key=lambda b: b.name != "torch")


def _gpu(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {}
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "gpu_memory_mb": properties.total_memory // 2**20,
        "cuda": torch.version.cuda,
    }


def bench_device_kernels(
    ops: Sequence[str],
    rounds: int,
    device: str,
    say: Callable[[str], None],
    limit: float = FIRST_SECONDS,
    file: Path | None = None,
) -> dict[str, Any]:
    """Time all backends on all tasks of `ops` (none: all of them), packages last.

    Args:
        ops: names of operations.
        rounds: passes timed of each backend, fewer where they are long.
        device: where.
        say: told of each row before it is timed.
        limit: seconds that a backend's first pass may take.
        file: gets the result too, anew after every row.

    Raises:
        ConfigError: no such operation or device.
    """
    place = resolve_device(device)
    known = list(dict.fromkeys(task.op for task in TASKS))
    for op in ops:
        if op not in known:
            raise ConfigError(f"operation is '{op}'; choose from {', '.join(known)}")
    rows: list[dict[str, Any]] = []
    result = {
        "device": str(place),
        "machine": {**machine(), **_gpu(place)},
        "rounds": rounds,
        "rows": rows,
    }
    bouts = [Bout(t, t.make(str(place))) for t in TASKS if not ops or t.op in ops]
    for ours in (True, False):
        for bout in bouts:
            for backend in _taking_part(bout.task, place):
                if (backend.name in OURS) == ours:
                    say(f"{bout.task.op} {bout.task.case} with {backend.name} on {place}")
                    rows.append(time_backend(bout, backend, rounds, place, limit))
                    if file is not None:
                        write_json(file, result)
    return result
