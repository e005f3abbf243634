"""Time every fast renderer beside its peers, in one run and by turns, and rank them only on a machine that is idle.

Milliseconds are of one forward and backward pass. `core_ms` is processor time of all the process's threads, the minimum
over the rounds: what a pass costs a core, whatever else shares the machine. Ratios of times measured in different runs,
or beside other work, say little; so passes alternate, and a machine on which others worked gets no ratio.
"""

import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dream3d.bench.kernel_cases import CONTESTS, Contest
from dream3d.errors import BackendError, ConfigError

MOST_FOREIGN = 0.25
"""Cores that other processes may use while a row is timed; more, and the row is not ranked."""
AGREEMENT = 2e-3
"""Largest relative difference of what two backends computed; more, and there is nothing to rank."""
MEMORY_LIMIT_MB = 300.0


@dataclass(frozen=True)
class Sample:
    """Seconds of one pass: processor time and wall-clock time."""

    core: float
    wall: float


Timed = Callable[[], Sample]


class Load:
    """How many cores other processes used between two moments."""

    def __init__(self) -> None:
        self._start = self._now()

    @staticmethod
    def _now() -> tuple[float, float | None]:
        """The time, and the seconds all cores were busy with others since the machine started (None: not told)."""
        try:
            with open("/proc/stat") as file:
                fields = [int(field) for field in file.readline().split()[1:9]]
        except (OSError, ValueError):
            return time.monotonic(), None
        busy = sum(fields) - fields[3] - fields[4]  # all but idle and waiting for disks
        own = os.times()
        mine = own.user + own.system + own.children_user + own.children_system
        return time.monotonic(), busy / os.sysconf("SC_CLK_TCK") - mine

    def foreign(self) -> float | None:
        """Cores that others used since; None where the system does not tell."""
        (begin, before), (end, after) = self._start, self._now()
        if before is None or after is None or end - begin < 0.05:
            return None
        return max(0.0, (after - before) / (end - begin))


def load_average() -> float | None:
    """Processes that wanted to run, on average over the last minute; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            models = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
        name = models[0] if models else name
    except OSError:
        pass
    return {
        "processor": name,
        "cores": cores,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch and the kernels use `count` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_process(run: Callable[[], object], count: int) -> Timed:
    """A pass in this process on `count` threads, compiled and warm."""

    def timed() -> Sample:
        with threads(count):
            wall, core = time.perf_counter(), time.process_time()
            run()
            return Sample(time.process_time() - core, time.perf_counter() - wall)

    timed()
    return timed


@contextmanager
def mitsuba(count: int, size: int) -> Iterator[Timed]:
    """Mitsuba in a process of its own, one pass at a time.

    Raises:
        BackendError: it is not installed, or cannot run here.
    """
    if importlib.util.find_spec("mitsuba") is None:
        raise BackendError("mitsuba is not installed; `pip install 'dream3d[bench]'`")
    command = [sys.executable, "-m", "dream3d.bench.mitsuba_peer", str(count), str(size)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin and process.stdout and process.stderr

        def answer() -> str:
            line = process.stdout.readline() if process.stdout else ""
            if line:
                return line
            said = process.stderr.read().strip().splitlines() if process.stderr else []
            raise BackendError(
                f"mitsuba stopped: {said[0] if said else 'without a word'}; its LLVM must be 16 or newer: install "
                "one (Debian: libllvm19) and name its libLLVM.so in DRJIT_LIBLLVM_PATH"
            )

        def timed() -> Sample:
            assert process.stdin
            try:
                process.stdin.write("pass\n")
                process.stdin.flush()
            except BrokenPipeError:
                answer()
            return Sample(**json.loads(answer()))

        try:
            answer()  # "ready"
            timed()  # compiles
            yield timed
        finally:
            process.kill()


def difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest relative difference, in norm, of two lists of tensors."""
    worst = 0.0
    for a, b in zip((v.detach() for v in ours), (v.detach() for v in theirs), strict=True):
        if a.shape != b.shape:
            return float("inf")
        worst = max(worst, float((a - b).norm() / b.norm().clamp_min(1e-12)))
    return worst


@contextmanager
def opponents(contest: Contest) -> Iterator[tuple[Timed, Timed]]:
    """Both sides of a row, warm.

    Raises:
        BackendError: the peer cannot run here, or the two do not compute the same.
    """
    cores = machine()["cores"]
    if contest.threads > cores:
        raise BackendError(f"needs {contest.threads} cores, this machine has {cores}")
    run = contest.make()
    ours = in_process(lambda: run("numba"), contest.threads)
    if contest.peer == "mitsuba":
        with mitsuba(*contest.size) as theirs:
            yield ours, theirs
        return
    backend = "torch" if contest.peer == "torch" else "numba"
    if (apart := difference(run("numba"), run(backend))) > AGREEMENT:
        raise BackendError(f"numba and {backend} differ by {apart:.1e}: nothing to rank")
    yield ours, in_process(lambda: run(backend), 1)


