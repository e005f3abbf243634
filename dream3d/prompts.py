"""From a prompt to what the prior is told about each view: view words, embeddings, conditions.

A prompt is data. It is embedded as it stands; nothing here parses it, formats it or turns it into a path.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.errors import ConfigError
from dream3d.priors.base import Condition, Prior

ViewPrompts = Literal["bins", "interpolated", "perp-neg"]

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
    return height_words(elevation_deg) + side


ALL_WORDS = (
    *(height + side for height in ("low ", "", "high ") for side in AZIMUTH_WORDS),
    "overhead",
)
"""Everything `view_words` can say."""


def height_words(elevation_deg: float) -> str:
    """What a view's name begins with: "low " below the horizon, "high " from 30 degrees, else nothing."""
    return "low " if elevation_deg < 0.0 else "high " if elevation_deg >= 30.0 else ""


@dataclass(frozen=True)
class Between:
    """A view as a mixture of two of the sides front, left or right, back (LucidDreamer's and Perp-Neg's scheme).

    Attributes:
        toward, other: names of the sides; `other` is the one farther from the front. None: the view has no sides
            (overhead, or a pose without an orbit), and `toward` is all there is to say, possibly nothing.
        share: of `toward`, in [0, 1].
        away: weights, at most 0, of the sides Perp-Neg keeps this view from: (front, its own left or right).
    """

    toward: str
    other: str | None
    share: float
    away: tuple[float, float] = (0.0, 0.0)

    @property
    def flank(self) -> str:
        """Its left or right."""
        return self.toward if self.toward in ("left", "right") else self.other or "left"


def _shifted_decay(r: float, a: float, b: float, c: float) -> float:
    return a * math.exp(-b * r) + c


def between_sides(azimuth_deg: float, elevation_deg: float) -> Between:
    """How much of which side a view shows, and the weights of Perp-Neg (threestudio's decays).

    Args:
        azimuth_deg: any angle; 0 is the front, positive toward the object's left.
        elevation_deg: above 60 is overhead.
    """
    if math.isnan(azimuth_deg) or math.isnan(elevation_deg):
        return Between("", None, 1.0)
    if elevation_deg > 60.0:
        return Between("overhead", None, 1.0)
    azimuth = (azimuth_deg + 180.0) % 360.0 - 180.0
    flank, turn = ("left" if azimuth >= 0.0 else "right"), abs(azimuth) / 90.0
    if turn < 1.0:
        r = 1.0 - turn
        front = -_shifted_decay(r, 4.0, 0.5, -2.426)
        side = -_shifted_decay(1.0 - r, 4.0, 0.5, -2.426)
        return Between("front", flank, r, (min(front, 0.0), min(side, 0.0)))
    r = 2.0 - turn
    side, front = -_shifted_decay(r, 1.0, 0.5, -0.606), -_shifted_decay(r, 1.0, 0.5, 0.967)
    return Between(flank, "back", r, (min(front, 0.0), min(side, 0.0)))


def with_view(prompt: str, words: str) -> str:
    """`"a red mug", "front left"` to `"a red mug, front left view"`; no words, no change."""
    return f"{prompt}, {words} view" if words else prompt


