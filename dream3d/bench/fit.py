"""Each representation fitted directly to true views of known objects: what it can hold, without any prior.

40 views of 256 pixels are fitted to, another 12 are compared. The mesh is what a tetrahedral grid exports: simplified,
with a baked texture, and drawn again. Every finished row is written at once, so that a stopped table goes on.
"""

import json
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.bench.fit_recipes import RECIPES
from dream3d.cameras import CameraBatch
from dream3d.errors import ConfigError, OutputError
from dream3d.evaluation.geometry import silhouette_iou
from dream3d.evaluation.measure import rendered
from dream3d.evaluation.suite import first_prompts
from dream3d.evaluation.truth import Truth, training_cameras, truth_variant
from dream3d.files import atomic_path, make_directory, write_json
from dream3d.rendering import RenderOutput
from dream3d.world.grammar import caption_text, parse

FORMAT_VERSION = 1
VIEWS, HELD_OUT, SIZE = 40, 12, 256
HELD_OUT_SEED = 1
GRAY = 0.5
BARS = {"splats": 32.0, "nerf": 30.0, "tets": 28.0}
"""Least mean PSNR over the foreground of held-out views, in dB."""
PICTURED = (0, 3)
"""Which held-out views are drawn."""


def fit_prompts() -> list[str]:
    """The eight objects: the first prompts of suite `first`, chosen by hash."""
    return [caption_text(caption) for _, caption in first_prompts()[:8]]


@dataclass(frozen=True)
class Views:
    """True images to fit to or to compare with."""

    cameras: CameraBatch
    true: RenderOutput


def true_views(truth: Truth, size: int = SIZE) -> tuple[Views, Views]:
    """The views of one object: those fitted to, and those held out."""
    fitted = training_cameras(VIEWS, size)
    held_out = training_cameras(HELD_OUT, size, seed=HELD_OUT_SEED)
    return Views(fitted, truth.render(fitted)), Views(held_out, truth.render(held_out))


def foreground_psnr(found: RenderOutput, true: RenderOutput) -> float:
    """PSNR over mid grey, in dB, of the pixels the true object covers wholly or in part; at most 100."""
    gray = torch.full((1, 1, 1, 3), GRAY)
    error = (found.over(gray) - true.over(gray)).square().mean(dim=-1)
    mean = error[true.alpha[..., 0] > 0.0].double().mean().item()
    return 100.0 if mean <= 1e-10 else -10.0 * math.log10(mean)


def fit_row(representation: str, prompt: str, pictures: Path | None = None) -> dict[str, Any]:
    """Fit one representation to one object and compare held-out views.

    Args:
        representation: key of RECIPES.
        prompt: of the procedural world, every colour named.
        pictures: directory for a strip of the held-out views, the truth's below the fit's; None draws nothing.

    Returns:
        JSON-serialisable: psnr (foreground, dB), silhouette_iou, steps, cpu_seconds and wall_seconds of the fit and the
        conversion, budget_s and within_budget, and what the recipe adds.
    """
    recipe = RECIPES[representation]
    fit, held_out = true_views(truth_variant(parse(prompt), 0))
    wall, cpu = time.perf_counter(), time.process_time()
    generator = torch.Generator().manual_seed(0)
    shown, more = recipe.make(fit.cameras, fit.true.rgb, fit.true.alpha, generator)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    with torch.no_grad():
        found = rendered(shown, held_out.cameras, batch=2)
    if pictures is not None:
        write_strip(
            found, held_out.true, pictures / f"{representation}-{prompt.replace(' ', '-')}.png"
        )
    return {
        "representation": representation,
        "prompt": prompt,
        "psnr": round(foreground_psnr(found, held_out.true), 2),
        "silhouette_iou": round(silhouette_iou(found.alpha, held_out.true.alpha), 4),
        "cpu_seconds": round(cpu, 1),
        "wall_seconds": round(wall, 1),
        "budget_s": recipe.budget_s,
        "within_budget": cpu <= recipe.budget_s,
        **more,
    }


def write_strip(found: RenderOutput, true: RenderOutput, path: Path) -> None:
    """Two held-out views of the fit, the true ones below."""
    white = torch.ones(1, 1, 1, 3)
    rows = [torch.cat([x.over(white)[i] for i in PICTURED], dim=1) for x in (found, true)]
    _write_png(torch.cat(rows, dim=0), path)


def _write_png(image: Float[Tensor, "H W 3"], path: Path) -> None:
    with atomic_path(path) as temporary:
        iio.imwrite(temporary, (image.clamp(0.0, 1.0) * 255.0 + 0.5).to(torch.uint8).numpy())