def compete(contest: Contest, rounds: int, force: bool) -> dict[str, Any]:
    """One row of the result; `skipped` says why where there is nothing to tell."""
    row: dict[str, Any] = {
        "op": contest.op,
        "case": contest.case,
        "backend": "numba" if contest.threads == 1 else f"numba, {contest.threads} threads",
        "peer": contest.peer,
        "core_ms": None,
        "peer_core_ms": None,
        "ratio": None,
        "bar": contest.bar,
    }
    try:
        with opponents(contest) as sides:
            load = Load()
            samples: list[tuple[Sample, Sample]] = []
            for _ in range(rounds):
                samples.append((sides[0](), sides[1]()))
            foreign = load.foreign()
    except BackendError as error:
        return {**row, "skipped": str(error)}
    if contest.peer == "mitsuba" and foreign is not None:
        # Its process ends later, so its processor time is not among our children's yet.
        wall = sum(s.wall for pair in samples for s in pair)
        foreign = max(0.0, foreign - sum(theirs.core for _, theirs in samples) / wall)
    return {**row, **summarise(contest, samples, foreign, force)}


def summarise(
    contest: Contest, samples: Sequence[tuple[Sample, Sample]], foreign: float | None, force: bool
) -> dict[str, Any]:
    """The figures of a row. The ratio is of minima, and null where others used the machine."""

    def milliseconds(side: int, clock: str, law: Callable[[list[float]], float]) -> float:
        return round(1e3 * law([getattr(pair[side], clock) for pair in samples]), 3)

    figures: dict[str, Any] = {}
    for side, prefix in ((0, ""), (1, "peer_")):
        for clock in ("core", "wall"):
            figures[f"{prefix}{clock}_ms"] = milliseconds(side, clock, min)
            figures[f"{prefix}{clock}_ms_median"] = milliseconds(side, clock, statistics.median)
    of = contest.of
    ratio = figures[f"peer_{of}_ms"] / max(figures[f"{of}_ms"], 1e-6)
    loaded = foreign is None or foreign > MOST_FOREIGN
    figures["ratio_of"] = of
    figures["foreign_cores"] = None if foreign is None else round(foreign, 2)
    figures["ranked"] = not loaded
    figures["ratio"] = round(ratio, 2) if force or not loaded else None
    met = ratio >= contest.bar
    if contest.peer_limit_ms is not None:
        figures["peer_limit_ms"] = contest.peer_limit_ms
        met = met and figures["peer_core_ms"] <= contest.peer_limit_ms
    figures["met"] = met if not loaded else None
    return figures


def memory() -> dict[str, Any]:
    """Peak memory of 100k splats at 512 px, forward and backward, above what the process held before."""
    done = subprocess.run(
        [sys.executable, "-m", "dream3d.bench.kernel_memory"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    row: dict[str, Any] = {"op": "splats", "case": "100k/512", "limit_mb": MEMORY_LIMIT_MB}
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        return {**row, "above_baseline_mb": None, "skipped": said[-1] if said else "no output"}
    found = json.loads(done.stdout)
    return {**row, **found, "met": found["above_baseline_mb"] <= MEMORY_LIMIT_MB}


def bench_kernels(
    ops: Sequence[str], rounds: int, force: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Run all rows of `ops` (none: all of them).

    Args:
        ops: names of operations.
        rounds: passes of each side.
        force: give ratios on a loaded machine too.
        say: told of each row before it is timed.

    Raises:
        ConfigError: no such operation.
    """
    known = list(dict.fromkeys(contest.op for contest in CONTESTS))
    for op in ops:
        if op not in known:
            raise ConfigError(f"operation is '{op}'; choose from {', '.join(known)}")
    load = load_average()
    rows = []
    for contest in CONTESTS:
        if not ops or contest.op in ops:
            say(f"{contest.op} {contest.case} beside {contest.peer}")
            rows.append(compete(contest, rounds, force))
    result: dict[str, Any] = {"load": load, "machine": machine(), "rounds": rounds, "rows": rows}
    if not ops or "splats" in ops:
        say("memory of 100k splats")
        result["memory"] = memory()
    loaded = [row for row in rows if row.get("ranked") is False]
    result["ranked"] = not loaded
    if loaded:
        result["warning"] = (
            f"other processes used this machine during {len(loaded)} of {len(rows)} rows: their ratios "
            + (
                "are shown, but rank nothing"
                if force
                else "are withheld; run it on an idle machine, or pass --force"
            )
        )
    return result
