"""What a step costs: parts that add up, one network call for both prompts, and no claim about a GPU."""

import time
from typing import Any

import pytest
import torch

from dream3d.bench import step
from dream3d.bench.step import Stopwatch, network_cost, step_cost
from dream3d.cli.bench_step import table
from dream3d.cli.main import main
from dream3d.diffusion import Prediction
from dream3d.priors.gaussian import ClosedFormPrior, MovedPrior


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


def test_the_network_on_a_cpu_says_it_is_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"channels": (32, 32, 64, 64), "heads": (1, 1, 2, 2), "text": 16, "latent": 8}
    monkeypatch.setattr(step, "REDUCED", small)
    net = network_cost(rounds=1)
    assert net["size"].startswith("reduced") and net["precision"] == "float32"
    assert net["milliseconds"]["ours"] > 0.0
    row = step_cost("sds", ClosedFormPrior(8), steps=3)
    result = {"steps": [row], "network": net, "device": "cpu", "threads": 1}
    assert "not run on a GPU" in table({**result, "gpu": "not run on a GPU"})


def test_the_command_refuses_too_few_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", "--steps", "1"]) == 2
    assert "--steps is 1" in capsys.readouterr().err
