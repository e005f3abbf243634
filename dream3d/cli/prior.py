"""`dream3d prior train`, `sample` and `evaluate`: the diffusion model that ships with dream3d."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dream3d.cli.options import Command, Outcome, Parser, UsageError, say

if TYPE_CHECKING:
    from dream3d.cameras import CameraBatch

VIEWS = {
    "front": (0.0, 15.0),
    "front left": (45.0, 15.0),
    "left": (90.0, 15.0),
    "back left": (135.0, 15.0),
    "back": (180.0, 15.0),
    "back right": (225.0, 15.0),
    "right": (270.0, 15.0),
    "front right": (315.0, 15.0),
    "side": (90.0, 15.0),
    "overhead": (0.0, 75.0),
}
"""Azimuth and elevation in degrees of each view that --views can name."""


def add_options(name: str, parser: Parser) -> Command:
    """Declare the options of one of the three commands; returns what runs it."""
    if name == "prior train":
        from dream3d.prior_training.config import add_arguments

        parser.description = (
            "Train the embedded prior on the procedural world. Stops at its budget or at Ctrl-C and\n"
            "saves; the same command goes on from there."
        )
        add_arguments(parser)
        return train
    if name == "prior sample":
        parser.description = "Draw pictures from a prior, without any 3D."
        add = parser.add_argument
        add("prompt", nargs="?", help="what to draw (after `--` if it begins with a dash)")
        add("--views", default="", help=f"comma-separated, of {', '.join(VIEWS)} (default: none)")
        add("--joint", action="store_true", help="denoise the views together, as one object")
        add("--prior", default="embedded", help="`dream3d list priors`")
        add("--count", type=int, default=4, help="samples, or rows of views, 1 to 64")
        add("--steps", type=int, default=25, help="denoising steps, 1 to 1000")
        add("--cfg-scale", type=float, default=3.0, help="classifier-free guidance")
        add("--seed", type=int, default=0, help="of the noise, 0 or more")
        add("--out", type=Path, default=Path("outputs/samples.png"), help="PNG file to write")
        return sample
    parser.description = "Measure the embedded prior's samples with the evaluator."
    parser.add_argument("--directory", type=Path, help="of a trained prior (default: the shipped)")
    parser.add_argument("--samples", type=int, default=600, help="behind each figure (default 600)")
    parser.add_argument(
        "--device", default="cpu", choices=("cpu", "cuda"), help="where the prior samples"
    )
    return evaluate


def train(arguments: argparse.Namespace) -> Outcome:
    """Train until the budget or a signal ends it."""
    from dream3d.prior_training import train as run_training
    from dream3d.prior_training.config import from_arguments

    directory = run_training(from_arguments(arguments))
    return Outcome({"status": "done", "directory": str(directory)}, str(directory))


def _in_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UsageError(f"--{name} is {value}; choose {low} to {high}")


def _cameras(views: list[str], size: int, count: int) -> "CameraBatch | None":
    """`count` times the named views, or None when none is named."""
    from dream3d.cameras import orbit_cameras
    from dream3d.registry import suggestion

    for view in views:
        if view not in VIEWS:
            known = list(VIEWS)
            raise UsageError(
                f"--views has '{view}'; choose of {', '.join(known)}.{suggestion(view, known)}"
            )
    angles = [VIEWS[view] for view in views] * count
    if not angles:
        return None
    return orbit_cameras([a for a, _ in angles], [e for _, e in angles], size=size)


def sample(arguments: argparse.Namespace) -> Outcome:
    """Draw pictures and write them as one PNG, a row for each noise."""
    prompts = [*arguments.literal] if arguments.literal else [arguments.prompt]
    if len(prompts) != 1 or prompts[0] is None:
        raise UsageError('what to draw is missing: dream3d prior sample "a red mug"')
    prompt: str = prompts[0]
    _in_range("count", arguments.count, 1, 64)
    _in_range("steps", arguments.steps, 1, 1000)
    _in_range("seed", arguments.seed, 0, 2**63 - 1)
    views = [view.strip() for view in arguments.views.split(",") if view.strip()]
    say("loading")
    import torch

    from dream3d.export.pictures import grid, png_bytes
    from dream3d.files import make_directory, write_bytes
    from dream3d.prior_training import sample as draw
    from dream3d.priors.base import PRIORS

    prior = PRIORS[arguments.prior]().load(torch.device("cpu"))
    prior.check_prompt(prompt)
    cameras = _cameras(views, prior.image_size, arguments.count)
    if cameras is not None and not prior.accepts_cameras:
        raise UsageError(f"--views needs a prior that takes cameras; '{arguments.prior}' does not")
    texts = [f"{prompt}, {view} view" for view in views] * arguments.count
    generator = torch.Generator().manual_seed(arguments.seed)
    images = draw(
        prior,
        texts or [prompt] * arguments.count,
        cameras,
        len(views) if arguments.joint and views else 1,
        arguments.steps,
        arguments.cfg_scale,
        generator,
    )
    pictures = (images.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).numpy()
    make_directory(arguments.out.parent)
    write_bytes(arguments.out, png_bytes(grid(pictures, len(views) or min(4, arguments.count))))
    data = {"status": "done", "prompt": prompt, "views": views, "file": str(arguments.out)}
    return Outcome(data, str(arguments.out))


def evaluate(arguments: argparse.Namespace) -> Outcome:
    """Print the figures with their confidence intervals."""
    _in_range("samples", arguments.samples, 1, 100_000)
    say("loading")
    from dream3d.evaluation.prior import evaluate_embedded
    from dream3d.run import resolve_device

    figures = evaluate_embedded(
        arguments.directory,
        arguments.samples,
        lambda line: print(line, file=sys.stderr),
        str(resolve_device(arguments.device)),
    )
    return Outcome(figures, "\n".join(_lines(figures)))


def _lines(figures: dict, indent: str = "") -> list[str]:
    lines = []
    for name, value in figures.items():
        if isinstance(value, dict) and "value" in value:
            interval = f"[{value['low']:.3f}, {value['high']:.3f}], n = {value['n']}"
            lines.append(f"{indent}{name:20} {value['value']:.3f}  {interval}")
        elif isinstance(value, dict):
            lines += [f"{indent}{name}", *_lines(value, indent + "  ")]
        elif name != "format_version":
            lines.append(f"{indent}{name:20} {value}")
    return lines
