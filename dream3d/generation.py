"""From a configuration to a finished run directory: the optimisation, its log and previews, the exports, the record.

The command line, the Python API and the web page all come through `generate_run` and `resume_run`.
"""

import datetime
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import dream3d
from dream3d.compatibility import as_first, check_run, doubts
from dream3d.config import config_to_yaml, load_config_file
from dream3d.errors import Cancelled, Dream3DError
from dream3d.export.assets import export_all
from dream3d.export.pictures import write_preview
from dream3d.export.run import about_run
from dream3d.kernels import compilation_seconds
from dream3d.memory import Reductions, is_out_of_memory
from dream3d.origin import as_record
from dream3d.parallel import ALONE, ViewShare
from dream3d.phases import Phases
from dream3d.priors.base import Prior
from dream3d.run import RunResult, load_second, resolve_device, run_system
from dream3d.run_directory import RunDirectory
from dream3d.scenes.base import Scene
from dream3d.train import Second, StepReport
from systems.base import RunConfig, fingerprint
from systems.own_meshes import keep_meshes, read_meshes, with_own_meshes
from systems.reference import keep, kept, load_reference

LIVE_PREVIEW_SIZE = 96

OnEvent = Callable[[str, dict[str, Any]], None]
"""Told of what happens between steps: "warning" before the first, of what can hardly be meant; "stopping" when a run
that was asked to stop has saved checkpoint and preview and goes on to export what there is; "out-of-memory" when
something was halved and the run goes on from a checkpoint."""


@dataclass(frozen=True)
class GenerationResult:
    """A finished or stopped run.

    Attributes:
        directory: the run directory.
        status: "done" or "cancelled".
        prompt, seed: what was made.
        seconds: wall time over all resumptions.
        files: the run's files that exist, by name ("asset.glb", "preview.png", ...).
        record: the contents of `result.json`.
        scene: the optimised scene; None when the run was finished already and nothing had to be done.
    """

    directory: Path
    status: str
    prompt: str
    seed: int
    seconds: float
    files: dict[str, Path]
    record: dict[str, Any]
    scene: Scene | None


