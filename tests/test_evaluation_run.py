"""A run directory becomes numbers; the truth itself scores what truth must score."""

import json
from pathlib import Path

import imageio.v3 as iio
import pytest
import torch
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.config import config_to_yaml, load_config
from dream3d.errors import CheckpointError, ConfigError, PromptError
from dream3d.evaluation.classifier import Evaluator
from dream3d.evaluation.gallery import SIZE, write_gallery
from dream3d.evaluation.measure import METRICS
from dream3d.evaluation.run import evaluate_run, evaluate_scene
from dream3d.evaluation.table import write_table
from dream3d.evaluation.truth import Truth, truth_variant
from dream3d.rendering import RenderOutput
from dream3d.run import run_system
from dream3d.scenes.base import Scene
from dream3d.world.grammar import parse


class TruthScene(Scene):
    """A scene that cannot be improved."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        return {}

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {}

    def render(self, cameras: CameraBatch) -> RenderOutput:
        return self.truth.render(cameras)

    def regularisation(self, output: RenderOutput, progress: float) -> dict[str, Tensor]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        pass


@pytest.mark.parametrize("prompt", ["a yellow duck", "a red sphere on a blue cube"])
def test_the_truth_scores_as_truth(prompt: str, evaluator: Evaluator) -> None:
    caption = parse(prompt)
    found = evaluate_scene(TruthScene(truth_variant(caption, 1)), caption, evaluator)
    assert found["truth"] == {
        "seed": 1,
        "yaw_deg": 0.0,
        "colors": [color for color, _ in caption.objects],
    }
    assert found["silhouette_iou"] == 1.0
    assert found["psnr"] == 100.0
    assert found["volume_iou"] > 0.9
    assert found["chamfer"] < 0.02
    assert found["f_score"] > 0.98
    assert found["saturation"] == pytest.approx(found["true_saturation"])
    assert found["alignment"] > 0.9 and found["category"] >= 0.75 and found["colors"] >= 0.75
    assert found["janus"] in ((False,) if "duck" in prompt else (None,))


def test_another_object_scores_worse(evaluator: Evaluator) -> None:
    """A mug handed in for a duck: nothing but the colour is right."""
    mug = TruthScene(truth_variant(parse("a yellow mug"), 0))
    found = evaluate_scene(mug, parse("a yellow duck"), evaluator)
    assert found["alignment"] <= 0.6
    assert found["category"] <= 0.25
    assert found["volume_iou"] < 0.7 and found["psnr"] < 25.0


def test_open_colours_are_filled_in_from_the_views(evaluator: Evaluator) -> None:
    mug = TruthScene(truth_variant(parse("a green mug"), 0))
    found = evaluate_scene(mug, parse("a mug"), evaluator)
    assert found["truth"]["colors"] == ["green"]
    assert found["colors"] == 1.0


TINY = {
    "steps": 2,
    "scene.count": 200,
    "scene.max_count": 200,
    "render_size": 16,
}


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run") / "cube"
    config = load_config("gaussian", TINY, "a red cube")
    directory.mkdir()
    (directory / "config.yaml").write_text(config_to_yaml(config))
    run_system(config, directory)
    return directory


def test_a_run_directory_is_evaluated(run_directory: Path, evaluator: Evaluator) -> None:
    found = evaluate_run(run_directory, evaluator=evaluator)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(METRICS) <= set(found) and set(METRICS) <= set(found["ceiling"])
    assert found["prompt"] == "a red cube" and found["seed"] == 0
    assert found["janus"] is None and found["view"] is None
    for name in ("alignment", "category", "colors", "silhouette_iou", "volume_iou", "f_score"):
        assert 0.0 <= found[name] <= 1.0
    assert len(found["reads"]) == 16
    assert evaluate_run(run_directory, with_ceiling=False, evaluator=evaluator)["ceiling"] is None
    again = evaluate_run(run_directory, evaluator=evaluator)
    assert again == found, "evaluation has no chance of its own"


def test_what_cannot_be_evaluated_says_why(run_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run directory"):
        evaluate_run(tmp_path / "nothing")
    config = (run_directory / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(config)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        evaluate_run(tmp_path)
    (tmp_path / "config.yaml").write_text(config.replace("a red cube", "a marble statue"))
    with pytest.raises(PromptError, match="marble"):
        evaluate_run(tmp_path)


def test_gallery_and_table_show_every_first_row(
    run_directory: Path, tmp_path: Path, evaluator: Evaluator
) -> None:
    numbers = evaluate_run(run_directory, with_ceiling=False, evaluator=evaluator)
    row = {
        "prompt": "a red cube",
        "stratum": "primitive",
        "first": True,
        "front": False,
        "run": run_directory.name,
    }
    results = {
        "a red cube #0": {**row, **numbers},
        "a red cube #1": {**row, **numbers, "seed": 1, "first": False},
        "a red cube #2": {**row, "seed": 2, "error": "OutputError: full"},
    }
    write_gallery(results, run_directory.parent, tmp_path)
    page = (tmp_path / "gallery.md").read_text()
    assert page.count("| a red cube |") == 1
    sheet = iio.imread(tmp_path / "images" / "gallery-01.png")
    assert sheet.shape == (SIZE, 8 * SIZE + SIZE // 4, 3)
    # The right half is the truth: a red cube on a light ground.
    truth = sheet[:, -4 * SIZE :].astype(int)
    red = (truth[..., 0] > 100) & (truth[..., 1] < 60)
    assert 0.15 < red.mean() < 0.8
    write_table(results, tmp_path, "abc", "def")
    table = json.loads((tmp_path / "suite-first.json").read_text())
    assert table["commit"] == "abc" and table["summary"]["failures"] == 1
    assert (tmp_path / "suite-first.md").read_text().count("| a red cube |") == 3
