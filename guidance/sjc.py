"""Score Jacobian chaining (Wang et al. 2023).

    y = z + lambda eps,  x0 = y - lambda eps_cfg;  grad = (z - x0) / lambda = eps_cfg - eps

That is SDS with the weight 1. Without variance reduction the drawn noise is not subtracted, grad = eps_cfg: the same
mean over eps, the noise's variance on top. The authors draw lambda evenly from the levels of a discrete ladder and
add an emptiness loss on their voxel field; both belong elsewhere (time sampler, scene).
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from dream3d.diffusion import add_noise
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_ramp
from guidance.combine import cfg_evaluations, guided
from guidance.weights import gradient_metrics


@GUIDANCE.register("sjc")
@dataclass(frozen=True)
class SJC(Guidance):
    """The perturb-and-average score at the render: SDS on the variance-exploding grid.

    Attributes:
        cfg_scale: classifier-free guidance scale (authors: 100).
        variance_reduced: subtract the drawn noise, the authors' default.
    """

    paper: ClassVar[str] = "Wang et al. 2023 (Score Jacobian Chaining), arXiv 2212.00774"
    formula: ClassVar[str] = "(z - x0_cfg) / lambda = eps_cfg(z_t) - eps"

    cfg_scale: Ramp = field(default_factory=lambda: constant(7.5))
    variance_reduced: bool = True

    def __post_init__(self) -> None:
        check_ramp("cfg_scale", self.cfg_scale)

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """One guided prediction."""
        return cfg_evaluations(self.cfg_scale(progress))

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
        grad = guided(prior, z_t, views.t, views, self.cfg_scale(views.progress)).eps
        if self.variance_reduced:
            grad = grad - views.noise
        return GuidanceOutput(grad, gradient_metrics(grad, views.t))
