"""The words a prompt may use: suggestions while it is typed, and a plain note when one is unknown."""

import difflib
import functools
import re
from dataclasses import dataclass, field

from dream3d.errors import PromptError
from dream3d.world.catalog import CATEGORIES
from dream3d.world.colors import COLORS
from dream3d.world.grammar import parse
from dream3d.world.words import KNOWN_WORDS, PHRASES

RELATIONS = ("on", "next to")
EXAMPLES = (
    *("a red mug", "a green snowman", "a blue car", "a yellow duck", "a purple castle"),
    *("an orange cat", "a white lighthouse", "a red cube on a blue cylinder"),
)


@dataclass(frozen=True)
class PromptNote:
    """What to tell about a prompt.

    Attributes:
        known: the prior can be asked for it.
        message: why not, or empty.
        unknown: words it does not know, each with the nearest it does.
    """

    known: bool
    message: str = ""
    unknown: dict[str, list[str]] = field(default_factory=dict)


def vocabulary() -> dict[str, list[str]]:
    """What to suggest: colours, things, relations and whole examples."""
    return {
        "colors": list(COLORS),
        "things": sorted(CATEGORIES),
        "relations": list(RELATIONS),
        "examples": list(EXAMPLES),
    }


@functools.cache
def _all_words() -> frozenset[str]:
    return frozenset(word for phrase in PHRASES for word in phrase)


def check_prompt(text: str, prior: str = "embedded") -> PromptNote:
    """Whether the prior can be asked for `text`; priors other than the embedded one take any words.

    Args:
        text: what the user has typed.
        prior: name of the chosen prior.
    """
    if prior != "embedded" or not text.strip():
        return PromptNote(True)
    try:
        parse(text)
    except PromptError as error:
        # A word cut off at the end of what is typed so far is unknown as well: the page waits with telling.
        words = dict.fromkeys(re.findall(r"[^\W\d_]+", text.lower()))
        unknown = {word: nearest(word) for word in words if word not in _all_words()}
        return PromptNote(False, str(error), unknown)
    return PromptNote(True)


def nearest(word: str, count: int = 3) -> list[str]:
    """The known words that look most like `word`, the best first."""
    return difflib.get_close_matches(word, KNOWN_WORDS, n=count, cutoff=0.5)
