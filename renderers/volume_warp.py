"""Compositing in Warp, for CUDA without a compiler on the user's machine. Checked on its CPU device, not on a GPU.

Warp can differentiate kernels by itself, but not loops that change their state: the backward kernel is written by hand,
as in `renderers.volume_numba`, whose notation this follows. One thread a ray, so results do not depend on the schedule.
"""

# Warp reads kernel annotations as values, and takes a plain literal for a constant that no loop may change.
# pyright: reportInvalidTypeForm=false, reportAssignmentType=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false
# ruff: noqa: UP018

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from renderers.warp_device import launch

wp.set_module_options({"enable_backward": False})


@wp.kernel
def composite_forward(
    density: wp.array(dtype=float),
    features: wp.array2d(dtype=float),
    length: wp.array(dtype=float),
    start: wp.array(dtype=wp.int64),
    image: wp.array2d(dtype=float),
    alpha: wp.array(dtype=float),
    past: wp.array(dtype=float),
):
    """`image` is zero on entry; `past` is filled with the transmittance behind each interval."""
    r = wp.tid()
    through = float(1.0)
    for n in range(int(start[r]), int(start[r + 1])):
        behind = through * wp.exp(-density[n] * length[n])
        for c in range(image.shape[1]):
            image[r, c] = image[r, c] + (through - behind) * features[n, c]
        past[n] = behind
        through = behind
    alpha[r] = 1.0 - through


@wp.kernel
def composite_backward(
    features: wp.array2d(dtype=float),
    length: wp.array(dtype=float),
    start: wp.array(dtype=wp.int64),
    past: wp.array(dtype=float),
    grad_image: wp.array2d(dtype=float),
    grad_alpha: wp.array(dtype=float),
    grad_density: wp.array(dtype=float),
    grad_features: wp.array2d(dtype=float),
):
    """dL/dtau_i = T_{i+1} v_i - R_i, from the far end of the ray."""
    r = wp.tid()
    rest = float(0.0)
    first = int(start[r])
    count = int(start[r + 1]) - first
    for back in range(count):
        n = first + count - 1 - back
        ahead = float(1.0)
        if n > first:
            ahead = past[n - 1]
        weight = ahead - past[n]
        value = grad_alpha[r]
        for c in range(grad_image.shape[1]):
            value = value + grad_image[r, c] * features[n, c]
            grad_features[n, c] = weight * grad_image[r, c]
        grad_density[n] = length[n] * (past[n] * value - rest)
        rest = rest + weight * value


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, density, features, length, start):
        rays = len(start) - 1
        image = features.new_zeros(rays, features.shape[1])
        alpha, past = density.new_empty(rays), torch.empty_like(density)
        launch(composite_forward, rays, [density, features, length, start, image, alpha, past])
        ctx.save_for_backward(features, length, start, past)
        return image, alpha

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_image, grad_alpha):  # pyright: ignore[reportIncompatibleMethodOverride]
        saved = list(ctx.saved_tensors)
        grad_features, grad_density = torch.empty_like(saved[0]), torch.empty_like(saved[1])
        arguments = [*saved, grad_image, grad_alpha, grad_density, grad_features]
        launch(composite_backward, len(saved[2]) - 1, arguments)
        return grad_density, grad_features, None, None


def composite(
    density: Float[Tensor, " N"],
    features: Float[Tensor, "N C"],
    length: Float[Tensor, " N"],
    start: Int[Tensor, " R1"],
) -> tuple[Float[Tensor, "R C"], Float[Tensor, " R"]]:
    """See `renderers.volume.composite`."""
    return _Composite.apply(density, features, length, start)
