"""A fixed list of prompts, run and measured row by row, so that two versions of the program can be compared.

The prompts of a suite are chosen by a hash of their own text, not by hand: within each stratum all captions are sorted
by sha256, and the first ones of distinct categories are taken.

    python -m dream3d.evaluation.suite --out outputs/suite-first

Several processes share the work with `--shard 0/2` and `--shard 1/2`; the same command without a shard then only writes
the table and the gallery.
"""

import argparse
import functools
import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dream3d.api import generate, resume
from dream3d.config import load_config
from dream3d.errors import ConfigError, Dream3DError
from dream3d.evaluation.classifier import Evaluator, load_evaluator
from dream3d.evaluation.run import evaluate_run
from dream3d.files import append_line, make_directory
from dream3d.world.catalog import CATEGORIES, COMPOSITES, PRIMITIVES
from dream3d.world.colors import COLORS
from dream3d.world.freeze import FROZEN_HASH
from dream3d.world.grammar import (
    STACKABLE,
    SUPPORTS,
    Caption,
    Relation,
    caption_text,
    is_caption_held_out,
)

FORMAT_VERSION = 1
FRONT_PROMPTS = 12
FRONT_SEEDS = (0, 1, 2)

Generate = Callable[[str, int, Path], None]
"""Makes the asset of (prompt, seed) in a run directory, or goes on with what is there."""


@dataclass(frozen=True)
class Row:
    """One run of a suite.

    Attributes:
        prompt: canonical text.
        seed: of the run.
        stratum: which part of the suite the prompt was chosen for.
        first: among the 24 prompts that every number but Janus is averaged over.
        front: among the 12 front-marked prompts that Janus is measured on.
    """

    prompt: str
    seed: int
    stratum: str
    first: bool
    front: bool

    @property
    def key(self) -> str:
        """Identifies the row within its suite."""
        return f"{self.prompt} #{self.seed}"

    @property
    def run_name(self) -> str:
        """Name of its run directory."""
        return f"{self.prompt.replace(' ', '-')}-{self.seed}"


def rank(caption: Caption) -> str:
    """What captions are sorted by."""
    return hashlib.sha256(f"suite first: {caption_text(caption)}".encode()).hexdigest()


def choose(
    candidates: Iterable[Caption], count: int, taken: set[str], held_out: bool = False
) -> list[Caption]:
    """The first `count` captions by rank, none of which shares a category with another or with `taken`.

    Args:
        candidates: any order.
        count: how many.
        taken: categories that are used already; the chosen ones are added.
        held_out: take only captions held out from the prior, instead of only seen ones.
    """
    chosen: list[Caption] = []
    for caption in sorted(candidates, key=rank):
        if len(chosen) == count:
            break
        names = {name for _, name in caption.objects}
        if not names & taken and is_caption_held_out(caption) == held_out:
            chosen.append(caption)
            taken |= names
    return chosen


def singles(names: Sequence[str]) -> list[Caption]:
    """Every colour of every named category."""
    return [Caption(((color, name),)) for name in names for color in COLORS]


def pairs(relation: Relation) -> list[Caption]:
    """All pairs of different categories and different colours in one relation."""
    lower = SUPPORTS if relation == "on" else STACKABLE
    return [
        Caption(((a, upper), (b, under)), relation)
        for upper in STACKABLE
        for under in lower
        for a in COLORS
        for b in COLORS
        if upper != under and a != b
    ]


@functools.cache
def first_prompts() -> tuple[tuple[str, Caption], ...]:
    """The 24 prompts of suite `first` with their strata."""
    taken: set[str] = set()
    strata = [
        ("composite", choose(singles(COMPOSITES), 9, taken)),
        ("held-out combination", choose(singles(COMPOSITES), 5, taken, held_out=True)),
        ("no colour", choose([Caption(((None, n),)) for n in COMPOSITES], 2, taken)),
        ("primitive", choose(singles(PRIMITIVES), 2, set())),
        ("on", choose(pairs("on"), 4, set())),
        ("next to", choose(pairs("next to"), 2, set())),
    ]
    return tuple((stratum, caption) for stratum, captions in strata for caption in captions)


def front_prompts() -> list[Caption]:
    """12 prompts of single front-marked objects: those among the 24, filled up by rank with new categories."""
    fronts = [name for name in COMPOSITES if CATEGORIES[name].has_front]
    own = [
        caption
        for _, caption in first_prompts()
        if len(caption.objects) == 1 and caption.objects[0][1] in fronts
    ][:FRONT_PROMPTS]
    taken = {name for caption in own for _, name in caption.objects}
    return own + choose(singles(fronts), FRONT_PROMPTS - len(own), taken)


def suite_rows() -> list[Row]:
    """Every (prompt, seed) of suite `first`, seed 0 of all prompts first."""
    front = {caption_text(caption) for caption in front_prompts()}
    rows = [
        Row(caption_text(c), 0, stratum, True, caption_text(c) in front)
        for stratum, c in first_prompts()
    ]
    first = {row.prompt for row in rows}
    rows += [
        Row(prompt, 0, "front", False, True)
        for prompt in map(caption_text, front_prompts())
        if prompt not in first
    ]
    stratum_of = {row.prompt: row.stratum for row in rows}
    rows += [
        Row(prompt, seed, stratum_of[prompt], False, True)
        for seed in FRONT_SEEDS[1:]
        for prompt in map(caption_text, front_prompts())
    ]
    return rows


