"""Running the study of `dream3d.bench.study`: row by row, resumable, then a table and a grid of pictures."""

import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import torch
from PIL import Image, ImageDraw, ImageFont

from dream3d.bench.study import (
    BUDGET,
    FORMAT_VERSION,
    PROMPTS,
    SEEDS,
    Method,
    course_cost,
    key_of,
    methods,
    numbers,
    picture,
    prior_features,
    read_rows,
    stage_of,
    steps_for,
)
from dream3d.errors import ConfigError, Dream3DError
from dream3d.evaluation.classifier import Evaluator, load_evaluator
from dream3d.files import append_line, atomic_path, make_directory
from dream3d.priors.base import Prior
from dream3d.priors.embedded import EmbeddedConfig
from dream3d.run import run_system
from systems.base import RunConfig

Row = dict[str, Any]
MEANS = ("alignment", "view", "janus", "saturation", "frechet", "seconds")


def chosen(only: Sequence[str]) -> list[Method]:
    """The methods whose label or guidance is among `only`; all of them for an empty list.

    Raises:
        ConfigError: a name that is neither.
    """
    known = methods()
    for name in only:
        if not any(name in (method.label, method.name) for method in known):
            labels = ", ".join(method.label for method in known)
            raise ConfigError(f"there is no method '{name}'; choose among {labels}")
    return [m for m in known if not only or m.label in only or m.name in only]


def run_study(
    directory: Path,
    only: Sequence[str] = (),
    budget: int = BUDGET,
    prompts: Sequence[str] = PROMPTS,
    seeds: Sequence[int] = SEEDS,
    report: Callable[[str], None] = print,
    prior: Prior | None = None,
) -> list[Row]:
    """Make and measure what is missing; every finished row is one line of `rows.jsonl`, one picture beside it.

    Seed by seed and prompt by prompt, so that whenever it is stopped all methods have come equally far.

    Args:
        directory: of the journal and the pictures.
        only: labels or names; empty for all.
        budget: network evaluations per run, of one picture each.
        prompts: each of one object of the procedural world.
        seeds: of the runs.
        report: told a line per row.
        prior: an already loaded one in place of the embedded.

    Returns:
        The rows of this budget, old and new, in the order of the methods.
    """
    make_directory(directory / "pictures")
    journal = directory / "rows.jsonl"
    done = read_rows(journal)
    prior = EmbeddedConfig().load(torch.device("cpu")) if prior is None else prior
    judge = load_evaluator()
    own: dict[str, torch.Tensor] = {}
    wanted = [
        (method, prompt, seed) for seed in seeds for prompt in prompts for method in chosen(only)
    ]
    rows = []
    for number, (method, prompt, seed) in enumerate(wanted, start=1):
        row: Row = {"format_version": FORMAT_VERSION, "method": method.label, "prompt": prompt}
        row |= {"seed": seed, "budget": budget}
        if key_of(row) not in done:
            if prompt not in own:
                own[prompt] = prior_features(prior, prompt, judge)
            row |= _one(method, prompt, seed, budget, prior, judge, own[prompt], directory)
            append_line(journal, json.dumps(row, allow_nan=False))
            done[key_of(row)] = row
            outcome = (
                row.get("error") or f"alignment {row['alignment']:.2f}, {row['seconds']:.0f} s"
            )
            report(f"{number}/{len(wanted)}  {method.label}  {prompt} #{seed}  {outcome}")
        rows.append(done[key_of(row)])
    return rows


def _one(
    method: Method,
    prompt: str,
    seed: int,
    budget: int,
    prior: Prior,
    judge: Evaluator,
    own: torch.Tensor,
    directory: Path,
) -> Row:
    """Make one asset, save its picture, measure it; a failure is a row with an `error`."""
    guidance = method.guidance()
    steps = steps_for(guidance, budget)
    row: Row = {
        "guidance": method.name,
        "steps": steps,
        "evaluations": course_cost(guidance, steps),
    }
    config = RunConfig(
        prompt, EmbeddedConfig(), [stage_of(guidance, steps)], seed=seed, device="cpu"
    )
    began = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            scene = run_system(config, Path(scratch), prior=prior).scene
    except Dream3DError as error:
        return {**row, "error": f"{type(error).__name__}: {error}"}
    row["seconds"] = round(time.perf_counter() - began, 2)
    with atomic_path(directory / picture_name(method.label, prompt, seed)) as path:
        iio.imwrite(path, (picture(scene) * 255).byte().numpy(), extension=".png")
    return {**row, **numbers(scene, prompt, judge, own)}


