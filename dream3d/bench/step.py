"""What one step under the embedded prior costs and where: prior, renderer, everything else.

Times are medians of `rounds` after a warm-up. The overhead is what is left of a step when the prior's own calls
(`encode`, `predict`), the companion's answers (`companion_predict`) and its training (`companion`: forward, backward,
optimiser), the scene's `render`, its density control and the backward pass are taken away: cameras, words, noise, the
rule's arithmetic, the optimiser's bookkeeping, the read-out.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dream3d.companion import CompanionPair, CompanionTrainer
from dream3d.phases import Phases
from dream3d.priors.base import Prior
from dream3d.priors.embedded import EmbeddedConfig
from dream3d.prompts import Prompts
from dream3d.run import make_companion
from dream3d.scenes.splats import SplatsConfig
from dream3d.train import StepReport, TrainState, make_optimizer, train_stage
from guidance.base import GUIDANCE
from systems.base import Stage

PROMPT = "a red mug"


class Stopwatch:
    """Seconds spent in wrapped calls, each without those it makes; waits for a GPU's queue on both sides of each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._inside = 0.0  # of the wrapped calls that the one in progress has made
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}

    def now(self) -> float:
        """The time when everything asked for so far is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, timed under `name`."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            outside, self._inside = self._inside, 0.0
            began = self.now()
            result = function(*args, **kwargs)
            spent = self.now() - began
            self.seconds[name] = self.seconds.get(name, 0.0) + spent - self._inside
            self.calls[name] = self.calls.get(name, 0) + 1
            self._inside = outside + spent
            return result

        return timed


class WaitingPhases(Phases):
    """Phases that wait for the device on both sides, once told to."""

    def __init__(self, watch: Stopwatch) -> None:
        super().__init__()
        self.watch, self.waits = watch, False

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        if self.waits:
            self.watch.now()
        with super().__call__(name):
            yield
            if self.waits:
                self.watch.now()


def step_cost(
    name: str, prior: Prior | None = None, steps: int = 12, views: int = 4, device: str = "cpu"
) -> dict[str, Any]:
    """Milliseconds of one step of a guidance on splats: total, by part, and the share of overhead.

    Args:
        name: of the guidance.
        prior: an already loaded one in place of the embedded; its methods are wrapped for the time being.
        steps: timed after three that are not.
        views: per step, denoised jointly.
        device: of the scene.
    """
    place = torch.device(device)
    prior = EmbeddedConfig().load(place) if prior is None else prior
    watch, warm = Stopwatch(place), 3
    stage = Stage(
        GUIDANCE[name](),
        SplatsConfig(),
        time=_time_for(name),
        steps=steps + warm,
        views=views,
        conditioning="multiview" if prior.accepts_cameras else "text",
    )
    generator = torch.Generator().manual_seed(0)
    assert stage.scene is not None
    scene = stage.scene.create(generator, place)
    companion = make_companion(stage, prior, 0)
    state = TrainState(0, make_optimizer(scene, stage.betas), generator, 0, companion)
    wrapped = [
        *((prior, name, name) for name in ("predict", "encode")),
        *((scene, name, name) for name in ("render", "density_control")),
        *companion_calls(companion),
    ]
    marks: list[tuple[float, dict[str, float]]] = []
    phases = Phases()

    def mark(report: StepReport) -> None:
        parts = watch.seconds | {"backward": phases.seconds.get("backward", 0.0)}
        marks.append((watch.now(), parts))

    for owner, method, part in wrapped:
        setattr(owner, method, watch.around(part, getattr(owner, method)))
    try:
        train_stage(stage, scene, prior, Prompts(prior, PROMPT), state, mark, phases)
    finally:
        for owner, method, _ in wrapped:
            delattr(owner, method)
    rows = [
        {"total": b[0] - a[0], **{k: v - a[1].get(k, 0.0) for k, v in b[1].items()}}
        for a, b in zip(marks[warm - 1 :], marks[warm:], strict=False)
    ]
    milliseconds = {k: 1e3 * statistics.median(row[k] for row in rows) for k in rows[0]}
    rest = [row["total"] - sum(v for k, v in row.items() if k != "total") for row in rows]
    milliseconds["overhead"] = 1e3 * statistics.median(rest)
    return {
        "guidance": name,
        "views": views,
        "milliseconds": {k: round(v, 2) for k, v in milliseconds.items()},
        "overhead_share": round(milliseconds["overhead"] / milliseconds["total"], 4),
        "network_calls": watch.calls["predict"] / stage.steps,
        "evaluations": stage.guidance.evaluations(),
    }


def companion_calls(trainer: CompanionTrainer | None) -> list[tuple[Any, str, str]]:
    """What to time of a companion: owner, method, and the part of a step it is."""
    if trainer is None:
        return []
    twins = [trainer.companion]
    if isinstance(trainer.companion, CompanionPair):
        twins += [trainer.companion.own, trainer.companion.dreamer]
    return [(trainer, "step", "companion"), *((t, "predict", "companion_predict") for t in twins)]


def _time_for(name: str) -> Any:
    from dream3d.time_samplers import AnnealedTime, UniformTime

    return AnnealedTime() if GUIDANCE[name]().needs_falling_time else UniformTime()


def bench_step(
    names: list[str], device: str, steps: int, report: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Rows of steps under the embedded prior as JSON data."""
    rows = []
    for name in names:
        report(name)
        rows.append(step_cost(name, steps=steps, device=device))
    return rows
