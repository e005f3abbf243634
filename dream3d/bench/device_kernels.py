"""Time every backend that runs on a GPU beside the torch reference on the same GPU: `bench kernels --device cuda`.

One pass is forward and backward. Passes are timed by the GPU's own events, from an empty queue to an empty queue, after
some that compile and warm; what two backends computed is compared before either is timed. Peak memory is torch's, above
what the data take: what a package allocates by itself is not in it.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dream3d.bench import kernel_cases as cases
from dream3d.bench.kernels import difference, machine
from dream3d.bench.mesh_kernels import rasterize_interpolate
from dream3d.errors import ConfigError
from dream3d.run import resolve_device
from renderers.backends import BACKENDS, Backend

APART = 0.02
"""Largest relative difference from the reference, in norm; more, and there is nothing to rank."""
WARM = 3


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


def milliseconds(run: Callable[[], object], rounds: int, device: torch.device) -> list[float]:
    """How long each of so many passes takes."""
    spent = []
    for _ in range(rounds):
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


def time_task(task: Task, rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """One row a backend, the reference first; `skipped` says why where there is nothing to tell."""
    run, rows = task.make(str(device)), []
    true: list[Tensor] | None = None
    reference: float | None = None
    for backend in _taking_part(task, device):
        row: dict[str, Any] = {"op": task.op, "case": task.case, "backend": backend.name}
        if backend.missing:
            rows.append({**row, "skipped": f"{', '.join(backend.missing)} is not installed"})
            continue
        try:
            found = [value.detach() for value in run(backend.name)]
            for _ in range(WARM):
                run(backend.name)
            spent = milliseconds(partial(run, backend.name), rounds, device)
            peak = peak_megabytes(partial(run, backend.name), device)
        except (RuntimeError, ConfigError, AssertionError) as error:  # packages fail in many ways
            said = str(error).strip().splitlines()
            rows.append({**row, "skipped": said[0] if said else type(error).__name__})
            continue
        if true is None:
            true, reference = found, min(spent)
        apart = difference(found, true)
        ratio = reference / max(min(spent), 1e-6) if reference and apart <= APART else None
        row |= {"ms": round(min(spent), 3), "ms_median": round(statistics.median(spent), 3)}
        row |= {"ratio": None if ratio is None else round(ratio, 2), "peak_mb": peak}
        rows.append({**row, "difference": float(f"{apart:.2g}")})
    return rows


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
    ops: Sequence[str], rounds: int, device: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Time all backends on all tasks of `ops` (none: all of them).

    Args:
        ops: names of operations.
        rounds: passes timed of each backend.
        device: where.
        say: told of each task before it is timed.

    Raises:
        ConfigError: no such operation or device.
    """
    place = resolve_device(device)
    known = list(dict.fromkeys(task.op for task in TASKS))
    for op in ops:
        if op not in known:
            raise ConfigError(f"operation is '{op}'; choose from {', '.join(known)}")
    rows = []
    for task in TASKS:
        if not ops or task.op in ops:
            say(f"{task.op} {task.case} on {place}")
            rows += time_task(task, rounds, place)
    return {
        "device": str(place),
        "machine": {**machine(), **_gpu(place)},
        "rounds": rounds,
        "rows": rows,
    }
