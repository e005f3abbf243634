"""How well a prior's samples follow their prompts, on combinations it was trained on and on those held out from it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.errors import ConfigError
from dream3d.evaluation.acceptance import measure_accuracy
from dream3d.evaluation.alignment import recall, views_right
from dream3d.evaluation.classifier import SIZE, Evaluator, Reading, load_evaluator
from dream3d.evaluation.occlusion import READABLE, least_unhidden
from dream3d.evaluation.statistics import Proportion, wilson
from dream3d.prior_training.sampling import sample
from dream3d.priors.base import Prior
from dream3d.prompts import view_words, with_view
from dream3d.world.backgrounds import random_backgrounds
from dream3d.world.catalog import CATEGORIES, COMPOSITES
from dream3d.world.colors import COLORS
from dream3d.world.freeze import FROZEN_HASH
from dream3d.world.grammar import (
    Caption,
    Split,
    caption_text,
    is_caption_held_out,
    parse,
    random_caption,
)
from dream3d.world.objects import build_object
from dream3d.world.render import render_object

FORMAT_VERSION = 1
VIEWS = 4
TRUE_OBJECTS = 150
"""Objects, four views each, on which the evaluator itself is checked."""


@dataclass(frozen=True)
class SamplingSettings:
    """How samples are drawn.

    Attributes:
        steps: network calls per sample.
        cfg_scale: classifier-free guidance.
        batch: images denoised at once, a multiple of 4.
    """

    steps: int = 12
    cfg_scale: float = 2.0
    batch: int = 32


def evaluate_prior(
    prior: Prior,
    n: int = 600,
    seed: int = 0,
    settings: SamplingSettings | None = None,
    evaluator: Evaluator | None = None,
    report: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Read fresh samples with the evaluator.

    Every sample is told its camera and the words of its view; elevations 0 to 40 degrees, the azimuth one of the eight
    named ones. Single objects and, one in seven, pairs; colours always named.

    color, category: of single-view samples; all of a pair's must be right.
    view: the side of single-view samples of front-marked objects is the named one (nearest of eight).
    multiview: four views denoised together, a quarter turn apart, are read as the same categories and colours. A view
        in which one of a pair stands in front of the other (in the truth) has no say; see `occlusion`.

    Args:
        prior: takes cameras and knows the procedural world's words.
        n: trials of each figure.
        seed: of prompts, cameras and noise.
        settings: of the sampler.
        evaluator: an already loaded one.
        report: told a line of progress now and then.

    Returns:
        JSON-serialisable: `evaluator` (its own accuracy on true renders, held-out combinations), `seen` and `held_out`
        with color, category, view and multiview, each as value, 95 % interval (low, high) and n; `truth` with the same
        figures of true renders, which no prior can be expected to beat; and the settings.

    Raises:
        ConfigError: the prior takes no cameras.
        PromptError: the prior does not know the world's words.
        ModelError: the evaluator's weights are missing or belong to another world.
    """
    if not prior.accepts_cameras:
        raise ConfigError(
            "this prior takes no cameras; only a camera-conditioned one can be evaluated"
        )
    prior.check_prompt("a red cube")
    chosen = SamplingSettings() if settings is None else settings
    judge = load_evaluator() if evaluator is None else evaluator
    told = report if report is not None else _silent
    result: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "world_hash": FROZEN_HASH,
        "evaluator": {"held_out_accuracy": _held_out_accuracy(judge, seed)},
        "sampling": {"steps": chosen.steps, "cfg_scale": chosen.cfg_scale, "n": n, "seed": seed},
    }
    for split in ("seen", "held_out"):
        probe = _Probe(prior, judge, chosen, np.random.default_rng([seed, 11, split == "seen"]))
        told(f"{split}: colour and category of {n} samples")
        figures = probe.color_and_category(split, n)
        told(f"{split}: named view of {n} samples")
        figures["view"] = probe.view(split, n)
        told(f"{split}: agreement of the views of {n} four-view samples")
        figures["multiview"] = probe.multiview(split, n)
        result[split] = {name: figure.to_json() for name, figure in figures.items()}
    told(f"the truth, read in the same way, {n} samples a figure")
    truth = _TruthProbe(prior, judge, chosen, np.random.default_rng([seed, 12]))
    figures = truth.color_and_category("held_out", n)
    figures["view"] = truth.view("held_out", n)
    figures["multiview"] = truth.multiview("held_out", n)
    result["truth"] = {name: figure.to_json() for name, figure in figures.items()}
    return result


