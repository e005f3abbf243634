"""The trainable twin of a prior: the score of what the renders look like now.

    L(phi) = E_t,eps || eps_phi(alpha z + sigma eps, t, camera) - eps ||^2        (ProlificDreamer, eq. 9)

Score-distillation rules that compare the prior with it (VSD and its family) match distributions instead of climbing to
a mode. A `Companion` is made by its prior, trains beside the scene with an optimiser of its own, and never changes what
the prior itself predicts.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.diffusion import NoiseSchedule, Prediction, add_noise
from dream3d.errors import ConfigError
from dream3d.priors.base import Condition
from dream3d.transfer import sent

LARGEST_WEIGHT = 20.0
"""Bound on the loss weight 1 / sigma^2 of a network that predicts the clean sample, as in the embedded prior's own."""


@dataclass(frozen=True)
class CompanionSettings:
    """How a companion is built and trained.

    Attributes:
        rank: of the low-rank update, for priors that are networks.
        learning_rate: of AdamW (ProlificDreamer: 1e-4).
        camera_dropout: share of its training steps in which it is not told the camera, in [0, 1].
        augment: for a pair of companions (`CompanionPair`): the level to which renders are noised, and the steps in
            which the prior denoises them, before the second one learns them. None: a single companion.
    """

    rank: int = 4
    learning_rate: float = 1e-4
    camera_dropout: float = 0.1
    augment: tuple[float, int] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"guidance.rank is {self.rank}; it must be at least 1")
        if not 0.0 < self.learning_rate < float("inf"):
            raise ConfigError(
                f"guidance.companion_rate is {self.learning_rate}; choose a positive number"
            )
        if not 0.0 <= self.camera_dropout <= 1.0:
            raise ConfigError(
                f"guidance.camera_dropout is {self.camera_dropout}; choose a share in [0, 1]"
            )


class Companion(ABC):
    """A trainable predictor over a prior's latents. Without training it predicts what its prior does."""

    @abstractmethod
    def parameters(self) -> dict[str, Tensor]:
        """The leaf tensors that train, by name; a checkpoint holds exactly these."""

    @abstractmethod
    def output(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Prediction:
        """The prediction at z_t, with gradient to the parameters."""

    @torch.no_grad()
    def predict(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Prediction:
        """As `output`, without gradient."""
        return self.output(z_t, t, condition)


class CompanionPair(Companion):
    """Two twins of one prior: `own` learns the renders, `dreamer` learns them as the prior would improve them.

    Args:
        own: answers for the pair.
        dreamer: the other.
    """

    def __init__(self, own: Companion, dreamer: Companion) -> None:
        self.own, self.dreamer = own, dreamer

    def parameters(self) -> dict[str, Tensor]:
        return {
            f"{part}.{name}": p
            for part, twin in (("own", self.own), ("dreamer", self.dreamer))
            for name, p in twin.parameters().items()
        }

    def output(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Prediction:
        return self.own.output(z_t, t, condition)


def without_camera(condition: Condition) -> Condition:
    """The same words, not told where from; samples are then independent."""
    return replace(condition, cameras=None, views_per_object=1)


def denoising_loss(
    prediction: Prediction, z: Float[Tensor, "B C h w"], noise: Float[Tensor, "B C h w"]
) -> Float[Tensor, ""]:
    """Mean squared error of the network's native output against what it should be.

    Args:
        prediction: at alpha z + sigma noise.
        z: the clean latents.
        noise: what was added.
    """
    match prediction.kind:
        case "eps":
            return (prediction.value - noise).square().mean()
        case "v":
            target = prediction.alpha * noise - prediction.sigma * z
            return (prediction.value - target).square().mean()
        case "flow":
            return (prediction.value - (noise - z)).square().mean()
        case "x0":
            weight = prediction.sigma.square().reciprocal().clamp(max=LARGEST_WEIGHT)
            return (weight * (prediction.value - z).square()).mean()


class CompanionTrainer:
    """A companion with its optimiser: what a stage carries along and a checkpoint keeps.

    Args:
        companion: what trains.
        schedule: its prior's noise levels.
        settings: of the optimiser and the camera dropout.
    """

    def __init__(
        self, companion: Companion, schedule: NoiseSchedule, settings: CompanionSettings
    ) -> None:
        self.companion, self.schedule, self.settings = companion, schedule, settings
        held = companion.parameters()
        # One group and one kernel: a group for each of a network's hundreds of small updates costs more than training.
        group = {"params": list(held.values()), "names": list(held)}
        self.optimizer = torch.optim.AdamW([group], lr=settings.learning_rate, fused=True)

    def step(
        self, z: Float[Tensor, "B C h w"], condition: Condition, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """One denoising step on the current renders; returns the loss, detached and still on its device.

        Args:
            z: clean latents of the renders; detached here.
            condition: the plain prompt (no view words) and the cameras.
            generator: the run's, on the CPU.
        """
        loss = self.loss(self.companion, z.detach(), condition, generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def loss(
        self,
        companion: Companion,
        z: Float[Tensor, "B C h w"],
        condition: Condition,
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """The denoising loss of one companion at clean latents z: one level per object, cameras dropped at times."""
        objects = len(z) // condition.views_per_object
        t = torch.rand(objects, generator=generator).repeat_interleave(condition.views_per_object)
        noise = sent(torch.randn(z.shape, generator=generator), z.device, z.dtype)
        if torch.rand((), generator=generator).item() < self.settings.camera_dropout:
            condition = without_camera(condition)
        t = sent(t, z.device, z.dtype)
        z_t = add_noise(self.schedule, z, noise, t)
        return denoising_loss(companion.output(z_t, t, condition), z, noise)


def restore_parameters(companion: Companion, tensors: Mapping[str, Tensor]) -> None:
    """Put back the values `companion.parameters()` had."""
    with torch.no_grad():
        for name, parameter in companion.parameters().items():
            parameter.copy_(tensors[name])
