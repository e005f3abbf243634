"""One run, from a configuration to an optimised scene. The command line, batches and the web page all call this."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from dream3d.bootstrap import BootstrapTrainer
from dream3d.checkpoint import (
    Checkpoint,
    CheckpointStore,
    optimizer_tensors,
    restore_optimizer,
)
from dream3d.companion import CompanionPair, CompanionTrainer, restore_parameters
from dream3d.compatibility import check_run, check_second
from dream3d.errors import Cancelled, ConfigError
from dream3d.latent_scenes import with_latent_colors
from dream3d.parallel import ALONE, ViewShare, check_share
from dream3d.phases import Phases
from dream3d.priors.base import Prior
from dream3d.prompts import Prompts
from dream3d.scenes.base import Scene
from dream3d.scenes.splats import Splats
from dream3d.train import Second, StepReport, TrainState, make_optimizer, train_stage
from systems.base import RunConfig, Stage, fingerprint
from systems.reference import Reference, load_reference


@dataclass(frozen=True)
class RunResult:
    """What a run made.

    Attributes:
        status: "finished", or "cancelled" when it was asked to stop; either way the scene is usable and on disk as a
            checkpoint.
        scene: the optimised scene.
        steps: optimiser steps done over all stages and resumptions.
        resumed_from: steps that were already done when this call began.
        seconds: wall time of the run over all its resumptions.
        phases: wall seconds of this call by phase: load, render, prior, backward, optimise, density, checkpoint.
    """

    status: Literal["finished", "cancelled"]
    scene: Scene
    steps: int
    resumed_from: int
    seconds: float
    phases: dict[str, float]


def resolve_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA where there is a usable one, else the CPU.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device is '{name}'; choose auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not (
        torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    ):
        raise ConfigError(
            f"device is '{name}', but torch sees no such GPU here; choose device=cpu, or ask `dream3d doctor` why"
        )
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device is '{name}'; choose auto, cpu, cuda or cuda:N")
    return device


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Let torch use only deterministic kernels inside the block, so that a seeded CPU run repeats bit for bit.

    On a GPU some kernels have no deterministic form; there they are allowed and torch warns.
    """
    before = torch.get_deterministic_debug_mode()
    memory: Any = torch.utils.deterministic  # a module whose attributes are made at run time
    fill = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    memory.fill_uninitialized_memory = (
        False  # it only catches reads of unwritten memory, and costs time
    )
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
        memory.fill_uninitialized_memory = fill


def make_companion(stage: Stage, prior: Prior, seed: int) -> CompanionTrainer | None:
    """The trainable twin of the prior that the stage's guidance asks for, untrained; None if it asks for none.

    Raises:
        ConfigError: the guidance asks for one and this prior has none.
    """
    settings = stage.guidance.companion_settings()
    if settings is None:
        return None
    companion = prior.companion(settings.rank, seed)
    if settings.augment is None:
        return CompanionTrainer(companion, prior.schedule, settings)
    pair = CompanionPair(companion, prior.companion(settings.rank, seed + 1, "dreamer"))
    return BootstrapTrainer(prior, pair, settings)


def _start(
    config: RunConfig,
    found: Checkpoint | None,
    prior: Prior,
    device: torch.device,
    share: ViewShare,
) -> tuple[int, Scene, TrainState]:
    """Stage index, scene and state to begin with: fresh, or as a checkpoint left them."""
    stage = 0 if found is None else found.stage
    generator = torch.Generator().manual_seed(config.seed)
    # A stage without a scene of its own goes on with the one before it.
    origin = next(s.scene for s in reversed(config.stages[: stage + 1]) if s.scene is not None)
    scene = with_latent_colors(origin.create(generator, device), prior)
    if found is not None:
        scene.load_state(found.scene)
        generator.set_state(found.generator)
    optimizer = make_optimizer(scene, config.stages[stage].betas)
    companion = make_companion(config.stages[stage], prior, config.seed)
    state = TrainState(0, optimizer, generator, config.seed, companion, share=share)
    if found is not None:
        restore_optimizer(optimizer, found.optimizer)
        if isinstance(scene, Splats):
            scene.keep_within_budget(optimizer)
        if companion is not None:
            restore_parameters(companion.companion, found.companion)
            restore_optimizer(companion.optimizer, found.companion_optimizer)
        state.step, state.skipped = found.step, found.skipped
    return stage, scene, state


