"""Probability-flow distillation (2026): up the flow of what the render is, down the flow of what it should be.

    y_t = flow of the source from the render up to t;  x0 = flow of the target from there down to 0
    grad = z - x0

With the render's own distribution as the source this is a Wasserstein gradient flow: particles end distributed as the
prior, mean *and* spread; `source: companion` asks the trained twin for it. The authors' source for a single object, and
the default, is the frozen prior with the scale 1 - cfg_scale. Equal source and target give zero up to the solver's
error; exchanging them is exchanging cfg_scale and 1 - cfg_scale. SDI is the same with a single step down. Read from
notes on the paper, not from its text; the authors' solvers are of higher order than Euler's here.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from dream3d.companion import CompanionSettings
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, GuidanceOutput, Views
from guidance.checks import check_choice, check_number, check_ramp
from guidance.combine import cfg_evaluations
from guidance.inversion import denoise, guided_by, guided_eps, noised_along
from guidance.twin import TwinGuidance, twin_eps
from guidance.weights import gradient_metrics


@GUIDANCE.register("pfd")
@dataclass(frozen=True)
class PFD(TwinGuidance):
    """Step toward the end of a round trip: up with one score, down with another.

    Attributes:
        cfg_scale: guidance scale of the target, on the way down.
        source_scale: guidance scale of the prior as the source, on the way up (authors: 1 - cfg_scale).
        up, down: Euler steps on each way, evenly spaced in t.
        t_start: level at which the render is taken for the path's starting point.
        source: "prior", or "companion", which learns what the renders look like.
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
    source: Literal["prior", "companion"] = "prior"

    def __post_init__(self) -> None:
        check_ramp("cfg_scale", self.cfg_scale)
        check_ramp("source_scale", self.source_scale, -1e6, 1e6)
        check_number("up", self.up, 1)
        check_number("down", self.down, 1)
        check_number("t_start", self.t_start, 0.0, 0.999)
        check_choice("source", self.source, ("prior", "companion"))
        super().__post_init__()

    def companion_settings(self) -> CompanionSettings | None:
        return super().companion_settings() if self.source == "companion" else None

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """One prediction per step of either way, guided but for a companion's."""
        own = self.source == "companion"
        up = self.up * (1 if own else cfg_evaluations(self.source_scale(progress)))
        return up + self.down * cfg_evaluations(self.cfg_scale(progress))

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        schedule, progress = prior.schedule, views.progress
        own = self.source == "companion"
        source = twin_eps(views) if own else guided_eps(prior, views, self.source_scale(progress))
        target = guided_by(prior, views, self.cfg_scale(progress))
        z_t = noised_along(schedule, source, views.z, views.t, self.t_start, self.up)
        grad = views.z - denoise(schedule, target, z_t, views.t, self.down)
        return GuidanceOutput(grad, gradient_metrics(grad, views.t))
