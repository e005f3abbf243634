"""The weights w(t) that every algorithm shares, and the gradient they make of a residual."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.diffusion import NoiseSchedule
from dream3d.priors.base import Prior
from guidance.base import GuidanceOutput, Views

Weight = Literal["uniform", "sigma", "sigma2", "lambda", "sqrt_alpha_bar", "fantasia"]
"""w(t) on the noise residual: 1; sigma; sigma^2 (DreamFusion); sigma / alpha, the x0 form z - x0 (HiFA, MVDream);
alpha (balanced score); alpha sigma^2 (Fantasia3D)."""

WEIGHTS: tuple[Weight, ...] = (
    *("uniform", "sigma", "sigma2", "lambda"),
    *("sqrt_alpha_bar", "fantasia"),
)


def weight_at(
    kind: Weight, schedule: NoiseSchedule, t: Float[Tensor, " B"], like: Tensor
) -> Tensor:
    """w(t) per sample, broadcastable to `like`."""
    alpha, sigma = schedule.levels(t, like)
    match kind:
        case "uniform":
            return torch.ones_like(sigma)
        case "sigma":
            return sigma
        case "sigma2":
            return sigma**2
        case "lambda":
            return sigma / alpha
        case "sqrt_alpha_bar":
            return alpha
        case "fantasia":
            return alpha * sigma**2


def gradient_metrics(
    grad: Float[Tensor, "B C H W"], t: Float[Tensor, " B"]
) -> dict[str, float | Tensor]:
    """What every algorithm reports: the root mean square of its gradient and the mean time.

    Tensors without dimensions: reading them here would make the host wait for a GPU in every step.
    """
    return {"grad_rms": grad.square().mean().sqrt(), "t": t.mean()}


def weighted(
    kind: Weight, prior: Prior, views: Views, residual: Float[Tensor, "B C H W"]
) -> GuidanceOutput:
    """grad = w(t) residual, with the usual metrics."""
    grad = weight_at(kind, prior.schedule, views.t, views.z) * residual
    return GuidanceOutput(grad, gradient_metrics(grad, views.t))
