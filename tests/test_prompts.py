import math

import pytest
import torch

from dream3d.cameras import orbit_cameras
from dream3d.errors import ConfigError
from dream3d.priors.gaussian import ClosedFormPrior, prompt_picture
from dream3d.prompts import Prompts, view_words, with_view


@pytest.mark.parametrize(
    ("azimuth", "elevation", "words"),
    [
        (0, 0, "front"),
        (22, 10, "front"),
        (23, 10, "front left"),
        (90, 29, "left"),
        (135, 30, "high back left"),
        (180, 60, "high back"),
        (225, -1, "low back right"),
        (270, 0, "right"),
        (-45, 0, "front right"),
        (359, 0, "front"),
        (725, 0, "front"),
        (123, 61, "overhead"),
        (math.nan, 0, ""),
    ],
)
def test_view_words(azimuth: float, elevation: float, words: str) -> None:
    assert view_words(float(azimuth), float(elevation)) == words


def test_the_suffix() -> None:
    assert with_view("a red mug", "high back") == "a red mug, high back view"
    assert with_view("a red mug", "") == "a red mug"


class CountingPrior(ClosedFormPrior):
    def __init__(self, accepts_cameras: bool = True) -> None:
        super().__init__(4)
        self.accepts_cameras = accepts_cameras
        self.embedded: list[str] = []

    def embed(self, prompts: list[str]) -> torch.Tensor:
        self.embedded += prompts
        return torch.tensor([[[float(len(p))]] for p in prompts])


def test_every_distinct_text_is_embedded_once() -> None:
    prior = CountingPrior()
    prompts = Prompts(prior, "a mug", "dull")
    cameras = orbit_cameras([0.0, 90.0, 1.0, 180.0])
    for _ in range(3):
        condition, empty, negative = prompts.conditions(cameras, "camera", words=True)
    assert sorted(prior.embedded) == [
        "",
        "a mug, back view",
        "a mug, front view",
        "a mug, left view",
        "dull",
    ]
    assert condition.tokens.flatten().tolist() == [17.0, 16.0, 17.0, 16.0]
    assert empty.tokens.flatten().tolist() == [0.0] * 4
    assert negative is not None and negative.tokens.flatten().tolist() == [4.0] * 4


def test_conditioning_decides_what_the_prior_is_told() -> None:
    prior, cameras = CountingPrior(), orbit_cameras([0.0, 90.0])
    prompts = Prompts(prior, "a mug")
    text, empty, negative = prompts.conditions(cameras, "text", words=False)
    assert text.cameras is None and empty.cameras is None and negative is None
    assert text.tokens.flatten().tolist() == [5.0, 5.0]
    camera, empty, _ = prompts.conditions(cameras, "camera", words=True)
    assert camera.cameras is cameras and empty.cameras is cameras and camera.views_per_object == 1
    joint, empty, _ = prompts.conditions(cameras, "multiview", words=True)
    assert joint.views_per_object == empty.views_per_object == 2


def test_cameras_need_a_prior_that_takes_them() -> None:
    prompts = Prompts(CountingPrior(accepts_cameras=False), "a mug")
    prompts.conditions(orbit_cameras([0.0]), "text", words=True)
    with pytest.raises(ConfigError, match="conditioning=text"):
        prompts.conditions(orbit_cameras([0.0]), "camera", words=True)


ODD = [
    "",
    "x" * 10_000,
    "\x00\x1b[31m",
    "茶碗 🫖",
    "${oc.env:HOME}",
    "a\nb",
    "$(touch x)",
    "\ud800",
]


def test_every_text_has_its_own_picture_and_views_of_it_share_one() -> None:
    prior = ClosedFormPrior(16, components=2)
    pictures = [prior.means(prompt) for prompt in [*ODD, "a red mug", "a blue mug"]]
    for i, first in enumerate(pictures):
        assert torch.isfinite(first).all() and first.abs().max() <= 1.0
        assert all(not torch.equal(first, other) for other in pictures[i + 1 :])
    assert torch.equal(prior.means("a red mug, high back view"), prior.means("a red mug"))
    assert prompt_picture("", 0, 8).abs().max() == 0.0
    assert not torch.equal(*prior.means("a red mug"))


def test_latents_of_the_closed_form_priors_are_the_images() -> None:
    prior = ClosedFormPrior(8)
    images = torch.rand(2, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(prior.decode(prior.encode(images)), images)
    larger = images.repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(prior.encode(larger), prior.encode(images))
    assert prior.encode(torch.rand(1, 21, 13, 3)).shape == (1, 3, 8, 8)


class SpellingPrior(ClosedFormPrior):
    """Embeds every text as its letters, so that no two are alike."""

    def embed(self, prompts: list[str]) -> torch.Tensor:
        return torch.tensor([[[float(x) for x in p.ljust(40).encode()]] for p in prompts])


@pytest.mark.parametrize("azimuth", [90.0, -90.0])
def test_perp_neg_keeps_a_view_from_the_front_and_never_from_its_own_side(azimuth: float) -> None:
    prior = SpellingPrior(4)
    own, front = prior.embed(
        [f"a mug, {side} view" for side in ("left" if azimuth > 0.0 else "right", "front")]
    )
    away, weights = Prompts(prior, "a mug").sides(orbit_cameras([azimuth]), "text")
    strength = {
        name: sum(
            w.item() for c, w in zip(away, weights[:, 0], strict=True) if c.tokens[0].equal(tokens)
        )
        for name, tokens in (("own", own), ("front", front))
    }
    assert strength["front"] < -1.0 and abs(strength["own"]) < 0.01
    assert len(away) == 2 and not own.equal(front)


def test_a_companion_is_told_the_prompt_without_view_words() -> None:
    prior = SpellingPrior(4)
    plain = Prompts(prior, "a mug").plain(orbit_cameras([0.0, 120.0]), "text")
    assert plain.tokens.equal(prior.embed(["a mug", "a mug"]))
