"""What rules that compare the prior with its trained twin (`dream3d.companion`) have in common."""

from dataclasses import dataclass

from dream3d.companion import CompanionSettings
from guidance.base import Guidance, Views
from guidance.inversion import NoisePredictor


@dataclass(frozen=True, kw_only=True)
class TwinGuidance(Guidance):
    """A rule with a companion that learns the renders beside the scene.

    Attributes:
        rank, companion_rate, camera_dropout: see `dream3d.companion.CompanionSettings`.
    """

    rank: int = 4
    companion_rate: float = 1e-4
    camera_dropout: float = 0.1

    def __post_init__(self) -> None:
        self.companion_settings()

    def companion_settings(self) -> CompanionSettings | None:
        return CompanionSettings(self.rank, self.companion_rate, self.camera_dropout)


def twin_eps(views: Views) -> NoisePredictor:
    """The noise the companion sees, told the plain prompt and the cameras."""
    companion, plain = views.with_companion()
    return lambda z_t, t: companion.predict(z_t, t, plain).eps
