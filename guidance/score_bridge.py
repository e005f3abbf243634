"""Score distillation as a bridge between two image distributions (McAllister et al. 2024).

    first:  grad = w(t) ( eps_cfg(z_t) - eps ), plain SDS with the empty prompt
    then:   grad = w(t) strength ( eps_y - eps_source )(z_t)

The source describes what the render looks like after the first part. Give it as the negative prompt: the prompt with
"oversaturated, smooth, pixelated, cartoon, foggy, hazy, blurry, bad structure, noisy, malformed" appended (and, as
the authors do, "detailed high resolution, high quality, sharp" appended to the prompt). Without one the source is the
empty prompt and the second part is the classifier score, with its endless drift.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from dream3d.diffusion import add_noise
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_guidance, check_number, check_ramp
from guidance.combine import negative_or_empty, predict_each
from guidance.sds import SDS
from guidance.weights import Weight, gradient_metrics, weight_at


@GUIDANCE.register("score-bridge")
@dataclass(frozen=True)
class ScoreBridge(Guidance):
    """SDS until `switch`, then from a described source to the prompt.

    Attributes:
        cfg_scale: classifier-free guidance scale of the first part (authors: 100).
        strength: factor of the second part (authors: 40 on images; 1 with weight "uniform" in 3D).
        switch: progress in [0, 1] at which the second part begins (authors: 0.5 on images, 0.8 in 3D).
        weight: w(t), see `guidance.weights.Weight`.
    """

    paper: ClassVar[str] = "McAllister et al. 2024 (SDS-Bridge), arXiv 2406.09417"
    formula: ClassVar[str] = "SDS, then w strength (eps_y - eps_source)(z_t)"
    anchored: ClassVar[bool] = False

    cfg_scale: Ramp = field(default_factory=lambda: constant(7.5))
    strength: float = 7.5
    switch: float = 0.5
    weight: Weight = "sigma2"

    def __post_init__(self) -> None:
        check_guidance(self.weight)
        check_ramp("cfg_scale", self.cfg_scale)
        check_number("strength", self.strength)
        check_number("switch", self.switch, 0.0, 1.0)

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """A guided prediction, then source and prompt."""
        first = SDS(self.cfg_scale, self.weight)
        return first.evaluations(t, progress) if progress < self.switch else 2

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        if views.progress < self.switch:
            return SDS(self.cfg_scale, self.weight)(prior, replace(views, negative=None))
        z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
        source = negative_or_empty(views)
        target_eps, source_eps = predict_each(prior, z_t, views.t, views.condition, source)
        weight = weight_at(self.weight, prior.schedule, views.t, views.z)
        grad = weight * self.strength * (target_eps - source_eps)
        return GuidanceOutput(grad, gradient_metrics(grad, views.t))