class Prompts:
    """One run's prompts as conditions of a prior; every distinct text is embedded once.

    Args:
        prior: embeds the texts and says whether it takes cameras.
        prompt: what to make. Refuse unknown words with `prior.check_prompt` before.
        negative: what to avoid, or empty for none.
        prompt_for: from a side, one of "front", "left", "right", "back" and "overhead", to the prompt for views of it
            (see `dream3d.prompt_debiasing`). None is the prompt from every side.
    """

    def __init__(
        self,
        prior: Prior,
        prompt: str,
        negative: str = "",
        prompt_for: Callable[[str], str] | None = None,
    ) -> None:
        self.prompt = prompt
        self.negative = negative
        self._prior = prior
        self._prompt_for = prompt_for
        self._rows: dict[str, Float[Tensor, "L D"]] = {}

    def _tokens(self, texts: list[str]) -> Float[Tensor, "B L D"]:
        new = [text for text in dict.fromkeys(texts) if text not in self._rows]
        if new and self._prior.embeds_ahead:
            # Embedding loads and frees whole text encoders: ask for every view's words now.
            every = ["", self.negative, self.prompt, *(self._text(words) for words in ALL_WORDS)]
            new = [text for text in dict.fromkeys([*new, *every]) if text not in self._rows]
        if new:
            self._rows.update(zip(new, self._prior.embed(new), strict=True))
        return torch.stack([self._rows[text] for text in texts])

    def _text(self, words: str) -> str:
        """The prompt for a view of these words, debiased for the side they end in ("high front left": left)."""
        side = words.rpartition(" ")[2]
        body = self._prompt_for(side) if self._prompt_for is not None and side else self.prompt
        return with_view(body, words)

    def _between(self, cameras: CameraBatch) -> list[Between]:
        orbit = (cameras.azimuth_deg.tolist(), cameras.elevation_deg.tolist())
        return [
            between_sides(azimuth, elevation) for azimuth, elevation in zip(*orbit, strict=True)
        ]

    def _worded(self, cameras: CameraBatch, style: ViewPrompts) -> Float[Tensor, "B L D"]:
        """Embeddings of the prompt with each view's words."""
        heights = [height_words(elevation) for elevation in cameras.elevation_deg.tolist()]
        if style == "bins":
            orbit = (cameras.azimuth_deg.tolist(), cameras.elevation_deg.tolist())
            return self._tokens(
                [self._text(view_words(*angles)) for angles in zip(*orbit, strict=True)]
            )
        views = list(zip(heights, self._between(cameras), strict=True))
        # Overhead has no height and no other side.
        one = [self._text((height if view.other else "") + view.toward) for height, view in views]
        two = [
            self._text(height + view.other) if view.other else text
            for text, (height, view) in zip(one, views, strict=True)
        ]
        near, far = self._tokens(one), self._tokens(two)
        share = torch.tensor([view.share for _, view in views]).to(near).reshape(-1, 1, 1)
        return far + share * (near - far)

    def conditions(
        self, cameras: CameraBatch, conditioning: str, words: bool, style: ViewPrompts = "bins"
    ) -> tuple[Condition, Condition, Condition | None]:
        """The prompt, the empty prompt and the negative prompt (None without one) for each camera.

        Args:
            cameras: B views, best on the host, where their angles are read; in "multiview" conditioning they are B
                views of one object.
            conditioning: "text", "camera" or "multiview" (see `systems.base.Stage`).
            words: append view words to the prompt. The empty and the negative prompt never carry them.
            style: "bins" names the nearest of eight directions; "interpolated" and "perp-neg" mix the embeddings of
                the two nearest of front, left, right, back linearly in the azimuth.

        Raises:
            ConfigError: cameras are asked for and the prior takes none.
        """
        if conditioning != "text" and not self._prior.accepts_cameras:
            raise ConfigError(
                f"conditioning is '{conditioning}', but this prior takes no cameras; choose conditioning=text"
            )
        count = len(cameras)
        given = self._given(cameras, conditioning)
        tokens = self._worded(cameras, style) if words else self._tokens([self.prompt] * count)
        condition = Condition(tokens, *given)
        empty = Condition(self._tokens([""] * count), *given)
        if not self.negative:
            return condition, empty, None
        away = self._prior.avoided(self._tokens([self.negative] * count))
        return condition, empty, Condition(away, *given)

    def _given(self, cameras: CameraBatch, conditioning: str) -> tuple[CameraBatch | None, int]:
        """What a condition has beside its tokens."""
        views = len(cameras) if conditioning == "multiview" else 1
        return (None if conditioning == "text" else self._moved(cameras)), views

    def _moved(self, cameras: CameraBatch) -> CameraBatch:
        """The cameras where the prior is."""
        here = cameras.c2w.device == self._prior.device
        return cameras if here else cameras.to(self._prior.device)

    def sides(
        self, cameras: CameraBatch, conditioning: str
    ) -> tuple[tuple[Condition, ...], Float[Tensor, "N B"]]:
        """What Perp-Neg keeps each view from: the front, and its own left or right, with weights of at most 0.

        Args:
            cameras: as for `conditions`.
            conditioning: as for `conditions`.
        """
        given, views = self._given(cameras, conditioning), self._between(cameras)
        heights = [height_words(elevation) for elevation in cameras.elevation_deg.tolist()]
        named = [["front"] * len(views), [view.flank for view in views]]
        away = tuple(
            Condition(
                self._tokens([self._text(h + n) for h, n in zip(heights, names, strict=True)]),
                *given,
            )
            for names in named
        )
        return away, torch.tensor([view.away for view in views]).T.contiguous()

    def plain(self, cameras: CameraBatch, conditioning: str) -> Condition:
        """The prompt without view words, with the cameras: what a companion is told whatever the prior is."""
        views = len(cameras) if conditioning == "multiview" else 1
        return Condition(self._tokens([self.prompt] * len(cameras)), self._moved(cameras), views)
