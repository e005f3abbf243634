"""The first prompts of suite `first` once per representation, by the same evaluator, as one table.

    python -m dream3d.evaluation.representations --out outputs/representations

Every finished row is kept: the same command goes on where it stopped, and writes the table of what is there.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dream3d.evaluation.gallery import pictures, write_sheet
from dream3d.evaluation.suite import Row, commit_hash, generate_with_preset, run_suite, suite_rows
from dream3d.files import make_directory, write_text

PRESETS = ("default", "nerf", "tets")
NUMBERS = ("alignment", "category", "silhouette_iou", "volume_iou", "psnr")
PAGE, SHEET = "representations-first.md", "representations-first.png"

Results = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Rows of a suite by preset, then by key."""


def mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """Of one number over rows."""
    return sum(float(row[name]) for row in rows) / len(rows)


def markdown(results: Results, commit: str) -> str:
    """The table for a reader; rows that failed or were not run are named, and no mean hides them."""
    lines = [
        "# Suite `first` by representation",
        "",
        f"Made by `python -m dream3d.evaluation.representations` at commit `{commit}`, seed 0. What each number means: "
        "[evaluation](evaluation.md). Seconds are wall time of one asset with all its exports.",
        "",
        "| preset | prompt | alignment | category | silhouette IoU | volume IoU | PSNR | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for preset, rows in results.items():
        good = [row for row in rows.values() if "error" not in row]
        for row in rows.values():
            if "error" in row:
                lines.append(
                    f"| {preset} | {row['prompt']} | failed: {row['error'].replace('|', '/')} | | | | | |"
                )
            else:
                lines.append(_line(preset, row["prompt"], [row]))
        if good:
            lines.append(_line(preset, f"**mean of {len(good)} of {len(rows)}**", good))
    return "\n".join([*lines, "", f"![views of every asset and the truth](images/{SHEET})", ""])


def _line(preset: str, label: str, rows: Sequence[Mapping[str, Any]]) -> str:
    numbers = [
        f"{mean(rows, name):.1f}" if name == "psnr" else f"{mean(rows, name):.2f}"
        for name in NUMBERS
    ]
    return f"| {preset} | {label} | {' | '.join(numbers)} | {mean(rows, 'generate_seconds'):.0f} |"


def sheet(results: Results, directory: Path, path: Path) -> None:
    """A row per asset that was made: four sides of it and, after a gap, of the truth it was measured against."""
    lines = [
        pictures(row, directory / preset / "runs")
        for preset, rows in results.items()
        for row in rows.values()
        if "error" not in row
    ]
    if lines:
        write_sheet(lines, path)


def run_representations(
    directory: Path, presets: Sequence[str], rows: Sequence[Row], docs: Path
) -> Results:
    """Make and measure what is missing, preset by preset; the page is written after each.

    Args:
        directory: a suite per preset goes into it.
        presets: names.
        rows: of the suite.
        docs: for the page and its picture.
    """
    results: dict[str, Mapping[str, Mapping[str, Any]]] = {}
    make_directory(docs / "images")
    makers = {preset: generate_with_preset(preset) for preset in presets}
    for preset, make in makers.items():
        results[preset] = run_suite(directory / preset, make, rows, ceilings=False)
        sheet(results, directory, docs / "images" / SHEET)
        write_text(docs / PAGE, markdown(results, commit_hash()))
    return results


def main() -> None:
    """Run the first prompts with every preset and write the page."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/representations"))
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--first", type=int, default=8, help="how many prompts")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    rows = suite_rows()[: arguments.first]
    run_representations(arguments.out, arguments.presets, rows, arguments.docs)


if __name__ == "__main__":
    main()
