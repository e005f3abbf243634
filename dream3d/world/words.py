"""The words and phrases a prompt may use, and what each means.

Kinds: "color", "category", "relation", "view" (a bare "high" or "left"), "view phrase" (says by itself that a view is
meant), "view noun" (announces one) and "filler" (articles and polite words, which carry no meaning).
"""

from typing import Literal

from dream3d.world.catalog import CATEGORIES
from dream3d.world.colors import COLORS

Relation = Literal["on", "next to"]

SIDE = "side"
"""Left or right, where a prompt does not say which."""

_COLOR_SYNONYMS = {"grey": "gray", "violet": "purple", "turquoise": "cyan", "aqua": "cyan"}
_FILLERS = (
    "a an the one single of please kindly thank thanks you hello hi i me we want would like need to see can could "
    "show give make create generate draw render build picture photo photograph image drawing rendering model 3d "
    "object asset this that is it colored coloured color colour"
)
# A relation, and whether the object named second comes first.
RELATIONS: dict[str, tuple[Relation, bool]] = {
    "on": ("on", False),
    "on top of": ("on", False),
    "atop": ("on", False),
    "sitting on": ("on", False),
    "standing on": ("on", False),
    "resting on": ("on", False),
    "lying on": ("on", False),
    "under": ("on", True),
    "underneath": ("on", True),
    "beneath": ("on", True),
    "below": ("on", True),
    "next to": ("next to", False),
    "beside": ("next to", False),
    "near": ("next to", False),
    "by": ("next to", False),
    "and": ("next to", False),
    "left of": ("next to", False),
    "to the left of": ("next to", False),
    "right of": ("next to", True),
    "to the right of": ("next to", True),
}
_VIEW_ATOMS = {
    "front": "front",
    "frontal": "front",
    "back": "back",
    "rear": "back",
    "left": "left",
    "right": "right",
    "low": "low",
    "high": "high",
    "overhead": "overhead",
}
# These say by themselves that a view is meant; a bare "high" or "left" does not ("a high table").
_VIEW_PHRASES = {
    "side": SIDE,
    "profile": SIDE,
    "from behind": "back",
    "from above": "overhead",
    "from overhead": "overhead",
    "from below": "low",
    "from underneath": "low",
    "top view": "overhead",
    "top down": "overhead",
    "from top": "overhead",
    "from the top": "overhead",
    "birds eye": "overhead",
}
_VIEW_NOUNS = "view viewed views seen from shown angle looking"


def _plurals(phrase: str) -> list[str]:
    if phrase.endswith("y") and phrase[-2] not in "aeiou":
        return [phrase[:-1] + "ies"]
    if phrase.endswith(("s", "sh", "ch", "x", "o")):
        return [phrase + "es", phrase + "s"]
    if phrase.endswith("man"):
        return [phrase[:-3] + "men"]
    return [phrase + "s"]


def _phrases() -> dict[tuple[str, ...], tuple[str, str]]:
    """Every known phrase as a tuple of words, with its kind and meaning; earlier kinds win."""
    table: dict[tuple[str, ...], tuple[str, str]] = {}

    def add(phrase: str, kind: str, meaning: str) -> None:
        table.setdefault(tuple(phrase.split()), (kind, meaning))

    for color in COLORS:
        add(color, "color", color)
    for phrase, color in _COLOR_SYNONYMS.items():
        add(phrase, "color", color)
    for entry in CATEGORIES.values():
        for phrase in (entry.name, *entry.synonyms):
            add(phrase, "category", entry.name)
            for plural in _plurals(phrase):
                add(plural, "category", entry.name)
    for phrase in RELATIONS:
        add(phrase, "relation", phrase)
    for phrase, meaning in _VIEW_ATOMS.items():
        add(phrase, "view", meaning)
    for phrase, meaning in _VIEW_PHRASES.items():
        add(phrase, "view phrase", meaning)
    for phrase in _VIEW_NOUNS.split():
        add(phrase, "view noun", phrase)
    for phrase in _FILLERS.split():
        add(phrase, "filler", phrase)
    return table


PHRASES: dict[tuple[str, ...], tuple[str, str]] = _phrases()
LONGEST = max(len(words) for words in PHRASES)
KNOWN_WORDS: tuple[str, ...] = tuple(
    sorted(
        {word for phrase, (kind, _) in PHRASES.items() if kind != "filler" for word in phrase}
        - {
            word
            for entry in CATEGORIES.values()
            for phrase in (entry.name, *entry.synonyms)
            for plural in _plurals(phrase)
            for word in plural.split()[-1:]
        }
    )
)
"""What an error suggests in place of an unknown word: neither fillers nor plurals."""
