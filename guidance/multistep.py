"""Distance to a denoised picture: several deterministic steps of the prior instead of one (HiFA, Zhu & Zhuang 2023).

    z_t = alpha z + sigma eps;  x0 = DDIM from z_t down to t = 0 in `steps` steps with guidance
    grad = w(t) / lambda ( z - x0 ),  lambda = sigma / alpha

One step is exactly SDS. More steps give a sharp picture at high noise, where the one-step x0 is an average over all
that could be there, at `steps` times the cost. Under a Gaussian prior N(m, s^2) without guidance and with many steps
x0 = m + s (y - m) / sqrt(s^2 + lambda^2) with y = z + lambda eps.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from dream3d.diffusion import add_noise
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_guidance, check_number, check_ramp
from guidance.combine import cfg_evaluations
from guidance.inversion import denoise, guided_by, noise_level
from guidance.weights import Weight, gradient_metrics, weight_at


@GUIDANCE.register("multistep")
@dataclass(frozen=True)
class Multistep(Guidance):
    """Denoise the noised render in several steps and step toward the result.

    Attributes:
        steps: guided predictions on the way down, evenly spaced in t.
        cfg_scale: classifier-free guidance scale.
        weight: w(t) on the residual seen as noise, see `guidance.weights.Weight`; "lambda" is the plain z - x0.
        rescale, clamp_x0: see `guidance.combine.guided`.
    """

    paper: ClassVar[str] = "Zhu & Zhuang 2023 (HiFA), arXiv 2305.18766"
    formula: ClassVar[str] = "w / lambda (z - x0), x0 by several steps of DDIM from z_t"

    steps: int = 4
    cfg_scale: Ramp = field(default_factory=lambda: constant(3.0))
    weight: Weight = "lambda"
    rescale: float = 0.0
    clamp_x0: float = 0.0

    def __post_init__(self) -> None:
        check_guidance(self.weight, self.rescale, self.clamp_x0)
        check_ramp("cfg_scale", self.cfg_scale)
        check_number("steps", self.steps, 1)

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """One guided prediction per step."""
        return self.steps * cfg_evaluations(self.cfg_scale(progress))

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        schedule, scale = prior.schedule, self.cfg_scale(views.progress)
        predict = guided_by(prior, views, scale, self.rescale, self.clamp_x0)
        z_t = add_noise(schedule, views.z, views.noise, views.t)
        x0 = denoise(schedule, predict, z_t, views.t, self.steps)
        weight = weight_at(self.weight, schedule, views.t, views.z)
        grad = weight / noise_level(schedule, views.t, views.z) * (views.z - x0)
        return GuidanceOutput(grad, gradient_metrics(grad, views.t))
