"""The study of all guidances on splats: equal budgets, resumable rows, a table and a grid that say what was made."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from dream3d.bench import study_run
from dream3d.bench.study import BUDGET, Method, course_cost, methods, stage_of, steps_for
from dream3d.bench.study_run import (
    entropy_bits,
    markdown,
    open_color_entropy,
    run_study,
    summary,
    write_grid,
)
from dream3d.cli.main import main
from dream3d.errors import ConfigError
from guidance import GUIDANCE


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.label)
def test_every_method_spends_the_same(method: Method) -> None:
    guidance = method.guidance()
    steps = steps_for(guidance, BUDGET)
    one_step = course_cost(guidance, steps) / steps
    assert abs(course_cost(guidance, steps) - BUDGET) <= max(one_step, 0.02 * BUDGET)
    assert stage_of(guidance, steps).conditioning == "text"


def test_all_registered_guidances_are_in_it() -> None:
    assert {method.name for method in methods()} == set(GUIDANCE.names())
    labels = [method.label for method in methods()]
    assert len(labels) == len(set(labels))


def row(method: str, prompt: str, seed: int, color: list[float], **changes: object) -> dict:
    numbers = dict.fromkeys(("alignment", "view", "janus", "saturation", "frechet", "seconds"), 0.5)
    facts = {"method": method, "prompt": prompt, "seed": seed, "color": color, "steps": 3}
    return {**numbers, **facts, "budget": 8, **changes}


def test_open_colours_are_counted_where_a_prompt_names_none() -> None:
    assert entropy_bits([0.5, 0.5]) == 1.0 and entropy_bits([1.0, 0.0]) == 0.0
    red, blue = [1.0, 0.0], [0.0, 1.0]
    differ = [row("m", "a cat", 0, red), row("m", "a cat", 1, blue)]
    same = [row("m", "a cat", 0, red), row("m", "a cat", 1, red)]
    named = [row("m", "a red cat", 0, red), row("m", "a red cat", 1, blue)]
    assert open_color_entropy(differ) == 1.0 and open_color_entropy(same) == 0.0
    assert open_color_entropy(named) is None and open_color_entropy(differ[:1]) is None
    lines = summary([*differ, row("n", "a cat", 0, red, error="no")])
    assert [line["rows"] for line in lines] == [2, 0] and lines[0]["color_bits"] == 1.0
    assert "| m | 2 | 0.50 |" in markdown(lines) and "| n | 0 |  |" in markdown(lines)


def test_rows_are_kept_and_only_missing_ones_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = torch.randn(16, 192, generator=torch.Generator().manual_seed(0))

    def own(prior: object, prompt: str, evaluator: object) -> torch.Tensor:
        return features

    monkeypatch.setattr(study_run, "prior_features", own)
    told: list[str] = []
    rows = run_study(tmp_path, ["sjc"], 8, ["a red robot"], [0], told.append)
    assert len(rows) == len(told) == 1 and (rows[0]["steps"], rows[0]["evaluations"]) == (1, 8)
    again = run_study(tmp_path, ["sjc"], 8, ["a red robot"], [0], told.append)
    assert again == rows and len(told) == 1
    assert json.loads((tmp_path / "rows.jsonl").read_text()) == rows[0]
    write_grid(rows, tmp_path, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width > 300 and grid.getextrema() != ((255, 255),) * 3
    with pytest.raises(ConfigError, match="there is no method 'foo'"):
        run_study(tmp_path, ["foo"])


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--budget", "3"], "--budget is 3"), (["--seeds", "0"], "--seeds is 0")],
)
def test_the_command_refuses(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "guidance", *options]) == 2
    assert message in capsys.readouterr().err
