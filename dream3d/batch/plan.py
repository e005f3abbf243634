"""From lines to jobs: each line times each seed, under a name made from the content."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dream3d.batch.lines import Line
from dream3d.errors import ConfigError, Dream3DError
from dream3d.jobs import JobRequest


@dataclass(frozen=True)
class Item:
    """One asset to make.

    Attributes:
        line: number of its line in the file.
        prompt: for showing, also where there is no request.
        seed: None is the preset's own.
        request: what to make; None when that is not possible.
        job: id made from the resolved configuration: the same content is the same job, in every batch.
        problem: why there is no request.
    """

    line: int
    prompt: str
    seed: int | None = None
    request: JobRequest | None = None
    job: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Defaults:
    """What holds for lines that do not say.

    Attributes:
        preset, negative: names and text.
        seeds: one job each; empty is one job with the preset's seed.
        overrides: settings by dotted key, under those of a line.
    """

    preset: str = "default"
    negative: str = ""
    seeds: tuple[int, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)


def content_id(config_text: str) -> str:
    """A job id from a resolved configuration."""
    return hashlib.sha256(f"dream3d batch 1\n{config_text}".encode()).hexdigest()[:16]


def make_plan(lines: Sequence[Line], defaults: Defaults) -> list[Item]:
    """All jobs of a batch in the order of the file; what says the same twice is made once."""
    items: list[Item] = []
    seen: set[str] = set()
    for line in lines:
        if line.problem:
            items.append(Item(line.number, line.prompt, problem=line.problem))
            continue
        seeds: tuple[int | None, ...] = line.seeds or defaults.seeds or (None,)
        for seed in seeds:
            item = _item(line, seed, defaults)
            if item.problem or item.job not in seen:
                items.append(item)
                seen.add(item.job)
            if item.problem:
                break  # the other seeds fail alike
    return items


def _item(line: Line, seed: int | None, defaults: Defaults) -> Item:
    try:
        request = JobRequest(
            prompt=line.prompt,
            preset=line.preset or defaults.preset,
            seed=seed,
            negative_prompt=line.negative or defaults.negative,
            overrides={**defaults.overrides, **line.overrides},
            owner="batch",
        )
        job = content_id(request.config_text())
    except Dream3DError as error:
        return Item(line.number, line.prompt, seed, problem=str(error))
    return Item(line.number, line.prompt, seed, request, job)


def shard(items: Sequence[Item], text: str) -> list[Item]:
    """Every n-th item from the i-th on, for `i/n` with i from 1 to n.

    Raises:
        ConfigError: malformed.
    """
    first, slash, count = text.partition("/")
    if not (slash and first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise ConfigError(f"--shard is '{text}'; write i/n with i from 1 to n, e.g. 2/8")
    return list(items[int(first) - 1 :: int(count)])
