"""Training the evaluator: true renders over random backgrounds, until it reads fresh ones at the accepted level.

    python -m dream3d.evaluation.classifier_training --ship

Under an hour on one CPU core. Work in progress is kept in a directory and continued from there. The result replaces the
shipped weights only where it meets the bars of `Accuracy.accepted`.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save
from torch import Tensor

from dream3d.errors import ModelError
from dream3d.evaluation.acceptance import measure_accuracy
from dream3d.evaluation.classifier import (
    FORMAT_VERSION,
    RELATIONS,
    SIZE,
    WEIGHTS,
    Evaluator,
    Network,
)
from dream3d.evaluation.examples import (
    UNKNOWN,
    Examples,
    negative_examples,
    random_examples,
)
from dream3d.evaluation.negatives import negatives
from dream3d.files import make_directory, write_bytes, write_json
from dream3d.world.backgrounds import random_backgrounds
from dream3d.world.freeze import FROZEN_HASH

CHANNELS = (32, 64, 128, 192)
SPATIAL = 48
# How much each question counts.
HEAD_WEIGHTS = {
    "category_1": 1.0,
    "category_2": 1.0,
    "color_1": 0.7,
    "color_2": 0.7,
    "relation": 0.3,
    "azimuth": 0.8,
    "elevation": 0.2,
    "marker": 0.5,
}
PLACES = ("category_1", "category_2", "color_1", "color_2")
SWAPPED = ("category_2", "category_1", "color_2", "color_1")


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one training.

    Attributes:
        steps: optimiser steps in all.
        objects, views: fresh renders per step; the rest of the batch is drawn from earlier ones.
        batch: images per step.
        negatives: of them, images that show no object.
        pool: renders kept for another look over another background.
        two_faced_share: of front-marked objects, given a second face.
        learning_rate: peak, after a short warm-up; falls along a cosine.
        ema: decay per step of the averaged weights that are kept.
        seed: of all randomness.
        save_every: steps between saves of the work in progress.
    """

    steps: int = 5000
    objects: int = 15
    views: int = 4
    batch: int = 192
    negatives: int = 12
    pool: int = 24_000
    two_faced_share: float = 0.2
    learning_rate: float = 1.5e-3
    ema: float = 0.998
    seed: int = 0
    save_every: int = 250


def augmented(
    rgba: Tensor, rng: torch.Generator, strength: float = 1.0
) -> Float[Tensor, "N 3 H W"]:
    """Premultiplied bytes over random backgrounds, a little blurred and noisy, as a small prior's images are.

    Args:
        rgba: [N, H, W, 4] bytes.
        rng: randomness.
        strength: 0 changes nothing but the background.
    """
    n, size = len(rgba), rgba.shape[1]
    images = rgba.permute(0, 3, 1, 2).float() / 255.0
    backgrounds = random_backgrounds(n, size, rng).permute(0, 3, 1, 2)
    images = images[:, :3] + (1.0 - images[:, 3:]) * backgrounds
    if strength > 0.0:
        # A blur of up to about one pixel, the loss of a prior's codec, on half of the images.
        blurred = torch.nn.functional.avg_pool2d(
            torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1
        )
        share = (torch.rand(n, 1, 1, 1, generator=rng) * 2.0 - 1.0).clamp_min(0.0) * strength
        images = images + share * (blurred - images)
        level = torch.rand(n, 1, 1, 1, generator=rng) ** 2 * 0.04 * strength
        images = images + level * torch.randn(images.shape, generator=rng)
        gain = 1.0 + 0.05 * strength * (2.0 * torch.rand(n, 1, 1, 1, generator=rng) - 1.0)
        images = images * gain
    return images.clamp(0.0, 1.0)


def loss_of(logits: dict[str, Tensor], labels: dict[str, Tensor]) -> Tensor:
    """Weighted cross entropies of all heads; a head counts only where it is asked.

    Left and right of "A next to B" swap with the view, so there the better of the two orders counts.
    """

    def terms(heads: Sequence[str], answers: Sequence[str]) -> Tensor:
        each = [
            HEAD_WEIGHTS[head] * _errors(logits[head].float(), labels[answer])
            for head, answer in zip(heads, answers, strict=True)
        ]
        return torch.stack(each).sum(0)  # [N]

    places = terms(PLACES, PLACES)
    beside = labels["relation"] == RELATIONS.index("next to")
    places = torch.where(beside, torch.minimum(places, terms(PLACES, SWAPPED)), places)
    others = [head for head in HEAD_WEIGHTS if head not in PLACES]
    # Over the batch, not over those asked: a rare question must not make a noisy step.
    return (places + terms(others, others)).mean()


def _errors(scores: Tensor, target: Tensor) -> Tensor:
    """Cross entropy per example; targets are classes (UNKNOWN counts nothing) or distributions (so do zeros)."""
    if target.ndim == 2:
        return -(target * scores.log_softmax(-1)).sum(-1)
    asked = (target != UNKNOWN).float()
    return asked * torch.nn.functional.cross_entropy(
        scores, target.clamp_min(0), reduction="none", label_smoothing=0.02
    )


