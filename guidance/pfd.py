"""Probability-flow distillation (2026): up the flow of what the render is, down the flow of what it should be.

    y_t = flow of the source from the render up to t;  x0 = flow of the target from there down to 0
    grad = z - x0

With the render's own distribution as the source this is a Wasserstein gradient flow: particles end distributed as the
prior, mean *and* spread. In practice the source is the prior with the scale 1 - cfg_scale. Equal source and target
give zero up to the solver's error; exchanging them is exchanging cfg_scale and 1 - cfg_scale. SDI is the same with a
single step down. Read from notes on the paper, not from its text; the authors' solvers are of higher order than
Euler's here.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.diffusion import Prediction, per_sample
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.combine import cfg_evaluations, check_number, check_ramp, gradient_metrics, guided
from guidance.inversion import ascend, denoise, guided_eps


@GUIDANCE.register("pfd")
@dataclass(frozen=True)
class PFD(Guidance):
    """Step toward the end of a round trip: up with one score, down with another.

    Attributes:
        cfg_scale: guidance scale of the target, on the way down.
        source_scale: guidance scale of the source, on the way up (authors: 1 - cfg_scale).
        up, down: Euler steps on each way, evenly spaced in t.
        t_start: level at which the render is taken for the path's starting point.
    """

    paper: ClassVar[str] = "Probability-Flow Distillation 2026, arXiv 2605.09071"
    formula: ClassVar[str] = "z - x0, up by the source's flow, down by the target's"
    experimental: ClassVar[bool] = True
    anchored: ClassVar[bool] = False

    cfg_scale: Ramp = field(default_factory=lambda: constant(7.5))
    source_scale: Ramp = field(default_factory=lambda: constant(-6.5))
    up: int = 5
    down: int = 5
    t_start: float = 0.005

    def __post_init__(self) -> None:
        check_ramp("cfg_scale", self.cfg_scale)
        check_ramp("source_scale", self.source_scale, -1e6, 1e6)
        check_number("up", self.up, 1)
        check_number("down", self.down, 1)
        check_number("t_start", self.t_start, 0.0, 0.999)

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """One guided prediction per step of either way."""
        up = self.up * cfg_evaluations(self.source_scale(progress))
        return up + self.down * cfg_evaluations(self.cfg_scale(progress))

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        schedule, progress = prior.schedule, views.progress

        source = guided_eps(prior, views, self.source_scale(progress))

        def target(z_t: Float[Tensor, "B C H W"], t: Float[Tensor, " B"]) -> Prediction:
            return guided(prior, z_t, t, views, self.cfg_scale(progress))

        y = ascend(schedule, source, views.z, views.t, self.t_start, self.up)
        z_t = per_sample(schedule.alpha(views.t), y) * y
        grad = views.z - denoise(schedule, target, z_t, views.t, self.down)
        return GuidanceOutput(grad, gradient_metrics(grad, views.t))
