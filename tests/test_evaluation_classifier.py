"""The shipped evaluator: it loads, it reads, and its controls come out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dream3d.errors import ModelError
from dream3d.evaluation.acceptance import measure_accuracy
from dream3d.evaluation.alignment import Recall, front_votes, is_janus, recall
from dream3d.evaluation.classifier import (
    BACKGROUNDS,
    CATEGORY_NAMES,
    COLOR_NAMES,
    NOTHING,
    RELATIONS,
    WEIGHTS,
    Evaluator,
    Reading,
    load_evaluator,
)
from dream3d.evaluation.controls import (
    janus_rate,
    shuffled_alignment,
    untouched_alignment,
)
from dream3d.rendering import RenderOutput
from dream3d.scenes.splats import SplatsConfig
from dream3d.world.grammar import Caption


def certain(
    categories: list[tuple[str, str]],
    colors: list[tuple[str, str]],
    relation: str | None = None,
    azimuths: list[int] | None = None,
    marker: float = 0.0,
) -> Reading:
    """A reading without doubt; "nothing" stands for no object."""
    names = [*CATEGORY_NAMES, "nothing"]

    def one_hot(values: list[int], classes: int) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor(values), classes).float()

    n = len(categories)
    return Reading(
        category_1=one_hot([names.index(a) for a, _ in categories], NOTHING + 1),
        category_2=one_hot([names.index(b) for _, b in categories], NOTHING + 1),
        color_1=one_hot([COLOR_NAMES.index(a) for a, _ in colors], 12),
        color_2=one_hot([COLOR_NAMES.index(b) for _, b in colors], 12),
        relation=one_hot([RELATIONS.index(relation)] * n, 3),
        azimuth=one_hot(azimuths or [0] * n, 8),
        elevation=torch.zeros(n, 4),
        marker=torch.full((n,), marker),
        features=torch.zeros(n, 4),
    )


def test_recall_counts_attributes_in_their_places() -> None:
    caption = Caption((("red", "cube"), ("blue", "sphere")), "on")
    right = certain([("cube", "sphere")], [("red", "blue")], "on")
    assert recall(caption, right).share.tolist() == [1.0]
    swapped = certain([("sphere", "cube")], [("blue", "red")], "on")
    assert recall(caption, swapped).share.tolist() == pytest.approx([0.2])
    beside = Caption(caption.objects, "next to")
    either = certain([("sphere", "cube")], [("blue", "red")], "next to")
    assert recall(beside, either).share.tolist() == [1.0]
    # The colours of the pair must stay with their objects, in whichever order.
    crossed = certain([("sphere", "cube")], [("red", "blue")], "next to")
    assert recall(beside, crossed).share.tolist() == pytest.approx([0.6])


def test_recall_of_open_colours_and_of_nothing() -> None:
    caption = Caption(((None, "mug"),))
    read: Recall = recall(caption, certain([("mug", "nothing")], [("red", "red")]))
    assert (read.share.item(), read.color.item(), read.category.item()) == (1.0, 1.0, 1.0)
    named = Caption((("red", "mug"),))
    blob = recall(named, certain([("nothing", "nothing")], [("red", "red")]))
    assert (blob.share.item(), blob.color.item()) == (0.0, 0.0)
    other = recall(named, certain([("car", "nothing")], [("red", "red")]))
    assert (other.share.item(), other.color.item(), other.category.item()) == (0.5, 1.0, 0.0)


def ring(azimuths: list[int], marker: float = 1.0) -> Reading:
    n = len(azimuths)
    return certain([("cat", "nothing")] * n, [("red", "red")] * n, None, azimuths, marker)


def test_front_votes_and_janus_by_hand() -> None:
    cameras = torch.arange(8) * 45.0
    true = ring(list(range(8)))
    assert front_votes(true, cameras).tolist() == [8.0, 0, 0, 0, 0, 0, 0, 0]
    assert not is_janus(true, cameras)
    # The same face on both sides: the back half reads as the front half does.
    double = ring([0, 1, 2, 7, 0, 1, 2, 7])
    assert front_votes(double, cameras).tolist() == [4.0, 0, 0, 0, 4.0, 0, 0, 0]
    assert is_janus(double, cameras)
    # A face on every side.
    assert is_janus(ring([0] * 8), cameras)
    # Seen nowhere, it cannot be seen twice; turned as a whole, it still is one front.
    assert not is_janus(ring([0] * 8, marker=0.0), cameras)
    assert not is_janus(ring([(i + 3) % 8 for i in range(8)]), cameras)


def test_reading_ignores_size_and_averages_backgrounds(evaluator: Evaluator) -> None:
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    large = image.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    torch.testing.assert_close(
        evaluator.read(image).category_1, evaluator.read(large).category_1, atol=0.05, rtol=0.0
    )
    empty = RenderOutput(*(torch.zeros(1, 64, 64, c) for c in (3, 1, 1)))
    read = evaluator.read_render(empty)
    each = [evaluator.read(torch.tensor(c).expand(1, 64, 64, 3)).category_1 for c in BACKGROUNDS]
    torch.testing.assert_close(read.category_1, torch.stack(each).mean(0))
    assert read.category_1.argmax().item() == NOTHING


def test_shipped_weights_read_fresh_renders(evaluator: Evaluator) -> None:
    """A small fresh sample; the training's own check is on thousands, its result stands in the JSON beside."""
    accuracy = measure_accuracy(evaluator, objects=150, seed=4711)
    assert accuracy.category >= 0.94
    assert accuracy.color >= 0.97
    assert accuracy.view >= 0.93
    assert accuracy.objectness >= 0.97
    recorded = json.loads(WEIGHTS.with_suffix(".json").read_text())["accuracy"]
    assert recorded["color"] >= 0.98 and recorded["view"] >= 0.95
    assert WEIGHTS.stat().st_size <= 4e6


