"""The table of direct fits: resumable, honest about what is missing, measured over the foreground."""

import json
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from dream3d.bench import fit, fit_recipes
from dream3d.bench.fit import fit_prompts, foreground_psnr, picture_grid, run_fit, summary
from dream3d.bench.fit_recipes import DirectFit, Recipe, exported
from dream3d.errors import ConfigError, OutputError, PromptError
from dream3d.rendering import RenderOutput
from dream3d.scenes.splats import SplatsConfig
from dream3d.scenes.tets import TetsConfig


def test_psnr_counts_the_foreground_only() -> None:
    alpha = torch.zeros(1, 4, 4, 1)
    alpha[:, :2] = 1.0
    true = RenderOutput(alpha.expand(1, 4, 4, 3) * 0.5, alpha, alpha)
    off = replace(true, rgb=true.rgb + 0.1 * alpha)
    assert foreground_psnr(off, true) == pytest.approx(20.0, abs=1e-3)
    assert foreground_psnr(true, true) == 100.0
    # A haze beside the object is not over the foreground; a hole in it is.
    haze = replace(true, rgb=true.rgb + 0.3 * (1.0 - alpha))
    assert foreground_psnr(haze, true) == 100.0
    hole = replace(true, rgb=0.0 * true.rgb, alpha=0.0 * alpha)
    white = replace(true, rgb=alpha.expand(1, 4, 4, 3))
    assert foreground_psnr(hole, white) == pytest.approx(6.02, abs=0.01), "half the range off"


def test_the_eight_objects_are_those_of_the_suite() -> None:
    prompts = fit_prompts()
    assert len(set(prompts)) == 8 and "a red penguin" in prompts


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "SIZE", 24)
    monkeypatch.setattr(fit, "VIEWS", 4)
    monkeypatch.setattr(fit, "HELD_OUT", 4)
    monkeypatch.setattr(fit.true_views, "__defaults__", (24,))
    quick = DirectFit(SplatsConfig(count=100, max_count=100), steps=2, views=1)
    monkeypatch.setattr(fit, "RECIPES", {"splats": Recipe(1000.0, quick)})


def test_finished_rows_are_kept(tiny: None, tmp_path: Path) -> None:
    path, pictures = tmp_path / "r" / "fit.json", tmp_path / "pictures"
    prompts = ["a red mug", "a blue duck"]
    said: list[str] = []
    first = run_fit(path, ["splats"], prompts[:1], pictures, report=said.append)
    assert [row["prompt"] for row in first["rows"]] == prompts[:1]
    assert first == json.loads(path.read_text())
    both = run_fit(path, ["splats"], prompts, pictures, report=said.append)
    assert len(said) == 2, "the finished row was not made again"
    assert both["rows"][0] == first["rows"][0]
    row = both["rows"][1]
    assert row["within_budget"] and row["cpu_seconds"] >= 0.0 and 5.0 < row["psnr"] < 40.0
    again = run_fit(path, ["splats"], prompts[:1], None, again=True, report=said.append)
    assert len(said) == 3 and len(again["rows"]) == 2
    repeated = next(row for row in again["rows"] if row["prompt"] == prompts[0])
    for name, value in first["rows"][0].items():
        assert repeated[name] == value or name.endswith("seconds"), name
    grid = tmp_path / "grid.png"
    picture_grid(pictures, grid, prompts)
    assert iio.imread(grid).shape == (2 * 12, 4 * 12, 3)
    with pytest.raises(ConfigError, match="representation is 'clay'"):
        run_fit(path, ["clay"], prompts)
    with pytest.raises(PromptError):
        run_fit(path, ["splats"], ["a marble statue"])
    path.write_text("[]")
    with pytest.raises(OutputError, match="not a table"):
        run_fit(path, ["splats"], prompts)


def test_a_bar_is_met_only_by_all_eight() -> None:
    rows = [
        {"representation": "splats", "prompt": p, "psnr": 33.0, "cpu_seconds": 1.0}
        for p in fit_prompts()
    ]
    assert summary(rows)["splats"]["met"] is True
    assert summary(rows[:7])["splats"]["met"] is None
    assert summary([{**row, "psnr": 31.0} for row in rows])["splats"]["met"] is False
    assert summary([]) == {}


def test_the_exported_mesh_looks_like_the_grid() -> None:
    """Simplified, unwrapped and baked, it shows what the grid itself shows."""
    config = TetsConfig(resolution=16, coarser=1, field_resolution=32, field_table_log2=10)
    scene = config.create(torch.Generator().manual_seed(0), torch.device("cpu"))
    with torch.no_grad():
        scene.texture.encoding.table.mul_(100.0)  # pyright: ignore
        scene.texture.head[-1].weight.mul_(5.0)  # pyright: ignore
        mesh = exported(scene)
        shown = fit_recipes.ShownMesh(fit_recipes.mesh_data(mesh))
        cameras = fit.training_cameras(4, 48)
        a, b = scene.render(cameras), shown.render(cameras)
    assert np.std(mesh.texture) > 0.01, "there is something to bake"
    assert (a.alpha - b.alpha).abs().mean() < 0.01
    assert foreground_psnr(b, a) > 25.0
