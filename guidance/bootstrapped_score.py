"""Bootstrapped score distillation (DreamCraft3D, Sun et al. 2023): VSD whose teacher follows the asset.

    grad = w(t) ( eps_dreamt(z_t, t) - eps_phi(z_t, t, camera) )

Two trained twins of the prior. phi learns the renders as they are, as in VSD. The other, the paper's DreamBooth,
learns the renders as the prior would improve them: noised to `augment_level` and denoised again. What it learns is
sharper than the renders and still this one object from this one side, so teacher and asset lift each other.

Untrained twins equal the prior: the first steps are (scale - 1) times classifier score distillation. With exact twins
under N(m, s^2), particles N(m', s'^2) and c = s / sqrt(s^2 + lambda'^2), the teacher is N(m + c (m' - m),
c^2 (s'^2 + lambda'^2)): nearer to the prior by c, whose own mean and spread are therefore the rest point.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from dream3d.companion import CompanionPair, CompanionSettings
from dream3d.diffusion import add_noise
from dream3d.errors import ConfigError
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, GuidanceOutput, Views
from guidance.checks import check_guidance, check_number, check_ramp
from guidance.combine import cfg_evaluations, guided
from guidance.twin import TwinGuidance
from guidance.weights import Weight, weighted


@GUIDANCE.register("bootstrapped-score")
@dataclass(frozen=True)
class BootstrappedScore(TwinGuidance):
    """Compare what the prior would make of the renders with what they are.

    Attributes:
        cfg_scale: classifier-free guidance scale of the teacher.
        weight: w(t), see `guidance.weights.Weight`.
        augment_level: t' in (0, 1) to which renders are noised before the prior denoises them.
        augment_steps: steps of that denoising, each one network evaluation per view, at least 1.
        rank, companion_rate, camera_dropout: of both twins.
    """

    paper: ClassVar[str] = "Sun et al. 2023 (DreamCraft3D), arXiv 2310.16818"
    formula: ClassVar[str] = "w (eps_dreamt(z_t) - eps_phi(z_t, camera)), two trained twins"

    cfg_scale: Ramp = field(default_factory=lambda: constant(7.5))
    weight: Weight = "sigma2"
    augment_level: float = 0.4
    augment_steps: int = 3

    def __post_init__(self) -> None:
        check_guidance(self.weight)
        check_ramp("cfg_scale", self.cfg_scale)
        check_number("augment_level", self.augment_level, 1e-3, 0.999)
        check_number("augment_steps", self.augment_steps, 1)
        super().__post_init__()

    def companion_settings(self) -> CompanionSettings:
        augment = (self.augment_level, self.augment_steps)
        return CompanionSettings(self.rank, self.companion_rate, self.camera_dropout, augment)

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """The guided teacher and phi; the denoising of the renders and two training steps not counted."""
        return cfg_evaluations(self.cfg_scale(progress)) + 1

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        pair, plain = views.with_companion()
        if not isinstance(pair, CompanionPair):
            raise ConfigError("bootstrapped-score needs a pair of companions")
        z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
        taught = guided(pair.dreamer, z_t, views.t, views, self.cfg_scale(views.progress)).eps
        return weighted(self.weight, prior, views, taught - pair.predict(z_t, views.t, plain).eps)
