"""`dream3d evaluate`: a finished run against the truth of its prompt."""

import argparse
from pathlib import Path

from dream3d.cli.options import Command, Outcome, Parser, say


def add_options(name: str, parser: Parser) -> Command:
    """Declare the command's options; returns what runs it."""
    parser.description = (
        "Compare a run with the true object its prompt names: alignment, category, colours, Janus,\n"
        "silhouettes, volume, surface and image error, and the same for a direct fit (the ceiling)."
    )
    parser.add_argument("directory", type=Path, metavar="RUN_DIR", help="what `generate` printed")
    parser.add_argument("--no-ceiling", action="store_true", help="leave the direct fit out")
    return run


def run(arguments: argparse.Namespace) -> Outcome:
    """Evaluate."""
    say("loading")
    from dream3d.evaluation.run import evaluate_run

    numbers = evaluate_run(arguments.directory, with_ceiling=not arguments.no_ceiling)
    return Outcome(numbers, table(numbers))


def table(numbers: dict) -> str:
    """The measures, one a line, the ceiling's beside them where it has them."""
    ceiling = numbers.get("ceiling") or {}
    lines = [f"{'':16} {'run':>10} {'ceiling':>10}"] if ceiling else []
    for name, value in numbers.items():
        if name == "format_version" or isinstance(value, dict | list):
            continue
        beside = f" {_shown(ceiling[name]):>10}" if name in ceiling else ""
        lines.append(f"{name:16} {_shown(value):>10}{beside}")
    return "\n".join(lines)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
