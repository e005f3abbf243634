"""From the procedural world to what one training step needs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from dream3d.cameras import CameraBatch
from dream3d.prior_training.config import TrainingConfig
from dream3d.prompts import with_view
from dream3d.world.dataset import Mix, sample_batch
from dream3d.world.grammar import SIDE

Told = Literal["joint", "camera", "text"]
"""What a step's samples are told: text, camera and each other; text and camera; text alone."""


Draw = Callable[[TrainingConfig, Any, np.random.Generator], Any]
"""What makes one item from the settings, the tokenizer and a source of chance."""


@dataclass(frozen=True)
class TrainingBatch:
    """N * V images of N objects, object by object.

    Attributes:
        images: sRGB in [0, 1].
        token_ids: of the captions, some empty, some with view words.
        cameras: of every image.
        told: which of these the network gets to see.
    """

    images: Float[Tensor, "B S S 3"]
    token_ids: Int[Tensor, "B L"]
    cameras: CameraBatch
    told: Told


def token_ids(tokenizer: Any, captions: list[str]) -> Int[Tensor, "B L"]:
    """Padded ids of captions."""
    return tokenizer(
        captions,
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids


def view_phrase(words: str, rng: np.random.Generator) -> str:
    """View words as a prompt might give them: in full, or coarser ("left" or "side" for "high left")."""
    if rng.random() < 0.75:
        return words
    azimuth = words.removeprefix("low ").removeprefix("high ")
    return SIDE if azimuth in ("left", "right") and rng.random() < 0.5 else azimuth


def draw_told(config: TrainingConfig, rng: np.random.Generator) -> Told:
    """Which kind of step comes next."""
    if rng.random() < config.joint_share:
        return "joint"
    return "camera" if rng.random() < config.camera_share else "text"


def draw_batch(config: TrainingConfig, tokenizer: Any, rng: np.random.Generator) -> TrainingBatch:
    """Fresh objects, views and captions.

    In a joint step the caption is dropped for all views of an object or for none, as it will be in guidance.
    """
    mix = Mix(config.pair_share, config.primitive_share, config.front_share, config.colorless_share)
    size = config.architecture.image_size
    world = sample_batch(rng, config.objects, config.views, size, split="seen", mix=mix)
    told = draw_told(config, rng)
    captions: list[str] = []
    for caption, views in zip(world.captions, world.views, strict=True):
        dropped = rng.random(len(views)) < config.caption_drop
        dropped = dropped[:1].repeat(len(views)) if told == "joint" else dropped
        for view, drop in zip(views, dropped, strict=True):
            named = rng.random() < config.view_words_share
            text = with_view(caption, view_phrase(view, rng)) if named else caption
            captions.append("" if drop else text)
    return TrainingBatch(
        world.images.flatten(0, 1), token_ids(tokenizer, captions), world.cameras, told
    )


class _Stream(IterableDataset):
    """Endless draws; each worker of a loader has its own chance."""

    def __init__(self, draw: Draw, config: TrainingConfig, tokenizer: Any, seed: int) -> None:
        self.draw, self.config, self.tokenizer, self.seed = draw, config, tokenizer, seed

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        if worker is not None:
            torch.set_num_threads(1)
        rng = np.random.default_rng([self.seed, 0 if worker is None else worker.id])
        while True:
            yield self.draw(self.config, self.tokenizer, rng)


def batches(
    config: TrainingConfig, tokenizer: Any, seed: int, draw: Draw = draw_batch
) -> Iterator[Any]:
    """Endless results of `draw`, made here or, with `config.workers`, ahead of time by that many processes."""
    stream = _Stream(draw, config, tokenizer, seed)
    if config.workers == 0:
        return iter(stream)
    loader = DataLoader(
        stream, batch_size=None, num_workers=config.workers, multiprocessing_context="spawn"
    )
    return iter(loader)


def even_times(
    count: int, power: float, generator: torch.Generator, repeat: int = 1
) -> Float[Tensor, " B"]:
    """Noise levels t in (0, 1], one draw from each of `count` equal slices, in random order.

    Args:
        count: distinct levels.
        power: t = u^power; below 1 favours high noise.
        generator: the only source of chance; the result is on its device.
        repeat: how often each level stands in a row (views that share theirs).
    """
    device = generator.device
    order = torch.randperm(count, generator=generator, device=device)
    u = (order + torch.rand(count, generator=generator, device=device)) / count
    return (u**power).repeat_interleave(repeat)