class Pool:
    """Earlier renders, for another look; a ring that overwrites its oldest."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.kept: Examples | None = None
        self.next = 0

    def add(self, fresh: Examples) -> None:
        """File new renders."""
        if self.kept is None or len(self.kept) < self.capacity:
            parts = [fresh] if self.kept is None else [self.kept, fresh]
            self.kept = Examples.concatenate(parts)
            return
        place = (torch.arange(len(fresh)) + self.next) % len(self.kept)
        self.kept.rgba[place] = fresh.rgba
        for name, values in self.kept.labels.items():
            values[place] = fresh.labels[name]
        self.next = int((self.next + len(fresh)) % len(self.kept))

    def draw(self, count: int, rng: torch.Generator) -> Examples:
        """Random earlier renders."""
        assert self.kept is not None
        return self.kept[torch.randint(len(self.kept), (count,), generator=rng)]


def learning_rate(config: TrainingConfig, step: int, since_start: int) -> float:
    """Cosine over the whole training; a warm-up of 100 steps after every (re)start, whose moments are fresh."""
    cosine = 0.5 * (1.0 + math.cos(math.pi * step / config.steps))
    return config.learning_rate * (0.01 + 0.99 * cosine) * min(1.0, (since_start + 1) / 100)


def train(config: TrainingConfig, directory: Path, report_every: int = 100) -> Evaluator:
    """Train, or go on with what `directory` holds.

    Returns:
        The evaluator with the averaged weights.
    """
    make_directory(directory)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network, average, step = Network(CHANNELS, SPATIAL), Network(CHANNELS, SPATIAL), 0
    facts_path, weights_path = directory / "evaluator.json", directory / "evaluator.safetensors"
    if facts_path.exists() and weights_path.exists():
        facts = json.loads(facts_path.read_text(encoding="utf-8"))
        if facts["world_hash"] != FROZEN_HASH:
            raise ModelError(
                f"{directory} holds an evaluator of world {facts['world_hash']}; the world is "
                f"{FROZEN_HASH}. Start in an empty directory."
            )
        network.load_state_dict(load_file(weights_path))
        step = facts["steps"]
    average.load_state_dict(network.state_dict())
    return _train_loop(config, directory, network, average, step, report_every)


def _train_loop(
    config: TrainingConfig,
    directory: Path,
    network: Network,
    average: Network,
    start: int,
    report_every: int,
) -> Evaluator:
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=1.0, betas=(0.9, 0.99), weight_decay=0.01
    )
    rng = np.random.default_rng([config.seed, start])
    torch_rng = torch.Generator().manual_seed(config.seed * 1_000_003 + start)
    pool, clock = Pool(config.pool), time.monotonic()
    for step in range(start, config.steps):
        fresh = random_examples(rng, config.objects, config.views, config.two_faced_share)
        pool.add(fresh)
        nothing = negative_examples(negatives(config.negatives, SIZE, torch_rng))
        rest = config.batch - len(fresh) - len(nothing)
        batch = Examples.concatenate([fresh, nothing, pool.draw(rest, torch_rng)])
        images = augmented(batch.rgba, torch_rng)
        network.train()
        with torch.autocast("cpu", torch.bfloat16):
            _, logits = network(images)
        loss = loss_of(logits, batch.labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step, step - start)
        optimizer.step()
        update_average(average, network, min(config.ema, (step - start + 1) / (step - start + 10)))
        if (step + 1) % report_every == 0:
            rate = (step + 1 - start) * config.batch / (time.monotonic() - clock)
            print(f"step {step + 1}  loss {loss.item():.3f}  {rate:.0f} images/s", flush=True)
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            save_weights(average, {"steps": step + 1, "training": asdict(config)}, directory)
    return Evaluator(average, {"world_hash": FROZEN_HASH})


@torch.no_grad()
def update_average(average: Network, network: Network, decay: float) -> None:
    """Exponential moving average of weights and of normalisation statistics."""
    for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.dtype.is_floating_point:
            kept.lerp_(new, 1.0 - decay)
        else:
            kept.copy_(new)


def save_weights(
    network: Network, facts: dict[str, object], directory: Path, half: bool = False
) -> None:
    """Write evaluator.safetensors and evaluator.json.

    Args:
        network: its weights and normalisation statistics.
        facts: what else the JSON says of the training.
        directory: created where it is missing.
        half: float16, for shipping.
    """
    make_directory(directory)
    dtype = torch.float16 if half else torch.float32
    tensors = {
        name: value.to(dtype).contiguous() if value.dtype.is_floating_point else value
        for name, value in network.state_dict().items()
    }
    write_bytes(directory / "evaluator.safetensors", save(tensors))
    known = {
        "format_version": FORMAT_VERSION,
        "world_hash": FROZEN_HASH,
        "channels": list(CHANNELS),
        "spatial": SPATIAL,
    }
    write_json(directory / "evaluator.json", known | facts)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--steps", type=int, default=TrainingConfig.steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=TrainingConfig.learning_rate)
    parser.add_argument("--directory", type=Path, default=Path("training/evaluator"))
    parser.add_argument(
        "--ship", action="store_true", help="replace the shipped weights if accepted"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = TrainingConfig(
        steps=arguments.steps, seed=arguments.seed, learning_rate=arguments.learning_rate
    )
    evaluator = train(config, arguments.directory)
    accuracy = measure_accuracy(evaluator, objects=1500, seed=12345)
    print(json.dumps(asdict(accuracy), indent=1))
    if arguments.ship:
        if not accuracy.accepted:
            raise SystemExit("not accepted; the shipped weights stay as they are")
        facts = {"steps": config.steps, "training": asdict(config), "accuracy": asdict(accuracy)}
        save_weights(evaluator.network, facts, WEIGHTS.parent, half=True)


if __name__ == "__main__":
    main()
