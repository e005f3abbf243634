"""Noise-free score distillation (Katzir et al. 2023): the classifier direction plus a noise-free domain direction.

    grad = w(t) ( d + scale (eps_y - eps_empty) ),  d = eps_empty where t < threshold, else eps_empty - eps_negative

At low noise eps_empty itself points at the data; at high noise a negative prompt ("blurry, low quality, ...") stands
for what is not. So below the threshold it is SDS plus w eps, above it `scale` times the classifier score, plus d;
without a negative prompt d is 0 there. The choice is made sample by sample.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from dream3d.diffusion import add_noise, per_sample
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_guidance, check_number, check_ramp
from guidance.combine import predict_each
from guidance.weights import Weight, weighted


@GUIDANCE.register("noise-free-score")
@dataclass(frozen=True)
class NoiseFreeScore(Guidance):
    """SDS without its noise: where the subtracted noise would stand there is a second prompt, or nothing.

    Attributes:
        cfg_scale: scale of the classifier direction.
        threshold: level in [0, 1] below which eps_empty alone is the domain direction.
        weight: w(t), see `guidance.weights.Weight`.
    """

    paper: ClassVar[str] = "Katzir et al. 2023 (Noise-Free Score Distillation), arXiv 2310.17590"
    formula: ClassVar[str] = "w (d + scale (eps_y - eps_empty)), d = eps_empty [- eps_negative]"
    anchored: ClassVar[bool] = False

    cfg_scale: Ramp = field(default_factory=lambda: constant(7.5))
    threshold: float = 0.2
    weight: Weight = "sigma2"

    def __post_init__(self) -> None:
        check_guidance(self.weight)
        check_ramp("cfg_scale", self.cfg_scale)
        check_number("threshold", self.threshold, 0.0, 1.0)

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """Every prompt once."""
        return 3 if negative else 2

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
        if views.negative is None:
            text, empty = predict_each(prior, z_t, views.t, views.condition, views.empty)
            negative = empty
        else:
            conditions = (views.condition, views.empty, views.negative)
            text, empty, negative = predict_each(prior, z_t, views.t, *conditions)
        low = per_sample((views.t < self.threshold).to(z_t), z_t)
        domain = empty - (1.0 - low) * negative
        return weighted(
            self.weight, prior, views, domain + self.cfg_scale(views.progress) * (text - empty)
        )
