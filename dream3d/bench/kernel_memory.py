"""The memory 100k splats need at 512 px, in a fresh process: prints a JSON object.

python -m dream3d.bench.kernel_memory
"""

import json
import sys

import torch

from dream3d.bench.kernel_cases import splats


def resident(name: str) -> float:
    """Megabytes of memory of this process, now ("VmRSS") or at most ("VmHWM"); Linux only."""
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines[name].split()[0]) / 1024.0


def main() -> None:
    """Measure a forward and a backward pass, the scene's own tensors included."""
    torch.set_num_threads(1)
    splats(1000, 64)("numba")  # loads the kernels
    baseline = resident("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # lets VmHWM begin anew: compiling kernels needs more than drawing
    splats(100_000, 512)("numba")
    peak = resident("VmHWM")
    above = round(peak - baseline, 1)
    print(json.dumps({"above_baseline_mb": above, "baseline_mb": round(baseline, 1)}))


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"this system does not tell how much memory a process used: {error}")
