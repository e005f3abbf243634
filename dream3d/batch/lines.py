"""Prompt files: what each line asks for, and what is wrong with those that ask for nothing sensible.

A prompt is data. Nothing of a file is evaluated, interpolated or used as a path.
"""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dream3d.errors import ConfigError, Dream3DError, PromptError

MOST_BYTES = 64 * 2**20
MOST_LINES = 100_000
_TEXTS = {"prompt": "prompt", "negative": "negative", "negative_prompt": "negative"}
_KNOWN = (*_TEXTS, "seed", "seeds", "preset", "overrides")


@dataclass(frozen=True)
class Line:
    """One line of a prompt file.

    Attributes:
        number: counted from 1, as an editor does; of the record's last line in a CSV with line breaks.
        prompt, negative: texts.
        seeds: one job each; empty takes those of the command.
        preset: empty takes the command's.
        overrides: settings by dotted key.
        problem: why the line cannot be used; empty when it can.
    """

    number: int
    prompt: str = ""
    negative: str = ""
    seeds: tuple[int, ...] = ()
    preset: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def read_lines(path: Path) -> list[Line]:
    """All lines of a .txt, .csv or .jsonl file, the unusable ones with their problem.

    Raises:
        ConfigError: the file as a whole cannot be read, is of another kind, or is too large.
    """
    readers = {".txt": _text, ".csv": _csv, ".jsonl": _json_lines}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"{path} is neither .txt nor .csv nor .jsonl; rename or convert it")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from error
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{path} is larger than {MOST_BYTES // 2**20} MiB; split it")
    lines = reader(text)
    if len(lines) > MOST_LINES:
        raise ConfigError(f"{path} has {len(lines)} lines; at most {MOST_LINES}; split it")
    if not lines:
        raise ConfigError(f"{path} holds no prompts")
    return lines


def _text(text: str) -> list[Line]:
    """A prompt a line; empty ones and those that begin with # are skipped."""
    return [
        Line(number, line.strip())
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]


def _csv(text: str) -> list[Line]:
    """A header, then records. A column that is not known is a setting; an empty cell leaves it alone."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines: list[Line] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        if "prompt" not in header:
            raise ConfigError(
                f"the CSV's first line is {', '.join(header)[:200]!r}; it must name the columns, "
                "one of them prompt"
            )
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(header):
                problem = f"{len(cells)} cells under {len(header)} column names"
                lines.append(Line(reader.line_num, problem=problem))
                continue
            given = {name: cell for name, cell in zip(header, cells, strict=False) if cell.strip()}
            lines.append(_line(reader.line_num, _settings_apart(given)))
    except csv.Error as error:
        # What follows a broken quote cannot be told apart; what came before it can be made.
        lines.append(Line(reader.line_num, problem=f"not CSV from here on: {error}"))
    return lines


def _settings_apart(given: dict[str, str]) -> dict[str, Any]:
    """A record with its settings, from columns of their own and from `overrides`, as `key=value` texts."""
    settings = [text.strip() for text in given.get("overrides", "").split(";") if text.strip()]
    settings += [f"{name}={value}" for name, value in given.items() if name not in _KNOWN]
    known: dict[str, Any] = {name: value for name, value in given.items() if name in _KNOWN}
    return {**known, "overrides": settings}


def _json_lines(text: str) -> list[Line]:
    """An object a line, or a string that is a prompt."""
    lines = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except ValueError as error:
            lines.append(Line(number, problem=f"not JSON: {error}"))
            continue
        data = {"prompt": data} if isinstance(data, str) else data
        if isinstance(data, dict):
            lines.append(_line(number, data))
        else:
            lines.append(Line(number, problem="neither a JSON object nor a string"))
    return lines


def _line(number: int, data: dict[str, Any]) -> Line:
    """A line from named values; never raises for what they hold."""
    line = Line(number)
    try:
        if unknown := [name for name in data if name not in _KNOWN]:
            raise ConfigError(
                f"unknown keys {', '.join(unknown)[:200]}; known: {', '.join(_KNOWN)}"
            )
        for name, attribute in _TEXTS.items():
            if name in data:
                if not isinstance(data[name], str):
                    raise PromptError(f"{name} is {data[name]!r}; it must be text")
                line = replace(line, **{attribute: data[name]})
        if not line.prompt.strip():
            raise PromptError("there is no prompt")
        if not isinstance(data.get("preset", ""), str):
            raise ConfigError(f"preset is {data['preset']!r}; it must be a name")
        seeds = seed_list(data.get("seeds", data.get("seed", "")))
        overrides = setting_mapping(data.get("overrides", {}))
        return replace(
            line, seeds=seeds, preset=data.get("preset", "").strip(), overrides=overrides
        )
    except Dream3DError as error:
        return replace(line, problem=str(error))


def seed_list(value: Any) -> tuple[int, ...]:
    """Seeds from an integer, a list of them, or text like "0,1,2".

    Raises:
        ConfigError: something else.
    """
    items = value if isinstance(value, list) else str(value).split(",") if value != "" else []
    seeds = []
    for item in items:
        text = str(item).strip()
        if isinstance(item, bool) or not text.isdecimal() or len(text) > 19 or int(text) >= 2**63:
            raise ConfigError(f"seed is {item!r}; choose integers in [0, 2^63), e.g. 0,1,2")
        seeds.append(int(text))
    return tuple(dict.fromkeys(seeds))


def setting_mapping(value: Any) -> dict[str, Any]:
    """Settings by dotted key from an object or from `key=value` texts.

    Raises:
        ConfigError: something else.
    """
    from dream3d.config import split_override

    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return dict(split_override(text) for text in value)
    raise ConfigError(f"overrides is {value!r}; write an object, or a list of key=value texts")
