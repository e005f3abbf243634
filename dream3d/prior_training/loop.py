"""One process's share of training: draw, predict, average gradients, step, average weights, report."""

import json
import math
import time
from collections.abc import Callable
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
from dream3d.prior_training.objective import (
    latents_of,
    loss_weights,
    losses,
    noisy,
    predicted_x0,
)
from dream3d.prior_training.probes import Probe, make_probe
from dream3d.prior_training.weights import FlatWeights, open_components, save_prior
from dream3d.priors.latent.components import Components

_LOSS_MEMORY = 0.99


@dataclass
class Run:
    """What changes while training goes on.

    Attributes:
        images: seen by the weights in all, over all runs.
        first: `images` when this run began.
        seconds: of training in all, earlier runs included.
        loss: running mean.
        steps: of this run.
        skipped: steps left out because a gradient was not finite.
        began, saved, probed, logged: clock readings of this run.
    """

    images: int
    first: int
    seconds: float
    loss: float = math.nan
    steps: int = 0
    skipped: int = 0
    began: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)
    probed: float = -math.inf
    logged: float = field(default_factory=time.monotonic)
    logged_images: int = 0

    @property
    def elapsed(self) -> float:
        """Seconds since this run began."""
        return time.monotonic() - self.began


def learning_rate(config: TrainingConfig, seen: int) -> float:
    """After `seen` images of this run: a linear warm-up, then constant, or linear to zero in a decay run."""
    rate = config.learning_rate * min(1.0, (seen + 1) / max(config.warmup_images, 1))
    if config.decay_images:
        rate *= max(0.0, 1.0 - seen / config.decay_images)
    return rate


def target_images(config: TrainingConfig, first: int) -> int:
    """The image count at which a run that began at `first` ends."""
    return first + config.decay_images if config.decay_images else config.images


def batch_loss(
    config: TrainingConfig,
    components: Components,
    schedule: TableSchedule,
    batch: TrainingBatch,
    generator: torch.Generator,
) -> Tensor:
    """The weighted loss of one batch."""
    device = torch.device(config.device)
    joint = batch.told == "joint"
    views = config.views if joint else 1
    x0 = latents_of(components, batch.images.to(device))
    t = even_times(len(x0) // views, config.time_power, generator, repeat=views).to(device)
    z_t = noisy(schedule, x0, t, generator)
    cameras = None if batch.told == "text" else batch.cameras.to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        output = predicted_x0(
            components, z_t, schedule.index(t), batch.token_ids.to(device), cameras, views
        )
    return (losses(x0, output) * loss_weights(schedule, t, config.max_weight)).mean()


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
    average = flat.values.data.clone()
    optimiser = torch.optim.AdamW(
        [flat.values],
        lr=config.learning_rate,
        betas=(0.9, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )
    rng = np.random.default_rng([config.seed, rank, first])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    stream = batches(config, components.tokenizer, int(rng.integers(2**62)))
    while run.images < target_images(config, first):
        batch = next(stream)
        flat.gradients.zero_()
        loss = batch_loss(config, components, schedule, batch, generator)
        loss.backward()
        shared = _shared([float(loss.detach()), float(should_stop() or _late(config, run))], group)
        if group:
            dist.all_reduce(flat.gradients)
            flat.gradients.div_(config.processes)
        optimiser.param_groups[0]["lr"] = learning_rate(config, run.images - first)
        _step(config, run, flat, optimiser, shared[0] / config.processes)
        # Early averages must not remember the random start (or, after a resume, may follow fast at first).
        average.lerp_(
            flat.values.data, 1.0 - min(config.ema, (1.0 + run.steps) / (10.0 + run.steps))
        )
        if rank == 0:
            _report(config, run, components, flat, average, schedule, probe)
        if shared[1] > 0.0:
            break
    if rank == 0:
        _save(config, run, components, flat, average)
        _say(config, run, "stopped")


def _step(
    config: TrainingConfig,
    run: Run,
    flat: FlatWeights,
    optimiser: torch.optim.Optimizer,
    loss: float,
) -> None:
    """Clip and apply the averaged gradient, and count."""
    norm = flat.gradients.norm().item()
    if math.isfinite(norm):
        flat.gradients.mul_(min(1.0, config.clip / (norm + 1e-8)))
        optimiser.step()
        known = math.isfinite(run.loss)
        run.loss = run.loss + (1.0 - _LOSS_MEMORY) * (loss - run.loss) if known else loss
    else:
        run.skipped += 1  # one overflow must not end hours of training; the log counts them
    run.steps += 1
    run.images += config.images_per_step


def _shared(values: list[float], group: bool) -> list[float]:
    """Sums over the processes."""
    if not group:
        return values
    message = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(message)
    return message.tolist()


def _late(config: TrainingConfig, run: Run) -> bool:
    return config.minutes > 0.0 and run.elapsed > 60.0 * config.minutes


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
    left = max(target_images(config, run.first) - run.images, 0)
    eta = f", {left / rate / 60.0:.0f} min left" if rate > 0.0 and left else ""
    print(
        f"{state}: {run.images} images, loss {run.loss:.4f}, {rate:.1f} images/s, "
        f"{run.elapsed / 60:.1f} min{eta}",
        flush=True,
    )
    _log(
        config,
        {
            "event": state,
            "images": run.images,
            "loss": run.loss if math.isfinite(run.loss) else None,
            "images_per_second": rate,
            "skipped_steps": run.skipped,
            "seconds": run.seconds + run.elapsed,
        },
    )


def _log(config: TrainingConfig, record: dict[str, Any]) -> None:
    output = Path(config.output)
    make_directory(output)
    append_line(output / "log.jsonl", json.dumps(record))
