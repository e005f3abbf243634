"""The seam every score-distillation algorithm stands on.

    grad = w(t) * ( prediction at a noisy point - reference )

A `Guidance` is a frozen dataclass that is its own configuration. Called with a prior and the current views it returns
the gradient with respect to the clean latents; it never sees a renderer, an optimiser or a step count.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from dream3d.companion import Companion, CompanionSettings
from dream3d.errors import ConfigError
from dream3d.priors.base import Condition, Prior
from dream3d.registry import Registry
from guidance.guiders import PLAIN, Guider


@dataclass(frozen=True)
class Sides:
    """What Perp-Neg keeps each of B views away from: the prompt's other sides (see `dream3d.prompts`), or more.

    Attributes:
        away: N conditions, each of the B views.
        weights: at most 0; 0 where a side is no rival of the view's own.
    """

    away: tuple[Condition, ...]
    weights: Float[Tensor, "N B"]


@dataclass(frozen=True)
class Views:
    """What a guidance is given: B rendered views in the prior's latent space, and where to probe the prior.

    Attributes:
        z: clean latents of the renders; detached.
        t: noise level per view in [0, 1]; equal within one object's views when `condition.views_per_object` > 1.
        noise: unit Gaussian noise per view, from the configured noise source.
        condition: the prompt (with view words and cameras as configured).
        empty: the unconditional prompt, same cameras.
        negative: the negative prompt, or None.
        progress: fraction of the stage that is done, in [0, 1].
        companion: the trainable twin of the prior, where the guidance asks for one.
        plain: what the companion is told: the prompt without view words, always with the cameras.
        guider: how the predictions under the prompt and the empty prompt are mixed.
        sides: what Perp-Neg keeps the views away from, or None.
        known_t: `t` on the host, where it was drawn; rules that count steps by it do not wait for a GPU.
        lower: the level below `t` that the time sampler draws it above, see `TimeSampler.lower`.
    """

    z: Float[Tensor, "B C H W"]
    t: Float[Tensor, " B"]
    noise: Float[Tensor, "B C H W"]
    condition: Condition
    empty: Condition
    negative: Condition | None = None
    progress: float = 0.0
    companion: Companion | None = None
    plain: Condition | None = None
    guider: Guider = PLAIN
    sides: Sides | None = None
    known_t: Float[Tensor, " B"] | None = None
    lower: float | None = None

    def with_control(self, picture: Float[Tensor, "B H W 3"] | None) -> "Views":
        """The same views with a picture of each told to a prior that has a ControlNet; None changes nothing."""
        if picture is None:
            return self

        def told(condition: Condition | None) -> Condition | None:
            return None if condition is None else replace(condition, control=picture)

        conditions: dict[str, Any] = {
            name: told(getattr(self, name)) for name in ("condition", "empty", "negative", "plain")
        }
        if self.sides is not None:
            away = tuple(replace(side, control=picture) for side in self.sides.away)
            conditions["sides"] = replace(self.sides, away=away)
        return replace(self, **conditions)

    @property
    def host_t(self) -> Float[Tensor, " B"]:
        """`t` where reading it costs nothing, if that is known."""
        return self.t if self.known_t is None else self.known_t

    def with_companion(self) -> tuple[Companion, Condition]:
        """The companion and what it is told.

        Raises:
            ConfigError: there is none.
        """
        if self.companion is None or self.plain is None:
            raise ConfigError("this guidance needs a prior with a trainable companion")
        return self.companion, self.plain


@dataclass(frozen=True)
class GuidanceOutput:
    """A guidance's result.

    Attributes:
        grad: dL/dz per view, what is *subtracted* from z; not yet divided by the batch size.
        metrics: scalars worth logging, e.g. the gradient's norm; numbers or tensors without dimensions.
    """

    grad: Float[Tensor, "B C H W"]
    metrics: dict[str, float | Tensor] = field(default_factory=dict)


class Guidance(ABC):
    """A score-distillation rule. Subclasses are frozen dataclasses; calling one is pure.

    Attributes:
        paper: where the rule comes from: authors, year, arXiv number where known.
        formula: the gradient in one line of plain text.
        experimental: whether public code or a full formula is missing, so that a part of it is our reading.
        anchored: whether the mean of a Gaussian is found with fresh noise and without a contrast of prompts (the empty
            prompt equal to the prompt). Rules made of differences between two prompts then stand still instead.
        needs_falling_time: whether the rule is wrong at times drawn at random (see `TimeSampler.falls`).
    """

    paper: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    experimental: ClassVar[bool] = False
    anchored: ClassVar[bool] = True

    @property
    def needs_falling_time(self) -> bool:
        return False

    def evaluations(self, t: float = 0.5, progress: float = 0.0, negative: bool = False) -> int:
        """Network evaluations per view in one step (a guided prediction is two); 2 unless a rule says otherwise.

        Args:
            t: the step's largest noise level.
            progress: fraction of the stage that is done.
            negative: whether a negative prompt is given.
        """
        return 2

    @abstractmethod
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        """The gradient for these views. Runs without autograd."""

    def companion_settings(self) -> CompanionSettings | None:
        """How the companion this rule compares the prior with is made; None for a rule that needs none."""
        return None


GUIDANCE: Registry[Guidance] = Registry("guidance", "guidance")


def gradient_as_loss(
    z: Float[Tensor, "B C H W"], grad: Float[Tensor, "B C H W"]
) -> Float[Tensor, ""]:
    """A loss whose gradient with respect to z is exactly grad / B, and whose value is 0.5 ||grad||^2 / B.

    Both are those of threestudio's 0.5 ||z - stopgrad(z - grad)||^2 / B, which however rounds small gradients away
    beside large latents; the inner product does not.

    Raises:
        ValueError: the gradient is of another shape, which would be spread over the latents in silence.
    """
    if grad.shape != z.shape:
        raise ValueError(
            f"the guidance's gradient has shape {tuple(grad.shape)} where the latents have {tuple(z.shape)}; "
            "GuidanceOutput.grad is one entry for each of theirs"
        )
    grad = grad.detach()
    inner = (z * grad).sum()
    return (inner - inner.detach() + 0.5 * (grad**2).sum()) / z.shape[0]
