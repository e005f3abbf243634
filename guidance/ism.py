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
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_guidance, check_number, check_ramp
from guidance.combine import cfg_evaluations, guided
from guidance.inversion import euler_step, invert_before, steps_to
from guidance.weights import Weight, weighted


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
        weight: w(t), see `guidance.weights.Weight`.
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
        check_ramp("interval", self.interval, 1e-6, 0.999)
        check_number("stride", self.stride, 1e-6, 1.0)
        check_number("max_steps", self.max_steps, 1)
        check_number("t_start", self.t_start, 0.0, 0.999)

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """Inversion steps, one prediction at s, and the guided one at t."""
        length = t - self.interval(progress) - self.t_start
        steps = steps_to(length, self.stride, self.max_steps)
        return steps + 1 + cfg_evaluations(self.cfg_scale(progress))

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        interval = self.interval(views.progress)
        reference = invert_before(prior, views, interval, self.stride, self.max_steps, self.t_start)
        y = euler_step(prior.schedule, reference, views.t)
        z_t = per_sample(prior.schedule.alpha(views.t), y) * y
        scale = self.cfg_scale(views.progress)
        prediction = guided(prior, z_t, views.t, views, scale, self.rescale, self.clamp_x0)
        return weighted(self.weight, prior, views, prediction.eps - reference.eps)
