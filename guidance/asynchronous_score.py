"""Asynchronous score distillation (ScaleDreamer, Ma et al. 2024): VSD whose estimator is the prior at a later level.

    grad = w(t) ( eps_cfg(alpha z + sigma eps, t) - eps_y(alpha' z + sigma' eps, t') ),  t' = t + shift (t - t_min)

The same eps at both levels. At shift 0 it is w (scale - 1)(eps_y - eps_empty). Without guidance its slope on N(m,
s^2) is lambda / (s^2 + lambda^2) - lambda' / (s^2 + lambda'^2): it attracts where lambda > s and *repels* where
lambda < s, so low levels need regularisers. The authors draw the shift from [0, 0.1); here it is one number, their
mean.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from dream3d.diffusion import add_noise
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_guidance, check_number, check_ramp
from guidance.combine import cfg_evaluations, guided
from guidance.weights import Weight, weighted

T_MOST = 0.999


@GUIDANCE.register("asynchronous-score")
@dataclass(frozen=True)
class AsynchronousScore(Guidance):
    """Compare the guided prediction with the conditional one at a slightly noisier level.

    Attributes:
        cfg_scale: classifier-free guidance scale of the first prediction.
        shift: (t' - t) / (t - t_min) in [0, 1]; t' is kept below 1.
        t_min: in [0, 1); where t lies below it t' is t.
        weight: w(t), see `guidance.weights.Weight`.
    """

    paper: ClassVar[str] = "Ma et al. 2024 (ScaleDreamer), arXiv 2407.02040"
    formula: ClassVar[str] = "w (eps_cfg(z_t) - eps_y(z_t')), t' > t, one noise"
    anchored: ClassVar[bool] = False

    cfg_scale: Ramp = field(default_factory=lambda: constant(7.5))
    shift: float = 0.05
    t_min: float = 0.02
    weight: Weight = "sigma2"

    def __post_init__(self) -> None:
        check_guidance(self.weight)
        check_ramp("cfg_scale", self.cfg_scale)
        check_number("shift", self.shift, 0.0, 1.0)
        check_number("t_min", self.t_min, 0.0, T_MOST)

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """A guided prediction at t and a plain one at t'."""
        return cfg_evaluations(self.cfg_scale(progress)) + 1

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        schedule, t = prior.schedule, views.t
        later = t + self.shift * (t - self.t_min).clamp(min=0.0)
        later = later.clamp(max=T_MOST).maximum(t)
        z_t = add_noise(schedule, views.z, views.noise, t)
        z_later = add_noise(schedule, views.z, views.noise, later)
        prediction = guided(prior, z_t, t, views, self.cfg_scale(views.progress))
        reference = prior.predict(z_later, later, views.condition)
        return weighted(self.weight, prior, views, prediction.eps - reference.eps)
