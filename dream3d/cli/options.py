"""What the commands share: a parser that raises instead of exiting, and the shape of an outcome."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import dream3d
from dream3d.errors import Dream3DError


class UsageError(Dream3DError):
    """The command line itself is malformed."""


@dataclass(frozen=True)
class Outcome:
    """What a command says when it is done.

    Attributes:
        data: for --json; one object, JSON types only.
        text: for people, on standard output.
        status: the exit status.
    """

    data: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    status: int = 0


Command = Callable[[argparse.Namespace], Outcome]


class Parser(argparse.ArgumentParser):
    """An argument parser without abbreviations, whose errors are UsageErrors."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            **options, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        self.add_argument("--json", action="store_true", help="one JSON object on standard output")

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        hint = ""
        if "argument" in message or "unrecognized" in message:
            hint = " (text that begins with a dash goes after `--`)"
        raise UsageError(f"{message}{hint}; see `{self.prog} --help`")


def say(what: str) -> None:
    """A first sign of life on standard error, before anything slow is imported."""
    print(f"dream3d {dream3d.__version__}: {what}", file=sys.stderr, flush=True)


def split_at_dashes(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments before the first `--`, and those after it, which are never options."""
    if "--" not in arguments:
        return arguments, []
    place = arguments.index("--")
    return arguments[:place], arguments[place + 1 :]


def printable(text: str) -> str:
    """`text` with control characters escaped, so that a prompt inside a message cannot drive the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
