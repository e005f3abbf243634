"""Consistency along the prior's own path (Consistent3D, Wu et al. 2024).

    y_t = z + lambda_t eps;  y_s = y_t + (lambda_s - lambda_t) eps_cfg(y_t),  s = t - interval
    grad = w(t) ( eps_cfg(y_t) - eps_cfg(y_s) )

With one fixed eps for the run. This is the sign of the released code. The paper's loss |x0(y_t) - x0(y_s)|^2, with
the prior's Jacobian taken for the identity, has the opposite one: x0(y_t) - x0(y_s) = lambda_s (eps(y_s) - eps(y_t));
on a Gaussian it runs away. There grad / w = k (f_t - f_s) with k = (y_t - m) / sqrt(s^2 + lambda_t^2), f = lambda /
sqrt(s^2 + lambda^2): it rests at z = m - lambda_t eps, off the mean until the level falls. The authors let s fall
and draw t above it (`time: pair`), and clip entries at 2 growing to 8. Rescaling is left out (theirs is off).
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from dream3d.diffusion import add_noise, per_sample
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_guidance, check_ramp
from guidance.clips import clip_entries
from guidance.combine import cfg_evaluations, guided
from guidance.inversion import FlowPoint, earlier_level, euler_step
from guidance.weights import Weight, gradient_metrics, weight_at

T_LEAST = 0.02


@GUIDANCE.register("ode-consistency")
@dataclass(frozen=True)
class OdeConsistency(Guidance):
    """Make two neighbouring predictions on a path agree; for `noise: fixed` and `time: pair` or one that falls.

    Attributes:
        cfg_scale: classifier-free guidance scale at both points (authors: 101 falling to 51).
        interval: t - s in (0, 1), where the time sampler names no s (`pair` does).
        weight: w(t), see `guidance.weights.Weight`.
        clip: bound on every entry of the gradient; 0 is off.
    """

    paper: ClassVar[str] = "Wu et al. 2024 (Consistent3D), arXiv 2401.09050"
    formula: ClassVar[str] = "w (eps_cfg(z_t) - eps_cfg(z_s)), z_s one ODE step below z_t"
    anchored: ClassVar[bool] = False

    cfg_scale: Ramp = field(default_factory=lambda: constant(7.5))
    interval: Ramp = field(default_factory=lambda: constant(0.2))
    weight: Weight = "uniform"
    clip: Ramp = field(default_factory=lambda: constant(0.0))

    def __post_init__(self) -> None:
        check_guidance(self.weight)
        check_ramp("cfg_scale", self.cfg_scale)
        check_ramp("interval", self.interval, 1e-6, 1.0)
        check_ramp("clip", self.clip)

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """Two guided predictions."""
        return 2 * cfg_evaluations(self.cfg_scale(progress))

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        schedule, scale = prior.schedule, self.cfg_scale(views.progress)
        below = self.interval(views.progress) if views.lower is None else views.t - views.lower
        s = earlier_level(views.t, below, T_LEAST)
        z_t = add_noise(schedule, views.z, views.noise, views.t)
        upper = guided(prior, z_t, views.t, views, scale).eps
        here = FlowPoint(z_t / per_sample(schedule.alpha(views.t), z_t), views.t, upper)
        z_s = per_sample(schedule.alpha(s), z_t) * euler_step(schedule, here, s)
        lower = guided(prior, z_s, s, views, scale).eps
        grad = weight_at(self.weight, schedule, views.t, views.z) * (upper - lower)
        grad = clip_entries(grad, self.clip(views.progress))
        return GuidanceOutput(grad, gradient_metrics(grad, views.t))
