"""`dream3d batch`: a file of prompts, an asset each."""

import argparse
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dream3d.cli.generate import StopRequest
from dream3d.cli.options import Command, Outcome, Parser, UsageError, printable, say

if TYPE_CHECKING:
    from dream3d.batch.run import Batch

DESCRIPTION = """Make an asset for every line of a file: .txt (a prompt a line), .csv (columns prompt, negative, seed,
preset, overrides, settings by name) or .jsonl (objects with the same keys). See docs/batch.md.

  dream3d batch prompts.txt --out birds --seeds 0,1,2 --preset fast guidance.cfg_scale=6

Running the same command again goes on where it stopped: finished assets are skipped, the rest is made. Several batches
may work on one --out, on one machine or on several that share the disk.
"""


def add_options(name: str, parser: Parser) -> Command:
    """Declare the command's options; returns what runs it."""
    parser.description = DESCRIPTION
    parser.usage = f"dream3d {name} [options] FILE [key=value ...]"
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="prompts: .txt, .csv or .jsonl")
    add("overrides", nargs="*", metavar="key=value", help="settings under those of a line")
    add("--out", type=Path, metavar="DIR", help="default: outputs/NAME of FILE")
    add("--preset", default="default", help="for lines without one (default: default)")
    add("--negative", default="", metavar="TEXT", help="for lines without one")
    add("--seeds", default="", metavar="N,N", help="for lines without one; one asset each")
    add("--workers", type=int, metavar="N", help="processes here (default: one per GPU, else one)")
    add("--retries", type=int, default=3, metavar="N", help="for workers that die (default: 3)")
    add("--shard", default="1/1", metavar="i/n", help="only every n-th asset, from the i-th on")
    add("--ray", metavar="ADDRESS", help="on a Ray cluster; `local` starts one here")
    add("--slurm", nargs="?", const="", metavar="key=value,...", help="as SLURM array, by submitit")
    add("--export", default="", metavar="F,F", help="formats (`dream3d list formats`) to write too")
    add("--quiet", action="store_true", help="no table")
    return run


def run(arguments: argparse.Namespace) -> Outcome:
    """Plan, work, sum up."""
    if not arguments.quiet:
        say("planning")
    from dream3d.batch.exports import make_exports, read_formats
    from dream3d.batch.lines import read_lines, seed_list, setting_mapping
    from dream3d.batch.plan import Defaults, make_plan, shard
    from dream3d.batch.run import Batch
    from dream3d.batch.summary import counts, write_summary
    from dream3d.files import make_directory
    from dream3d.jobs import JobStore

    formats = read_formats(arguments.export)
    out = arguments.out or Path("outputs") / _name(arguments.file)
    overrides = setting_mapping([*arguments.overrides, *arguments.literal])
    seeds = seed_list(arguments.seeds)
    defaults = Defaults(arguments.preset, arguments.negative, seeds, overrides)
    items = make_plan(read_lines(arguments.file), defaults)
    mine = {item.job for item in shard(items, arguments.shard) if item.request is not None}
    make_directory(out)
    workers, gpus = _places(arguments)
    store = JobStore(out / "jobs", workers, queue_limit=None, gpus=gpus)
    batch = Batch(items, mine, store, arguments.retries)
    stop = StopRequest()
    table = Table(arguments.quiet)
    with stop.listening():
        finished = _work(arguments, batch, table, stop)
        own = [row for row in batch.rows if row.item.job in mine]
        make_exports(own, store, formats, stop)
    table.end(batch)
    write_summary(batch.rows, out)
    data = {"directory": str(out), "status": "done" if finished else "cancelled", **_data(batch)}
    status = 0 if finished else 128 + (stop.signal or 2)
    failed = [row for row in batch.rows if row.state != "done" or row.export_problem]
    if finished and any(row.item.job in {*mine, ""} for row in failed):
        data["status"], status = "failed", 2
    return Outcome(data, f"{counts(batch.rows)}\n{out / 'contact.html'}", status)


