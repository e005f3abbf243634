"""The language of the procedural world: prompts to captions and back.

A caption is one object or a pair, each with a colour or none, and the view. `caption_text` writes it in the one form
that training uses; `parse` reads that form and a good deal more (any case, punctuation, articles, polite words,
synonyms, plurals). A word it does not know is an error that names it: nothing that carries meaning is dropped.
"""

import difflib
import functools
import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from dream3d.errors import PromptError
from dream3d.world.catalog import CATEGORIES, PRIMITIVES
from dream3d.world.colors import COLORS
from dream3d.world.words import KNOWN_WORDS, LONGEST, PHRASES, RELATIONS, SIDE, Relation

Thing = tuple[str | None, str]
"""A colour, or None where the prompt leaves it open, and a category."""
Split = Literal["seen", "held_out", "all"]

AZIMUTH_WORDS: tuple[str, ...] = (
    "front",
    "front left",
    "left",
    "back left",
    "back",
    "back right",
    "right",
    "front right",
)
"""In steps of 45 degrees from azimuth 0 toward +X. A camera at +X sees the object's own left."""
ELEVATION_WORDS: tuple[str, ...] = ("low", "high", "overhead")

STACKABLE: tuple[str, ...] = tuple(n for n, entry in CATEGORIES.items() if entry.stackable)
SUPPORTS: tuple[str, ...] = tuple(n for n, entry in CATEGORIES.items() if entry.supports)

_HELD_OUT_PAIRS_ONE_IN = 10
_SHOWN_WORDS = 6  # unknown words an error lists
_SHOWN_LETTERS = 32  # of each


@dataclass(frozen=True)
class Caption:
    """What a prompt asks for.

    Attributes:
        objects: one, or two when there is a relation; "A on B" and "A next to B" in this order.
        relation: of the two objects.
        view: canonical view words ("high back left"), empty where the view is open.
    """

    objects: tuple[Thing, ...]
    relation: Relation | None = None
    view: str = ""

    def __post_init__(self) -> None:
        things = tuple((color, name) for color, name in self.objects)
        object.__setattr__(self, "objects", things)

    def seen_from(self, azimuth_deg: float, elevation_deg: float) -> "Caption":
        """The same caption with the words of a view."""
        return replace(self, view=view_words(azimuth_deg, elevation_deg))


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def view_words(azimuth_deg: float, elevation_deg: float) -> str:
    """The words of a view: the nearest of eight azimuths, after "low" (below 0) or "high" (30 to 60 degrees).

    Above 60 degrees it is "overhead" whatever the azimuth.
    """
    if elevation_deg > 60.0:
        return "overhead"
    azimuth = AZIMUTH_WORDS[int(np.floor(azimuth_deg / 45.0 + 0.5)) % len(AZIMUTH_WORDS)]
    if elevation_deg >= 30.0:
        return f"high {azimuth}"
    return f"low {azimuth}" if elevation_deg < 0.0 else azimuth


def caption_text(caption: Caption) -> str:
    """The canonical sentence; `parse` reads it back to the same caption."""
    things = [_thing_text(color, name) for color, name in caption.objects]
    text = f" {caption.relation} ".join(things)
    return f"{text}, {caption.view} view" if caption.view else text


def _thing_text(color: str | None, name: str) -> str:
    words = name if color is None else f"{color} {name}"
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


VOCABULARY: tuple[str, ...] = tuple(
    sorted(
        {"a", "an", "on", "next", "to", "view", SIDE, *COLORS}
        | {word for name in CATEGORIES for word in name.split()}
        | {word for words in (*AZIMUTH_WORDS, *ELEVATION_WORDS) for word in words.split()}
    )
)
"""Every word `caption_text` can write; its only punctuation is the comma before the view."""


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def parse(prompt: str) -> Caption:
    """The caption a prompt asks for.

    Raises:
        PromptError: no object, a word outside the world's language, or a combination the world does not make. The
            message names the words, the nearest known ones and the way to an open vocabulary.
    """
    tokens = [token for token in _tokens(_words(prompt)) if token[0] != "filler"]
    view = _view(tokens)
    return replace(_caption(tokens), view=view)


def _words(prompt: str) -> list[str]:
    """Lower-case words; punctuation and blanks separate, any other sign is a word of its own."""
    letters: list[str] = []
    for sign in unicodedata.normalize("NFKC", prompt).casefold():
        kind = unicodedata.category(sign)[0]
        if kind in "LNM":
            letters.append(sign)
        elif sign in "'’":  # noqa: RUF001  (bird's, bird’s)
            continue
        elif kind in "PZ" or sign in "\t\r\n":
            letters.append(" ")
        else:
            letters.append(f" {sign} ")
    # Split at plain blanks only: str.split() would also swallow control characters.
    return [word for word in "".join(letters).split(" ") if word]


