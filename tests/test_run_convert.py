"""Stages that start from the scene of the stage before: converted once, resumed bit for bit."""

from pathlib import Path

import pytest
import torch

from dream3d.config import config_to_yaml, load_config, load_config_text
from dream3d.config.plain_yaml import to_text
from dream3d.errors import AssetError, Cancelled, ConfigError
from dream3d.run import run_system
from dream3d.scenes.splats import Splats
from dream3d.train import StepReport
from systems.base import RunConfig

FIRST = {"name": "tets", "resolution": 12, "init_radius": 0.6, "field_resolution": 16}
SECOND = {
    "splats": {"name": "splats", "count": 300, "max_count": 320},
    "tets": {"name": "tets", "resolution": 12, "coarser": 1, "field_resolution": 16},
}


def two_stages(kind: str) -> RunConfig:
    document = {
        "extends": "gaussian",
        "prompt": "a red ball",
        "steps": 3,
        "views": 2,
        "render_size": 24,
        "checkpoint_every": 2,
        "stages": [{"scene": FIRST}, {"scene": SECOND[kind], "start": "previous"}],
    }
    return load_config_text(to_text(document))


@pytest.mark.parametrize("kind", SECOND)
def test_the_second_stage_starts_from_the_first(kind: str, tmp_path: Path) -> None:
    shown: list[torch.Tensor] = []

    def look(report: StepReport) -> None:
        if report.stage == 1 and not shown:
            scene = report.scene
            shown.append(
                scene.splats.means.detach()
                if isinstance(scene, Splats)
                else torch.from_numpy(scene.to_mesh().vertices)
            )

    result = run_system(two_stages(kind), tmp_path, look)
    assert result.status == "finished" and result.steps == 6
    assert result.phases["convert"] > 0.0
    radius = shown[0].norm(dim=-1)
    assert 0.5 < radius.median() < 0.7, "the ball of radius 0.6 it was converted from"
    assert radius.min() > 0.4 and radius.max() < 0.8


@pytest.mark.parametrize("kind", SECOND)
@pytest.mark.parametrize("stop_at", [(0, 3), (1, 2)])
def test_resumed_equals_unbroken(kind: str, stop_at: tuple[int, int], tmp_path: Path) -> None:
    config = two_stages(kind)
    whole = run_system(config, tmp_path / "whole")

    def stop(report: StepReport) -> None:
        if (report.stage, report.step) == stop_at:
            raise Cancelled("enough")

    broken = run_system(config, tmp_path / "broken", stop)
    assert broken.status == "cancelled"
    again = run_system(config, tmp_path / "broken", resume=True)
    assert again.status == "finished"
    expected, found = whole.scene.state(), again.scene.state()
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


def test_start_is_written_and_read() -> None:
    config = two_stages("splats")
    assert [stage.start for stage in config.stages] == ["fresh", "previous"]
    assert load_config_text(config_to_yaml(config)) == config


def test_what_cannot_start_from_another() -> None:
    with pytest.raises(ConfigError, match="no stage before"):
        load_config("gaussian", {"start": "previous"}, "a red ball")
    with pytest.raises(ConfigError, match="must be one of fresh, previous"):
        load_config("gaussian", {"start": "elsewhere"}, "a red ball")


def test_scenes_without_a_surface_say_so() -> None:
    from dream3d.scenes.canvas import CanvasConfig

    generator, cpu = torch.Generator().manual_seed(0), torch.device("cpu")
    canvas = CanvasConfig().create(generator, cpu)
    with pytest.raises(AssetError, match="has no surface"):
        canvas.to_mesh()
    from dream3d.scenes.splats import SplatsConfig

    splats = SplatsConfig(count=10, max_count=10).create(generator, cpu)
    assert isinstance(splats, Splats)
    with pytest.raises(ConfigError, match="cannot be made from"):
        CanvasConfig().convert(splats, generator, cpu)
