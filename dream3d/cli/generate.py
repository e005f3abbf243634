"""`dream3d generate`: one prompt, one asset, one run directory."""

import argparse
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from dream3d.cli.options import Command, Outcome, Parser, UsageError, say
from dream3d.cli.progress import Progress

if TYPE_CHECKING:
    from dream3d.generation import GenerationResult
    from dream3d.parallel import ViewShare
    from systems.base import RunConfig

DESCRIPTION = """Make a 3D asset from a prompt. The last line printed is the run directory.

The prompt is taken as it is, whatever characters it holds. One that begins with a dash goes after `--`:
  dream3d generate --preset fast -- "--help me"

Settings are changed by key=value after the prompt (`dream3d config default` shows them all):
  dream3d generate "a red mug" steps=200 guidance.cfg_scale=10 stages.0.views=8

With a picture (transparent, or on a plain background) the object looks like it from the side it was taken from:
  dream3d generate "a red mug" --image mug.png reference.azimuth_deg=30

Ctrl-C stops with what there is; `dream3d generate --resume DIR` goes on.
"""

_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")


def add_options(name: str, parser: Parser) -> Command:
    """Declare the command's options; returns what runs it."""
    parser.description = DESCRIPTION
    add = parser.add_argument
    parser.usage = f"dream3d {name} [options] PROMPT [key=value ...]"
    add("words", nargs="*", metavar="PROMPT [key=value ...]", help="the prompt, then settings")
    add("--preset", help="`dream3d list presets` (default: default)")
    add("--seed", help="of all randomness, an integer in [0, 2^63) (default: 0)")
    add("--out", type=Path, metavar="DIR", help="run directory, new or empty (default: in outputs)")
    add("--negative", metavar="TEXT", help="what to avoid")
    add("--image", type=Path, metavar="FILE", help="a picture to follow from one side")
    add("--config", type=Path, metavar="FILE", help="repeat a run from its config.yaml")
    add("--resume", type=Path, metavar="DIR", help="go on with a stopped run")
    add(
        "--low-vram",
        action="store_true",
        help="spare GPU memory, slower (both priors, where they are of diffusers)",
    )
    add("--profile", action="store_true", help="print where the time went")
    add("--quiet", action="store_true", help="no progress")
    return run


class StopRequest:
    """Remembers a first Ctrl-C or SIGTERM, to be asked between steps; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.signal is not None

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        print(
            "\nStopping: saving a checkpoint and what there is (again to stop at once).",
            file=sys.stderr,
            flush=True,
        )

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take over SIGINT and SIGTERM inside the block."""
        before = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, self._note)
        except ValueError:
            # Not the main thread (a test, a notebook): signals stay with whoever has them.
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run(arguments: argparse.Namespace) -> Outcome:
    """Generate, resume or repeat."""
    stop = StopRequest()
    arguments.quiet = arguments.quiet or os.environ.get("RANK", "0") != "0"
    if not arguments.quiet:
        say("loading")
    from dream3d.parallel import joined

    with stop.listening(), joined() as share:
        work = _resume if arguments.resume else _generate
        result = work(arguments, stop, share)
    if arguments.profile and share.rank == 0:
        print(profile_table(result.record, result.seconds), file=sys.stderr)
    status = 0 if result.status == "done" else 128 + (stop.signal or signal.SIGINT)
    data = {"directory": str(result.directory), **result.record}
    return Outcome(data, str(result.directory), status)


def _prompt_and_overrides(arguments: argparse.Namespace) -> tuple[str | None, list[str]]:
    """The first word is the prompt; after `--` the first word there is."""
    words, literal = arguments.words, arguments.literal
    if literal:
        return literal[0], [*words, *literal[1:]]
    if arguments.config is not None and (not words or _OVERRIDE.match(words[0])):
        return None, words
    return (words[0], words[1:]) if words else (None, [])


def _seed(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[-+]?\d{1,30}", text.strip()):
        raise UsageError(f"--seed is '{text}'; choose an integer in [0, 2^63)")
    return int(text)


def _configuration(arguments: argparse.Namespace) -> "RunConfig":
    from dataclasses import replace

    from systems.reference import with_picture

    config = _settings(arguments)
    return replace(config, reference=with_picture(config.reference, arguments.image))


def _settings(arguments: argparse.Namespace) -> "RunConfig":
    from dream3d.config import load_config, load_config_file

    prompt, overrides = _prompt_and_overrides(arguments)
    seed = _seed(arguments.seed)
    if arguments.config is not None:
        if arguments.preset is not None:
            raise UsageError("--config and --preset exclude each other; a file holds all settings")
        return load_config_file(arguments.config, overrides, prompt, arguments.negative, seed)
    if prompt is None and arguments.image is not None:
        prompt = ""  # some priors need none; the others say so
    if prompt is None:
        raise UsageError('what to make is missing: dream3d generate "a red mug"')
    preset = "default" if arguments.preset is None else arguments.preset
    return load_config(preset, overrides, prompt, arguments.negative or "", seed)


def _generate(
    arguments: argparse.Namespace, stop: StopRequest, share: "ViewShare"
) -> "GenerationResult":
    began = time.perf_counter()
    config = _configuration(arguments)
    from dream3d.generation import generate_run

    if arguments.low_vram:
        from dream3d.memory import sparing

        config = sparing(config)
    progress = Progress([stage.steps for stage in config.stages])
    told = None if arguments.quiet else progress
    try:
        tell = None if arguments.quiet else _tell
        return generate_run(config, arguments.out, told, stop, began, tell, share)
    finally:
        progress.close()


def _tell(_kind: str, data: dict[str, Any]) -> None:
    """Between steps: what the run has to say in words."""
    if "message" in data:
        say(f"warning: {data['message']}")


def _resume(
    arguments: argparse.Namespace, stop: StopRequest, share: "ViewShare"
) -> "GenerationResult":
    given = [
        f"--{name}"
        for name in ("preset", "seed", "out", "negative", "config", "image")
        if getattr(arguments, name) is not None
    ]
    if arguments.low_vram:
        given.append("--low-vram")
    if arguments.words or arguments.literal:
        given.append("a prompt or settings")
    if given:
        raise UsageError(
            f"--resume goes on with a run as it was begun, so {', '.join(given)} cannot be given with it"
        )
    from dream3d.config import load_config_file
    from dream3d.generation import resume_run
    from dream3d.run_directory import RunDirectory

    directory = RunDirectory.open(arguments.resume)
    config = load_config_file(directory.config_path)
    progress = Progress([stage.steps for stage in config.stages])
    told = None if arguments.quiet else progress
    try:
        tell = None if arguments.quiet else _tell
        return resume_run(arguments.resume, told, stop, tell, share)
    finally:
        progress.close()


def profile_table(record: Mapping[str, Any], seconds: float) -> str:
    """Seconds and share of each phase of a run's record, longest first; kernels compiled for the first time apart."""
    phases: dict[str, float] = record.get("phases", {})
    rows = sorted(phases.items(), key=lambda item: -item[1])
    rows.append(("everything else", max(0.0, seconds - sum(phases.values()))))
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:{width}}  {spent:8.2f} s  {spent / seconds:6.1%}" for name, spent in rows]
    lines.append(f"{'total':{width}}  {seconds:8.2f} s")
    compiled = record.get("compilation_seconds") or 0.0
    if compiled > 0.0:
        lines.append(
            f"of these, {compiled:.2f} s for compiling kernels, which only a first run does"
        )
    return "\n".join(lines)
