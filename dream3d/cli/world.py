"""`dream3d world`: look at the procedural world the embedded prior knows."""

import argparse
from pathlib import Path

from dream3d.cli.options import Command, Outcome, Parser, UsageError


def add_options(name: str, parser: Parser) -> Command:
    """Declare the command's options; returns what runs it."""
    parser.description = "A contact sheet of the world's categories, each from several sides."
    add = parser.add_argument
    add("words", nargs="*", metavar="CATEGORY", help="categories to draw (default: all)")
    add("--out", type=Path, default=Path("outputs/world.png"), help="PNG file to write")
    add("--color", help="one colour for everything (default: a typical one for each)")
    add("--size", type=int, default=72, help="side of one picture in pixels, 16 to 512")
    add("--seed", type=int, default=0, help="of proportions and typical colours")
    add("--unlit", action="store_true", help="plain colours, without the world's light")
    return run


def run(arguments: argparse.Namespace) -> Outcome:
    """Draw the sheet."""
    words = [*arguments.words, *arguments.literal]
    if not 16 <= arguments.size <= 512:
        raise UsageError(f"--size is {arguments.size}; choose 16 to 512 pixels")
    if arguments.seed < 0:
        raise UsageError(f"--seed is {arguments.seed}; choose 0 or more")
    from dream3d.files import make_directory
    from dream3d.registry import suggestion
    from dream3d.world.colors import COLORS
    from dream3d.world.sheet import contact_sheet

    if arguments.color is not None and arguments.color not in COLORS:
        known = list(COLORS)
        raise UsageError(
            f"--color is '{arguments.color}'; choose one of {', '.join(known)}."
            f"{suggestion(arguments.color, known)}"
        )
    make_directory(arguments.out.parent)
    path = contact_sheet(
        arguments.out,
        words or None,
        arguments.color,
        arguments.size,
        seed=arguments.seed,
        lit=not arguments.unlit,
    )
    return Outcome({"status": "done", "file": str(path)}, str(path))
