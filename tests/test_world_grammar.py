"""The grammar: what it writes it reads back, and nothing a person types makes it fail or guess."""

import time

import numpy as np
import pytest

from dream3d import prompts
from dream3d.errors import PromptError
from dream3d.world.catalog import CATEGORIES
from dream3d.world.colors import COLORS
from dream3d.world.grammar import (
    AZIMUTH_WORDS,
    STACKABLE,
    SUPPORTS,
    VOCABULARY,
    Caption,
    caption_text,
    held_out_colors,
    is_caption_held_out,
    is_held_out,
    parse,
    random_caption,
    view_words,
)


def captions(count: int, seed: int = 0) -> list[Caption]:
    """Random captions of all kinds, two thirds of them with a view."""
    rng = np.random.default_rng(seed)
    drawn = [random_caption(rng, "all", pair_share=0.4, colorless_share=0.3) for _ in range(count)]
    return [
        c if rng.random() < 0.33 else c.seen_from(rng.uniform(-180, 360), rng.uniform(-10, 90))
        for c in drawn
    ]


def test_what_is_written_is_read_back() -> None:
    for caption in captions(2000):
        assert parse(caption_text(caption)) == caption


def test_every_single_combination_is_read_back() -> None:
    for name in CATEGORIES:
        for color in (None, *COLORS):
            assert parse(caption_text(Caption(((color, name),)))) == Caption(((color, name),))


def test_vocabulary_is_exactly_what_is_written() -> None:
    written = {
        word for c in captions(20000, 1) for word in caption_text(c).replace(",", "").split()
    }
    assert written | {"side"} == set(VOCABULARY)


def test_noise_around_the_words_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    for caption in captions(300, 2):
        text = caption_text(caption)
        shouted = "".join(c.upper() if rng.random() < 0.5 else c for c in text)
        spaced = shouted.replace(" ", "  ").replace(",", " - ")
        assert parse(f'  "Please, show me {spaced}!!"\n') == caption


@pytest.mark.parametrize(
    ("prompt", "canonical"),
    [
        ("mug", "a mug"),
        ("the one grey aeroplane, thanks", "a gray airplane"),
        ("A picture of an orange Burger.", "an orange hamburger"),
        ("a 3D model of kitty", "a cat"),
        ("a robot's head", "a robot head"),
        ("a robot", "a robot"),
        ("a violet donut", "a purple torus"),
        ("box", "a cube"),
        ("red balls", "a red sphere"),
        ("puppies", "a dog"),
        ("people", "a person"),
        ("ice cream cone", "an ice cream"),
        ("a cone", "a cone"),
        ("a blue cat on top of the green table", "a blue cat on a green table"),
        ("a box under a ball", "a sphere on a cube"),
        ("a mug to the right of a cone", "a cone next to a mug"),
        ("a cube and a sphere", "a cube next to a sphere"),
        ("side view of a red car", "a red car, side view"),
        ("a red car from behind", "a red car, back view"),
        ("a red car from above", "a red car, overhead view"),
        ("a red car, top view", "a red car, overhead view"),
        ("the left side of a house", "a house, left view"),
        ("a house seen from the front left", "a house, front left view"),
        ("a house, low left front view", "a house, low front left view"),
        ("\uff52\uff45\uff44 \uff4d\uff55\uff47", "a red mug"),
        ("a red\nmug", "a red mug"),
    ],
)
def test_synonyms(prompt: str, canonical: str) -> None:
    assert caption_text(parse(prompt)) == canonical


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("", "no object"),
        ("   \t ", "no object"),
        ("please", "no object"),
        ("red", "red"),
        ("an orange", "orange"),
        ("a velvet mug", "velvet"),
        ("a mug with a lid", "with"),
        ("two mugs", "two"),
        ("a mugg", "mug"),
        ("a high table", "high"),
        ("left", "left"),
        ("a red blue mug", "blue"),
        ("a mug red", "red"),
        ("a mug cube", "between"),
        ("a mug on", "second object"),
        ("on a mug", "between"),
        ("a mug on on a cube", "between"),
        ("a cube on a cube on a cube", "two objects"),
        ("a car on a cube", "car"),
        ("a cube on a cat", "cat"),
        ("front back view of a mug", "both"),
        ("a mug, low high view", "both"),
        ("a red, front view mug", "red"),
        ("${oc.env:HOME}", "oc"),
        ('a "quoted" mug', "quoted"),
        ("../../x", "x"),
        ("a mug #1", "1"),
        ("statue: marble", "marble"),
        ("{a: 1}", "1"),
        ("--help me", "help"),
        ("$(touch x)", "touch"),
        ("a mug \x1b[31m", "\\x1b"),
        ("a \x00mug", "\\x00"),
        ("a mug \u202e", "\\u202e"),
        ("\ud800", "\\ud800"),
        ("a mug 🚗", "🚗"),
        ("une tasse rouge", "tasse"),
        ("赤いマグ", "赤いマグ"),
    ],
)
def test_refusals_name_the_trouble(prompt: str, named: str) -> None:
    with pytest.raises(PromptError, match=r".") as caught:
        parse(prompt)
    message = str(caught.value)
    assert named in message
    assert message.isprintable()
    assert len(message) < 1500


