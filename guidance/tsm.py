"""Trajectory score matching (Dreamer XL, Miao et al. 2024): ISM whose two ends start from one point of the path.

    z_s = inversion of the render to level s with the empty prompt
    z_mu, z_t = one step each from z_s, to mu = s + fraction (t - s) and to t
    grad = w(t) ( eps_cfg(z_t, t) - eps_empty(z_mu, mu) )

fraction 0 is ISM; fraction 1 the classifier score at an inverted point, w scale (eps_y - eps_empty)(z_t). The paper
writes fraction = gamma, the released code sqrt(1 - gamma^2) with gamma 0.3, hence 0.954; both clip the gradient per
pixel (`pixel_clip: 0.05` of the stage). The reference is nearer to the prediction than ISM's, so guidance saturates
more.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from dream3d.diffusion import per_sample
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_number
from guidance.combine import guided
from guidance.inversion import euler_step, invert_before
from guidance.ism import ISM
from guidance.weights import Weight, weighted


@GUIDANCE.register("tsm")
@dataclass(frozen=True)
class TSM(Guidance):
    """Compare the guided prediction with the prior's own part of the way back on the same path.

    Attributes:
        cfg_scale, interval, stride, max_steps, t_start, weight: as of `guidance.ism.ISM`.
        fraction: where between s and t the reference stands, in [0, 1].
    """

    paper: ClassVar[str] = "Miao et al. 2024 (Dreamer XL), arXiv 2405.11252"
    formula: ClassVar[str] = "w (eps_cfg(z_t) - eps_empty(z_mu)), both one step from z_s"

    cfg_scale: Ramp = field(default_factory=lambda: constant(3.0))
    interval: Ramp = field(default_factory=lambda: Ramp(0.1, 0.08))
    stride: float = 0.2
    max_steps: int = 5
    t_start: float = 0.02
    weight: Weight = "lambda"
    fraction: float = 0.954

    def __post_init__(self) -> None:
        check_number("fraction", self.fraction, 0.0, 1.0)
        # The path is ISM's, and so are its settings' limits.
        path = (self.interval, self.stride, self.max_steps, self.t_start)
        ISM(self.cfg_scale, *path, self.weight)

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """ISM's, and one at mu."""
        path = (self.interval, self.stride, self.max_steps, self.t_start)
        return ISM(self.cfg_scale, *path).evaluations(t, progress) + 1

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        schedule = prior.schedule
        interval = self.interval(views.progress)
        start = invert_before(prior, views, interval, self.stride, self.max_steps, self.t_start)
        mu = torch.lerp(start.t, views.t, self.fraction)
        z_mu = per_sample(schedule.alpha(mu), views.z) * euler_step(schedule, start, mu)
        z_t = per_sample(schedule.alpha(views.t), views.z) * euler_step(schedule, start, views.t)
        prediction = guided(prior, z_t, views.t, views, self.cfg_scale(views.progress))
        return weighted(
            self.weight, prior, views, prediction.eps - prior.predict(z_mu, mu, views.empty).eps
        )
