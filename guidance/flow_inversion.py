"""Unique couple matching (UCM; FlowDreamer, Li et al. 2024): rectified-flow distillation with inverted noise.

    eps_inv = flow of the prior under the prompt from the render to t = 1, `steps` Euler steps
    grad = w(t) ( flow_cfg(alpha z + sigma eps_inv) - (eps_inv - z) )

The last Euler step ends exactly at the noise predicted before it, so level 1 itself is never asked. Until `warm_up`
the noise is drawn, as in RFDS. With exact inversion and no guidance under N(m, s^2) on straight paths (a = 1 - sigma)
eps_inv = (z - m) / s and grad = (z - m)(1 - 1/s + (sigma - a s^2) / (a^2 s^2 + sigma^2) (a + sigma / s)): zero at
sigma = s / (1 + s), attracting above, *repelling* below. On a straight coupling it vanishes everywhere.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_number
from guidance.combine import cfg_evaluations
from guidance.inversion import eps_under, invert
from guidance.rectified_flow import RectifiedFlow
from guidance.weights import Weight


@GUIDANCE.register("flow-inversion")
@dataclass(frozen=True)
class FlowInversion(Guidance):
    """RFDS with the noise that the prior couples with this render.

    Attributes:
        cfg_scale: classifier-free guidance scale of the prediction (authors: 60); the inversion uses none.
        steps: predictions of the inversion, at least 2 (authors: 3).
        warm_up: progress in [0, 1] before which the noise is drawn (authors: 0.18).
        t_start: level at which the render is taken for the inversion's starting point.
        weight: w(t) on the velocity residual, see `guidance.weights.Weight`.
    """

    paper: ClassVar[str] = "Li et al. 2024 (FlowDreamer, UCM), arXiv 2408.05008"
    formula: ClassVar[str] = "w (flow_cfg(z_t) - (eps_inv - z)), eps_inv by inversion to t = 1"
    anchored: ClassVar[bool] = False

    cfg_scale: Ramp = field(default_factory=lambda: constant(7.5))
    steps: int = 3
    warm_up: float = 0.18
    t_start: float = 0.02
    weight: Weight = "uniform"

    def __post_init__(self) -> None:
        RectifiedFlow(self.cfg_scale, False, self.weight)
        check_number("steps", self.steps, 2)
        check_number("warm_up", self.warm_up, 0.0, 1.0)
        check_number("t_start", self.t_start, 0.0, 0.5)

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """The inversion's plain predictions and a guided one."""
        up = 0 if progress < self.warm_up else self.steps
        return up + cfg_evaluations(self.cfg_scale(progress))

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        text_eps = eps_under(prior, views.condition)
        if views.progress >= self.warm_up:
            last = torch.full_like(views.t, 1.0 - 1.0 / self.steps)
            end = invert(prior.schedule, text_eps, views.z, last, self.t_start, self.steps - 1)
            views = replace(views, noise=end.eps)
        return RectifiedFlow(self.cfg_scale, False, self.weight)(prior, views)
