"""From a clean latent to the noisy one that the prior's own flow connects it with (DDIM inversion).

In the variable y = z_t / alpha with lambda = sigma / alpha every schedule's probability-flow ODE is
dy / dlambda = eps(z_t, t), so one Euler rule serves variance-preserving and rectified-flow priors alike.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.diffusion import NoiseSchedule, per_sample

NoisePredictor = Callable[[Float[Tensor, "B C H W"], Float[Tensor, " B"]], Float[Tensor, "B C H W"]]
"""eps(z_t, t)."""


@dataclass(frozen=True)
class FlowPoint:
    """A point on a path of the flow.

    Attributes:
        y: z_t / alpha.
        t: the noise level, per sample.
        eps: the predicted noise there.
    """

    y: Float[Tensor, "B C H W"]
    t: Float[Tensor, " B"]
    eps: Float[Tensor, "B C H W"]


def noise_level(
    schedule: NoiseSchedule, t: Float[Tensor, " B"], like: Tensor
) -> Float[Tensor, "B 1 1 1"]:
    """lambda = sigma / alpha, broadcastable to `like`."""
    return per_sample(schedule.sigma(t), like) / per_sample(schedule.alpha(t), like)


def euler_step(
    schedule: NoiseSchedule, start: FlowPoint, t: Float[Tensor, " B"]
) -> Float[Tensor, "B C H W"]:
    """y at level t, reached from `start` in one step along its predicted noise."""
    here, there = noise_level(schedule, start.t, start.y), noise_level(schedule, t, start.y)
    return start.y + (there - here) * start.eps


def invert(
    schedule: NoiseSchedule,
    predict_eps: NoisePredictor,
    z: Float[Tensor, "B C H W"],
    t_end: Float[Tensor, " B"],
    t_start: float,
    steps: int,
) -> FlowPoint:
    """Follow the flow from clean latents up to `t_end` in `steps` Euler steps, evenly spaced in t per sample.

    Args:
        schedule: the prior's noise levels.
        predict_eps: the noise prediction whose flow is followed; called steps + 1 times, the last at `t_end`.
        z: clean latents; taken for z_t / alpha at `t_start`.
        t_end: target level per sample; where it lies below `t_start` the sample stays at its own `t_end`.
        t_start: first level, small but large enough for the prior to be asked at.
        steps: at least 1.
    """
    first = torch.full_like(t_end, t_start).minimum(t_end)
    at = FlowPoint(z, first, predict_eps(per_sample(schedule.alpha(first), z) * z, first))
    for j in range(1, steps + 1):
        t = torch.lerp(first, t_end, j / steps)
        y = euler_step(schedule, at, t)
        at = FlowPoint(y, t, predict_eps(per_sample(schedule.alpha(t), y) * y, t))
    return at
