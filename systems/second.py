"""A second prior that looks at the same renders: Magic123 (Qian et al. 2023, arXiv 2306.17843) asks two in one step.

It has latents, words, noise and a rule of its own, so all that joins the two is the render: their gradients meet there,
each the mean over its own latent entries, the second's times its weight. Camera, background, clips and the law of times
are the stage's; the time itself is drawn anew.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from dream3d.errors import ConfigError
from dream3d.priors.base import PriorConfig
from dream3d.schedules import Ramp, constant
from guidance.base import Guidance

if TYPE_CHECKING:
    from systems.base import Stage


@dataclass(frozen=True)
class SecondPrior:
    """A run's second prior and how it is asked, in every stage.

    Attributes:
        prior: another one than the run's own, or the same with other settings.
        guidance: its rule; none that needs a companion.
        weight: of its gradient beside the first's; a schedule.
        conditioning: "text" or "camera", see `Stage`.
        view_words: see `Stage`.
    """

    prior: PriorConfig
    guidance: Guidance
    weight: Ramp = field(default_factory=lambda: constant(1.0))
    conditioning: Literal["text", "camera"] = "camera"
    view_words: bool = True

    def __post_init__(self) -> None:
        for value in (self.weight.initial, self.weight.final):
            if not 0.0 <= value < math.inf:
                raise ConfigError(f"weight is {value}; choose 0 (off) or a positive number")
        if self.conditioning not in ("text", "camera"):
            raise ConfigError(f"conditioning is '{self.conditioning}'; choose text or camera")
        if self.guidance.companion_settings() is not None:
            name = type(self.guidance).registered_name  # type: ignore[attr-defined]
            raise ConfigError(
                f"guidance is '{name}', which trains a companion; only a run's first prior has one. Choose a guidance "
                "that needs none, such as sds"
            )

    def of(self, stage: "Stage") -> "Stage":
        """The stage as this prior is asked in it.

        Raises:
            ConfigError: its guidance does not go with the stage's times.
        """
        return dataclasses.replace(
            stage,
            guidance=self.guidance,
            conditioning=self.conditioning,
            view_words=self.view_words,
            view_prompts="bins",
        )
