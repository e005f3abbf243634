"""The ceiling: the run's own stages with true views in place of the guidance, for every representation."""

import pytest
import torch

from dream3d.evaluation import ceiling
from dream3d.evaluation.ceiling import fitted
from dream3d.evaluation.truth import training_cameras, truth_variant
from dream3d.scenes.base import SCENES, Scene
from dream3d.scenes.splats import Splats, SplatsConfig
from dream3d.scenes.tets import TetsConfig
from dream3d.world.grammar import parse
from guidance.sds import SDS
from systems.base import Stage

TRUTH = truth_variant(parse("a red cube"), 0)
SIZE = 16


@pytest.fixture(autouse=True)
def few_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling, "VIEWS", 6)


def error(scene: Scene) -> float:
    cameras = training_cameras(6, SIZE)
    true = TRUTH.render(cameras)
    with torch.no_grad():
        found = scene.render(cameras)
    return (
        (found.rgb - true.rgb).square().mean() + (found.alpha - true.alpha).square().mean()
    ).item()


@pytest.mark.parametrize("name", [name for name in SCENES.names() if name != "canvas"])
def test_every_representation_comes_nearer_to_the_truth(name: str) -> None:
    stage = Stage(SDS(), SCENES[name].tiny(), steps=8, render_size=SIZE)
    fresh = SCENES[name].tiny().create(torch.Generator().manual_seed(0), torch.device("cpu"))
    assert error(fitted([stage], TRUTH)) < error(fresh)


def test_conversions_are_part_of_it() -> None:
    first = Stage(SDS(), TetsConfig.tiny(), steps=2, render_size=SIZE)
    second = Stage(
        SDS(),
        SplatsConfig(count=200, max_count=200),
        start="previous",
        steps=2,
        render_size=SIZE,
    )
    scene = fitted([first, second], TRUTH)
    assert isinstance(scene, Splats)
    assert 0.5 < scene.splats.means.norm(dim=-1).median() < 0.9, "on the ball, not throughout it"
