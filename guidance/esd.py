"""Entropic score distillation (Taming Mode Collapse in Score Distillation, Wang et al. 2024).

    grad = w(t) ( eps_cfg(z_t) - entropy eps_phi(z_t) - (1 - entropy) eps_phi(z_t, camera) )

VSD whose companion is guided by its camera with scale 1 - entropy: the share `entropy` of the reference is the renders'
distribution over all views, which rewards views that differ. 0 is VSD. Under N(m, s^2) with an exact companion the
renders' variance at one noise level lambda settles at max(0, entropy (s^2 + lambda^2) - lambda^2): below
lambda^2 / (s^2 + lambda^2) they collapse, at 1 they are the prior, beyond they are too wide.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from dream3d.companion import without_camera
from dream3d.diffusion import add_noise
from dream3d.errors import ConfigError
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, GuidanceOutput, Views
from guidance.checks import check_guidance, check_number, check_ramp
from guidance.combine import cfg_evaluations, guided
from guidance.twin import TwinGuidance
from guidance.weights import Weight, weighted


@GUIDANCE.register("esd")
@dataclass(frozen=True)
class ESD(TwinGuidance):
    """VSD with an entropy term over the views.

    Attributes:
        entropy: the paper's lambda, in [0, 1]; the authors' recipe is 0.5.
        cfg_scale, weight, rescale, clamp_x0: as in `guidance.vsd.VSD`.
        camera_dropout: share of the companion's steps without camera; the camera-free branch learns from these alone,
            so it must be positive unless `entropy` is 0.
    """

    paper: ClassVar[str] = "Wang et al. 2024 (Taming Mode Collapse), arXiv 2401.00909"
    formula: ClassVar[str] = "w (eps_cfg(z_t) - a eps_phi(z_t) - (1 - a) eps_phi(z_t, camera))"

    entropy: float = 0.5
    cfg_scale: Ramp = field(default_factory=lambda: constant(7.5))
    weight: Weight = "sigma2"
    rescale: float = 0.0
    clamp_x0: float = 0.0

    def __post_init__(self) -> None:
        check_guidance(self.weight, self.rescale, self.clamp_x0)
        check_ramp("cfg_scale", self.cfg_scale)
        check_number("entropy", self.entropy, 0.0, 1.0)
        super().__post_init__()
        if self.entropy > 0.0 and self.camera_dropout == 0.0:
            raise ConfigError(
                "guidance.camera_dropout is 0, so the companion never learns to do without the camera, which "
                f"guidance.entropy {self.entropy} needs; choose a positive share, such as 0.1"
            )

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """The guided prediction and the companion with and without camera; its training step not counted."""
        return cfg_evaluations(self.cfg_scale(progress)) + (2 if self.entropy > 0.0 else 1)

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        companion, plain = views.with_companion()
        z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
        scale = self.cfg_scale(views.progress)
        prediction = guided(prior, z_t, views.t, views, scale, self.rescale, self.clamp_x0)
        own = companion.predict(z_t, views.t, plain).eps
        if self.entropy > 0.0:
            anywhere = companion.predict(z_t, views.t, without_camera(plain)).eps
            own = torch.lerp(own, anywhere, self.entropy)
        return weighted(self.weight, prior, views, prediction.eps - own)