def picture_name(label: str, prompt: str, seed: int) -> str:
    """Where a row's picture is, below the study's directory."""
    words = f"{label} {prompt} {seed}".replace(",", "").replace(" ", "-")
    return f"pictures/{words}.png"


def entropy_bits(shares: Sequence[float]) -> float:
    """Entropy of a distribution, in bits."""
    return -sum(p * math.log2(p) for p in shares if p > 0.0)


def open_color_entropy(rows: Sequence[Row]) -> float | None:
    """Bits of colour that differ between seeds, where the prompt names none: entropy of the seeds' main colours.

    The mean over such prompts with at least two seeds; two seeds make at most 1 bit. None without any.
    """
    found = []
    for prompt in {row["prompt"] for row in rows}:
        mains = [
            max(range(len(r["color"])), key=r["color"].__getitem__)
            for r in rows
            if r["prompt"] == prompt
        ]
        if len(prompt.split()) == 2 and len(mains) > 1:
            found.append(entropy_bits([mains.count(c) / len(mains) for c in set(mains)]))
    return sum(found) / len(found) if found else None


def summary(rows: Sequence[Row]) -> list[Row]:
    """One line per method: means over its finished rows, how many there are, and the open colour's entropy."""
    lines = []
    for label in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == label and "error" not in row]
        line: Row = {"method": label, "rows": len(own)}
        if own:
            line |= {name: sum(row[name] for row in own) / len(own) for name in MEANS}
            line |= {"steps": own[0]["steps"], "color_bits": open_color_entropy(own)}
        lines.append(line)
    return lines


def markdown(lines: Sequence[Row]) -> str:
    """The summary as a table for docs."""
    names = (
        "alignment",
        "view",
        "janus",
        "saturation",
        "frechet",
        "color_bits",
        "steps",
        "seconds",
    )
    head = ["| method | rows | " + " | ".join(names) + " |", "|---|" + "---|" * (len(names) + 1)]
    body = []
    for line in lines:
        cells = [_cell(line.get(name), name) for name in names]
        body.append(f"| {line['method']} | {line['rows']} | " + " | ".join(cells) + " |")
    return "\n".join(head + body)


def _cell(value: float | None, name: str) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if name in ("steps", "seconds") else f"{value:.2f}"


def write_grid(rows: Sequence[Row], directory: Path, path: Path) -> None:
    """Methods down, prompts across: each cell the first seed's asset from the front and from behind.

    Args:
        rows: finished ones; of several seeds the lowest is shown.
        directory: of the study.
        path: PNG file, replaced in one step.

    Raises:
        OutputError: it cannot be written.
    """
    labels = list(dict.fromkeys(row["method"] for row in rows))
    prompts = list(dict.fromkeys(row["prompt"] for row in rows))
    seed_of = {}
    for row in rows:
        if "error" not in row:
            key = (row["method"], row["prompt"])
            seed_of[key] = min(row["seed"], seed_of.get(key, row["seed"]))
    halves = -(-len(labels) // 2)  # two columns of methods, so that the sheet is not a ribbon
    cell, names = (128, 64), 150
    block = names + len(prompts) * (cell[0] + 6)
    sheet = Image.new("RGB", (2 * block + 16, 26 + halves * (cell[1] + 6)), (255, 255, 255))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for place, label in enumerate(labels):
        left, top = (place // halves) * (block + 16), 26 + (place % halves) * (cell[1] + 6)
        draw.text((left + 4, top + cell[1] // 2), label, fill=(33, 37, 41), font=font, anchor="lm")
        for column, prompt in enumerate(prompts):
            at = left + names + column * (cell[0] + 6)
            if place % halves == 0:
                middle = (at + cell[0] // 2, 6)
                draw.text(middle, prompt, fill=(33, 37, 41), font=font, anchor="ma")
            if (label, prompt) in seed_of:
                file = directory / picture_name(label, prompt, seed_of[label, prompt])
                if file.is_file():  # rows may have been copied here without their pictures
                    sheet.paste(Image.open(file).convert("RGB").resize(cell), (at, top))
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG")
