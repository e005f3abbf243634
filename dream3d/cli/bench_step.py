"""`dream3d bench step`: what one optimisation step costs, and where."""

import argparse
from typing import Any

from dream3d.cli.options import Command, Outcome, Parser, UsageError, say


def add_options(name: str, parser: Parser) -> Command:
    """Declare the command's options; returns what runs it."""
    parser.description = (
        "Milliseconds of a step on splats under the embedded prior by part, the share that is neither prior nor\n"
        "renderer, and guided prediction by a network of Stable Diffusion's shape beside the plain way."
    )
    add = parser.add_argument
    add("methods", nargs="*", metavar="METHOD", help="`dream3d list guidance` (default: sds vsd)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add("--steps", type=int, default=12, help="timed steps, 3 to 1000")
    return run


def run(arguments: argparse.Namespace) -> Outcome:
    """Time all rows."""
    if not 3 <= arguments.steps <= 1000:
        raise UsageError(f"--steps is {arguments.steps}; choose 3 to 1000")
    say("loading")
    from dream3d.bench.step import bench_step
    from dream3d.run import resolve_device
    from guidance.base import GUIDANCE

    methods = [*arguments.methods, *arguments.literal] or ["sds", "vsd"]
    for method in methods:
        GUIDANCE[method]
    device = str(resolve_device(arguments.device))
    result = {"status": "done", **bench_step(methods, device, arguments.steps, say)}
    return Outcome(result, table(result))


def table(result: dict[str, Any]) -> str:
    """The rows in columns."""
    names = ("total", "predict", "companion", "encode", "render", "backward", "overhead")
    lines = [f"{'guidance':26}" + "".join(f" {name:>9}" for name in names) + "  ms per step"]
    for row in result["steps"]:
        times = {"companion": 0.0, **row["milliseconds"]}
        times["companion"] += times.get("companion_predict", 0.0)
        cells = (f" {times[name]:9.2f}" for name in names)
        share = f"  overhead {row['overhead_share']:.1%}"
        lines.append(f"{row['guidance']:26}" + "".join(cells) + share)
    net = result["network"]
    times = net["milliseconds"]
    lines.append(
        f"{net['network']}, {net['size']}: {times['ours']} ms, plain {times['theirs']} ms, ratio {net['ratio']}"
    )
    return "\n".join([*lines, f"{result['device']}, {result['threads']} threads; {result['gpu']}"])