def test_unknown_words_get_neighbours_and_a_way_out() -> None:
    with pytest.raises(PromptError) as caught:
        parse("a rde mushrom")
    assert all(
        word in str(caught.value) for word in ("'rde'", "red", "'mushrom'", "mushroom", "prior=")
    )


def test_no_string_breaks_it_and_long_ones_are_quick() -> None:
    rng = np.random.default_rng(3)
    words = [*VOCABULARY, ",", "view", "from", "a", "x", "\x00", "é", "#", "'s", "side"]
    start = time.process_time()
    for _ in range(3000):
        if rng.random() < 0.5:
            prompt = " ".join(rng.choice(words, size=rng.integers(0, 9)))
        else:
            prompt = "".join(chr(c) for c in rng.integers(0, 0x3000, size=rng.integers(0, 30)))
        try:
            caption = parse(prompt)
        except PromptError:
            continue
        assert parse(caption_text(caption)) == caption
    for prompt in ("x" * 10_000, "a mug " * 1667, "zq " * 3333, "\u0344" * 10_000, "ﷺ" * 10_000):
        with pytest.raises(PromptError):
            parse(prompt)
    assert time.process_time() - start < 20.0


def test_view_words_are_the_nearest_bin() -> None:
    for index, words in enumerate(AZIMUTH_WORDS):
        for offset in (-22, 0, 22):
            for turn in (-360, 0, 360):
                assert view_words(45 * index + offset + turn, 10) == words
    assert view_words(0, -1) == "low front"
    assert view_words(90, 30) == "high left"
    assert view_words(90, 60) == "high left"
    assert view_words(123, 61) == "overhead"
    assert view_words(90, 0) == "left", "a camera at +X sees the object's own left side"


def test_view_words_agree_with_those_prompts_carry() -> None:
    for azimuth in map(float, range(-180, 361, 7)):
        for elevation in map(float, range(-10, 91, 5)):
            assert view_words(azimuth, elevation) == prompts.view_words(azimuth, elevation)
    caption = Caption((("red", "mug"),))
    suffixed = prompts.with_view(caption_text(caption), view_words(45, 40))
    assert suffixed == caption_text(caption.seen_from(45, 40))


def test_one_combination_in_ten_is_held_out() -> None:
    share = np.mean([is_held_out(color, name) for name in CATEGORIES for color in COLORS])
    assert 0.08 < share < 0.12
    per_color = [sum(is_held_out(color, name) for name in CATEGORIES) for color in COLORS]
    assert min(per_color) >= 1
    assert max(per_color) <= 10
    for name, entry in CATEGORIES.items():
        assert 1 <= len(held_out_colors(name)) <= 2
        assert any(not is_held_out(color, name) for color in entry.typical_colors)
    assert not is_held_out(None, "mug")


def test_splits_never_mix() -> None:
    rng = np.random.default_rng(4)
    for _ in range(400):
        assert not is_caption_held_out(random_caption(rng, "seen", pair_share=0.5))
        held = random_caption(rng, "held_out", pair_share=0.5)
        assert is_caption_held_out(held)
        assert all(color is not None for color, _ in held.objects)


def test_pairs_are_held_out_by_members_and_by_hash() -> None:
    held = [
        (c, is_caption_held_out(c), any(is_held_out(*thing) for thing in c.objects))
        for c in captions(6000, 5)
        if c.relation is not None
    ]
    assert all(whole for _, whole, member in held if member)
    assert 0.06 < np.mean([whole for _, whole, member in held if not member]) < 0.14
    for caption, whole, _ in held:
        assert is_caption_held_out(caption.seen_from(0, 0)) == whole, "the view does not matter"
        if caption.relation == "next to":
            assert is_caption_held_out(Caption(caption.objects[::-1], "next to")) == whole


def test_random_captions_follow_their_shares() -> None:
    rng = np.random.default_rng(6)
    drawn = [random_caption(rng, "all", 0.3, 0.2, 0.25, {"cat": 50.0}) for _ in range(3000)]
    assert abs(np.mean([c.relation is not None for c in drawn]) - 0.3) < 0.04
    assert abs(np.mean([c is None for d in drawn for c, _ in d.objects]) - 0.2) < 0.04
    singles = [c.objects[0][1] for c in drawn if c.relation is None]
    primitive = [CATEGORIES[name].theme == "primitive" for name in singles]
    assert abs(np.mean(primitive) - 0.25) < 0.04
    assert singles.count("cat") > 0.3 * len(singles)
    for caption in drawn:
        if caption.relation is not None:
            assert all(name in STACKABLE for _, name in caption.objects)
        if caption.relation == "on":
            assert caption.objects[1][1] in SUPPORTS
