"""Score distillation via inversion (Lukoianov et al. 2024): SDS whose noise is found, not drawn.

    y_t = inversion of the render to t with guidance inversion_scale;  kappa = (y_t - z) / lambda
    grad = w(t) ( eps_cfg(y_t) - kappa ) = w / lambda ( z - x0_cfg(y_t) )

kappa is the noise that DDIM itself would have used at this render; caching it instead of inverting reproduces DDIM,
and drawing it gives SDS. With the same prompt and scale both ways grad = (z - m)(1 - s / sqrt(s^2 + lambda^2)) under
N(m, s^2): it collapses to m. With the scales a (up) and b (down) it rests at m_b + c (m_b - m_a), c = s / sqrt(s^2 +
lambda^2). The authors' code adds noise to the inversion and a random offset to its last level; both are left out.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_guidance, check_number, check_ramp
from guidance.combine import cfg_evaluations, guided
from guidance.inversion import guided_eps, noise_level, noised_along
from guidance.weights import Weight, gradient_metrics, weight_at


@GUIDANCE.register("sdi")
@dataclass(frozen=True)
class SDI(Guidance):
    """Compare the guided prediction at an inverted point with the noise that led there.

    Attributes:
        cfg_scale: guidance scale of the prediction.
        inversion_scale: guidance scale of the inversion; negative ones go away from the prompt (authors: -7.5).
        steps_per_unit: inversion steps from t = 0 to 1; int(steps_per_unit t), at least one, are taken up to t.
        t_start: level at which the render is taken for the inversion's starting point.
        weight: w(t), see `guidance.weights.Weight`; "lambda" is z - x0.
    """

    paper: ClassVar[str] = "Lukoianov et al. 2024 (SDI), arXiv 2405.15891"
    formula: ClassVar[str] = "w (eps_cfg(z_t) - kappa), z_t = alpha (z + lambda kappa) by inversion"

    cfg_scale: Ramp = field(default_factory=lambda: constant(7.5))
    inversion_scale: Ramp = field(default_factory=lambda: constant(-7.5))
    steps_per_unit: int = 10
    t_start: float = 0.005
    weight: Weight = "lambda"

    def __post_init__(self) -> None:
        check_guidance(self.weight)
        check_ramp("cfg_scale", self.cfg_scale)
        check_ramp("inversion_scale", self.inversion_scale, -1e6, 1e6)
        check_number("steps_per_unit", self.steps_per_unit, 1)
        check_number("t_start", self.t_start, 0.0, 0.999)

    def steps(self, t: float) -> int:
        """Inversion steps up to level t."""
        return max(int(self.steps_per_unit * t + 1e-4), 1)

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """Guided predictions: one per inversion step and the one at t."""
        up = self.steps(t) * cfg_evaluations(self.inversion_scale(progress))
        return up + cfg_evaluations(self.cfg_scale(progress))

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        schedule, progress = prior.schedule, views.progress
        eps_up = guided_eps(prior, views, self.inversion_scale(progress))
        steps = self.steps(views.host_t.max().item())
        z_t = noised_along(schedule, eps_up, views.z, views.t, self.t_start, steps)
        x0 = guided(prior, z_t, views.t, views, self.cfg_scale(progress)).x0
        weight = weight_at(self.weight, schedule, views.t, views.z)
        grad = weight / noise_level(schedule, views.t, views.z) * (views.z - x0)
        return GuidanceOutput(grad, gradient_metrics(grad, views.t))
