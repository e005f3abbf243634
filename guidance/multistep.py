"""Distance to a denoised picture: several deterministic steps of the prior instead of one (HiFA, Zhu & Zhuang 2023).

    z_t = alpha z + sigma eps;  x0 = DDIM from z_t down to t = 0 in `steps` steps with guidance
    grad = w(t) / lambda ( z - x0 ),  lambda = sigma / alpha

One step is exactly SDS. More steps give a sharp picture at high noise, where the one-step x0 is an average over all
that could be there, at `steps` times the cost. Under a Gaussian prior N(m, s^2) without guidance and with many steps
x0 = m + s (y - m) / sqrt(s^2 + lambda^2) with y = z + lambda eps.
"""

from dataclasses import dataclass, field

import torch

from dream3d.diffusion import add_noise, per_sample
from dream3d.errors import ConfigError
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.combine import Weight, check_guidance, gradient_metrics, guided, weight_at
from guidance.inversion import FlowPoint, euler_step, noise_level


@GUIDANCE.register("multistep")
@dataclass(frozen=True)
class Multistep(Guidance):
    """Denoise the noised render in several steps and step toward the result.

    Attributes:
        steps: guided predictions on the way down, evenly spaced in t.
        cfg_scale: classifier-free guidance scale.
        weight: w(t) on the residual seen as noise, see `guidance.combine.Weight`; "lambda" is the plain z - x0.
        rescale, clamp_x0: see `guidance.combine.guided`.
    """

    steps: int = 4
    cfg_scale: Ramp = field(default_factory=lambda: constant(3.0))
    weight: Weight = "lambda"
    rescale: float = 0.0
    clamp_x0: float = 0.0

    def __post_init__(self) -> None:
        check_guidance(self.weight, self.rescale, self.clamp_x0)
        if self.steps < 1:
            raise ConfigError(f"guidance.steps is {self.steps}; it must be at least 1")

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        schedule, scale = prior.schedule, self.cfg_scale(views.progress)
        z_t, t = add_noise(schedule, views.z, views.noise, views.t), views.t
        for j in range(1, self.steps):
            prediction = guided(prior, z_t, t, views, scale, self.rescale, self.clamp_x0)
            here = FlowPoint(z_t / per_sample(schedule.alpha(t), z_t), t, prediction.eps)
            t = views.t * (1.0 - j / self.steps)
            z_t = per_sample(schedule.alpha(t), z_t) * euler_step(schedule, here, t)
        x0 = guided(prior, z_t, t, views, scale, self.rescale, self.clamp_x0).x0
        weight = weight_at(self.weight, schedule, views.t, views.z)
        grad = weight / noise_level(schedule, views.t, views.z) * (views.z - x0)
        return GuidanceOutput(grad, gradient_metrics(grad, views.t))
