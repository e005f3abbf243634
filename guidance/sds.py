"""Score distillation sampling (DreamFusion, Poole et al. 2022).

    grad = w(t) ( eps_cfg(alpha z + sigma eps, t) - eps )

Under a Gaussian prior N(m, s^2) without guidance the mean over eps is w lambda (z - m) / (s^2 + lambda^2) with lambda
= sigma / alpha: it finds the mode. With equal spreads guidance moves the fixed point to m_empty + scale (m -
m_empty), which is the saturation it is known for. D-SDS (Hong et al. 2023) clips every entry at a bound growing from
2 to 8 over the run.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from dream3d.diffusion import add_noise
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_guidance, check_number, check_ramp
from guidance.clips import clip_entries
from guidance.combine import cfg_evaluations, guided
from guidance.weights import Weight, gradient_metrics, weight_at


@GUIDANCE.register("sds")
@dataclass(frozen=True)
class SDS(Guidance):
    """Denoise the noised render and step toward the result.

    Attributes:
        cfg_scale: classifier-free guidance scale; 1 is none.
        weight: w(t), see `guidance.weights.Weight`.
        rescale: share of standard-deviation rescaling of the guided x0, in [0, 1].
        clamp_x0: bound on the predicted clean latents; 0 is off.
        perp_neg: weight w <= 0 of the negative prompt's perpendicular part, whatever the guider; 0 lets it replace the
            empty prompt (beside `view_prompts: perp-neg` it counts -1).
        clip: bound on every entry of the gradient; 0 is off.
    """

    paper: ClassVar[str] = "Poole et al. 2022 (DreamFusion), arXiv 2209.14988"
    formula: ClassVar[str] = "w (eps_cfg(z_t) - eps)"

    cfg_scale: Ramp = field(default_factory=lambda: constant(7.5))
    weight: Weight = "sigma2"
    rescale: float = 0.0
    clamp_x0: float = 0.0
    perp_neg: float = 0.0
    clip: Ramp = field(default_factory=lambda: constant(0.0))

    def __post_init__(self) -> None:
        check_guidance(self.weight, self.rescale, self.clamp_x0)
        check_ramp("cfg_scale", self.cfg_scale)
        check_number("perp_neg", self.perp_neg, -math.inf, 0.0)
        check_ramp("clip", self.clip)

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """One guided prediction; with Perp-Neg all three prompts."""
        scale = self.cfg_scale(progress)
        return 3 if self.perp_neg < 0.0 and negative and scale else cfg_evaluations(scale)

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
        scale = self.cfg_scale(views.progress)
        how = (scale, self.rescale, self.clamp_x0, self.perp_neg)
        prediction = guided(prior, z_t, views.t, views, *how)
        weight = weight_at(self.weight, prior.schedule, views.t, views.z)
        grad = weight * (prediction.eps - views.noise)
        grad = clip_entries(grad, self.clip(views.progress))
        return GuidanceOutput(grad, gradient_metrics(grad, views.t))
