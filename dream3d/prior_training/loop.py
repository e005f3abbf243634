"""One process's share of training: draw, predict, average gradients, step, average weights, report."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from dream3d.diffusion import TableSchedule
from dream3d.files import append_line, make_directory
from dream3d.prior_training.batches import TrainingBatch, batches, even_times
from dream3d.prior_training.config import TrainingConfig
from dream3d.prior_training.graphs import GraphedBackward, PlainBackward
from dream3d.prior_training.objective import Exam, latents_of, loss_weights, noisy
from dream3d.prior_training.pool import pooled_batches
from dream3d.prior_training.probes import Probe, make_probe
from dream3d.prior_training.weights import FlatWeights, open_components, save_prior
from dream3d.priors.latent.camera_encoder import camera_features
from dream3d.priors.latent.components import Components

_LOSS_MEMORY = 0.99


@dataclass
class Run:
    """What changes while training goes on.

    Attributes:
        images: seen by the weights in all, over all runs.
        first: `images` when this run began.
        seconds: of training in all, earlier runs included.
        loss: running mean, NaN before the first step; on the training's device, read only when it is reported.
        steps: of this run.
        skipped: steps left out because a gradient was not finite; likewise.
        began, saved, probed, logged: clock readings of this run.
    """

    images: int
    first: int
    seconds: float
    loss: Tensor = field(default_factory=lambda: torch.tensor(math.nan))
    steps: int = 0
    skipped: Tensor = field(default_factory=lambda: torch.zeros(()))
    began: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)
    probed: float = -math.inf
    logged: float = field(default_factory=time.monotonic)
    logged_images: int = 0

    @property
    def elapsed(self) -> float:
        """Seconds since this run began."""
        return time.monotonic() - self.began


def learning_rate(config: TrainingConfig, seen: int, seconds: float = 0.0) -> float:
    """After `seen` images and `seconds` of this run: a linear warm-up, then constant, or to zero in a decay run."""
    rate = config.learning_rate * min(1.0, (seen + 1) / max(config.warmup_images, 1))
    if config.decay_images:
        rate *= max(0.0, 1.0 - seen / config.decay_images)
    if config.decay_minutes:
        rate *= max(0.0, 1.0 - seconds / (60.0 * config.decay_minutes))
    return rate


def target_images(config: TrainingConfig, first: int) -> int:
    """The image count at which a run that began at `first` ends; the clock may end it earlier."""
    if config.decay_minutes:
        return sys.maxsize
    return first + config.decay_images if config.decay_images else config.images


def make_exam(
    config: TrainingConfig,
    components: Components,
    schedule: TableSchedule,
    batch: TrainingBatch,
    generator: torch.Generator,
) -> Exam:
    """Noise a batch's latents, and say what the network gets to see of it."""
    device = torch.device(config.device)
    views = config.views if batch.told == "joint" else 1
    x0 = latents_of(components, batch.images.to(device))
    t = even_times(len(x0) // views, config.time_power, generator, repeat=views).to(device)
    cameras = None if batch.told == "text" else batch.cameras.to(device)
    return Exam(
        x0,
        noisy(schedule, x0, t, generator),
        schedule.index(t),
        loss_weights(schedule, t, config.max_weight),
        batch.token_ids.to(device),
        None if cameras is None else camera_features(cameras),
        views,
    )


def train_process(
    rank: int, config: TrainingConfig, should_stop: Callable[[], bool], group: bool
) -> None:
    """Run one process to the end; rank 0 also writes weights, log and progress.

    Args:
        rank: of this process.
        config: the run.
        should_stop: asked after each step; one process's yes stops all.
        group: whether a process group is up to average gradients over.
    """
    if config.device == "cpu":
        torch.set_num_threads(1)
    components, manifest = open_components(config)
    first = int(manifest.get("images_seen", 0))
    run = Run(first, first, float(manifest.get("seconds", 0.0)), logged_images=first)
    schedule = TableSchedule(components.scheduler.alphas_cumprod.to(config.device))
    probe = make_probe(components, torch.device(config.device)) if rank == 0 else None
    flat = FlatWeights(components)
    if config.acceleration == "compile":
        components.unet.compile()
    record = config.acceleration == "graphs"
    backward = GraphedBackward(components, flat) if record else PlainBackward(components, flat)
    average = flat.values.data.clone()
    optimiser = torch.optim.AdamW(
        [flat.values],
        lr=config.learning_rate,
        betas=(0.9, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )
    rng = np.random.default_rng([config.seed, rank, first])
    generator = torch.Generator(config.device).manual_seed(int(rng.integers(2**62)))
    stream = _stream(config, components.tokenizer, int(rng.integers(2**62)), generator)
    while run.images < target_images(config, first):
        exam = make_exam(config, components, schedule, next(stream), generator)
        loss = backward(exam)
        last = should_stop() or _late(config, run)
        if group:
            loss, last = _shared(loss, last, config.processes)
            dist.all_reduce(flat.gradients)
            flat.gradients.div_(config.processes)
        optimiser.param_groups[0]["lr"] = learning_rate(config, run.images - first, run.elapsed)
        _step(config, run, flat, optimiser, loss)
        # Early averages must not remember the random start (or, after a resume, may follow fast at first).
        average.lerp_(
            flat.values.data, 1.0 - min(config.ema, (1.0 + run.steps) / (10.0 + run.steps))
        )
        if rank == 0:
            _report(config, run, components, flat, average, schedule, probe)
        if last:
            break
    if rank == 0:
        _save(config, run, components, flat, average)
        _say(config, run, "stopped")


def _stream(
    config: TrainingConfig, tokenizer: Any, seed: int, generator: torch.Generator
) -> Iterator[TrainingBatch]:
    if config.reuse > 1:
        return pooled_batches(config, tokenizer, seed, generator)
    return batches(config, tokenizer, seed)


def _step(
    config: TrainingConfig,
    run: Run,
    flat: FlatWeights,
    optimiser: torch.optim.Optimizer,
    loss: Tensor,
) -> None:
    """Clip and apply the averaged gradient, and count; nothing here waits for a GPU.

    A gradient that is not finite becomes zero: one overflow must not end hours of training; the log counts them.
    """
    norm = flat.gradients.norm()
    finite = norm.isfinite()
    scale = torch.where(finite, (config.clip / (norm + 1e-8)).clamp(max=1.0), 0.0)
    flat.gradients.nan_to_num_(0.0, 0.0, 0.0).mul_(scale)
    optimiser.step()
    run.loss, run.skipped = run.loss.to(loss.device), run.skipped.to(loss.device)
    mean = torch.where(run.loss.isnan(), loss, torch.lerp(loss, run.loss, _LOSS_MEMORY))
    run.loss = torch.where(finite, mean, run.loss)
    run.skipped = run.skipped + ~finite
    run.steps += 1
    run.images += config.images_per_step


def _shared(loss: Tensor, last: bool, processes: int) -> tuple[Tensor, bool]:
    """The mean loss of the processes, and whether one of them wants to stop."""
    message = torch.stack([loss.double().cpu(), torch.tensor(float(last), dtype=torch.float64)])
    dist.all_reduce(message)
    return (message[0] / processes).float(), bool(message[1] > 0.0)


def _late(config: TrainingConfig, run: Run) -> bool:
    limits = [m for m in (config.minutes, config.decay_minutes) if m > 0.0]
    return bool(limits) and run.elapsed > 60.0 * min(limits)


def _report(
    config: TrainingConfig,
    run: Run,
    components: Components,
    flat: FlatWeights,
    average: Tensor,
    schedule: TableSchedule,
    probe: Probe | None,
) -> None:
    """Whatever is due: a progress line, a probe of the averaged weights, a save."""
    now = time.monotonic()
    if now - run.logged >= config.log_seconds:
        _say(config, run, "training")
    if probe is not None and now - run.probed >= 60.0 * config.probe_minutes:
        flat.swap(average)
        gaps = probe.measure(components, schedule)
        flat.swap(average)
        run.probed = time.monotonic()
        _log(config, {"event": "probe", "images": run.images, **gaps})
        print("  ".join(f"{name} {value:.3f}" for name, value in gaps.items()), flush=True)
    if now - run.saved >= 60.0 * config.save_minutes:
        _save(config, run, components, flat, average)
        run.saved = time.monotonic()


def _save(
    config: TrainingConfig, run: Run, components: Components, flat: FlatWeights, average: Tensor
) -> None:
    """Write the averaged weights as a complete prior."""
    facts = {
        "images_seen": run.images,
        "seconds": round(run.seconds + run.elapsed, 1),
        "training": config.facts(),
    }
    flat.swap(average)
    save_prior(components, Path(config.output), facts)
    flat.swap(average)


def _say(config: TrainingConfig, run: Run, state: str) -> None:
    """One line for the reader and one for the log."""
    now = time.monotonic()
    rate = (run.images - run.logged_images) / max(now - run.logged, 1e-6)
    run.logged, run.logged_images = now, run.images
    left = max(target_images(config, run.first) - run.images, 0) / max(rate, 1e-6) / 60.0
    if config.decay_minutes:
        left = max(config.decay_minutes - run.elapsed / 60.0, 0.0)
    eta = f", {left:.0f} min left" if rate > 0.0 and left else ""
    loss = run.loss.item()
    print(
        f"{state}: {run.images} images, loss {loss:.4f}, {rate:.1f} images/s, "
        f"{run.elapsed / 60:.1f} min{eta}",
        flush=True,
    )
    _log(
        config,
        {
            "event": state,
            "images": run.images,
            "loss": loss if math.isfinite(loss) else None,
            "images_per_second": rate,
            "skipped_steps": int(run.skipped),
            "seconds": run.seconds + run.elapsed,
        },
    )


def _log(config: TrainingConfig, record: dict[str, Any]) -> None:
    output = Path(config.output)
    make_directory(output)
    append_line(output / "log.jsonl", json.dumps(record))
