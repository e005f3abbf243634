"""Variational score distillation (ProlificDreamer, Wang et al. 2023).

    grad = w(t) ( eps_cfg(z_t, t) - eps_phi(z_t, t, camera) )

eps_phi is the companion: the score of the current renders, learnt beside them. With an exact companion and particles
instead of one point, mean and spread of the prior N(m, s^2) are both recovered, where SDS keeps the mean alone. An
untrained companion equals the prior, so the first steps are (scale - 1) times classifier score distillation. A perfect
companion of a single point knows its noise, and VSD is then SDS draw for draw.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from dream3d.diffusion import add_noise
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, GuidanceOutput, Views
from guidance.checks import check_guidance, check_ramp
from guidance.combine import cfg_evaluations, guided
from guidance.twin import TwinGuidance, twin_eps
from guidance.weights import Weight, weighted


@GUIDANCE.register("vsd")
@dataclass(frozen=True)
class VSD(TwinGuidance):
    """Compare the prior with a companion that learns what the renders look like.

    Attributes:
        cfg_scale: classifier-free guidance scale of the prior; the companion has none.
        weight: w(t), see `guidance.weights.Weight`.
        rescale, clamp_x0: see `guidance.combine.guided`.
    """

    paper: ClassVar[str] = "Wang et al. 2023 (ProlificDreamer), arXiv 2305.16213"
    formula: ClassVar[str] = "w (eps_cfg(z_t) - eps_phi(z_t, camera))"

    cfg_scale: Ramp = field(default_factory=lambda: constant(7.5))
    weight: Weight = "sigma2"
    rescale: float = 0.0
    clamp_x0: float = 0.0

    def __post_init__(self) -> None:
        check_guidance(self.weight, self.rescale, self.clamp_x0)
        check_ramp("cfg_scale", self.cfg_scale)
        super().__post_init__()

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """The guided prediction and the companion; its training step (one more, with backward) not counted."""
        return cfg_evaluations(self.cfg_scale(progress)) + 1

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
        scale = self.cfg_scale(views.progress)
        prediction = guided(prior, z_t, views.t, views, scale, self.rescale, self.clamp_x0)
        own = twin_eps(views)(z_t, views.t)
        return weighted(self.weight, prior, views, prediction.eps - own)
