"""Consistent flow distillation (Yan et al. 2025): the render follows the prior's probability flow.

    grad = w ( eps_cfg(alpha z + sigma eps) - eps ),  eps fixed for the run, t falling monotonically

With w = 1 and a step of |d lambda| the iterate z + lambda eps is DDIM's, step for step: the result is a *sample* of
the prior, of its own spread, where the same formula with fresh noise (SDS) collapses to a mode. Under N(m, s^2) it
ends at m + s (lambda_max eps + z_start - m) / sqrt(s^2 + lambda_max^2). It needs `noise: {name: fixed}` (or
`refreshed`, the stochastic form) and `time: {name: annealed, jitter: 0}`: at a level that stays it rests at m + s^2 /
lambda eps, which grows without bound as lambda falls. `noise: {name: surface}` lays the noise on the object.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from dream3d.diffusion import add_noise
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_choice, check_ramp
from guidance.combine import cfg_evaluations, guided
from guidance.weights import weighted


@GUIDANCE.register("cfd")
@dataclass(frozen=True)
class CFD(Guidance):
    """One step of the flow in the clean variable.

    Attributes:
        cfg_scale: classifier-free guidance scale (authors: 50 with MVDream, 70 with Stable Diffusion).
        weight: "uniform" (authors, multi-view prior) or "lambda", which is z - x0 (authors, Stable Diffusion).
    """

    paper: ClassVar[str] = "Yan et al. 2025 (Consistent Flow Distillation), arXiv 2501.05445"
    formula: ClassVar[str] = "w (eps_cfg(z_t) - eps), eps fixed, t falling"

    cfg_scale: Ramp = field(default_factory=lambda: constant(7.5))
    weight: Literal["uniform", "lambda"] = "lambda"

    def __post_init__(self) -> None:
        check_ramp("cfg_scale", self.cfg_scale)
        check_choice("weight", self.weight, ("uniform", "lambda"))

    @property
    def needs_falling_time(self) -> bool:
        return True

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """One guided prediction."""
        return cfg_evaluations(self.cfg_scale(progress))

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
        prediction = guided(prior, z_t, views.t, views, self.cfg_scale(views.progress))
        return weighted(self.weight, prior, views, prediction.eps - views.noise)
