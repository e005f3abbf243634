"""Where the GPU tests run: on CUDA; or on the CPU, to find mistakes of the tests themselves where there is no GPU."""

import os

import pytest
import torch

from renderers.backends import BACKENDS, Backend

DEVICE = torch.device(os.environ.get("DREAM3D_TEST_DEVICE", "cuda"))
ON_GPU = DEVICE.type == "cuda"
CPU = torch.device("cpu")


def backends(renderer: str) -> list[Backend]:
    """All backends of a renderer that may run on a GPU, whether or not their packages are here."""
    return [b for b in BACKENDS if b.renderer == renderer and "cuda" in b.devices]


def require(backend: Backend) -> None:
    """Skip the test where the backend cannot run."""
    if backend.missing:
        pytest.skip(f"{', '.join(backend.missing)} is not installed")
    if DEVICE.type not in backend.devices:
        pytest.skip(f"{backend.name} runs on {', '.join(backend.devices)} only")
    if backend.broken:
        pytest.fail(backend.broken)


def away(ours: torch.Tensor, reference: torch.Tensor) -> float:
    """The distance of two tensors over the reference's norm, on the CPU in float64."""
    a, b = (x.detach().to(CPU, torch.float64) for x in (ours, reference))
    assert a.shape == b.shape
    return float((a - b).norm() / b.norm().clamp_min(1e-9)) if a.numel() else 0.0


def share_beyond(ours: torch.Tensor, reference: torch.Tensor, tolerance: float) -> float:
    """Which share of the entries differs by more than `tolerance`."""
    a, b = (x.detach().to(CPU, torch.float64) for x in (ours, reference))
    assert a.shape == b.shape
    return float(((a - b).abs() > tolerance).double().mean()) if a.numel() else 0.0
