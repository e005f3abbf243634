"""What a step costs: parts that add up, one network call for both prompts, and no claim about a GPU."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dream3d.bench import step_rows
from dream3d.bench.networks import Shape
from dream3d.bench.step import Stopwatch, step_cost
from dream3d.cli.bench_step import table
from dream3d.cli.main import main
from dream3d.diffusion import Prediction
from dream3d.priors.gaussian import ClosedFormPrior, MovedPrior
from dream3d.scenes.splats import SplatsConfig


@pytest.mark.parametrize(("name", "calls"), [("sds", 1), ("asynchronous-score", 2)])
def test_parts_add_up_and_both_prompts_are_one_call(name: str, calls: int) -> None:
    prior = ClosedFormPrior(8)
    row = step_cost(name, prior, steps=3)
    parts = row["milliseconds"]
    assert row["network_calls"] == calls
    assert min(parts[k] for k in ("predict", "encode", "render", "backward")) > 0.0
    assert 0.0 <= row["overhead_share"] < 1.0
    known = sum(v for k, v in parts.items() if k != "total")
    assert known == pytest.approx(parts["total"], rel=0.5)
    assert "predict" not in vars(prior)  # as it was


@pytest.mark.parametrize(("name", "answers"), [("vsd", 1), ("bootstrapped-score", 2)])
def test_a_companions_answers_and_training_are_no_overhead(
    name: str, answers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow companion shows in its own two parts, however often it asks the prior meanwhile."""
    slow = 0.02

    def output(self: MovedPrior, *args: Any) -> Prediction:
        time.sleep(slow)
        return plain(self, *args)

    plain = MovedPrior.output
    monkeypatch.setattr(MovedPrior, "output", output)
    row = step_cost(name, ClosedFormPrior(8), steps=3)
    parts = row["milliseconds"]
    assert parts["companion_predict"] >= answers * slow * 1e3
    assert parts["companion"] >= answers * slow * 1e3
    assert parts["overhead"] < parts["total"] - 2 * answers * slow * 1e3


def test_a_call_inside_another_counts_once() -> None:
    watch, clock = Stopwatch(torch.device("cpu")), [0.0]
    watch.now = lambda: clock[0]  # type: ignore[method-assign]

    def work(seconds: float) -> None:
        clock[0] += seconds

    inner = watch.around("inner", lambda: work(3.0))
    outer = watch.around("outer", lambda: [inner(), work(1.0), inner()])
    watch.around("all", lambda: [outer(), work(0.5), inner()])()
    assert watch.seconds == {"inner": 9.0, "outer": 1.0, "all": 0.5}
    assert watch.calls == {"inner": 3, "outer": 1, "all": 1}


class NoRenderer(SplatsConfig):
    """Splats on a machine that cannot draw them."""

    def create(self, generator: torch.Generator, device: torch.device) -> Any:
        raise RuntimeError("no driver")


def test_rows_of_networks_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row is written as it finishes; a recording that fails is told of, and the row is there all the same."""
    small = Shape("reduced", (32, 32), (1, 1), (32, 32, 32, 32), 16, 64)
    monkeypatch.setattr(step_rows, "REDUCED", small)
    monkeypatch.setattr(step_rows, "WARM", 2)
    monkeypatch.setattr(step_rows, "PART_STEPS", 1)
    monkeypatch.setattr(step_rows, "CASES", (("sds", 1), ("vsd", 1)))
    monkeypatch.setattr(step_rows, "SplatsConfig", NoRenderer)
    file, told = tmp_path / "rows.json", []
    result = step_rows.bench_networks("cpu", 1, ["graphs"], 600.0, file, told.append)
    assert json.loads(file.read_text()) == result
    rows = result["rows"]
    named = [(row["variant"], row.get("guidance")) for row in rows]
    assert result["scene"].startswith("canvas") and "no driver" in rows.pop(0)["error"][-1]
    assert named[1:] == [("graphs", "sds"), ("eager diffusers", "sds"), ("graphs", "vsd")]
    sds, plain, vsd = rows
    assert not any("error" in row for row in rows), rows
    assert sds["ratio"] == round(plain["total_ms"] / sds["total_ms"], 2)
    assert vsd["times_sds"] == round(vsd["total_ms"] / sds["total_ms"], 2)
    assert {"encode", "predict", "render", "backward", "overhead"} <= set(sds["parts_ms"])
    assert {"companion", "companion_predict"} <= set(vsd["parts_ms"])
    assert vsd["tera_flops"] > sds["tera_flops"] > 0.0
    assert "network" in sds["not_recorded"] and "companion" in vsd["not_recorded"]
    assert str(tmp_path.home()) not in json.dumps(result["rows"])
    shown = table({"device": "cpu", "steps": [], "networks": result})
    assert "not run on a GPU" in shown and "eager diffusers" in shown


def test_a_row_that_fails_says_how_and_the_next_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_rows, "REDUCED", replace(step_rows.REDUCED, channels=(33, 33)))
    result = step_rows.bench_networks("cpu", 1, ["none", "last"], 600.0, None, lambda _: None)
    assert [row["variant"] for row in result["rows"]] == ["flops", "none", "last"]
    assert all("Error" in row["error"][-1] for row in result["rows"])


def test_the_command_refuses_too_few_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", "--steps", "1"]) == 2
    assert "--steps is 1" in capsys.readouterr().err
