"""Distance to the one-step clean prediction (HiFA, Zhu & Zhuang 2023; MVDream, Shi et al. 2023).

    L = w / 2 |z - x0_cfg(z_t)|^2 with x0 held fixed;  grad = w (z - x0)

Without rescaling that is SDS with the weight w lambda. MVDream rescales x0 jointly over an object's views (0.5),
against the saturation of large scales. HiFA's authors take x0 by several steps: that is `multistep`. Its second term,
the same distance between decoded images, is left out: a guidance sees latents only, and it costs a decoding per step.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from dream3d.diffusion import add_noise
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_guidance, check_ramp
from guidance.combine import cfg_evaluations, guided
from guidance.weights import gradient_metrics


@GUIDANCE.register("x0-reconstruction")
@dataclass(frozen=True)
class X0Reconstruction(Guidance):
    """Step toward what the prior would see in the noised render.

    Attributes:
        cfg_scale: classifier-free guidance scale (MVDream 50, HiFA 100).
        factor: w, the same at all levels; a ramp over the stage.
        rescale: share of standard-deviation rescaling of the guided x0, in [0, 1].
        clamp_x0: bound on the predicted clean latents; 0 is off.
    """

    paper: ClassVar[str] = "Zhu & Zhuang 2023 (HiFA), arXiv 2305.18766; MVDream, arXiv 2308.16512"
    formula: ClassVar[str] = "w (z - x0_cfg(z_t)), x0 rescaled"

    cfg_scale: Ramp = field(default_factory=lambda: constant(7.5))
    factor: Ramp = field(default_factory=lambda: constant(1.0))
    rescale: float = 0.5
    clamp_x0: float = 0.0

    def __post_init__(self) -> None:
        check_guidance("lambda", self.rescale, self.clamp_x0)
        check_ramp("cfg_scale", self.cfg_scale)
        check_ramp("factor", self.factor)

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """One guided prediction."""
        return cfg_evaluations(self.cfg_scale(progress))

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
        scale = self.cfg_scale(views.progress)
        x0 = guided(prior, z_t, views.t, views, scale, self.rescale, self.clamp_x0).x0
        grad = self.factor(views.progress) * (views.z - x0)
        return GuidanceOutput(grad, gradient_metrics(grad, views.t))