def next_scene(
    stage: Stage, scene: Scene, generator: torch.Generator, device: torch.device
) -> Scene:
    """What a stage after the first optimises: the scene before it, that converted, or a new one."""
    if stage.scene is None:
        return scene
    if stage.start == "previous":
        return stage.scene.convert(scene, generator, device)
    return stage.scene.create(generator, device)


def _next(
    stage: Stage,
    scene: Scene,
    prior: Prior,
    state: TrainState,
    device: torch.device,
    phases: Phases,
) -> tuple[Scene, TrainState]:
    """Scene and state that a stage after the first begins with."""
    with phases("convert"):
        scene = next_scene(stage, scene, state.generator, device)
        scene = with_latent_colors(scene, prior)
    optimizer = make_optimizer(scene, stage.betas)
    companion = make_companion(stage, prior, state.seed)
    return scene, replace(state, step=0, optimizer=optimizer, companion=companion, skipped=0)


def _checked(config: RunConfig, prior: Prior, share: ViewShare) -> Prior:
    """The prior, if it can make what `config` asks for.

    Raises:
        PromptError, ConfigError: it cannot; or the processes cannot share the run's views.
    """
    prior.check_prompt(config.prompt)
    if config.negative_prompt:
        prior.check_prompt(config.negative_prompt)
    check_run(config, prior)
    check_share(config, share)
    return prior


def _ask_at_once(config: RunConfig, prior: Prior, second: Second | None) -> None:
    """What is loaded already may have been asked about more at once than memory suffices for."""
    prior.ask_at_once(getattr(config.prior, "chunk", 0))
    if second is not None and config.second is not None:
        second.prior.ask_at_once(getattr(config.second.prior, "chunk", 0))


def load_second(
    config: RunConfig, device: torch.device, reference: Reference | None
) -> Second | None:
    """The second prior of a run, shown its picture, with the prompts it can take; None where there is none.

    Raises:
        PromptError, ModelError, ConfigError: see `dream3d.errors`.
    """
    if config.second is None:
        return None
    prior = config.second.prior.load(device)
    check_second(config, prior)
    negative = config.negative_prompt if prior.needs_text else ""
    if prior.needs_text:
        for text in filter(None, (config.prompt, negative)):
            prior.check_prompt(text)
    prior = _shown(prior, reference, device)
    return Second(config.second, prior, view_prompts(config, prior, negative))


def _shown(prior: Prior, reference: Reference | None, device: torch.device) -> Prior:
    """The prior that has seen the run's picture, where there is one."""
    if reference is None:
        return prior
    size = prior.image_size
    return prior.seeing(reference.picture(size, device), reference.settings.camera(size))


def view_prompts(config: RunConfig, prior: Prior, negative: str) -> Prompts:
    """The run's prompts, debiased as configured.

    Raises:
        ModelError: see `DebiasingSettings.prompt_for`.
    """
    prompt = _words(config.prompt, prior)
    return Prompts(prior, prompt, negative, config.debiasing.prompt_for(prompt))


def _words(prompt: str, prior: Prior) -> str:
    """Where the picture says it all the prompt may be empty, and still must not mean "no condition"."""
    return prompt if prior.needs_text else prompt.strip() or "the picture"


def companion_tensors(state: TrainState) -> dict[str, dict[str, torch.Tensor]]:
    """What a checkpoint keeps of the companion."""
    trainer = state.companion
    if trainer is None:
        return {}
    return {
        "companion": trainer.companion.parameters(),
        "companion_optimizer": optimizer_tensors(trainer.optimizer),
    }


