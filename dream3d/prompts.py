"""From a prompt to what the prior is told about each view: view words, embeddings, conditions.

A prompt is data. It is embedded as it stands; nothing here parses it, formats it or turns it into a path.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.errors import ConfigError
from dream3d.priors.base import Condition, Prior

AZIMUTH_WORDS = (
    "front",
    "front left",
    "left",
    "back left",
    "back",
    "back right",
    "right",
    "front right",
)
"""In steps of 45 degrees from the front toward +X, which is the object's own left."""


def view_words(azimuth_deg: float, elevation_deg: float) -> str:
    """How a prompt names a view: "front left", "high back", "low right", "overhead".

    Args:
        azimuth_deg: any angle; the nearest of eight directions is named, 0 is the front.
        elevation_deg: below 0 is "low", 30 to 60 "high", above 60 "overhead" whatever the azimuth.
            NaN in either (a pose that was not made from an orbit) has no words.
    """
    if math.isnan(azimuth_deg) or math.isnan(elevation_deg):
        return ""
    if elevation_deg > 60.0:
        return "overhead"
    side = AZIMUTH_WORDS[math.floor(azimuth_deg / 45.0 + 0.5) % 8]
    height = "low " if elevation_deg < 0.0 else "high " if elevation_deg >= 30.0 else ""
    return height + side


def with_view(prompt: str, words: str) -> str:
    """`"a red mug", "front left"` to `"a red mug, front left view"`; no words, no change."""
    return f"{prompt}, {words} view" if words else prompt


class Prompts:
    """One run's prompts as conditions of a prior; every distinct text is embedded once.

    Args:
        prior: embeds the texts and says whether it takes cameras.
        prompt: what to make. Refuse unknown words with `prior.check_prompt` before.
        negative: what to avoid, or empty for none.
    """

    def __init__(self, prior: Prior, prompt: str, negative: str = "") -> None:
        self.prompt = prompt
        self.negative = negative
        self._prior = prior
        self._rows: dict[str, Float[Tensor, "L D"]] = {}

    def _tokens(self, texts: list[str]) -> Float[Tensor, "B L D"]:
        new = [text for text in dict.fromkeys(texts) if text not in self._rows]
        if new:
            self._rows.update(zip(new, self._prior.embed(new), strict=True))
        return torch.stack([self._rows[text] for text in texts])

    def conditions(
        self, cameras: CameraBatch, conditioning: str, words: bool
    ) -> tuple[Condition, Condition, Condition | None]:
        """The prompt, the empty prompt and the negative prompt (None without one) for each camera.

        Args:
            cameras: B views; in "multiview" conditioning they are B views of one object.
            conditioning: "text", "camera" or "multiview" (see `systems.base.Stage`).
            words: append view words to the prompt. The empty and the negative prompt never carry them.

        Raises:
            ConfigError: cameras are asked for and the prior takes none.
        """
        if conditioning != "text" and not self._prior.accepts_cameras:
            raise ConfigError(
                f"conditioning is '{conditioning}', but this prior takes no cameras; choose conditioning=text"
            )
        count = len(cameras)
        views = count if conditioning == "multiview" else 1
        given = None if conditioning == "text" else cameras
        names = [
            view_words(azimuth, elevation)
            for azimuth, elevation in zip(
                cameras.azimuth_deg.tolist(), cameras.elevation_deg.tolist(), strict=True
            )
        ]
        texts = [with_view(self.prompt, name if words else "") for name in names]
        condition = Condition(self._tokens(texts), given, views)
        empty = Condition(self._tokens([""] * count), given, views)
        if not self.negative:
            return condition, empty, None
        return condition, empty, Condition(self._tokens([self.negative] * count), given, views)

    def plain(self, cameras: CameraBatch, conditioning: str) -> Condition:
        """The prompt without view words, with the cameras: what a companion is told whatever the prior is."""
        views = len(cameras) if conditioning == "multiview" else 1
        return Condition(self._tokens([self.prompt] * len(cameras)), cameras, views)
