"""`dream3d bench kernels`: the fast renderers beside their references and another renderer."""

import argparse
from pathlib import Path
from typing import Any

from dream3d.cli.options import Command, Outcome, Parser, UsageError, say


def add_options(name: str, parser: Parser) -> Command:
    """Declare the command's options; returns what runs it."""
    parser.description = (
        "One forward and backward pass of every fast renderer beside its peers, by turns in one run. Ratios are given\n"
        "only when nobody else uses the machine. Bars: docs/performance.md."
    )
    add = parser.add_argument
    add("ops", nargs="*", metavar="OP", help="splats, hash_grid, march, ... (default: all)")
    add("--rounds", type=int, default=7, help="passes of each side, 1 to 1000")
    add("--force", action="store_true", help="show ratios on a loaded machine too")
    add(
        "--device",
        default="cpu",
        help="cuda: every backend that runs on a GPU beside the torch reference there",
    )
    add(
        "--limit",
        type=float,
        default=20.0,
        help="--device cuda: seconds a backend's first pass may take, compiling included, 1 to 3600",
    )
    add(
        "--file",
        metavar="FILE",
        help="--device cuda: the result is also written here after every row",
    )
    return run


def run(arguments: argparse.Namespace) -> Outcome:
    """Time all rows."""
    if not 1 <= arguments.rounds <= 1000:
        raise UsageError(f"--rounds is {arguments.rounds}; choose 1 to 1000")
    say("loading")
    ops = [*arguments.ops, *arguments.literal]
    if arguments.device != "cpu":
        from dream3d.bench.device_kernels import bench_device_kernels

        if not 1 <= arguments.limit <= 3600:
            raise UsageError(f"--limit is {arguments.limit:g}; choose 1 to 3600 seconds")
        file = Path(arguments.file) if arguments.file else None
        how = arguments.rounds, arguments.device, say, arguments.limit, file
        found = bench_device_kernels(ops, *how)
        return Outcome(found, device_table(found))
    from dream3d.bench.kernels import bench_kernels

    result = bench_kernels(ops, arguments.rounds, arguments.force, say)
    return Outcome(result, table(result))


def table(result: dict[str, Any]) -> str:
    """The rows in columns."""
    lines = [
        f"{'operation':22} {'case':10} {'beside':11} {'core ms':>9} {'peer':>9} {'wall ms':>9} {'peer':>9} "
        f"{'ratio':>7} {'bar':>5}"
    ]
    for row in result["rows"]:
        start = f"{row['op']:22} {row['case']:10} {row['peer']:11}"
        if "skipped" in row:
            lines.append(f"{start} skipped: {row['skipped']}")
            continue
        times = (row[k] for k in ("core_ms", "peer_core_ms", "wall_ms", "peer_wall_ms"))
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.1f}"
        said = {True: "  met", False: "  NOT MET", None: ""}[row["met"]]
        figures = "".join(f" {value:9.2f}" for value in times)
        lines.append(f"{start}{figures} {ratio:>7} {row['bar']:5g}{said}")
    if "memory" in result:
        memory = result["memory"]
        value = memory.get("skipped") or f"{memory['above_baseline_mb']} MB above baseline"
        lines.append(f"memory of {memory['case']}: {value} (limit {memory['limit_mb']:g} MB)")
    cores = result["machine"]["cores"]
    lines.append(f"{result['machine']['processor']}, {cores} cores, load {result['load']}")
    return "\n".join([*lines, *([result["warning"]] if "warning" in result else [])])


def device_table(result: dict[str, Any]) -> str:
    """The rows of a GPU in columns."""
    lines = [
        f"{'operation':22} {'case':10} {'backend':11} {'ms':>9} {'median':>9} {'ratio':>7} {'MB':>8} "
        f"{'difference':>10}"
    ]
    for row in result["rows"]:
        start = f"{row['op']:22} {row['case']:10} {row['backend']:11}"
        if "skipped" in row:
            lines.append(f"{start} skipped: {row['skipped']}")
            continue
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.1f}"
        memory = "-" if row["peak_mb"] is None else f"{row['peak_mb']:.1f}"
        times = f"{row['ms']:9.3f} {row['ms_median']:9.3f}"
        apart = "-" if row["difference"] is None else f"{row['difference']:.1e}"
        lines.append(f"{start} {times} {ratio:>7} {memory:>8} {apart:>10}")
    where = result["machine"].get("gpu", result["machine"]["processor"])
    return "\n".join([*lines, f"{where}, torch {result['machine']['torch']}"])
