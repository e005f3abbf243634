"""How long a run will take on this machine, learnt from the runs it has done."""

import statistics
import time
from collections import deque
from typing import Any

from dream3d.config import load_config_file
from dream3d.errors import Dream3DError
from dream3d.jobs import JobStore
from dream3d.run_directory import RunDirectory
from systems.base import RunConfig, Stage

REMEMBERED = 40
SECONDS_FRESH = 30.0


class Pace:
    """Seconds per unit of work, from the newest finished runs.

    Args:
        store: whose runs count.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._known: dict[str, tuple[tuple[Any, ...], float] | None] = {}
        self._recent: deque[tuple[tuple[Any, ...], float]] = deque(maxlen=REMEMBERED)
        self._looked = 0.0

    def estimate(self, config: RunConfig) -> float | None:
        """Seconds the optimisation of `config` is likely to take; None when no run like it was done here."""
        self._look()
        total = 0.0
        for stage in config.stages:
            kind = _kind(config, stage)
            paces = [pace for known, pace in self._recent if known == kind]
            if not paces:
                paces = [pace for known, pace in self._recent if known[:2] == kind[:2]]
            if not paces:
                return None
            total += statistics.median(paces) * work(stage) * stage.steps
        return total

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < SECONDS_FRESH and self._looked:
            return
        self._looked = now
        for job in self._store.ids():
            if self._known.get(job) is None and self._store.state(job) == "done":
                measured = self._known[job] = self._measure(job)
                if measured is not None:
                    self._recent.append(measured)

    def _measure(self, job: str) -> tuple[tuple[Any, ...], float] | None:
        run = RunDirectory(self._store.run_path(job))
        try:
            config = load_config_file(run.config_path)
        except Dream3DError:
            return None
        rows = run.metrics()
        if len(config.stages) != 1 or len(rows) < 5:
            return None
        seconds = float(rows[-1].get("seconds", 0.0)) - float(rows[0].get("seconds", 0.0))
        if seconds <= 0.0:
            return None
        stage = config.stages[0]
        return _kind(config, stage), seconds / (len(rows) - 1) / work(stage)


def _kind(config: RunConfig, stage: Stage) -> tuple[Any, ...]:
    scene = stage.scene or config.stages[0].scene
    return (
        type(config.prior).__name__,
        type(scene).__name__,
        type(stage.guidance).__name__,
        stage.render_size,
    )


def work(stage: Stage) -> float:
    """A step's evaluations of the prior's network, which take most of its time."""
    costs = [stage.guidance.evaluations(t, 0.5) for t in (0.1, 0.5, 0.9)]
    return max(1.0, stage.views * statistics.mean(costs))
