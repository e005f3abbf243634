"""Coupled score distillation: a single-view and a joint multi-view reading of the same prior pull together.

    grad = w(t) ( (eps_2D - eps) + share (eps_MV - eps) ),  both guided, at one z_t

eps_MV is asked with the views' cameras, all views of an object jointly; eps_2D with the words alone, view by view. So
the render is drawn to (single-view density) x (multi-view density)^share, which ties an object's views together.
share 0 is SDS with text-only conditioning; without cameras it is (1 + share) SDS. Experimental: only abstract and
results are public. The formula is inferred; the paper's trained estimator of the render is replaced by the noise, and
its two networks by two ways to ask one.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from dream3d.companion import without_camera
from dream3d.diffusion import add_noise
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_guidance, check_ramp
from guidance.combine import cfg_evaluations, guided
from guidance.weights import Weight, gradient_metrics, weight_at


@GUIDANCE.register("coupled-score")
@dataclass(frozen=True)
class CoupledScore(Guidance):
    """SDS by words alone plus SDS by words, cameras and the other views.

    Attributes:
        cfg_scale: classifier-free guidance scale of the single-view reading.
        joint_scale: that of the multi-view reading.
        share: weight of the multi-view reading, at least 0 (published ablation: 0.1, 0.5, 1, 2).
        weight: w(t), see `guidance.weights.Weight`.
    """

    paper: ClassVar[str] = "Yang et al. 2025 (Coupled Score Distillation), arXiv 2505.04262"
    formula: ClassVar[str] = "w ((eps_2D - eps) + share (eps_MV - eps))"
    experimental: ClassVar[bool] = True

    cfg_scale: Ramp = field(default_factory=lambda: constant(7.5))
    joint_scale: Ramp = field(default_factory=lambda: constant(7.5))
    share: Ramp = field(default_factory=lambda: constant(1.0))
    weight: Weight = "sigma2"

    def __post_init__(self) -> None:
        check_guidance(self.weight)
        check_ramp("cfg_scale", self.cfg_scale)
        check_ramp("joint_scale", self.joint_scale)
        check_ramp("share", self.share)

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """Two guided predictions."""
        single = cfg_evaluations(self.cfg_scale(progress))
        return single + cfg_evaluations(self.joint_scale(progress))

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        alone = replace(
            views,
            condition=without_camera(views.condition),
            empty=without_camera(views.empty),
            negative=None if views.negative is None else without_camera(views.negative),
        )
        z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
        single = guided(prior, z_t, views.t, alone, self.cfg_scale(views.progress)).eps
        joint = guided(prior, z_t, views.t, views, self.joint_scale(views.progress)).eps
        weight = weight_at(self.weight, prior.schedule, views.t, views.z)
        share = self.share(views.progress)
        grad = weight * ((single - views.noise) + share * (joint - views.noise))
        return GuidanceOutput(grad, gradient_metrics(grad, views.t))
