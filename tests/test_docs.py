"""What the documentation tells to type can be typed: options exist, settings resolve, links lead somewhere."""

import importlib
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from dream3d.cli.main import COMMANDS
from dream3d.cli.options import Parser, split_at_dashes
from dream3d.config import load_config

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
OVERRIDE = re.compile(r"[a-z_][\w.]*=")


@cache
def parser_of(name: str) -> Parser:
    parser = Parser(prog=f"dream3d {name}")
    importlib.import_module(COMMANDS[name][0]).add_options(name, parser)
    return parser


def in_blocks(text: str) -> list[str]:
    """Commands that stand by themselves, comments included."""
    lines = [line for body in BLOCK.findall(text) for line in body.replace("\\\n", "").splitlines()]
    lines += re.findall(r"^ {4}(.*)$", BLOCK.sub("", text).replace("\\\n", ""), re.MULTILINE)
    return [line.strip() for line in lines if line.strip().startswith("dream3d ")]


def in_sentences(text: str) -> list[str]:
    """Commands, or what a sentence needs of one."""
    return re.findall(r"`(dream3d [a-z][^`\n]*)`", BLOCK.sub("", text))


def found(kind) -> list[tuple[str, str]]:
    return sorted({(page.name, command) for page in PAGES for command in kind(page.read_text())})


def taken_apart(command: str) -> tuple[str, list[str]]:
    words = shlex.split(command, comments=True)[1:]
    name = next((n for n in (" ".join(words[:2]), words[0]) if n in COMMANDS), "")
    return name, words[len(name.split()) :]


@pytest.mark.parametrize(("page", "command"), found(in_sentences))
def test_what_a_sentence_names_exists(page: str, command: str) -> None:
    name, words = taken_apart(command)
    groups = {name.split()[0] for name in COMMANDS if " " in name}
    assert name or words[0] in groups, command
    options = parser_of(name)._option_string_actions if name else {}
    assert {word for word in words if word.startswith("--")} <= {*options, "--"}


@pytest.mark.parametrize(("page", "command"), found(in_blocks))
def test_a_command_can_be_typed(page: str, command: str) -> None:
    name, words = taken_apart(command)
    options, _ = split_at_dashes(words)
    parsed = parser_of(name).parse_intermixed_args(options)
    if name in ("generate", "batch"):
        overrides = [word for word in options if OVERRIDE.match(word)]
        load_config(parsed.preset or "default", overrides, "a red mug")


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if not target.startswith(("http:", "https:", "mailto:")):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
