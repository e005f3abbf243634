"""Time the volume backends side by side; prints one JSON object.

    python benchmarks/bench_volume.py [--threads 1] [--repeats 9]

Backends are timed alternately in one process, so that their ratio survives a machine that speeds up and slows down. The
milliseconds, forward plus backward, are processor time and the minimum over the repeats. Ratios are given only on a
machine that is otherwise idle.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from renderers.hash_grid import encode, geometric_layout
from renderers.volume import composite, march

BACKENDS = ("numba", "torch")
IDLE_LOAD = 0.5
"""One-minute load per core above which the machine counts as busy."""


Timed = Callable[[str], None]
"""Runs one operation on a backend; its data are there already."""


def hash_grid(points: int, table_log2: int) -> Timed:
    """Encode random points with 16 levels of two features; gradient of the table."""
    g = torch.Generator().manual_seed(0)
    layout = geometric_layout(16, 16, 512, table_log2, 2)
    table = torch.randn(layout.offsets[-1], 2, generator=g, requires_grad=True)
    where = 2.0 * torch.rand(points, 3, generator=g) - 1.0
    cotangent = torch.randn(points, layout.width, generator=g)

    def run(backend: str) -> None:
        torch.autograd.grad(encode(where, table, layout, backend), table, cotangent)

    return run


def march_rays(rays: int, samples: int) -> Timed:
    """March rays with `samples` steps across the diagonal through a grid of which a ball is occupied."""
    g = torch.Generator().manual_seed(0)
    origins = 3.2 * torch.nn.functional.normalize(torch.randn(rays, 3, generator=g), dim=1)
    aim = torch.rand(rays, 3, generator=g) - 0.5
    directions = torch.nn.functional.normalize(aim - origins, dim=1)
    axis = (torch.arange(32) + 0.5) / 16.0 - 1.0
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    occupied = (x * x + y * y + z * z) < 0.36
    step, jitter = 2.0 * 3.0**0.5 / samples, torch.full((rays,), 0.5)

    def run(backend: str) -> None:
        march(origins, directions, occupied, step, jitter, backend)

    return run


def composite_rays(rays: int, samples: int) -> Timed:
    """Composite three features of `samples` samples a ray; gradients of density and features."""
    g = torch.Generator().manual_seed(0)
    n = rays * samples
    density = (20.0 * torch.rand(n, generator=g)).requires_grad_()
    features = torch.rand(n, 3, generator=g).requires_grad_()
    length, start = torch.full((n,), 0.02), torch.arange(rays + 1) * samples
    cotangents = [torch.randn(rays, 3, generator=g), torch.randn(rays, generator=g)]

    def run(backend: str) -> None:
        outputs = composite(density, features, length, start, backend)
        torch.autograd.grad(outputs, [density, features], cotangents)

    return run


CASES: tuple[tuple[str, str, Callable[[], Timed]], ...] = (
    ("hash_grid", "200k/2^15", partial(hash_grid, 200_000, 15)),
    ("march", "4096x96", partial(march_rays, 4096, 96)),
    ("composite", "4096x96", partial(composite_rays, 4096, 96)),
)


def measure(
    op: str, case: str, make: Callable[[], Timed], repeats: int, busy: Callable[[], bool]
) -> dict:
    """One case: minima per backend, and their ratio where the machine was idle throughout."""
    run, disturbed = make(), busy()
    times: dict[str, list[float]] = {name: [] for name in BACKENDS}
    for name in BACKENDS:
        run(name)  # compiles
    for _ in range(repeats):
        for name in BACKENDS:
            begin = time.process_time()
            run(name)
            times[name].append(1e3 * (time.process_time() - begin))
    disturbed |= busy()
    ours, theirs = (min(times[name]) for name in BACKENDS)
    return {
        "op": op,
        "case": case,
        "backend": "numba",
        "peer": "torch",
        "core_ms": round(ours, 2),
        "peer_core_ms": round(theirs, 2),
        "ratio": None if disturbed else round(theirs / ours, 1),
    }


def main() -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cores = os.cpu_count() or 1
    # Our own threads count into the load, so they are allowed for.
    limit = IDLE_LOAD * cores + arguments.threads

    def load() -> float | None:
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else None

    rows = [
        measure(op, case, make, arguments.repeats, lambda: (load() or 0.0) > limit)
        for op, case, make in CASES
    ]
    print(
        json.dumps(
            {
                "format_version": 1,
                "benchmark": "volume",
                "machine": {"processor": platform.machine(), "cores": cores},
                "torch": torch.__version__,
                "threads": arguments.threads,
                "load": load(),
                "rows": rows,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
