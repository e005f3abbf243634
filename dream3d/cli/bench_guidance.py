"""`dream3d bench guidance`: every guidance on splats, at one number of network evaluations."""

import argparse
from pathlib import Path

from dream3d.cli.options import Command, Outcome, Parser, UsageError, say


def add_options(name: str, parser: Parser) -> Command:
    """Declare the command's options; returns what runs it."""
    parser.description = (
        "Four prompts and two seeds of every guidance on splats under the embedded prior, which is told of views by\n"
        "words, with the same number of network evaluations each. Finished rows are kept: the same command goes on.\n"
        "Writes rows.jsonl, table.md and grid.png."
    )
    add = parser.add_argument
    add("methods", nargs="*", metavar="METHOD", help="`dream3d list guidance` (default: all)")
    add("--only", action="append", default=[], metavar="METHOD", help="the same, one by one")
    add("--budget", type=int, default=800, help="evaluations per run, of one picture each")
    add("--prompt", action="append", default=[], metavar="PROMPT", help="in place of the four")
    add("--seeds", type=int, default=2, help="seeds per prompt, 1 to 100")
    add("--out", type=Path, default=Path("outputs/bench-guidance"), help="folder of the results")
    return run


def run(arguments: argparse.Namespace) -> Outcome:
    """Do what is missing, then write the table and the grid."""
    if arguments.budget < 8:
        raise UsageError(f"--budget is {arguments.budget}; choose at least 8")
    if not 1 <= arguments.seeds <= 100:
        raise UsageError(f"--seeds is {arguments.seeds}; choose 1 to 100")
    say("loading")
    from dream3d.bench.study import PROMPTS
    from dream3d.bench.study_run import markdown, run_study, summary, write_grid
    from dream3d.files import write_text

    out: Path = arguments.out
    prompts = arguments.prompt or PROMPTS
    only = [*arguments.methods, *arguments.literal, *arguments.only]
    rows = run_study(out, only, arguments.budget, prompts, range(arguments.seeds), say)
    lines = summary(rows)
    write_text(out / "table.md", markdown(lines) + "\n")
    write_grid(rows, out, out / "grid.png")
    data = {"status": "done", "rows": rows, "summary": lines, "file": str(out / "grid.png")}
    return Outcome(data, f"{markdown(lines)}\n{out / 'grid.png'}")
