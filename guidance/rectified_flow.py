"""Rectified-flow distillation (RFDS, Yang et al. 2024; VFDS, Li et al. 2024): SDS in the flow's own terms.

    r = flow_cfg(z_t) - (eps - z),  flow = eps - x0;  grad = w(t) r

r = (1 + lambda) (eps_cfg - eps): on straight paths 1 / (1 - t) times SDS's residual, and (z - x0) / sigma. With
`reverse` (RFDS-Rev) the noise is first replaced by what the prior itself predicts under the prompt, one step toward
the noise that leads to this render. Under N(m, s^2) on straight paths E r = (z - m) sigma / (alpha^2 s^2 + sigma^2):
it finds the mode. The released code multiplies by a random factor that has nothing to do with t; not so here.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from dream3d.diffusion import add_noise
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_guidance, check_ramp
from guidance.combine import cfg_evaluations, guided
from guidance.weights import Weight, weighted


@GUIDANCE.register("rectified-flow")
@dataclass(frozen=True)
class RectifiedFlow(Guidance):
    """Match the prior's velocity to the straight line from the render to its noise.

    Attributes:
        cfg_scale: classifier-free guidance scale (authors: 100 with SD3, 50 with InstaFlow).
        reverse: replace the drawn noise by the prior's conditional prediction of it first.
        weight: w(t) on the velocity residual, see `guidance.weights.Weight`.
    """

    paper: ClassVar[str] = "Yang et al. 2024 (RFDS, RFDS-Rev), arXiv 2406.03293"
    formula: ClassVar[str] = "w (flow_cfg(z_t) - (eps - z))"

    cfg_scale: Ramp = field(default_factory=lambda: constant(7.5))
    reverse: bool = False
    weight: Weight = "uniform"

    def __post_init__(self) -> None:
        check_guidance(self.weight)
        check_ramp("cfg_scale", self.cfg_scale)

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """A guided prediction; with `reverse` a plain one before it."""
        return cfg_evaluations(self.cfg_scale(progress)) + int(self.reverse)

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        if self.reverse:
            z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
            views = replace(views, noise=prior.predict(z_t, views.t, views.condition).eps)
        z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
        flow = guided(prior, z_t, views.t, views, self.cfg_scale(views.progress)).flow
        return weighted(self.weight, prior, views, flow - (views.noise - views.z))