def _checkpoint(
    stage: int, scene: Scene, state: TrainState, seconds: float, identity: str
) -> Checkpoint:
    return Checkpoint(
        stage=stage,
        step=state.step,
        skipped=state.skipped,
        seconds=seconds,
        fingerprint=identity,
        generator=state.generator.get_state(),
        scene=scene.state(),
        optimizer=optimizer_tensors(state.optimizer),
        **companion_tensors(state),
    )


def run_system(
    config: RunConfig,
    run_directory: Path,
    on_step: Callable[[StepReport], None] | None = None,
    resume: bool = False,
    should_stop: Callable[[], bool] | None = None,
    prior: Prior | None = None,
    identity: str | None = None,
    share: ViewShare = ALONE,
    second: Second | None = None,
) -> RunResult:
    """Optimise every stage of `config`; checkpoints go to `run_directory`/checkpoints.

    Args:
        config: what to do.
        run_directory: of this run; only its `checkpoints` folder is written here.
        on_step: told after every step; may raise `Cancelled` to stop.
        resume: go on from the newest usable checkpoint; without any file there, start from the beginning.
        should_stop: asked after every step; True stops the run with a checkpoint.
        prior: an already loaded one to use instead of `config.prior`, for many runs in one process.
        identity: fingerprint the checkpoints carry; None is that of `config`. A run that memory forced to reduce its
            settings keeps the one it began with.
        share: this process's part where several work on one asset; only the first writes checkpoints.
        second: an already loaded one to use instead of `config.second`.

    Raises:
        PromptError, ModelError, ConfigError, CheckpointError, OutputError, NumericsError: see `dream3d.errors`.
    """
    began = time.perf_counter()
    phases = Phases()
    device = resolve_device(config.device)
    store = CheckpointStore(run_directory / "checkpoints", identity or fingerprint(config))
    found = store.load_newest() if resume else None
    with phases("load"):
        prior = _checked(config, config.prior.load(device) if prior is None else prior, share)
        reference = load_reference(config.reference)
        prior = _shown(prior, reference, device)
        second = load_second(config, device, reference) if second is None else second
        _ask_at_once(config, prior, second)
        prompts = view_prompts(config, prior, config.negative_prompt)
        index, scene, state = _start(config, found, prior, device, share)
        state.reference, state.second = reference, second
    spent_before = 0.0 if found is None else found.seconds
    steps_before = [
        sum(stage.steps for stage in config.stages[:i]) for i in range(len(config.stages))
    ]
    resumed_from = steps_before[index] + state.step
    saved: tuple[int, int] | None = None

    def seconds() -> float:
        return spent_before + time.perf_counter() - began

    def save() -> None:
        nonlocal saved
        if saved == (index, state.step) or share.rank > 0:
            return
        with phases("checkpoint"):
            store.save(_checkpoint(index, scene, state, seconds(), store.fingerprint))
        saved = (index, state.step)

    def after_step(report: StepReport) -> None:
        # Told first: a step that a checkpoint counts as done is then in the caller's log, whatever happens in between.
        if on_step is not None:
            place = {"stage": index, "stages": len(config.stages)}
            on_step(replace(report, **place, phases=phases.seconds))
        every = config.stages[index].checkpoint_every
        if report.step == report.steps or (every and report.step % every == 0):
            save()
        if share.any(should_stop is not None and should_stop(), device):
            raise Cancelled("the run was asked to stop")

    status: Literal["finished", "cancelled"] = "finished"
    with repeatable(device):
        try:
            while True:
                train_stage(config.stages[index], scene, prior, prompts, state, after_step, phases)
                if index + 1 == len(config.stages):
                    break
                index += 1
                scene, state = _next(config.stages[index], scene, prior, state, device, phases)
        except Cancelled:
            save()
            if index + 1 < len(config.stages) or state.step < config.stages[index].steps:
                status = "cancelled"
    return RunResult(
        status, scene, steps_before[index] + state.step, resumed_from, seconds(), phases.seconds
    )
