"""What a GPU can do at best, measured: the rate of a large matrix product and of a large copy."""

from typing import Any

import torch

SIDE = 8192
COPIED = 2**31


def median_ms(work: Any, device: torch.device, rounds: int = 15, warm: int = 3) -> float:
    """Milliseconds of `work`, launches included: by events on a GPU, by the clock elsewhere."""
    import statistics
    import time

    for _ in range(warm):
        work()
    times = []
    for _ in range(rounds):
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize(device)
            start.record()
            work()
            end.record()
            torch.cuda.synchronize(device)
            times.append(start.elapsed_time(end))
        else:
            began = time.perf_counter()
            work()
            times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times)


def card_rates(device: torch.device, side: int = SIDE, copied: int = COPIED) -> dict[str, float]:
    """TFLOP/s of a bfloat16 product of random matrices, TB/s of a copy (bytes read and written)."""
    a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    product = median_ms(lambda: a @ b, device)
    source = torch.randint(0, 255, (copied,), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    copy = median_ms(lambda: target.copy_(source), device)
    return {
        "matmul_bf16_tflops": round(2.0 * side**3 / product / 1e9, 1),
        "copy_tb_per_s": round(2.0 * copied / copy / 1e9, 3),
    }


def versions(device: torch.device) -> dict[str, Any]:
    """What measured numbers belong to."""
    from importlib.metadata import version

    found: dict[str, Any] = {
        "torch": str(torch.__version__),
        "diffusers": version("diffusers"),
        "peft": version("peft"),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": properties.name,
            "memory_gb": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found
