"""From a clean latent to the noisy one that the prior's own flow connects it with (DDIM inversion).

In the variable y = z_t / alpha with lambda = sigma / alpha every schedule's probability-flow ODE is dy / dlambda =
eps(z_t, t), so one Euler rule serves variance-preserving and rectified-flow priors alike.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.diffusion import NoiseSchedule, Prediction, per_sample
from dream3d.priors.base import Condition, Prior
from guidance.base import Views
from guidance.combine import guided

NoisePredictor = Callable[[Float[Tensor, "B C H W"], Float[Tensor, " B"]], Float[Tensor, "B C H W"]]
"""eps(z_t, t)."""


def eps_under(prior: Prior, condition: Condition) -> NoisePredictor:
    """The prior's noise prediction under one condition."""
    return lambda z_t, t: prior.predict(z_t, t, condition).eps


def guided_eps(prior: Prior, views: Views, scale: float) -> NoisePredictor:
    """The prior's guided noise prediction."""
    return lambda z_t, t: guided(prior, z_t, t, views, scale).eps


def guided_by(
    prior: Prior, views: Views, scale: float, rescale: float = 0.0, clamp_x0: float = 0.0
) -> Callable[[Float[Tensor, "B C H W"], Float[Tensor, " B"]], Prediction]:
    """`guided` as a function of point and level alone, for `denoise`."""
    return lambda z_t, t: guided(prior, z_t, t, views, scale, rescale, clamp_x0)


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
    alpha, sigma = schedule.levels(t, like)
    return sigma / alpha


def euler_step(
    schedule: NoiseSchedule, start: FlowPoint, t: Float[Tensor, " B"]
) -> Float[Tensor, "B C H W"]:
    """y at level t, reached from `start` in one step along its predicted noise."""
    here, there = noise_level(schedule, start.t, start.y), noise_level(schedule, t, start.y)
    return start.y + (there - here) * start.eps


def ascend(
    schedule: NoiseSchedule,
    predict_eps: NoisePredictor,
    z: Float[Tensor, "B C H W"],
    t_end: Float[Tensor, " B"],
    t_start: float,
    steps: int,
) -> Float[Tensor, "B C H W"]:
    """Follow the flow from clean latents up to `t_end` in `steps` Euler steps, evenly spaced in t per sample.

    Args:
        schedule: the prior's noise levels.
        predict_eps: the noise prediction whose flow is followed; called `steps` times, never at `t_end`.
        z: clean latents; taken for z_t / alpha at `t_start`.
        t_end: target level per sample; where it lies below `t_start` the sample stays at its own `t_end`.
        t_start: first level, small but large enough for the prior to be asked at.
        steps: at least 1.

    Returns:
        y = z_t / alpha at `t_end`.
    """
    first = torch.full_like(t_end, t_start).minimum(t_end)
    y, t = z, first
    for j in range(1, steps + 1):
        here = FlowPoint(y, t, predict_eps(per_sample(schedule.alpha(t), y) * y, t))
        t = torch.lerp(first, t_end, j / steps)
        y = euler_step(schedule, here, t)
    return y


def noised_along(
    schedule: NoiseSchedule,
    predict_eps: NoisePredictor,
    z: Float[Tensor, "B C H W"],
    t_end: Float[Tensor, " B"],
    t_start: float,
    steps: int,
) -> Float[Tensor, "B C H W"]:
    """z_t at the end of `ascend`'s path: the noisy point that the flow connects with z."""
    y = ascend(schedule, predict_eps, z, t_end, t_start, steps)
    return per_sample(schedule.alpha(t_end), y) * y


def invert(
    schedule: NoiseSchedule,
    predict_eps: NoisePredictor,
    z: Float[Tensor, "B C H W"],
    t_end: Float[Tensor, " B"],
    t_start: float,
    steps: int,
) -> FlowPoint:
    """`ascend`, and the prediction at the end of the path: steps + 1 calls, the last at `t_end`."""
    y = ascend(schedule, predict_eps, z, t_end, t_start, steps)
    return FlowPoint(y, t_end, predict_eps(per_sample(schedule.alpha(t_end), y) * y, t_end))


def invert_before(
    prior: Prior, views: Views, interval: float, stride: float, max_steps: int, t_start: float
) -> FlowPoint:
    """The renders inverted with the empty prompt, each to `interval` below the level its view is asked at.

    Args:
        prior: asked once per step, and at the end.
        views: the renders and their levels.
        interval: see `earlier_level`.
        stride: longest step in t; all views take as many as the one with the longest way.
        max_steps: most of them; the stride grows instead.
        t_start: level at which the renders are taken for the path's starting point.
    """
    s = earlier_level(views.t, interval, t_start)
    highest = earlier_level(views.host_t, interval, t_start).max()
    steps = steps_to(highest.item() - t_start, stride, max_steps)
    return invert(prior.schedule, eps_under(prior, views.empty), views.z, s, t_start, steps)


def denoise(
    schedule: NoiseSchedule,
    predict: Callable[[Float[Tensor, "B C H W"], Float[Tensor, " B"]], Prediction],
    z_t: Float[Tensor, "B C H W"],
    t: Float[Tensor, " B"],
    steps: int,
) -> Float[Tensor, "B C H W"]:
    """Follow the flow from z_t down to clean latents (DDIM): `steps` predictions, evenly spaced in t per sample."""
    start = t
    for j in range(1, steps):
        here = FlowPoint(z_t / per_sample(schedule.alpha(t), z_t), t, predict(z_t, t).eps)
        t = start * (1.0 - j / steps)
        z_t = per_sample(schedule.alpha(t), z_t) * euler_step(schedule, here, t)
    return predict(z_t, t).x0


def steps_to(length: float, stride: float, most: int) -> int:
    """Steps of at most `stride` that cover `length`, at least 1 and at most `most` (then they are longer)."""
    # A rounding error above a whole number is no step of its own.
    return min(max(math.ceil(length / stride - 1e-4), 1), most)


def earlier_level(
    t: Float[Tensor, " B"], interval: float | Float[Tensor, " B"], t_start: float
) -> Float[Tensor, " B"]:
    """t - interval, but never so low that both ends of the interval fall together.

    At the lowest levels the difference would fall below the start of the path; half of t, at most `t_start`, is kept.
    """
    s = (t - interval).clamp(min=0.0)
    return s.maximum((0.5 * t).minimum(torch.full_like(s, t_start)))