def _tokens(words: Sequence[str]) -> list[tuple[str, str]]:
    """Kind and meaning of each phrase, the longest first.

    Raises:
        PromptError: unknown words.
    """
    tokens: list[tuple[str, str]] = []
    unknown: list[str] = []
    place = 0
    while place < len(words):
        for length in range(min(LONGEST, len(words) - place), 0, -1):
            found = PHRASES.get(tuple(words[place : place + length]))
            if found is not None:
                tokens.append(found)
                place += length
                break
        else:
            unknown.append(words[place])
            place += 1
    if unknown:
        raise PromptError(_unknown_message(list(dict.fromkeys(unknown))))
    return tokens


def _unknown_message(words: Sequence[str]) -> str:
    named = []
    for word in words[:_SHOWN_WORDS]:
        close = difflib.get_close_matches(word[:_SHOWN_LETTERS], KNOWN_WORDS, n=2, cutoff=0.6)
        nearest = f" (nearest known: {', '.join(close)})" if close else ""
        named.append(f"'{_printable(word)}'{nearest}")
    more = len(words) - len(named)
    ending = f" and {more} more" if more > 0 else ""
    return f"the embedded prior does not know {', '.join(named)}{ending}. {_WHAT_IT_KNOWS}"


def _printable(word: str) -> str:
    """The start of a word, with signs that could disturb a terminal written as escapes."""
    short = word if len(word) <= _SHOWN_LETTERS else word[: _SHOWN_LETTERS - 3] + "..."
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode()
        for sign in short
    )


_WHAT_IT_KNOWS = (
    f"It knows {', '.join(CATEGORIES)}; {', '.join(COLORS)}; pairs with 'on' and 'next to'; and views such as "
    "'high back left view'. A prior with an open vocabulary takes any prompt: choose Stable Diffusion by a GPU "
    "preset or 'prior=...' ('dream3d list priors')."
)


def _caption(tokens: Sequence[tuple[str, str]]) -> Caption:
    """Colours, objects and a relation in order; every refusal says what was expected."""
    objects: list[Thing] = []
    relation: str | None = None
    color: str | None = None
    expects_object = True
    for kind, meaning in tokens:
        if kind == "category":
            if not expects_object:
                other = objects[-1][1]
                raise PromptError(f"'{other}' and '{meaning}' need 'on' or 'next to' between them")
            objects.append((color, meaning))
            color, expects_object = None, False
        elif color is not None:
            if kind == "color":
                raise PromptError(
                    f"two colours, '{color}' and '{meaning}', for one object; name one"
                )
            raise PromptError(_color_place(color))
        elif kind == "color":
            if not expects_object:
                raise PromptError(_color_place(meaning))
            color = meaning
        elif kind == "relation":
            if expects_object:
                raise PromptError(
                    f"'{meaning}' must stand between two objects, as in 'a cat on a table'"
                )
            if relation is not None:
                raise PromptError("at most two objects, as in 'a red cube on a blue sphere'")
            relation, expects_object = meaning, True
    if not objects:
        what = f"a colour ('{color}') but no object" if color else "no object"
        raise PromptError(
            f"the prompt names {what}; try '{_thing_text(color or 'red', 'mug')}'. {_WHAT_IT_KNOWS}"
        )
    if relation is None:
        return Caption(tuple(objects))
    if expects_object:
        raise PromptError(f"'{relation}' needs a second object, as in 'a cat {relation} a table'")
    canonical, reverse = RELATIONS[relation]
    return _pair(objects[::-1] if reverse else objects, canonical)


def _color_place(color: str) -> str:
    return f"the colour '{color}' must stand right before an object, as in '{_thing_text(color, 'mug')}'"


def _pair(objects: Sequence[Thing], relation: Relation) -> Caption:
    for _, name in objects:
        if name not in STACKABLE:
            raise PromptError(
                f"the embedded prior knows '{name}' alone, not in a pair; pairs are made of "
                f"{', '.join(STACKABLE)}"
            )
    lower = objects[1][1]
    if relation == "on" and lower not in SUPPORTS:
        raise PromptError(
            f"nothing stands on '{lower}' in the embedded prior's world; choose one of "
            f"{', '.join(SUPPORTS)}"
        )
    return Caption(tuple(objects), relation)