def test_shipped_weights_meet_the_category_bar() -> None:
    recorded = json.loads(WEIGHTS.with_suffix(".json").read_text())["accuracy"]
    assert recorded["category"] >= 0.98


def test_control_shuffled_pairs_score_low(evaluator: Evaluator) -> None:
    assert shuffled_alignment(evaluator, objects=24, seed=0) <= 0.35


def test_control_untouched_splats_are_no_object(evaluator: Evaluator) -> None:
    scenes = [
        SplatsConfig().create(torch.Generator().manual_seed(seed), torch.device("cpu"))
        for seed in range(3)
    ]
    assert untouched_alignment(evaluator, scenes, prompts=24, seed=0) <= 0.2


@pytest.mark.slow
def test_control_second_faces_are_found(evaluator: Evaluator) -> None:
    single, double = janus_rate(evaluator, objects=60, seed=0)
    assert single <= 0.02
    assert double >= 0.95


def copied(directory: Path) -> Path:
    for suffix in (".safetensors", ".json"):
        shutil.copy(WEIGHTS.with_suffix(suffix), directory / f"evaluator{suffix}")
    return directory / "evaluator.safetensors"


def test_weights_of_another_world_are_refused(tmp_path: Path) -> None:
    weights = copied(tmp_path)
    facts = json.loads(weights.with_suffix(".json").read_text())
    weights.with_suffix(".json").write_text(json.dumps(facts | {"world_hash": "0" * 16}))
    with pytest.raises(ModelError, match=r"trained on world 0{16}.*Train them again"):
        load_evaluator(weights)
    weights.with_suffix(".json").write_text(json.dumps(facts | {"format_version": 99}))
    with pytest.raises(ModelError, match="format version 99"):
        load_evaluator(weights)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    weights = copied(tmp_path)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be read"):
        load_evaluator(weights)
    weights.unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        load_evaluator(weights)
    with pytest.raises(ModelError, match="cannot be read"):
        load_evaluator(tmp_path / "none.safetensors")


def test_weights_are_finite_and_half_precision() -> None:
    for name, tensor in load_file(WEIGHTS).items():
        if tensor.dtype.is_floating_point:
            assert tensor.dtype == torch.float16, name
            assert np.isfinite(tensor.float().numpy()).all(), name
