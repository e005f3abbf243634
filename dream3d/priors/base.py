"""The one interface between a diffusion model and everything else.

A prior maps images to its own latent space, embeds prompts, and predicts the clean sample (or the noise) at a noisy
point. It knows nothing of scenes, optimisers or training steps.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.controls import Control
from dream3d.diffusion import NoiseSchedule, Prediction
from dream3d.errors import ConfigError
from dream3d.origin import ModelOrigin
from dream3d.registry import Registry
from dream3d.rendering import RenderOutput

if TYPE_CHECKING:
    from dream3d.companion import Companion


@dataclass(frozen=True)
class Condition:
    """What B samples are conditioned on.

    Attributes:
        tokens: text embeddings; a closed-form prior may use any [B, L, D].
        cameras: poses of the B samples, or None for a prior asked text-only.
        views_per_object: samples i*V .. i*V+V-1 are V views of one object and are denoised jointly (MVDream layout);
            1 means independent samples. V > 1 requires cameras and one shared t per object.
        control: a picture that says what is where in each sample, for a prior that asks for one (`Prior.control`).
    """

    tokens: Float[Tensor, "B L D"]
    cameras: CameraBatch | None = None
    views_per_object: int = 1
    control: Float[Tensor, "B H W 3"] | None = None

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def __getitem__(self, index: slice | Tensor | list[int]) -> "Condition":
        cameras = None if self.cameras is None else self.cameras[index]
        control = None if self.control is None else self.control[index]
        return replace(self, tokens=self.tokens[index], cameras=cameras, control=control)

    @staticmethod
    def concatenate(conditions: "list[Condition]") -> "Condition":
        """Stack several conditions of the same kind along the batch, for one batched network call."""
        first = conditions[0]
        cameras = None
        if first.cameras is not None:
            parts = [c.cameras for c in conditions if c.cameras is not None]
            if len(parts) != len(conditions):
                raise ValueError("cannot concatenate conditions with and without cameras")
            cameras = CameraBatch.concatenate(parts)
        tokens = torch.cat([c.tokens for c in conditions])
        control = None
        if first.control is not None:
            pictures = [c.control for c in conditions if c.control is not None]
            if len(pictures) != len(conditions):
                raise ValueError("cannot concatenate conditions with and without control pictures")
            control = torch.cat(pictures)
        return Condition(tokens, cameras, first.views_per_object, control)


class Prior(ABC):
    """A text-conditioned diffusion model. Implementations are frozen: nothing here trains."""

    schedule: NoiseSchedule
    latent_shape: tuple[int, int, int]
    """(C, H, W) of the latent space."""
    image_size: int
    """Side in pixels of the images `encode` expects and `decode` returns."""
    accepts_cameras: bool = False
    """Whether a Condition may carry cameras (and, with them, several views per object)."""
    joint_views: int | None = None
    """How many views of one object it denoises jointly, where it was made for one number only."""
    control: Control = ""
    """What the picture shows that a Condition must carry; "" for none."""
    conditionings: tuple[str, ...] = ("text", "camera", "multiview")
    """In which ways of a stage's `conditioning` it can be asked; cameras need `accepts_cameras` too."""
    cfg_trouble: str = ""
    """Why a guidance scale other than 1 means nothing to it, and what to do; empty where it means what it should."""
    needs_picture: bool = False
    """Whether it can be asked only after it was shown a picture (`seeing`)."""
    needs_text: bool = True
    """Whether the prompt says what to make; else a picture says all."""
    embeds_ahead: bool = False
    """Whether embedding is so costly to begin with that all a run may need should be asked for at once."""
    device: torch.device = torch.device("cpu")
    origins: tuple[ModelOrigin, ...] = ()
    """Of all weights it uses, its own model first; for the record of a run and its assets."""

    @abstractmethod
    def check_prompt(self, prompt: str) -> None:
        """Refuse a prompt this prior cannot follow.

        Raises:
            PromptError: names the unknown words, the nearest known ones, and which prior takes open vocabulary.
        """

    @abstractmethod
    def embed(self, prompts: list[str]) -> Float[Tensor, "B L D"]:
        """Text embeddings, one row per prompt; the empty string is the unconditional embedding."""

    def avoided(self, tokens: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Embeddings of prompts to steer away from; other ones only where a prompt is more than its words."""
        return tokens

    @abstractmethod
    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Images in [0, 1] to latents; differentiable. Other sizes than `image_size` are resampled."""

    @abstractmethod
    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B H W 3"]:
        """Latents to images in [0, 1]."""

    @abstractmethod
    def predict(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Prediction:
        """The network's output at z_t, without gradient."""

    def ask_at_once(self, samples: int) -> None:
        """Ask the network about at most so many samples in one call from now on; 0 is as it was opened.

        Changes no result. A prior whose calls are never split does nothing.
        """
        del samples

    def seeing(self, picture: RenderOutput, camera: CameraBatch) -> "Prior":
        """This prior, asked about a picture. One that looks at no picture is returned as it is.

        Args:
            picture: what one camera sees of the object, with its coverage.
            camera: that one, of the same size.
        """
        del picture, camera
        return self

    @property
    def has_companion(self) -> bool:
        """Whether `companion` makes one."""
        return type(self).companion is not Prior.companion

    def companion(self, rank: int, seed: int, name: str = "companion") -> "Companion":
        """A new trainable twin (see `dream3d.companion`).

        Args:
            rank: of its low-rank update, where it has one.
            seed: of its random start.
            name: twins of different names live side by side; one of the same name is replaced.

        Raises:
            ConfigError: this kind of prior has none.
        """
        raise ConfigError(
            f"{type(self).__name__} has no trainable companion; choose a guidance that needs none, such as sds"
        )


SPARING_CHUNK = 2
"""Samples per network call of a prior that spares memory (`low_vram`), where its `chunk` says nothing else."""


class PriorConfig(ABC):
    """The settings of one prior: a frozen dataclass registered in PRIORS. Loading has no side effects.

    Attributes:
        smallest_chunk: fewest samples it can be asked about at once, where it has a setting `chunk` at all.
    """

    smallest_chunk: ClassVar[int] = 1

    @abstractmethod
    def load(self, device: torch.device) -> Prior:
        """Read the weights.

        Raises:
            ModelError: the weights are missing, damaged or of another kind; the message says what to do.
        """


PRIORS: Registry[PriorConfig] = Registry("prior", "dream3d.priors")
