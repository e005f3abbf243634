"""How kernels of Warp meet tensors of torch: zero-copy, on torch's own stream."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import warp as wp
from torch import Tensor

wp.config.quiet = True  # pyright: ignore[reportAttributeAccessIssue]
wp.init()
if torch.cuda.is_available() and not wp.is_cuda_available():
    raise ImportError(
        "this Warp cannot use the GPU that torch uses; update the driver, or install an older warp-lang"
    )


def launch(kernel: Any, dim: int | tuple[int, ...], arguments: Sequence[Tensor | float]) -> None:
    """Run `kernel` on the device of its tensors; no gradient is recorded, and outputs are among the arguments."""
    device = next(value.device for value in arguments if isinstance(value, Tensor))
    # Descriptors cost the host a third of what arrays do, but nobody compares their types with the kernel's; the tests
    # make the same launches on a CPU, where that is done.
    arrays = [
        wp.from_torch(
            value.detach().contiguous(), requires_grad=False, return_ctype=device.type == "cuda"
        )
        if isinstance(value, Tensor)
        else value
        for value in arguments
    ]
    on_stream = (
        wp.ScopedStream(wp.stream_from_torch(device)) if device.type == "cuda" else nullcontext()
    )
    with on_stream:
        wp.launch(kernel, dim=dim, inputs=arrays, device=wp.device_from_torch(device))
