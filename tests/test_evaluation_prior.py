"""A prior that paints the truth scores one, a prior that paints noise scores nothing."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.errors import ConfigError
from dream3d.evaluation import prior as laboratory
from dream3d.evaluation.classifier import Evaluator
from dream3d.evaluation.occlusion import READABLE, least_unhidden
from dream3d.evaluation.prior import (
    SamplingSettings,
    agreement,
    draw_front_prompts,
    draw_prompts,
    evaluate_prior,
)
from dream3d.oracle import OraclePrior
from dream3d.priors.base import Prior
from dream3d.world.backgrounds import random_backgrounds
from dream3d.world.catalog import CATEGORIES
from dream3d.world.grammar import is_caption_held_out, parse
from dream3d.world.objects import build_object
from dream3d.world.render import render_object


class Knowing(OraclePrior):
    """Anything that takes cameras; the sampler is replaced in these tests."""

    accepts_cameras = True

    def __init__(self) -> None:
        pass

    def check_prompt(self, prompt: str) -> None:
        parse(prompt)


def true_samples(
    prior: Prior,
    prompts: list[str],
    cameras: CameraBatch,
    views_per_object: int,
    steps: int,
    cfg_scale: float,
    generator: torch.Generator,
) -> Tensor:
    """What a perfect sampler returns."""
    images = []
    for start in range(0, len(prompts), views_per_object):
        seed = int(torch.randint(2**31, (), generator=generator))
        thing = build_object(parse(prompts[start]), np.random.default_rng(seed))
        views = cameras[start : start + views_per_object]
        background = random_backgrounds(views_per_object, 64, generator)
        images.append(render_object(thing, views, background=background).rgb)
    return torch.cat(images)


@pytest.mark.slow
def test_a_perfect_prior_scores_one(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def sample(prior: Prior, prompts: list[str], cameras: CameraBatch, **options: object) -> Tensor:
        seen.extend(prompts)
        return true_samples(prior, prompts, cameras, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(laboratory, "sample", sample)
    monkeypatch.setattr(laboratory, "TRUE_OBJECTS", 10)
    lines: list[str] = []
    found = evaluate_prior(Knowing(), n=40, evaluator=evaluator, report=lines.append)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for side in ("seen", "held_out"):
        for name in ("color", "category", "view"):
            figure = found[side][name]
            assert figure["n"] == 40
            assert figure["low"] <= figure["value"] <= figure["high"]
            assert figure["value"] >= 0.9, (side, name)
        assert found[side]["multiview"]["value"] >= 0.85
    assert found["evaluator"]["held_out_accuracy"]["value"] >= 0.9
    assert len(lines) == 7
    # Per side 40 for colour and category, 40 for the view, 40 objects of four views; every one names its view.
    assert len(seen) == 2 * (40 + 40 + 160)
    assert all(prompt.endswith(" view") for prompt in seen)


@pytest.mark.slow
def test_noise_scores_nothing(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    def sample(prior: Prior, prompts: list[str], cameras: CameraBatch, **options: object) -> Tensor:
        return torch.rand(len(prompts), 64, 64, 3, generator=torch.Generator().manual_seed(0))

    monkeypatch.setattr(laboratory, "sample", sample)
    monkeypatch.setattr(laboratory, "TRUE_OBJECTS", 2)
    found = evaluate_prior(Knowing(), n=16, evaluator=evaluator)
    assert found["seen"]["color"]["value"] == found["seen"]["category"]["value"] == 0.0
    # What the truth scores does not depend on the prior.
    truth = {name: figure["value"] for name, figure in found["truth"].items()}
    assert set(truth) == set(found["seen"])
    assert min(truth["color"], truth["category"], truth["view"]) > 0.85 and truth["multiview"] > 0.7


@pytest.mark.slow
def test_a_prior_that_ignores_the_camera_fails_the_view(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sample(prior: Prior, prompts: list[str], cameras: CameraBatch, **options: object) -> Tensor:
        frontal = cameras[[0] * len(prompts)]
        return true_samples(prior, prompts, frontal, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(laboratory, "sample", sample)
    monkeypatch.setattr(laboratory, "TRUE_OBJECTS", 2)
    found = evaluate_prior(
        Knowing(), n=48, evaluator=evaluator, settings=SamplingSettings(batch=48)
    )
    assert found["seen"]["view"]["value"] < 0.4
    assert found["seen"]["category"]["value"] > 0.8


def test_prompts_stay_on_their_side_of_the_split() -> None:
    rng = np.random.default_rng(0)
    for split, held_out in (("seen", False), ("held_out", True)):
        captions = [*draw_prompts(rng, split, 50), *draw_front_prompts(rng, split, 20)]  # type: ignore[arg-type]
        assert all(is_caption_held_out(caption) == held_out for caption in captions)
        assert all(color is not None for caption in captions for color, _ in caption.objects)
        assert all(CATEGORIES[c.objects[0][1]].has_front for c in captions[50:])


def test_a_prior_without_cameras_is_refused(evaluator: Evaluator) -> None:
    blind = Knowing()
    blind.accepts_cameras = False
    with pytest.raises(ConfigError, match="takes no cameras"):
        evaluate_prior(blind, n=1, evaluator=evaluator)


def test_what_stands_behind_is_hidden() -> None:
    """Side by side: both in full from the front, one hidden along their line, on the far side the other one."""
    thing = build_object(parse("a red cube next to a blue cube"), np.random.default_rng(0))
    cameras = orbit_cameras(torch.tensor([0.0, 90.0, 180.0, 270.0]), torch.zeros(4), size=64)
    shares = least_unhidden(thing, cameras)
    assert shares[[0, 2]].min() > 0.95
    assert shares[[1, 3]].max() < READABLE
    single = build_object(parse("a red cube"), np.random.default_rng(0))
    assert least_unhidden(single, cameras).eq(1.0).all()


def test_hidden_views_have_no_say_and_others_must_agree(evaluator: Evaluator) -> None:
    caption = parse("a red cube next to a blue sphere")
    thing = build_object(caption, np.random.default_rng(1))
    cameras = orbit_cameras(
        torch.tensor([0.0, 90.0, 180.0, 270.0]), torch.full((4,), 20.0), size=64
    )
    images = render_object(thing, cameras, background=torch.full((4, 1, 1, 3), 0.5)).rgb
    other = build_object(parse("a green duck"), np.random.default_rng(1))
    images[1] = render_object(other, cameras[1:2], background=torch.full((1, 1, 1, 3), 0.5)).rgb[0]
    reading = evaluator.read(images)
    everyone, without = (
        torch.ones(1, 4, dtype=torch.bool),
        torch.tensor([[True, False, True, False]]),
    )
    assert not agreement(reading, [caption], everyone).item()
    assert agreement(reading, [caption], without).item()
    assert not agreement(reading, [caption], torch.tensor([[True, False, False, False]])).item()