def _view(tokens: Sequence[tuple[str, str]]) -> str:
    """Canonical view words from all view tokens; bare ones must stand beside a word that announces a view."""
    atoms: list[str] = []
    run: list[tuple[str, str]] = []
    for token in [*tokens, ("end", "")]:
        if token[0].startswith("view"):
            run.append(token)
            continue
        bare = [meaning for kind, meaning in run if kind == "view"]
        if bare and len(bare) == len(run):
            raise PromptError(
                f"'{bare[0]}' is understood of the view only; write it at the end, as in "
                f"'a mug, {bare[0]} view'"
            )
        atoms += [meaning for kind, meaning in run if kind != "view noun"]
        run = []
    return _view_from_atoms(atoms)


def _view_from_atoms(atoms: Sequence[str]) -> str:
    found = set(atoms)
    for group in (("front", "back"), ("left", "right"), ELEVATION_WORDS):
        both = [word for word in group if word in found]
        if len(both) > 1:
            raise PromptError(f"the view is both '{both[0]}' and '{both[1]}'; name one")
    words = [word for word in (*ELEVATION_WORDS, "front", "back", "left", "right") if word in found]
    # "the left side" is the left; a side alone is either.
    if SIDE in found and not found & {"front", "back", "left", "right"}:
        words.append(SIDE)
    return " ".join(words)


# ---------------------------------------------------------------------------------------------------------------------
# Held-out combinations and random captions


def _drawn(text: str) -> int:
    """A large number that depends on nothing but the text."""
    # Of a few salts the first that spreads over all colours and leaves every category a typical one.
    return int.from_bytes(hashlib.sha256(f"kept back: {text}".encode()).digest()[:8], "big")


@functools.cache
def held_out_colors(category: str) -> tuple[str, ...]:
    """The one or two colours, chosen by hash, that the prior never trains on for this category."""
    colors, number = list(COLORS), _drawn(category)
    first, number = number % len(colors), number // len(colors)
    second, number = number % len(colors), number // len(colors)
    chosen = {first, second} if number % 5 == 0 else {first}
    return tuple(colors[index] for index in sorted(chosen))


def is_held_out(color: str | None, category: str) -> bool:
    """Whether the prior never trains on this colour of this category: about one combination in ten, by hash."""
    return color is not None and color in held_out_colors(category)


def is_caption_held_out(caption: Caption) -> bool:
    """Whether the prior never trains on this caption, whatever its view.

    A pair is held out when one of its members is, and one pair in ten besides (in either order when side by side).
    """
    if any(is_held_out(color, name) for color, name in caption.objects):
        return True
    if caption.relation is None:
        return False
    things = [f"{color or 'any'} {name}" for color, name in caption.objects]
    if caption.relation == "next to":
        things.sort()
    return _drawn(f" {caption.relation} ".join(things)) % _HELD_OUT_PAIRS_ONE_IN == 0


def random_caption(
    rng: np.random.Generator,
    split: Split = "seen",
    pair_share: float = 0.2,
    colorless_share: float = 0.1,
    primitive_share: float = 0.2,
    weights: Mapping[str, float] | None = None,
) -> Caption:
    """A caption without view words.

    Args:
        rng: the only source of chance.
        split: "seen" never draws a held-out combination, "held_out" draws nothing else, "all" draws evenly.
        pair_share: of pairs; half of them "on", half "next to".
        colorless_share: of objects named without a colour (none in the "held_out" split).
        primitive_share: of single objects that are primitives.
        weights: relative frequency of single objects' categories, within primitives and within composites; 1 where not
            given. Members of pairs are drawn evenly.
    """
    while True:
        caption = _draw(rng, pair_share, colorless_share, primitive_share, weights or {})
        held_out = is_caption_held_out(caption)
        if split == "all" or held_out == (split == "held_out"):
            open_color = any(color is None for color, _ in caption.objects)
            if split != "held_out" or not open_color:
                return caption


def _draw(
    rng: np.random.Generator,
    pair_share: float,
    colorless_share: float,
    primitive_share: float,
    weights: Mapping[str, float],
) -> Caption:
    def thing(names: Sequence[str], weights: Mapping[str, float]) -> Thing:
        chances = np.array([weights.get(name, 1.0) for name in names])
        name = names[int(rng.choice(len(names), p=chances / chances.sum()))]
        colors = list(COLORS)
        color = colors[int(rng.integers(len(colors)))]
        return (None if rng.random() < colorless_share else color), name

    if rng.random() >= pair_share:
        primitive = rng.random() < primitive_share
        names = [n for n in CATEGORIES if (n in PRIMITIVES) == primitive]
        return Caption((thing(names, weights),))
    if rng.random() < 0.5:
        return Caption((thing(STACKABLE, {}), thing(SUPPORTS, {})), "on")
    return Caption((thing(STACKABLE, {}), thing(STACKABLE, {})), "next to")
