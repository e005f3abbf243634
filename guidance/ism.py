"""Interval score matching (LucidDreamer, Liang et al. 2023).

    z_s = inversion of the render to level s with the empty prompt
    z_t = one more step of it from s to t = s + interval
    grad = w(t) ( eps_cfg(z_t, t) - eps_empty(z_s, s) )

No noise is drawn, so two calls agree and the gradient has no variance. Under a Gaussian prior N(m, s^2) without
guidance grad / w = ((z - m) / s) (f(lambda_t) - f(lambda_s)) with f(l) = l / sqrt(s^2 + l^2). Guidance overshoots
that of SDS by s lambda_t / ((s^2 + lambda_t^2)(f_t - f_s)), so smaller scales are right here.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from dream3d.diffusion import per_sample
from dream3d.errors import ConfigError
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.combine import (
    Weight,
    cfg_evaluations,
    check_guidance,
    check_ramp,
    gradient_metrics,
    guided,
    weight_at,
)
from guidance.inversion import earlier_level, eps_under, euler_step, invert, steps_to


@GUIDANCE.register("ism")
@dataclass(frozen=True)
class ISM(Guidance):
    """Compare the guided prediction with the prior's own at an earlier point of the same path.

    Attributes:
        cfg_scale: classifier-free guidance scale at t; the inversion uses none.
        interval: t - s (LucidDreamer's delta_T / 1000); a ramp over the stage.
        stride: longest step of the inversion in t (delta_S / 1000).
        max_steps: most inversion steps; the stride grows instead.
        t_start: level at which the render is taken for the inversion's starting point.
        weight: w(t), see `guidance.combine.Weight`.
        rescale, clamp_x0: see `guidance.combine.guided`.
    """

    paper: ClassVar[str] = "Liang et al. 2023 (LucidDreamer), arXiv 2311.11284"
    formula: ClassVar[str] = "w (eps_cfg(z_t) - eps_empty(z_s)), z_s and z_t by inversion"

    cfg_scale: Ramp = field(default_factory=lambda: constant(3.0))
    interval: Ramp = field(default_factory=lambda: constant(0.08))
    stride: float = 0.2
    max_steps: int = 5
    t_start: float = 0.02
    weight: Weight = "lambda"
    rescale: float = 0.0
    clamp_x0: float = 0.0

    def __post_init__(self) -> None:
        check_guidance(self.weight, self.rescale, self.clamp_x0)
        check_ramp("cfg_scale", self.cfg_scale)
        for value in (self.interval.initial, self.interval.final):
            if not 0.0 < value < 1.0:
                raise ConfigError(
                    f"guidance.interval is {value}; choose a share of the time axis in (0, 1)"
                )
        if not 0.0 < self.stride <= 1.0:
            raise ConfigError(f"guidance.stride is {self.stride}; choose a step in (0, 1]")
        if self.max_steps < 1:
            raise ConfigError(f"guidance.max_steps is {self.max_steps}; it must be at least 1")
        if not 0.0 <= self.t_start < 1.0:
            raise ConfigError(f"guidance.t_start is {self.t_start}; choose a level in [0, 1)")

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """Inversion steps, one prediction at s, and the guided one at t."""
        length = t - self.interval(progress) - self.t_start
        steps = steps_to(length, self.stride, self.max_steps)
        return steps + 1 + cfg_evaluations(self.cfg_scale(progress))

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        empty_eps = eps_under(prior, views.empty)
        s = earlier_level(views.t, self.interval(views.progress), self.t_start)
        highest = earlier_level(views.host_t, self.interval(views.progress), self.t_start).max()
        steps = steps_to(highest.item() - self.t_start, self.stride, self.max_steps)
        reference = invert(prior.schedule, empty_eps, views.z, s, self.t_start, steps)
        y = euler_step(prior.schedule, reference, views.t)
        z_t = per_sample(prior.schedule.alpha(views.t), y) * y
        scale = self.cfg_scale(views.progress)
        prediction = guided(prior, z_t, views.t, views, scale, self.rescale, self.clamp_x0)
        weight = weight_at(self.weight, prior.schedule, views.t, views.z)
        grad = weight * (prediction.eps - reference.eps)
        return GuidanceOutput(grad, gradient_metrics(grad, views.t))
