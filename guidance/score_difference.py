"""The difference of the prior's predictions under any two of the prompt, the empty and the negative prompt.

    grad = w(t) strength ( eps_toward - eps_away )(z_t)

The common core of delta denoising (Hertz et al. 2023), C-SDS and the second part of `score-bridge`; with the empty
prompt as `away` it is the classifier score. Under Gaussians of equal spread s the drift is the constant w lambda
(m_away - m_toward) / (s^2 + lambda^2): nothing stops it but the stage's end.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from dream3d.diffusion import add_noise
from dream3d.errors import ConfigError
from dream3d.priors.base import Condition, Prior
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_guidance, check_number
from guidance.combine import negative_or_empty, predict_each
from guidance.weights import Weight, gradient_metrics, weight_at

Which = Literal["prompt", "empty", "negative"]
"""One of a view's three conditions; "negative" is the empty one where no negative prompt is given."""


@GUIDANCE.register("score-difference")
@dataclass(frozen=True)
class ScoreDifference(Guidance):
    """From one condition to another.

    Attributes:
        toward, away: which conditions; two different ones.
        strength: factor on the difference.
        weight: w(t), see `guidance.weights.Weight`.
    """

    paper: ClassVar[str] = (
        "Hertz et al. 2023 (Delta Denoising Score), arXiv 2304.07090; general form"
    )
    formula: ClassVar[str] = "w strength (eps_toward - eps_away)(z_t)"
    anchored: ClassVar[bool] = False

    toward: Which = "prompt"
    away: Which = "negative"
    strength: float = 1.0
    weight: Weight = "sigma2"

    def __post_init__(self) -> None:
        check_guidance(self.weight)
        check_number("strength", self.strength)
        for key in ("toward", "away"):
            if getattr(self, key) not in ("prompt", "empty", "negative"):
                raise ConfigError(
                    f"guidance.{key} is '{getattr(self, key)}'; choose prompt, empty or negative"
                )
        if self.toward == self.away:
            raise ConfigError(f"guidance.away is '{self.away}', as toward is; choose another")

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        conditions: dict[str, Condition] = {
            "prompt": views.condition,
            "empty": views.empty,
            "negative": negative_or_empty(views),
        }
        z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
        pair = (conditions[self.toward], conditions[self.away])
        toward, away = predict_each(prior, z_t, views.t, *pair)
        weight = weight_at(self.weight, prior.schedule, views.t, views.z)
        grad = weight * self.strength * (toward - away)
        return GuidanceOutput(grad, gradient_metrics(grad, views.t))
