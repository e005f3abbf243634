"""From the host to a device without waiting for it."""

import torch
from torch import Tensor


def sent(x: Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """`x` on `device`; from the host to a GPU by way of pinned memory, so that neither waits for the other."""
    if x.device.type == "cpu" and torch.device(device).type == "cuda":
        x = x.contiguous().pin_memory().to(device, non_blocking=True)
    return x.to(device, dtype)