def _work(arguments: argparse.Namespace, batch: "Batch", table: "Table", stop: StopRequest) -> bool:
    if arguments.ray is not None and arguments.slurm is not None:
        raise UsageError("--ray and --slurm exclude each other")
    if arguments.ray is not None:
        from dream3d.batch.ray_cluster import run_on_ray

        return run_on_ray(batch, arguments.ray, table, stop)
    if arguments.slurm is not None:
        from dream3d.batch.slurm import run_on_slurm

        return run_on_slurm(batch, arguments.slurm, table, stop)
    return batch.run(table, stop)


def _name(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-")[:60] or "batch"


def _places(arguments: argparse.Namespace) -> tuple[int, tuple[str, ...]]:
    """How many workers, and the GPU of each; no GPUs where the settings ask for the CPU or there are none."""
    if arguments.workers is not None and not 1 <= arguments.workers <= 1024:
        raise UsageError(f"--workers is {arguments.workers}; choose 1 to 1024")
    import os

    import torch

    on_cpu = any(text.replace(" ", "") == "device=cpu" for text in arguments.overrides)
    count = 0 if on_cpu or not torch.cuda.is_available() else torch.cuda.device_count()
    if count == 0:
        return arguments.workers or 1, ()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = visible if len(visible) == count and all(visible) else [str(i) for i in range(count)]
    return 1, tuple(names[: arguments.workers or count])


def _data(batch: "Batch") -> dict[str, Any]:
    rows = [
        {
            "line": row.item.line,
            "prompt": row.item.prompt,
            "seed": row.item.seed,
            "job": row.item.job or None,
            "state": row.state,
            "message": row.message,
            "attempts": row.job.attempts if row.job else 0,
            "directory": str(batch.store.root / row.item.job / "run") if row.job else None,
            "exports": list(row.exports),
        }
        for row in batch.rows
    ]
    return {"items": rows}


class Table:
    """The state of a batch on standard error: a live table on a terminal, a line for every change elsewhere.

    Args:
        quiet: shows nothing.
    """

    MOST = 12
    """Rows of the live table; the running ones first."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.terminal = sys.stderr.isatty()
        self.drawn = 0
        self.last = ""
        self.last_time = 0.0

    def __call__(self, batch: "Batch") -> None:
        """Show how it stands now."""
        if self.quiet:
            return
        if self.terminal:
            self._draw(batch)
            return
        line = summary_line(batch, with_eta=False)
        # Without a terminal: on every change, and now and then with the time left.
        if line != self.last or time.monotonic() - self.last_time > 30.0:
            self.last, self.last_time = line, time.monotonic()
            print(summary_line(batch), file=sys.stderr, flush=True)

    def _draw(self, batch: "Batch") -> None:
        order = {"running": 0, "failed": 1, "lost": 2, "queued": 3, "cancelled": 4, "done": 5}
        rows = sorted(batch.rows, key=lambda row: order[row.state])[: self.MOST]
        lines = [summary_line(batch)]
        for row in rows:
            job = row.job
            steps = f"{job.step:5}/{job.steps:<5}" if job else " " * 11
            left = f"{job.seconds_left:6.0f} s" if job and job.seconds_left is not None else " " * 8
            text = printable(f"{row.item.prompt} {row.message}".replace("\n", " "))
            lines.append(f"{row.item.line:5}  {row.state:9} {steps} {left}  {text[:40]}")
        up = f"\x1b[{self.drawn}F" if self.drawn else ""
        sys.stderr.write(up + "".join(f"\x1b[2K{line}\n" for line in lines) + "\x1b[J")
        sys.stderr.flush()
        self.drawn = len(lines)

    def end(self, batch: "Batch") -> None:
        """A last look."""
        self.last = ""
        self(batch)


def summary_line(batch: "Batch", with_eta: bool = True) -> str:
    """The counts of every state, and the time left."""
    from dream3d.batch.summary import counts

    left = batch.seconds_left() if with_eta else None
    return counts(batch.rows) + (f"; about {left:.0f} s left" if left else "")