def evaluate_embedded(
    directory: Path | None = None,
    n: int = 600,
    report: Callable[[str], None] | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """`evaluate_prior` of the embedded prior, with its size and the number of images it has seen.

    Args:
        directory: written by `dream3d prior train`; None for the shipped one.
        n: trials of each figure.
        report: told a line of progress now and then.
        device: where the prior samples, "cpu" or "cuda"; the noise is the same. The evaluator reads on the CPU.
    """
    from dream3d.priors.embedded import PACKAGED, EmbeddedConfig, read_manifest

    place = PACKAGED if directory is None else directory
    manifest = read_manifest(place)
    prior = EmbeddedConfig(path="" if directory is None else str(directory)).load(
        torch.device(device)
    )
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    return {
        **evaluate_prior(prior, n, report=report),
        "megabytes": round(size / 1e6, 2),
        "images_seen": manifest.get("images_seen"),
    }


def _silent(line: str) -> None:
    pass


def _held_out_accuracy(evaluator: Evaluator, seed: int) -> dict[str, float | int]:
    """Share of true renders of held-out combinations whose category and colours are all read right."""

    def draw(rng: np.random.Generator) -> Caption:
        return draw_prompts(rng, "held_out", 1)[0]

    accuracy = measure_accuracy(evaluator, TRUE_OBJECTS, seed + 1, draw)
    return wilson(round(accuracy.both * accuracy.images), accuracy.images).to_json()


def draw_prompts(rng: np.random.Generator, split: Split, n: int) -> list[Caption]:
    """Captions of one side of the split, every colour named; one in seven is a pair on either side."""
    # Pairs are held out more often than single objects: drawing the kind first keeps the sides comparable.
    return [
        random_caption(rng, split, pair_share=float(rng.random() < 1 / 7), colorless_share=0.0)
        for _ in range(n)
    ]


def draw_front_prompts(rng: np.random.Generator, split: Split, n: int) -> list[Caption]:
    """Single front-marked objects of one side of the split, every colour named."""
    captions = [
        Caption(((color, name),))
        for name in COMPOSITES
        if CATEGORIES[name].has_front
        for color in COLORS
    ]
    candidates = [c for c in captions if is_caption_held_out(c) == (split == "held_out")]
    return [candidates[int(i)] for i in rng.integers(len(candidates), size=n)]


class _Probe:
    """Draws samples of one prior and reads them; holds only what every figure needs."""

    def __init__(
        self,
        prior: Prior,
        evaluator: Evaluator,
        settings: SamplingSettings,
        rng: np.random.Generator,
    ) -> None:
        self.prior, self.evaluator, self.settings, self.rng = prior, evaluator, settings, rng
        self.noise = torch.Generator().manual_seed(int(rng.integers(2**31)))

    def color_and_category(self, split: Split, n: int) -> dict[str, Proportion]:
        """Whether single-view samples show what was asked for."""
        captions = draw_prompts(self.rng, split, n)
        reading = self._read(captions, self._cameras(n), 1)
        results = [recall(caption, reading[i : i + 1]) for i, caption in enumerate(captions)]
        return {
            "color": wilson(int(sum(r.color.sum().item() for r in results)), n),
            "category": wilson(int(sum(r.category.sum().item() for r in results)), n),
        }

    def view(self, split: Split, n: int) -> Proportion:
        """Whether single-view samples of front-marked objects show the named side."""
        cameras = self._cameras(n)
        reading = self._read(draw_front_prompts(self.rng, split, n), cameras, 1)
        return wilson(int(views_right(reading, cameras.azimuth_deg).sum().item()), n)

    def multiview(self, split: Split, n: int) -> Proportion:
        """Whether four views that were denoised together show the same thing."""
        captions = draw_prompts(self.rng, split, n)
        start, elevation = self._angles(n)
        azimuth = (start[:, None] + 90.0 * np.arange(VIEWS)) % 360.0
        cameras = _orbit(azimuth.reshape(-1), elevation.repeat(VIEWS))
        repeated = [caption for caption in captions for _ in range(VIEWS)]
        reading = self._read(repeated, cameras, VIEWS)
        shown = [
            readable(caption, cameras[index * VIEWS : (index + 1) * VIEWS], index)
            for index, caption in enumerate(captions)
        ]
        return wilson(int(agreement(reading, captions, torch.stack(shown)).sum().item()), n)

    def _angles(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        return 45.0 * self.rng.integers(8, size=n), self.rng.uniform(0.0, 40.0, n)

    def _cameras(self, n: int) -> CameraBatch:
        return _orbit(*self._angles(n))

    def _read(self, captions: list[Caption], cameras: CameraBatch, views: int) -> Reading:
        """Samples for the captions from the cameras, read."""
        prompts = [
            with_view(caption_text(caption), view_words(azimuth, elevation))
            for caption, azimuth, elevation in zip(
                captions, cameras.azimuth_deg.tolist(), cameras.elevation_deg.tolist(), strict=True
            )
        ]
        images = []
        for start in range(0, len(prompts), self.settings.batch):
            part = slice(start, start + self.settings.batch)
            images.append(self._sample(prompts[part], cameras[part], views))
        return self.evaluator.read(torch.cat(images))

    def _sample(
        self, prompts: list[str], cameras: CameraBatch, views: int
    ) -> Float[Tensor, "B H W 3"]:
        return sample(
            self.prior,
            prompts,
            cameras,
            views_per_object=views,
            steps=self.settings.steps,
            cfg_scale=self.settings.cfg_scale,
            generator=self.noise,
        ).cpu()


class _TruthProbe(_Probe):
    """Reads true renders instead of samples: what the evaluator itself allows, and what is hidden from view."""

    def _sample(
        self, prompts: list[str], cameras: CameraBatch, views: int
    ) -> Float[Tensor, "B H W 3"]:
        images = []
        for start in range(0, len(prompts), views):
            thing = build_object(parse(prompts[start]), self.rng)
            background = random_backgrounds(views, SIZE, self.noise)
            images.append(
                render_object(thing, cameras[start : start + views], background=background).rgb
            )
        return torch.cat(images)


def _orbit(azimuth_deg: np.ndarray, elevation_deg: np.ndarray) -> CameraBatch:
    return orbit_cameras(
        torch.from_numpy(azimuth_deg).float(), torch.from_numpy(elevation_deg).float(), size=SIZE
    )


def readable(caption: Caption, cameras: CameraBatch, seed: int) -> Bool[Tensor, " V"]:
    """Which views show enough of both objects of a pair, in one member of the caption's family drawn by `seed`."""
    thing = build_object(caption, np.random.default_rng(seed))
    return least_unhidden(thing, cameras) >= READABLE


def agreement(
    reading: Reading, captions: list[Caption], shown: Bool[Tensor, "N V"]
) -> Bool[Tensor, " N"]:
    """For each object whether its views are read as the same categories and colours.

    Args:
        reading: of N * V images, object by object.
        captions: of the N objects; of a pair both must agree, in any order where they stand side by side.
        shown: the views that have a say; an object with fewer than two does not count as agreeing. Of "A next to B",
            from four sides a quarter turn apart, two always show both.
    """
    views = shown.shape[1]
    classes = [
        torch.stack(
            [getattr(reading, f"{what}_{place}").argmax(-1) for what in ("category", "color")], -1
        )
        for place in (1, 2)
    ]
    first, second = (places.reshape(-1, views, 2).tolist() for places in classes)
    same = []
    for caption, a, b, seen in zip(captions, first, second, shown.tolist(), strict=True):
        if caption.relation is None:
            read = [tuple(x) for x in a]
        else:
            read = [(tuple(x), tuple(y)) for x, y in zip(a, b, strict=True)]
        if caption.relation == "next to":
            read = [tuple(sorted(pair)) for pair in read]
        said = [what for what, counts in zip(read, seen, strict=True) if counts]
        same.append(len(said) >= 2 and len(set(said)) == 1)
    return torch.tensor(same)
