"""The gallery page: what a suite made, beside the truth it was measured against."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.evaluation.measure import rendered
from dream3d.evaluation.run import load_scene, read_config
from dream3d.evaluation.truth import Truth, truth_variant
from dream3d.files import atomic_path, make_directory, write_text
from dream3d.world.grammar import Caption, parse

AZIMUTHS_DEG = (-25.0, 40.0, 130.0, 220.0)
ELEVATION_DEG = 18.0
SIZE = 160
ROWS_PER_SHEET = 4
BACKGROUND = (0.965, 0.965, 0.97)


def gallery_cameras() -> CameraBatch:
    """Four sides, a little from above."""
    return orbit_cameras(list(AZIMUTHS_DEG), ELEVATION_DEG, size=SIZE)


def strip(views: Float[Tensor, "V H W 3"]) -> Float[Tensor, "H VW 3"]:
    """Views side by side."""
    return torch.cat(list(views), dim=1)


def pictures(row: Mapping[str, Any], runs: Path) -> Float[Tensor, "H W 3"]:
    """One prompt's asset from four sides and, after a gap, the true object from the same."""
    background = torch.tensor(BACKGROUND).expand(1, 1, 1, 3)
    directory = runs / row["run"]
    cameras = gallery_cameras()
    asset = rendered(load_scene(directory, read_config(directory)), cameras).over(background)
    true = true_object(row).render(cameras).over(background)
    gap = background[0].expand(SIZE, SIZE // 4, 3)
    return torch.cat([strip(asset), gap, strip(true)], dim=1).clamp(0.0, 1.0)


def true_object(row: Mapping[str, Any]) -> Truth:
    """The member of the prompt's family a row was measured against."""
    caption = parse(row["prompt"])
    colors = row["truth"]["colors"]
    named = Caption(
        tuple((color, name) for color, (_, name) in zip(colors, caption.objects, strict=True)),
        caption.relation,
    )
    return replace(truth_variant(named, row["truth"]["seed"]), yaw_deg=row["truth"]["yaw_deg"])


def write_sheet(images: Sequence[Float[Tensor, "H W 3"]], path: Path) -> None:
    """Pictures below each other as one PNG."""
    sheet = (torch.cat(list(images), dim=0) * 255.0 + 0.5).to(torch.uint8).numpy()
    with atomic_path(path) as temporary:
        iio.imwrite(temporary, sheet)


def write_gallery(results: Mapping[str, Mapping[str, Any]], runs: Path, docs: Path) -> None:
    """Write `gallery.md` and its sheets `images/gallery-NN.png` into the docs.

    Args:
        results: rows of a suite by key; the first prompts at seed 0 are shown.
        runs: where their run directories lie.
        docs: directory, created where missing.
    """
    make_directory(docs / "images")
    shown = [row for row in results.values() if row["first"] and "error" not in row]
    lines = [
        "# Gallery",
        "",
        "Every prompt of the suite `first`, none left out: on the left what "
        '`dream3d generate "PROMPT"` made with default settings on a CPU, on the right the true object of the '
        "procedural world it is measured against, both from the same four sides. The prompts are chosen by hash; "
        "the numbers are in [suite-first.md](suite-first.md). "
        "`python -m dream3d.evaluation.suite` makes this page.",
        "",
    ]
    for number, start in enumerate(range(0, len(shown), ROWS_PER_SHEET), start=1):
        group = shown[start : start + ROWS_PER_SHEET]
        name = f"gallery-{number:02d}.png"
        write_sheet([pictures(row, runs) for row in group], docs / "images" / name)
        lines += [f"![{'; '.join(row['prompt'] for row in group)}](images/{name})", ""]
        lines += ["| row | prompt | alignment | volume IoU | ceiling |", "|---|---|---|---|---|"]
        lines += [_line(place, row) for place, row in enumerate(group, start=1)]
        lines.append("")
    write_text(docs / "gallery.md", "\n".join(lines))


def _line(place: int, row: Mapping[str, Any]) -> str:
    top = f"{row['ceiling']['volume_iou']:.2f}" if row.get("ceiling") else ""
    return (
        f"| {place} | {row['prompt']} | {row['alignment']:.2f} | {row['volume_iou']:.2f} | {top} |"
    )
