"""`dream3d bench fit`: each representation fitted straight to true views."""

import argparse
from pathlib import Path
from typing import Any

from dream3d.cli.options import Command, Outcome, Parser, say


def add_options(name: str, parser: Parser) -> Command:
    """Declare the command's options; returns what runs it."""
    parser.description = (
        "Fit splats, a radiance field and a tetrahedral grid to 40 true views of eight objects, without a prior, and\n"
        "compare views that were not fitted to. Finished rows are kept: the same command goes on where it stopped."
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("benchmarks/results/fit.json"), help="JSON table")
    add("--representation", nargs="+", metavar="NAME", help="splats, nerf, tets (default: all)")
    add("--only", nargs="+", metavar="PROMPT", help="these objects (default: the table's eight)")
    add("--pictures", type=Path, default=Path("outputs/fit"), help="where views are drawn")
    add("--grid", type=Path, help="also write all views as one PNG here")
    add("--again", action="store_true", help="measure rows that are there already")
    return run


def run(arguments: argparse.Namespace) -> Outcome:
    """Fit what is missing."""
    say("loading")
    from dream3d.bench.fit import fit_prompts, picture_grid, run_fit
    from dream3d.bench.fit_recipes import RECIPES

    prompts = arguments.only or fit_prompts()
    names = arguments.representation or list(RECIPES)
    table = run_fit(arguments.out, names, prompts, arguments.pictures, arguments.again, say)
    if arguments.grid is not None:
        picture_grid(arguments.pictures, arguments.grid, prompts)
    data = {"status": "done", "file": str(arguments.out), "summary": table["summary"]}
    return Outcome(data, f"{text(table['summary'])}\n{arguments.out}")


def text(summary: dict[str, dict[str, Any]]) -> str:
    """The means in columns."""
    lines = [f"{'':8} {'PSNR dB':>8} {'bar':>5} {'objects':>8} {'CPU s':>6}  met"]
    for name, row in summary.items():
        met = {True: "yes", False: "no", None: "not all objects yet"}[row["met"]]
        lines.append(
            f"{name:8} {row['psnr']:8.2f} {row['bar']:5g} {row['objects']:8d} {row['cpu_seconds']:6.0f}  {met}"
        )
    return "\n".join(lines)