def continuous_rows() -> list[Row]:
    """The ten rows every change is tested on: the first ones of four strata, and before all the first of each.

    Ten, because a share of at least nine tenths cannot be told from all with fewer.
    """
    counts = {"composite": 5, "held-out combination": 3, "primitive": 1, "on": 1}
    strata = [[row for row in suite_rows() if row.stratum == s][:n] for s, n in counts.items()]
    return [rows[0] for rows in strata] + [row for rows in strata for row in rows[1:]]


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """Finished rows of an earlier run of the suite, by key; a half-written last line is ignored."""
    done: dict[str, dict[str, Any]] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            done[f"{row['prompt']} #{row['seed']}"] = row
    return done


def run_suite(
    directory: Path,
    generate: Generate,
    rows: Sequence[Row] | None = None,
    evaluator: Evaluator | None = None,
    report: Callable[[str], None] = print,
    ceilings: bool = True,
) -> dict[str, dict[str, Any]]:
    """Generate and measure what is missing; every finished row is one line of `rows.jsonl`.

    A prompt's ceiling is measured with its seed 0 only. A row that fails is recorded with its error, and tried again
    the next time.

    Args:
        directory: of the suite; runs go to `runs/` in it.
        generate: makes one asset.
        rows: a part of the suite; None takes all.
        evaluator: an already loaded one.
        report: told a line per row.
        ceilings: measure them; a direct fit takes about as long as a run.
    """
    make_directory(directory / "runs")
    journal = directory / "rows.jsonl"
    done = {k: r for k, r in read_rows(journal).items() if "error" not in r}
    judge = load_evaluator() if evaluator is None else evaluator
    wanted = suite_rows() if rows is None else rows
    for number, row in enumerate(wanted, start=1):
        if row.key in done:
            continue
        began = time.perf_counter()
        entry: dict[str, Any] = {"format_version": FORMAT_VERSION, **asdict(row)}
        try:
            run = directory / "runs" / row.run_name
            entry["run"] = run.name
            generate(row.prompt, row.seed, run)
            entry["generate_seconds"] = time.perf_counter() - began
            entry |= evaluate_run(
                run, with_ceiling=ceilings and row.seed == 0 and row.first, evaluator=judge
            )
        except Dream3DError as error:
            entry["error"] = f"{type(error).__name__}: {error}"
        append_line(journal, json.dumps(entry, allow_nan=False))
        done[row.key] = entry
        seconds = time.perf_counter() - began
        outcome = entry.get("error") or f"alignment {entry['alignment']:.2f}"
        report(f"{number}/{len(wanted)}  {row.key}  {outcome}  {seconds:.0f} s")
    return {row.key: done[row.key] for row in wanted}


def generate_with_preset(preset: str) -> Generate:
    """The program's own `generate` with one preset.

    Raises:
        ConfigError: there is no such preset; better now than once in every row.
    """
    load_config(preset, {}, "a cube")

    def make(prompt: str, seed: int, directory: Path) -> None:
        if (directory / "config.yaml").is_file():
            resume(directory)
        else:
            generate(prompt, preset=preset, seed=seed, out=directory)

    return make


def commit_hash() -> str:
    """The commit of the checkout this runs in, with "+" when files are changed; "unknown" outside of one."""
    root = Path(__file__).parent.parent.parent
    try:
        head, changes = (
            subprocess.run(
                ["git", "-C", str(root), *command], capture_output=True, text=True, check=True
            ).stdout.strip()
            for command in (
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no"],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changes else "")


def shard(text: str) -> slice:
    """Which rows "i/n" stands for: every n-th from the i-th on, counted from 0.

    Raises:
        argparse.ArgumentTypeError: not of that form.
    """
    first, _, count = text.partition("/")
    if not (first.isdecimal() and count.isdecimal() and int(first) < int(count)):
        raise argparse.ArgumentTypeError(f"'{text}' is not a shard; write i/n with 0 <= i < n")
    return slice(int(first), None, int(count))


def main() -> None:
    """Run suite `first`, write its table and its gallery."""
    from dream3d.evaluation.gallery import write_gallery
    from dream3d.evaluation.table import write_table

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/suite-first"))
    parser.add_argument("--preset", default="default")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--prompts", type=int, default=None, help="only the first so many rows")
    parser.add_argument(
        "--no-ceilings",
        action="store_true",
        help="leave out the direct fits, which take about as long as the runs",
    )
    parser.add_argument("--shard", type=shard, default=None, metavar="i/n", help="only these rows")
    arguments = parser.parse_args()
    rows = suite_rows()[: arguments.prompts][arguments.shard or slice(None)]
    try:
        make = generate_with_preset(arguments.preset)
    except ConfigError as error:
        parser.error(str(error))
    results = run_suite(arguments.out, make, rows, ceilings=not arguments.no_ceilings)
    if arguments.prompts is None and arguments.shard is None:
        write_table(results, arguments.docs, commit_hash(), FROZEN_HASH)
        write_gallery(results, arguments.out / "runs", arguments.docs)


if __name__ == "__main__":
    main()
