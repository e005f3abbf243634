"""`dream3d bench step`: what one optimisation step costs, and where."""

import argparse
from pathlib import Path
from typing import Any

from dream3d.cli.options import Command, Outcome, Parser, UsageError, say


def add_options(name: str, parser: Parser) -> Command:
    """Declare the command's options; returns what runs it."""
    parser.description = (
        "Milliseconds of a step on splats under the embedded prior by part, and of steps at 512 pixels over networks\n"
        "of Stable Diffusion 2.1's shape with random weights, beside the plain way in eager diffusers. On a CPU those\n"
        "networks are small, and the result says so."
    )
    add = parser.add_argument
    add("methods", nargs="*", metavar="METHOD", help="`dream3d list guidance` (default: sds vsd)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add("--steps", type=int, default=12, help="timed steps, 3 to 1000")
    add(
        "--variants",
        default="",
        metavar="NAMES",
        help="of the networks' rows, by commas, most important first (default: graphs,inductor on a GPU, else none)",
    )
    add("--seconds", type=float, default=240.0, help="after which no row of networks is begun")
    add(
        "--file",
        metavar="FILE",
        help="rows of networks are also written here, each when it is done",
    )
    add("--only", choices=("all", "networks", "embedded"), default="all", help="which rows")
    return run


def run(arguments: argparse.Namespace) -> Outcome:
    """Time all rows."""
    if not 3 <= arguments.steps <= 1000:
        raise UsageError(f"--steps is {arguments.steps}; choose 3 to 1000")
    say("loading")
    from dream3d.bench.step import bench_step
    from dream3d.bench.step_rows import VARIANTS, bench_networks
    from dream3d.run import resolve_device
    from guidance.base import GUIDANCE

    methods = [*arguments.methods, *arguments.literal] or ["sds", "vsd"]
    for method in methods:
        GUIDANCE[method]
    device = str(resolve_device(arguments.device))
    default = "graphs,inductor" if device.startswith("cuda") else "none"
    variants: list[str] = str(arguments.variants or default).split(",")
    for variant in variants:
        if variant not in VARIANTS:
            raise UsageError(f"--variants has '{variant}'; choose from {', '.join(VARIANTS)}")
    result: dict[str, Any] = {"status": "done", "device": device}
    if arguments.only != "embedded":
        rounds = max(arguments.steps, 15)
        file = Path(arguments.file) if arguments.file else None
        result["networks"] = bench_networks(device, rounds, variants, arguments.seconds, file, say)
    steps = arguments.only != "networks"
    result["steps"] = bench_step(methods, device, arguments.steps, say) if steps else []
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
    if "networks" in result:
        lines += network_lines(result["networks"])
    return "\n".join([*lines, result["device"]])


def network_lines(networks: dict[str, Any]) -> list[str]:
    """The rows of whole steps over networks."""
    names = (
        "render",
        "encode",
        "predict",
        "companion_predict",
        "companion",
        "backward",
        "overhead",
    )
    heads = "".join(f" {name[:9]:>9}" for name in ("total", *names))
    lines = [f"{networks['shape']}, {networks.get('gpu', 'not run on a GPU')}; {networks['scene']}"]
    lines.append(f"{'variant':16} {'rule':4} views{heads}  ms per step; parts are timed apart")
    for row in networks.get("rows", []):
        title = (
            f"{row['variant'][:16]:16} {row.get('guidance', '')[:4]:4} {row.get('views', ''):>5}"
        )
        if "total_ms" not in row:
            lines.append(f"{title} {row.get('skipped') or row['error'][-1]}")
            continue
        parts = row.get("parts_ms", {})
        cells = "".join(f" {parts[name]:9.2f}" if name in parts else " " * 10 for name in names)
        notes = [
            f"{k} {row[k]}" for k in ("ratio", "times_sds", "floor_ms", "peak_gb") if row.get(k)
        ]
        lines.append(f"{title} {row['total_ms']:9.2f}{cells}  {', '.join(notes)}")
    return lines