def read_document(path: Path) -> dict[str, Any]:
    """The table so far; an empty one where there is no file.

    Raises:
        OutputError: the file is there and is not such a table.
    """
    if not path.is_file():
        return {"format_version": FORMAT_VERSION, "rows": []}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = document["rows"]
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} is not a table of fits; move it away or give --out") from error
    if document.get("format_version") != FORMAT_VERSION or not isinstance(rows, list):
        raise OutputError(f"{path} belongs to another version; move it away or give --out")
    return document


def run_fit(
    path: Path,
    representations: Sequence[str],
    prompts: Sequence[str],
    pictures: Path | None = None,
    again: bool = False,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Fit what is missing from the table at `path`; each finished row is written before the next begins.

    Args:
        path: JSON file of the table.
        representations: keys of RECIPES.
        prompts: objects.
        pictures: directory for strips.
        again: measure rows that are there already, too.
        report: told a line per row.

    Raises:
        ConfigError: unknown representation.
        PromptError: a prompt that is not of the world.
        OutputError: the table cannot be read or written.
    """
    for name in representations:
        if name not in RECIPES:
            raise ConfigError(f"representation is '{name}'; choose one of {', '.join(RECIPES)}")
    for directory in (path.parent, pictures):
        if directory is not None:
            make_directory(directory)
    wanted = [(name, prompt) for prompt in prompts for name in representations]
    begun: set[tuple[str, str]] = set()
    for number, key in enumerate(wanted, start=1):
        rows = read_document(path)["rows"]
        known = {(row["representation"], row["prompt"]) for row in rows}
        if key in known and not (again and key not in begun):
            continue
        begun.add(key)
        row = fit_row(*key, pictures)
        # Read anew: another process may have added rows meanwhile.
        rows = [r for r in read_document(path)["rows"] if (r["representation"], r["prompt"]) != key]
        write_json(path, document([*rows, row]))
        report(
            f"{number}/{len(wanted)}  {key[0]:7} {key[1]}: {row['psnr']:.2f} dB, {row['cpu_seconds']:.0f} s CPU"
        )
    return read_document(path)


def document(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The table with its means."""
    order = {(n, p): i for i, (n, p) in enumerate((n, p) for n in RECIPES for p in fit_prompts())}
    rows = sorted(rows, key=lambda r: order.get((r["representation"], r["prompt"]), len(order)))
    return {
        "format_version": FORMAT_VERSION,
        "protocol": {
            "views": VIEWS,
            "held_out": HELD_OUT,
            "size": SIZE,
            "psnr": "over mid grey, pixels the true object covers at least in part, mean over views",
        },
        "machine": {"cpus": os.cpu_count(), "system": platform.machine()},
        "summary": summary(rows),
        "rows": rows,
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean PSNR by representation, over how many objects, and whether the bar is met (None before all eight)."""
    found: dict[str, dict[str, Any]] = {}
    for name, bar in BARS.items():
        own = [r for r in rows if r["representation"] == name and r["prompt"] in fit_prompts()]
        if own:
            mean = float(np.mean([r["psnr"] for r in own]))
            complete = len(own) == len(fit_prompts())
            found[name] = {
                "psnr": round(mean, 2),
                "objects": len(own),
                "bar": bar,
                "met": mean >= bar if complete else None,
                "cpu_seconds": round(float(np.mean([r["cpu_seconds"] for r in own])), 1),
            }
    return found


def picture_grid(pictures: Path, path: Path, prompts: Sequence[str]) -> None:
    """All strips as one picture at half size: a row per object; the truth, then each representation.

    Raises:
        ConfigError: no strip is there.
    """
    names = [n for n in RECIPES if list(pictures.glob(f"{n}-*.png"))]
    if not names:
        raise ConfigError(f"{pictures} holds no pictures of fits; run `dream3d bench fit` first")
    lines = []
    for prompt in prompts:
        strips = []
        for name in names:
            file = pictures / f"{name}-{prompt.replace(' ', '-')}.png"
            blank = np.full((2 * SIZE, len(PICTURED) * SIZE, 3), 255, np.uint8)
            strips.append(iio.imread(file) if file.is_file() else blank)
        columns = [strips[0][SIZE:], *(strip[:SIZE] for strip in strips)]
        lines.append(np.concatenate(columns, axis=1)[::2, ::2])
    with atomic_path(path) as temporary:
        iio.imwrite(temporary, np.concatenate(lines, axis=0).astype(np.uint8))
