"""Classifier score distillation (Yu et al. 2023): the direction from `anything` to the prompt, and nothing else.

    grad = w(t) ( eps_y - (1 - n) eps_empty - n eps_negative ),  all at z_t

The limit of SDS(scale) / scale. No noise is subtracted, so nothing but the contrast of two prompts holds the render:
under Gaussians of equal spread the drift w lambda (m_empty - m) / (s^2 + lambda^2) never ends. A few thousand steps,
the norm or an annealed n bound it in practice. Authors: n 1 -> 0.5 (meshes), 0 -> 1 with unit norm (NeRF).
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from dream3d.diffusion import add_noise
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_guidance, check_ramp
from guidance.clips import unit_norm
from guidance.combine import predict_each
from guidance.weights import Weight, gradient_metrics, weight_at


@GUIDANCE.register("classifier-score")
@dataclass(frozen=True)
class ClassifierScore(Guidance):
    """Ascend the implicit classifier of the prompt.

    Attributes:
        negative_share: n in [0, 1], how much of what is subtracted is the negative prompt; unused without one.
        weight: w(t), see `guidance.weights.Weight`.
        normalize: scale each object's gradient to norm 1.
    """

    paper: ClassVar[str] = "Yu et al. 2023 (Classifier Score Distillation), arXiv 2310.19415"
    formula: ClassVar[str] = "w (eps_y - (1 - n) eps_empty - n eps_negative)(z_t)"
    anchored: ClassVar[bool] = False

    negative_share: Ramp = field(default_factory=lambda: Ramp(1.0, 0.5))
    weight: Weight = "sigma2"
    normalize: bool = False

    def __post_init__(self) -> None:
        check_guidance(self.weight)
        check_ramp("negative_share", self.negative_share, 0.0, 1.0)

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """Every prompt once."""
        return 3 if negative else 2

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
        if views.negative is None:
            text, away = predict_each(prior, z_t, views.t, views.condition, views.empty)
        else:
            conditions = (views.condition, views.empty, views.negative)
            text, empty, negative = predict_each(prior, z_t, views.t, *conditions)
            away = torch.lerp(empty, negative, self.negative_share(views.progress))
        grad = weight_at(self.weight, prior.schedule, views.t, views.z) * (text - away)
        if self.normalize:
            grad = unit_norm(grad, views.condition.views_per_object)
        return GuidanceOutput(grad, gradient_metrics(grad, views.t))
