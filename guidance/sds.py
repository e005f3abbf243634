"""Score distillation sampling (DreamFusion, Poole et al. 2022).

    grad = w(t) ( eps_cfg(alpha z + sigma eps, t) - eps )

Under a Gaussian prior N(m, s^2) without guidance the mean over eps is w lambda (z - m) / (s^2 + lambda^2) with
lambda = sigma / alpha: it finds the mode. With equal spreads guidance moves the fixed point to
m_empty + scale (m - m_empty), which is the saturation it is known for. Variants that are settings here:

- `weight: lambda` is the x0 form ||z - x0||^2 / 2 (HiFA's latent term, MVDream).
- `noise: {name: fixed}` with a monotone time sampler is consistent flow distillation (CFD): a sample, not a mode.
"""

from dataclasses import dataclass, field

import torch

from dream3d.diffusion import add_noise
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.combine import Weight, check_guidance, gradient_metrics, guided, weight_at


@GUIDANCE.register("sds")
@dataclass(frozen=True)
class SDS(Guidance):
    """Denoise the noised render and step toward the result.

    Attributes:
        cfg_scale: classifier-free guidance scale; 1 is none.
        weight: w(t), see `guidance.combine.Weight`.
        rescale: share of standard-deviation rescaling of the guided x0, in [0, 1].
        clamp_x0: bound on the predicted clean latents; 0 is off.
    """

    cfg_scale: Ramp = field(default_factory=lambda: constant(7.5))
    weight: Weight = "sigma2"
    rescale: float = 0.0
    clamp_x0: float = 0.0

    def __post_init__(self) -> None:
        check_guidance(self.weight, self.rescale, self.clamp_x0)

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
        scale = self.cfg_scale(views.progress)
        prediction = guided(prior, z_t, views.t, views, scale, self.rescale, self.clamp_x0)
        weight = weight_at(self.weight, prior.schedule, views.t, views.z)
        grad = weight * (prediction.eps - views.noise)
        return GuidanceOutput(grad, gradient_metrics(grad, views.t))
