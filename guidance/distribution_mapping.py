"""Distribution mapping (DreamMapping, Cai et al. 2024): the render as a mapped clean prediction.

    M = the map that takes x0(z_t) nearest to z;  eps_M = (z_t - alpha M(x0)) / sigma
    grad = w(t) ( eps_cfg(z_t) - c(t) eps_M )

The paper trains a small network M along with the scene and anneals c over t. Experimental: neither code nor the
formula of c is public. Here M is the least-squares affine map per channel, solved anew for each object from its own
pixels, so there is nothing to train and nothing to remember; x0 is the plain conditional prediction. Where M
reproduces z exactly (one pixel per channel, say) eps_M is the drawn noise, and c = 1 gives SDS.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from dream3d.diffusion import add_noise, per_sample
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.affine_fit import affine_fit
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_choice, check_guidance, check_ramp
from guidance.combine import cfg_evaluations, guided_and_plain
from guidance.weights import Weight, gradient_metrics, weight_at


@GUIDANCE.register("distribution-mapping")
@dataclass(frozen=True)
class DistributionMapping(Guidance):
    """SDS with its noise replaced by the one the mapped prediction implies.

    Attributes:
        cfg_scale: classifier-free guidance scale.
        coefficient: c(t): "constant" 1, "linear" 1 - t, "cosine" cos(pi t / 2).
        weight: w(t), see `guidance.weights.Weight`.
    """

    paper: ClassVar[str] = "Cai et al. 2024 (DreamMapping), arXiv 2409.05099"
    formula: ClassVar[str] = "w (eps_cfg(z_t) - c(t) (z_t - alpha M(x0)) / sigma)"
    experimental: ClassVar[bool] = True
    anchored: ClassVar[bool] = False

    cfg_scale: Ramp = field(default_factory=lambda: constant(7.5))
    coefficient: Literal["constant", "linear", "cosine"] = "constant"
    weight: Weight = "sigma2"

    def __post_init__(self) -> None:
        check_guidance(self.weight)
        check_ramp("cfg_scale", self.cfg_scale)
        check_choice("coefficient", self.coefficient, ("constant", "linear", "cosine"))

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """One guided prediction."""
        return cfg_evaluations(self.cfg_scale(progress))

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
        scale = self.cfg_scale(views.progress)
        prediction, plain = guided_and_plain(prior, z_t, views.t, views, scale)
        alpha, sigma = prior.schedule.levels(views.t, z_t)
        mapped = affine_fit(plain.x0, views.z, views.condition.views_per_object)
        c = {
            "constant": torch.ones_like(views.t),
            "linear": 1.0 - views.t,
            "cosine": torch.cos(0.5 * math.pi * views.t),
        }[self.coefficient]
        residual = prediction.eps - per_sample(c, z_t) * (z_t - alpha * mapped) / sigma
        grad = weight_at(self.weight, prior.schedule, views.t, views.z) * residual
        return GuidanceOutput(grad, gradient_metrics(grad, views.t))
