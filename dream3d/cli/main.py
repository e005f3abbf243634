"""`dream3d`: picks the command, prints its outcome, turns errors a user can cure into one message.

Exit status: 0 done, 1 a bug (with its traceback), 2 an error the user can cure, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

import contextlib
import importlib
import io
import json
import os
import sys
from collections.abc import Sequence

import dream3d
from dream3d.cli.options import Parser, UsageError, printable, split_at_dashes
from dream3d.errors import Dream3DError
from dream3d.registry import suggestion
from dream3d.startup import collect_seldom

FORMAT_VERSION = 1

COMMANDS = {
    "generate": ("dream3d.cli.generate", "make a 3D asset from a prompt"),
    "export": ("dream3d.cli.export", "write a run's asset as a file of any format"),
    "list": ("dream3d.cli.show", "what can be chosen: priors, guidance, scenes, presets, ..."),
    "config": ("dream3d.cli.show", "print a preset with every setting resolved"),
    "ui": ("dream3d.cli.ui", "the web page"),
    "doctor": ("dream3d.cli.show", "what is installed, what is missing, which devices there are"),
    "evaluate": ("dream3d.cli.evaluate", "measure a run against the truth"),
    "batch": ("dream3d.cli.batch", "an asset for every line of a file of prompts"),
    "jobs list": ("dream3d.cli.jobs", "the jobs below a directory"),
    "jobs show": ("dream3d.cli.jobs", "a job and what happened to it"),
    "jobs cancel": ("dream3d.cli.jobs", "stop a job"),
    "jobs resume": ("dream3d.cli.jobs", "go on with a job that ended unfinished"),
    "jobs delete": ("dream3d.cli.jobs", "remove a job and its files"),
    "bench toy": ("dream3d.cli.bench", "every guidance on a density whose outcome is known"),
    "bench guidance": (
        "dream3d.cli.bench_guidance",
        "every guidance on splats at equal evaluations",
    ),
    "bench step": ("dream3d.cli.bench_step", "what one optimisation step costs, and where"),
    "bench fit": ("dream3d.cli.bench_fit", "each representation fitted straight to true views"),
    "bench kernels": ("dream3d.cli.bench_kernels", "the fast renderers beside their peers"),
    "prior train": ("dream3d.cli.prior", "train the embedded prior"),
    "prior sample": ("dream3d.cli.prior", "draw pictures from a prior"),
    "prior evaluate": ("dream3d.cli.prior", "measure the embedded prior"),
    "models list": ("dream3d.cli.models", "text-to-image models by role, licence and size"),
    "models check": ("dream3d.cli.models", "ask the hub which of them can be had"),
    "world show": ("dream3d.cli.world", "draw the procedural world's categories"),
}

HELP = f"""usage: dream3d COMMAND [options]

Text becomes a 3D asset:

  dream3d generate "a red mug"
  dream3d generate "a green snowman" --preset quality --seed 3 --out snowman
  dream3d generate -- "--a prompt that begins with dashes"

commands:
{chr(10).join(f"  {name:15} {summary}" for name, (_, summary) in COMMANDS.items())}

`dream3d COMMAND --help` tells more. Every command takes --json: one JSON object on standard output.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    collect_seldom()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A prompt may hold characters this terminal cannot show; that must not end a run.
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _run(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader (`head`, a pager) went away; nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("dream3d: stopped", file=sys.stderr)
        return 130


def _run(arguments: list[str]) -> int:
    options, _ = split_at_dashes(arguments)
    as_json = "--json" in options
    try:
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            print(HELP, end="")
            return 0
        if arguments[0] == "--version":
            print(f"dream3d {dream3d.__version__}")
            return 0
        name, rest = _command(arguments)
        module = importlib.import_module(COMMANDS[name][0])
        parser = Parser(prog=f"dream3d {name}")
        run = module.add_options(name, parser)
        options, literal = split_at_dashes(rest)
        parsed = parser.parse_intermixed_args(options)
        parsed.literal = literal
        # Whatever a library prints goes to standard error: standard output belongs to the result.
        with contextlib.redirect_stdout(sys.stderr):
            outcome = run(parsed)
        if as_json:
            print(json.dumps({"format_version": FORMAT_VERSION, **outcome.data}, indent=2))
        elif outcome.text:
            print(outcome.text)
        return outcome.status
    except Dream3DError as error:
        print(f"dream3d: {printable(str(error))}", file=sys.stderr)
        if as_json:
            failure = {"type": type(error).__name__, "message": str(error)}
            document = {"format_version": FORMAT_VERSION, "status": "failed", "error": failure}
            print(json.dumps(document, indent=2))
        return 2


def _command(arguments: list[str]) -> tuple[str, list[str]]:
    """The command's name, one word or two, and its arguments.

    Raises:
        UsageError: there is no such command.
    """
    for words in (1, 2):
        name = " ".join(arguments[:words])
        if name in COMMANDS:
            return name, arguments[words:]
    first = arguments[0]
    group = [name for name in COMMANDS if name.startswith(f"{first} ")]
    if group:
        raise UsageError(
            f"`dream3d {first}` is a group of commands; choose one of {', '.join(group)}"
        )
    if " " in first:
        raise UsageError(
            f'unknown command {first!r}; a prompt goes after `generate`: dream3d generate "a red mug"'
        )
    raise UsageError(
        f"unknown command {first!r}; choose one of {', '.join(COMMANDS)}.{suggestion(first, list(COMMANDS))}"
    )


if __name__ == "__main__":
    sys.exit(main())
