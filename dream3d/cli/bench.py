"""`dream3d bench`: small experiments whose outcome is known beforehand."""

import argparse
from pathlib import Path
from typing import Any

from dream3d.cli.options import Command, Outcome, Parser, UsageError, say


def add_options(name: str, parser: Parser) -> Command:
    """Declare the command's options; returns what runs it."""
    parser.description = (
        "Every guidance as particles on a mixture of two Gaussians, with exact scores: which find a mode, which keep\n"
        "the spread, which run away. Writes a picture of all histograms against the true density."
    )
    add = parser.add_argument
    add("methods", nargs="*", metavar="METHOD", help="`dream3d list guidance` (default: all)")
    add("--out", type=Path, default=Path("outputs/toy.png"), help="PNG file to write")
    add("--particles", type=int, default=1500, help="100 to 100000")
    add("--seed", type=int, default=0, help="of the particles' start and noise")
    return run


def run(arguments: argparse.Namespace) -> Outcome:
    """Run the toy and draw it."""
    if not 100 <= arguments.particles <= 100_000:
        raise UsageError(f"--particles is {arguments.particles}; choose 100 to 100000")
    if arguments.seed < 0:
        raise UsageError(f"--seed is {arguments.seed}; choose 0 or more")
    say("loading")
    from dream3d.bench.picture import write_picture
    from dream3d.bench.toy import run_toy
    from dream3d.files import make_directory
    from guidance.base import GUIDANCE

    methods = [*arguments.methods, *arguments.literal] or GUIDANCE.names()
    outcomes = run_toy(methods, arguments.particles, arguments.seed, say)
    make_directory(arguments.out.parent)
    write_picture(outcomes, arguments.out)
    rows = [outcome.row() for outcome in outcomes]
    data = {"status": "done", "file": str(arguments.out), "rows": rows}
    return Outcome(data, f"{table(rows)}\n{arguments.out}")


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in columns."""
    names = ("mean", "std_left", "std_right", "share_right", "ks", "evaluations")
    lines = [f"{'method':26} {'case':7}" + "".join(f" {name:>11}" for name in names)]
    for row in rows:
        shown = ("-" if row[name] is None else f"{row[name]:.3g}" for name in names)
        lines.append(f"{row['method']:26} {row['case']:7}" + "".join(f" {x:>11}" for x in shown))
    return "\n".join(lines)
