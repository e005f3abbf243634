"""Time the splat backends side by side; prints one JSON object.

    python benchmarks/bench_splats.py [--threads 1] [--repeats 15] [--reference]

Backends are timed alternately in one process, so that their ratio survives a machine that speeds up and slows down. The
milliseconds are the minimum over the repeats. Ratios are given only on a machine that is otherwise idle.
"""

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from dream3d.cameras import CameraBatch, orbit_cameras
from renderers.splats import SplatData, render_splats

CASES = (
    {"splats": 2_000, "size": 64, "views": 1},
    {"splats": 5_000, "size": 64, "views": 4},
    {"splats": 5_000, "size": 128, "views": 1},
    {"splats": 20_000, "size": 256, "views": 1},
    {"splats": 100_000, "size": 512, "views": 1},
)
REFERENCE_LIMIT = 5_000
"""The torch reference is timed up to this many splats; beyond, it takes minutes."""
IDLE_LOAD = 0.5
"""One-minute load per core above which the machine counts as busy."""


def shell(count: int) -> SplatData:
    """Splats on a thick shell, opacities 0.1 to 0.9."""
    g = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=-1)
    splats = SplatData(
        direction * (0.6 + 0.1 * torch.rand(count, 1, generator=g)),
        math.log(1.2 / math.sqrt(count)) + 0.3 * torch.randn(count, 3, generator=g),
        torch.randn(count, 4, generator=g),
        torch.logit(0.1 + 0.8 * torch.rand(count, generator=g)),
        torch.rand(count, 3, generator=g),
    )
    return SplatData(**{name: value.requires_grad_() for name, value in splats.tensors().items()})


def forward_backward(splats: SplatData, cameras: CameraBatch, backend: str) -> tuple[float, float]:
    """Milliseconds of one forward and one backward pass."""
    inputs = list(splats.tensors().values())
    start = time.perf_counter()
    out = render_splats(splats, cameras, backend)
    middle = time.perf_counter()
    ones = [torch.ones_like(out.rgb), torch.ones_like(out.alpha)]
    before = time.perf_counter()
    torch.autograd.grad([out.rgb, out.alpha], inputs, ones)
    return 1e3 * (middle - start), 1e3 * (time.perf_counter() - before)


def measure(case: dict[str, int], repeats: int, reference: bool, busy: Callable[[], bool]) -> dict:
    """One case: minima per backend, and their ratio where the machine was idle throughout."""
    azimuth = [360.0 * i / case["views"] for i in range(case["views"])]
    cameras = orbit_cameras(azimuth, 10.0, size=case["size"])
    splats = shell(case["splats"])
    backends = ["numba"]
    if reference and case["splats"] <= REFERENCE_LIMIT:
        backends.append("torch")
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in backends}
    disturbed = busy()
    for name in backends:
        forward_backward(splats, cameras, name)  # compiles
    for _ in range(repeats):
        for name in backends:
            times[name].append(forward_backward(splats, cameras, name))
    disturbed |= busy()
    row: dict = dict(case)
    for name, pairs in times.items():
        forward, backward = (min(column) for column in zip(*pairs, strict=True))
        row[name] = {"forward_ms": round(forward, 2), "backward_ms": round(backward, 2)}
    if len(backends) == 2:
        totals = [sum(row[name].values()) for name in backends]
        row["torch_over_numba"] = None if disturbed else round(totals[1] / totals[0], 1)
    row["disturbed"] = disturbed
    return row


def main() -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--reference", action="store_true", help="time the torch reference too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cores = os.cpu_count() or 1
    # Our own threads count into the load, so they are allowed for.
    limit = IDLE_LOAD * cores + arguments.threads

    def busy() -> bool:
        return hasattr(os, "getloadavg") and os.getloadavg()[0] > limit

    rows = [measure(case, arguments.repeats, arguments.reference, busy) for case in CASES]
    print(
        json.dumps(
            {
                "format_version": 1,
                "benchmark": "splats",
                "machine": {"processor": platform.machine(), "cores": cores},
                "torch": torch.__version__,
                "threads": arguments.threads,
                "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
                "cases": rows,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
