"""Classifier score at a deterministically inverted point (CSM, TV-3DG 2024), the limit of TSM at mu = t.

    z_t = inversion of the render to t with the empty prompt
    grad = w(t) ( eps_y - eps_empty )(z_t)

No noise is drawn, so the gradient has no variance. Under Gaussians of equal spread it is w (m_empty - m) lambda /
(s^2 + lambda^2), the same endless drift as that of the classifier score. Experimental: of TV-3DG only an abstract is
public; the formula is read from it and from TSM's limit.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from dream3d.priors.base import Prior
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_guidance, check_number
from guidance.combine import negative_or_empty, predict_each
from guidance.inversion import eps_under, noised_along, steps_to
from guidance.weights import Weight, weighted


@GUIDANCE.register("classifier-score-inverted")
@dataclass(frozen=True)
class ClassifierScoreInverted(Guidance):
    """The contrast of prompt and empty prompt on the prior's own path.

    Attributes:
        stride: longest step of the inversion in t.
        max_steps: most inversion steps; the stride grows instead.
        t_start: level at which the render is taken for the inversion's starting point.
        weight: w(t), see `guidance.weights.Weight`.
    """

    paper: ClassVar[str] = "Yang et al. 2024 (TV-3DG, classifier score matching), arXiv 2410.21299"
    formula: ClassVar[str] = "w (eps_y - eps_empty)(z_t), z_t by inversion"
    experimental: ClassVar[bool] = True
    anchored: ClassVar[bool] = False

    stride: float = 0.2
    max_steps: int = 5
    t_start: float = 0.02
    weight: Weight = "lambda"

    def __post_init__(self) -> None:
        check_guidance(self.weight)
        check_number("stride", self.stride, 1e-6, 1.0)
        check_number("max_steps", self.max_steps, 1)
        check_number("t_start", self.t_start, 0.0, 0.999)

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """Inversion steps, then both prompts."""
        return steps_to(t - self.t_start, self.stride, self.max_steps) + 2

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        empty_eps = eps_under(prior, views.empty)
        steps = steps_to(views.host_t.max().item() - self.t_start, self.stride, self.max_steps)
        z_t = noised_along(prior.schedule, empty_eps, views.z, views.t, self.t_start, steps)
        pair = (views.condition, negative_or_empty(views))
        text, away = predict_each(prior, z_t, views.t, *pair)
        return weighted(self.weight, prior, views, text - away)
