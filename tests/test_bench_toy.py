"""The toy's density, and the numbers that the family is known to give on it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import torch
from PIL import Image

from dream3d.bench import toy
from dream3d.bench.toy import BOTH, RECIPES, RIGHT, Outcome, Recipe, ToyPrior, follow, run_toy
from dream3d.cli.main import main
from dream3d.errors import NumericsError
from dream3d.priors.base import Condition
from dream3d.schedules import constant
from guidance import GUIDANCE
from guidance.cfd import CFD
from guidance.esd import ESD
from guidance.pfd import PFD
from guidance.sds import SDS


def rows(method: str, count: int = 1500) -> list[dict]:
    return [outcome.row() for outcome in run_toy([method], count)]


def test_the_density_is_one_and_its_curve_the_integral() -> None:
    x = torch.linspace(-6.0, 6.0, 6001, dtype=torch.float64)
    density = BOTH.density(x)
    assert math.isclose(torch.trapezoid(density, x).item(), 1.0, rel_tol=1e-6)
    summed = torch.cumulative_trapezoid(density, x)
    torch.testing.assert_close(summed, BOTH.below(x)[1:] - BOTH.below(x)[0], atol=1e-5, rtol=0.0)
    # A sample at the density's own quantiles is as near as 1 / 2N.
    quantiles = torch.searchsorted(BOTH.below(x), (torch.arange(200) + 0.5) / 200.0)
    assert BOTH.distance(x[quantiles]) < 0.006
    assert BOTH.distance(x[quantiles] + 1.0) > 0.3


@pytest.mark.parametrize("prompt", [BOTH, RIGHT])
def test_its_prediction_is_the_score_of_the_noised_density(prompt) -> None:  # type: ignore[no-untyped-def]
    prior = ToyPrior(prompt)
    t = torch.tensor([0.1, 0.4, 0.8], dtype=torch.float64)
    z = torch.tensor([-1.0, 0.4, 2.6], dtype=torch.float64, requires_grad=True)
    alpha, sigma = prior.schedule.alpha(t), prior.schedule.sigma(t)
    for words, meant in (("", BOTH), ("prompt", prompt)):
        parts = [
            w
            * torch.distributions.Normal(alpha * m, (alpha**2 * s**2 + sigma**2).sqrt())
            .log_prob(z)
            .exp()
            for w, m, s in zip(meant.weights, meant.means, meant.stds, strict=True)
        ]
        (score,) = torch.autograd.grad(torch.stack(parts).sum(0).log().sum(), z)
        condition = Condition(prior.embed([words] * 3))
        got = prior.predict(z.detach().reshape(3, 1, 1, 1), t, condition).eps.flatten()
        torch.testing.assert_close(got, -sigma * score)


def test_a_rule_that_divides_by_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = torch.tensor([1.0, math.nan, 2.0])
    monkeypatch.setattr(toy, "follow", lambda *arguments: (lost, 2.0))
    with pytest.raises(NumericsError, match="sds, plain: 1 of 3 particles are no finite numbers"):
        run_toy(["sds"], 3)


def test_the_flow_with_fixed_noise_samples_the_mixture() -> None:
    plain, guided = rows("cfd")
    assert math.isclose(plain["std_left"], 0.25, abs_tol=0.03)
    assert math.isclose(plain["std_right"], 0.39, abs_tol=0.03)
    assert math.isclose(plain["share_right"], 0.67, abs_tol=0.03)
    assert plain["ks"] < 0.06
    # Guidance keeps some of the spread and moves the mean.
    assert math.isclose(guided["mean"], 2.46, abs_tol=0.03)
    assert math.isclose(guided["std_right"], 0.19, abs_tol=0.03)


@pytest.mark.parametrize(("scale", "mean", "std"), [(1.0, 1.94, 0.39), (2.0, 2.10, 0.29)])
def test_the_flow_keeps_its_spread_at_small_scales(scale: float, mean: float, std: float) -> None:
    x, _ = follow(CFD(constant(scale), "uniform"), ToyPrior(RIGHT), RECIPES["cfd"], 1000, 0)
    assert math.isclose(x.mean().item(), mean, abs_tol=0.03)
    assert math.isclose(x.std().item(), std, abs_tol=0.03)


@pytest.mark.parametrize(("gamma", "distance"), [(1e-3, 0.06), (1.0, 0.5)])
def test_the_stochastic_flow_samples_until_its_noise_is_fresh(
    gamma: float, distance: float
) -> None:
    """A thousandth renewed per step samples as the flow itself does; all of it is annealed SDS, in one mode."""
    recipe = Recipe("annealed", "fixed", None, 500, renewed=gamma)
    x, _ = follow(CFD(constant(1.0), "uniform"), ToyPrior(BOTH), recipe, 1500, 0)
    row = Outcome("cfd", "plain", x, 1.0).row()
    assert row["ks"] < distance
    if gamma == 1.0:
        assert row["share_right"] > 0.95 and row["ks"] > 0.3
    else:
        assert math.isclose(row["std_left"], 0.25, abs_tol=0.03)
        assert math.isclose(row["std_right"], 0.39, abs_tol=0.03)


@pytest.mark.slow
def test_the_round_trip_up_the_particles_own_flow_samples_the_mixture() -> None:
    """Both spreads and the shares of the modes too, where the prior as its own source moves nothing."""
    rule = PFD(constant(1.0), source="companion", up=30, down=30)
    recipe = Recipe(rate=0.5, steps=40)
    x, _ = follow(rule, ToyPrior(BOTH), recipe, 400, 0)
    row = Outcome("pfd", "plain", x, 60.0).row()
    assert math.isclose(row["ks"], 0.02, abs_tol=0.03)
    assert math.isclose(row["share_right"], 0.7, abs_tol=0.03)
    assert math.isclose(row["std_left"], 0.25, abs_tol=0.04)
    assert math.isclose(row["std_right"], 0.40, abs_tol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "left", "right"), [("vsd", 0.31, 0.36), ("esd", 0.20, 0.24)])
def test_an_exact_companion_keeps_the_spread(method: str, left: float, right: float) -> None:
    plain = rows(method)[0]
    assert math.isclose(plain["std_left"], left, abs_tol=0.03)
    assert math.isclose(plain["std_right"], right, abs_tol=0.03)
    assert math.isclose(plain["ks"], {"vsd": 0.15, "esd": 0.12}[method], abs_tol=0.03)


@pytest.mark.slow
def test_half_the_entropy_of_a_companion_keeps_a_quarter_of_the_spread() -> None:
    """In short steps: what a step of .1 adds by its noise stays, .13 and .10 instead of .07 on either side."""
    recipe = Recipe(cameras=True)
    x, _ = follow(ESD(0.5, constant(1.0), weight="uniform"), ToyPrior(BOTH), recipe, 400, 0)
    row = Outcome("esd", "plain", x, 3.0).row()
    assert math.isclose(row["std_left"], 0.07, abs_tol=0.03)
    assert math.isclose(row["std_right"], 0.07, abs_tol=0.03)


def rest_of_sds(scale: float) -> float:
    """Where SDS's expected gradient is zero under this toy's levels, by quadrature over level and noise."""
    prior, count = ToyPrior(RIGHT), 400
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(40))
    t = (0.02 + 0.96 * (torch.arange(count) + 0.5).double() / count).repeat_interleave(len(nodes))
    noise, weight = nodes.repeat(count), (weights / weights.sum() / count).repeat(count)
    alpha, sigma = prior.schedule.alpha(t), prior.schedule.sigma(t)
    prompt, empty = (Condition(prior.embed([words] * len(t))) for words in ("prompt", ""))

    def force(x: float) -> float:
        z_t = (alpha * x + sigma * noise).reshape(-1, 1, 1, 1)
        away = prior.predict(z_t, t, empty).eps.flatten()
        guided = away + scale * (prior.predict(z_t, t, prompt).eps.flatten() - away)
        return (weight * (guided - noise)).sum().item()

    return scipy.optimize.brentq(force, 1.0, 9.0)


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "sheet"), [(1.0, 2.00), (7.5, 2.97), (100.0, 7.27)])
def test_sds_rests_off_the_mode_where_its_expected_gradient_is_zero(
    scale: float, sheet: float
) -> None:
    x, _ = follow(SDS(constant(scale), "uniform"), ToyPrior(RIGHT), Recipe(), 300, 0)
    assert math.isclose(x.mean().item(), rest_of_sds(scale), rel_tol=0.01)
    assert math.isclose(x.mean().item(), sheet, rel_tol=0.015)


@pytest.mark.slow
def test_sds_collapses_inside_its_basins_and_saturates() -> None:
    plain, guided = rows("sds")
    assert math.isclose(plain["std_left"], 0.04, abs_tol=0.03)
    assert math.isclose(plain["std_right"], 0.03, abs_tol=0.03)
    assert math.isclose(guided["mean"], 2.97, rel_tol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "mean"), [("ism", 2.08), ("sdi", 2.00)])
def test_inverted_paths_find_the_prompts_mode_but_without_guidance_a_valley(
    method: str, mean: float
) -> None:
    plain, guided = rows(method, 500)
    assert math.isclose(guided["mean"], mean, rel_tol=0.03) and guided["std_right"] < 0.04
    assert -0.7 < plain["mean"] < -0.2 and plain["share_right"] < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("method", ["classifier-score", "score-difference"])
def test_the_classifier_direction_runs_away(method: str) -> None:
    _, guided = rows(method, 500)
    assert guided["mean"] > 5.0


def test_the_command_draws_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "toy.png"
    arguments = ["bench", "toy", "cfd", "--particles", "100", "--out", str(out), "--json"]
    assert main(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["case"] for row in told["rows"]] == ["plain", "guided"]
    assert {"method", "mean", "std_left", "std_right", "share_right", "ks", "evaluations"} <= set(
        told["rows"][0]
    )
    assert [row["evaluations"] for row in told["rows"]] == [1.0, 2.0]
    with Image.open(out) as picture:
        assert picture.width > 400 and len(picture.getcolors(1 << 20) or []) > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--particles", "3"], "--particles is 3; choose 100 to 100000"),
        (["--seed", "-1"], "--seed is -1; choose 0 or more"),
        (["sdz"], "guidance is 'sdz'; choose one of"),
    ],
)
def test_the_command_refuses(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "toy", *arguments, "--out", str(tmp_path / "toy.png")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("method", GUIDANCE.names())
def test_every_guidance_runs(method: str) -> None:
    for row in rows(method, 100):
        assert math.isfinite(row["mean"]) and 0.0 <= row["ks"] <= 1.0