def peak_memory_megabytes() -> float | None:
    """The largest resident size of this process so far; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def versions() -> dict[str, str]:
    """What produced the run, as far as it can decide the numbers."""
    import numpy

    return {
        "dream3d": dream3d.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "platform": platform.platform(terse=True),
    }


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


class _Recorder:
    """Told of every step: appends to the log, refreshes the preview, passes the report on."""

    def __init__(
        self,
        run: RunDirectory,
        resumed: bool,
        phases: Phases,
        began: float,
        on_step: Callable[[StepReport], None] | None,
    ) -> None:
        self.run = run
        self.fresh = not resumed
        self.phases = phases
        self.on_step = on_step
        self.began = began
        self.step = 0
        self.first_preview_seconds: float | None = None

    def __call__(self, report: StepReport) -> None:
        self.step = report.step
        if not self.fresh:
            self.run.drop_metrics_from(report.stage, report.step)
            self.fresh = True
        row: dict[str, float | int | None] = {
            "stage": report.stage,
            "step": report.step,
            "seconds": round(time.perf_counter() - self.began, 3),
            "loss": _finite(report.loss),
        }
        self.run.append_metrics({**row, **{k: _finite(v) for k, v in report.metrics.items()}})
        if report.preview_due and report.step < report.steps:
            with self.phases("preview"):
                write_preview(report.scene, self.run.path / "preview.png", LIVE_PREVIEW_SIZE)
            so_far = {**self.phases.seconds, **report.phases}
            self.run.write_phases({name: round(spent, 3) for name, spent in so_far.items()})
            if self.first_preview_seconds is None:
                self.first_preview_seconds = round(time.perf_counter() - self.began, 3)
        if self.on_step is not None:
            self.on_step(report)


def _finite(value: float) -> float | None:
    """JSON has no NaN: such a value is written as null."""
    return float(value) if abs(float(value)) < float("inf") else None


def generate_run(
    config: RunConfig,
    out: Path | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    began: float | None = None,
    on_event: OnEvent | None = None,
    share: ViewShare = ALONE,
) -> GenerationResult:
    """Run `config` in a new directory. A prompt, prior or file that cannot be used is refused before it is made.

    Args:
        config: what to do.
        out: the run directory, new or empty; None makes one below `outputs`.
        on_step: told after every step; may raise `Cancelled`.
        should_stop: asked after every step; True stops with a checkpoint and exports of what there is.
        began: `time.perf_counter()` when the command began; what it spent on imports is counted as such.
        on_event: see `OnEvent`.
        share: this process's part where several work on one asset; all but the first only compute.

    Raises:
        Dream3DError: see `dream3d.errors`.
    """
    phases = Phases()
    reference = load_reference(config.reference)
    meshes = read_meshes(config)
    if began is None:
        began = time.perf_counter()
    else:
        phases.seconds["import"] = time.perf_counter() - began
    with phases("load"):
        prior = config.prior.load(resolve_device(config.device))
        for prompt in (config.prompt, config.negative_prompt):
            if prompt or prompt is config.prompt:
                prior.check_prompt(prompt)
        check_run(config, prior)
        config.debiasing.directory()
        second = load_second(config, prior.device, reference)
    doubted = doubts(config, prior)
    if second is not None:
        doubted += [
            f"second: {one}" for one in doubts(as_first(config, second.prior), second.prior)
        ]
    settings = replace(config.reference, sha256=reference.sha256) if reference else config.reference
    config = replace(config, reference=settings)
    if share.rank > 0:
        return _follow(config, None, should_stop, prior, share, second)
    written = with_own_meshes(replace(config, reference=kept(reference, settings)))
    run = RunDirectory.create(config.prompt, config_to_yaml(written), out)
    keep(reference, run.path)
    keep_meshes(meshes, run.path)
    with run.locked():
        for message in doubted:
            if on_event is not None:
                on_event("warning", {"message": message})
        return _work(
            *(config, run, phases, began, on_step, should_stop),
            *(prior, on_event, share, second, doubted),
        )


def resume_run(
    path: Path,
    on_step: Callable[[StepReport], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_event: OnEvent | None = None,
    share: ViewShare = ALONE,
) -> GenerationResult:
    """Go on with the run in `path` until it is done; a run that is done already is returned as it is.

    Raises:
        ConfigError: there is no run in `path`, or another process works on it.
        CheckpointError: its checkpoints cannot be used.
    """
    run = RunDirectory.open(path)
    config = load_config_file(run.config_path)
    if share.rank > 0 and run.read_record().get("status") != "done":
        return _follow(config, path, should_stop, None, share)
    if share.rank > 0:
        return _result(run, run.read_record())
    with run.locked():
        record = run.read_record()
        if record.get("status") == "done":
            return _result(run, record)
        began = time.perf_counter()
        return _work(config, run, Phases(), began, on_step, should_stop, None, on_event, share)


def _work(
    config: RunConfig,
    run: RunDirectory,
    phases: Phases,
    began: float,
    on_step: Callable[[StepReport], None] | None,
    should_stop: Callable[[], bool] | None,
    prior: Prior | None,
    on_event: OnEvent | None,
    share: ViewShare,
    second: Second | None = None,
    warnings: Sequence[str] = (),
) -> GenerationResult:
    """Optimise, export, and keep `result.json` true at every moment. Without a `prior` the run is resumed."""
    resume = prior is None
    before = run.read_record() if resume else {}
    record: dict[str, Any] = {
        "status": "running",
        "prompt": config.prompt,
        "negative_prompt": config.negative_prompt,
        "seed": config.seed,
        "started": before.get("started", _now()),
        "finished": None,
        "steps": {"done": 0, "total": sum(stage.steps for stage in config.stages)},
        "seconds": before.get("seconds", 0.0),
        "compilation_seconds": None,
        "peak_memory_megabytes": None,
        "phases": {},
        "versions": versions(),
        "prior": before.get("prior", {}) if prior is None else as_record(prior.origins),
        **({} if config.second is None else {"second": _origin(before, second)}),
        "warnings": list(warnings),
        "error": None,
    }
    spent, compiled = float(record["seconds"] or 0.0), compilation_seconds()
    run.write_record(record)
    recorder = _Recorder(run, resume, phases, began, on_step)

    def close(status: str) -> dict[str, Any]:
        record["status"] = status
        record["finished"] = _now()
        record["seconds"] = round(spent + time.perf_counter() - began, 3)
        record["compilation_seconds"] = round(compilation_seconds() - compiled, 3)
        record["peak_memory_megabytes"] = peak_memory_megabytes()
        record["first_preview_seconds"] = recorder.first_preview_seconds
        return run.write_record(record)

    try:
        made = _optimise(
            config, run, recorder, resume, should_stop, prior, record, on_event, share, second
        )
        record["steps"]["done"] = made.steps
        stopped = made.status == "cancelled"
        if stopped:
            # Whoever stopped it may not wait for the exports: what takes no time is on the disk first.
            with suppress(Dream3DError), phases("preview"):
                write_preview(made.scene, run.path / "preview.png")
            close("cancelled")
            if on_event is not None:
                on_event("stopping", {"steps": made.steps})
        problems = export_all(made.scene, run.path, phases, about_run(config, record))
        for name, spent_in in made.phases.items():
            phases.seconds[name] = phases.seconds.get(name, 0.0) + spent_in
        record["phases"] = {name: round(value, 3) for name, value in phases.seconds.items()}
        if problems and not stopped:
            raise problems[0]
        record["warnings"] += [str(problem) for problem in problems]
        written = close("cancelled" if stopped else "done")
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | Cancelled)
        record["error"] = {"type": type(error).__name__, "message": str(error)}
        # The disk that refused the result may refuse the record as well; the first error is the one to report.
        with suppress(Dream3DError):
            close("cancelled" if stopped else "failed")
        raise
    return _result(run, written, made.scene)


def _origin(before: dict[str, Any], second: Second | None) -> dict[str, Any]:
    """Models of the second prior; of a resumed run, as its record has them."""
    return before.get("second", {}) if second is None else as_record(second.prior.origins)


def _optimise(
    config: RunConfig,
    run: RunDirectory,
    recorder: _Recorder,
    resume: bool,
    should_stop: Callable[[], bool] | None,
    prior: Prior | None,
    record: dict[str, Any],
    on_event: OnEvent | None,
    share: ViewShare,
    second: Second | None = None,
) -> RunResult:
    """Run the system; where memory does not suffice, halve something and go on from the last checkpoint.

    Raises:
        MemoryShort: nothing is left to halve.
    """
    reductions = Reductions(run.path)
    identity = fingerprint(config)
    while True:
        try:
            settings = reductions.apply(config)
            return run_system(
                settings, run.path, recorder, resume, should_stop, prior, identity, share, second
            )
        except (RuntimeError, MemoryError) as error:
            # Several processes would have to step down together; there the first to fail ends them all.
            if share.ranks > 1 or not is_out_of_memory(error):
                raise
            reason = error.with_traceback(None)  # its frames hold the tensors that are in the way
        lowered = "; ".join(map(str, reductions.step_down(config, reason)))
        message = f"out of memory at step {recorder.step}; went on with {lowered}"
        record["warnings"].append(message)
        if on_event is not None:
            on_event("out-of-memory", {"message": message, "step": recorder.step})
        recorder.fresh, resume = False, True


def _follow(
    config: RunConfig,
    path: Path | None,
    should_stop: Callable[[], bool] | None,
    prior: Prior | None,
    share: ViewShare,
    second: Second | None = None,
) -> GenerationResult:
    """Compute this process's share and leave no file; `path` is the run to resume, None a new one."""
    settings = config if path is None else Reductions(path).apply(config)
    made = run_system(
        settings,
        path or Path(os.devnull),
        resume=path is not None,
        should_stop=should_stop,
        prior=prior,
        second=second,
        identity=fingerprint(config),
        share=share,
    )
    status = "done" if made.status == "finished" else "cancelled"
    return GenerationResult(
        Path(os.devnull), status, config.prompt, config.seed, made.seconds, {}, {}, made.scene
    )


def _result(
    run: RunDirectory, record: dict[str, Any], scene: Scene | None = None
) -> GenerationResult:
    return GenerationResult(
        directory=run.path,
        status=record["status"],
        prompt=record["prompt"],
        seed=record["seed"],
        seconds=record["seconds"],
        files={name: run.path / name for name in run.files()},
        record=record,
        scene=scene,
    )
