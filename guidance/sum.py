"""Several rules in one step: their gradients, weighted and added.

    grad = sum_i share_i(progress) grad_i

All parts see the same views: one noise, one level, one companion. So the sum is linear in its parts to the last bit,
and a part whose share is 0 is not asked.

    guidance: {name: sum, parts: [{name: sds}, {name: classifier-score}], shares: [1, {initial: 0, final: 0.5}]}
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from dream3d.companion import CompanionSettings
from dream3d.errors import ConfigError
from dream3d.priors.base import Prior
from dream3d.schedules import Ramp, constant
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_ramp
from guidance.classifier_score import ClassifierScore
from guidance.sds import SDS
from guidance.weights import gradient_metrics


@GUIDANCE.register("sum")
@dataclass(frozen=True)
class Sum(Guidance):
    """A weighted sum of guidances.

    Attributes:
        parts: guidances, at least one.
        shares: weight of each, in order; schedules over the stage.
    """

    paper: ClassVar[str] = "a combiner; e.g. Magic123 2023 adds two, arXiv 2306.17843"
    formula: ClassVar[str] = "sum_i share_i grad_i"

    parts: tuple[Guidance, ...] = field(default_factory=lambda: (SDS(), ClassifierScore()))
    shares: tuple[Ramp, ...] = field(default_factory=lambda: (constant(1.0), constant(1.0)))

    def __post_init__(self) -> None:
        if not self.parts or len(self.parts) != len(self.shares):
            raise ConfigError(
                f"guidance.parts has {len(self.parts)} entries and guidance.shares {len(self.shares)}; give at least "
                "one part and one share for each"
            )
        for index, share in enumerate(self.shares):
            check_ramp(f"shares.{index}", share, -1e6, 1e6)
        self.companion_settings()

    @property
    def needs_falling_time(self) -> bool:
        return any(part.needs_falling_time for part in self.parts)

    def companion_settings(self) -> CompanionSettings | None:
        """That of the parts that ask for one; they share it."""
        asked = {s for s in (part.companion_settings() for part in self.parts) if s is not None}
        if len(asked) > 1:
            raise ConfigError(
                "guidance.parts ask for different companions; give their rank, companion_rate and camera_dropout the "
                "same values"
            )
        return next(iter(asked), None)

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """Those of the parts that are asked."""
        costs = (part.evaluations(t, progress, negative) for part in self.parts)
        return sum(c for c, share in zip(costs, self.shares, strict=True) if share(progress) != 0.0)

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        grad = torch.zeros_like(views.z)
        for part, share in zip(self.parts, self.shares, strict=True):
            weight = share(views.progress)
            if weight != 0.0:
                grad = grad + weight * part(prior, views).grad
        return GuidanceOutput(grad, gradient_metrics(grad, views.t))
