"""Where the host waits for a GPU, as PyTorch warns of it."""

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch


def listen() -> tuple[Any, Any]:
    """Begin to hear of waits; what comes back is for `waits_heard`, which has to follow."""
    hearing = warnings.catch_warnings(record=True)
    heard = hearing.__enter__()
    warnings.simplefilter("always")
    torch.cuda.set_sync_debug_mode("warn")
    return hearing, heard


def waits_heard(hearing: Any, heard: Any) -> Counter[str]:
    """End it; the lines that waited and how often."""
    torch.cuda.set_sync_debug_mode("default")
    hearing.__exit__(None, None, None)
    return Counter(
        f"{'/'.join(Path(x.filename).parts[-2:])}:{x.lineno}"
        for x in heard
        if "synchronizing" in str(x.message) and "prototype" not in str(x.message)  # the mode's own
    )
