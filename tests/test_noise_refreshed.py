"""Noise that drifts: one stationary process, read off at any moment without the moments before."""

import math
from itertools import pairwise

import pytest
import torch

from dream3d.errors import ConfigError
from dream3d.noise_sources import NOISE_SOURCES, RefreshedNoise
from dream3d.schedules import Ramp, constant

SHAPE = (1, 3, 64, 64)


def at(progress: float, rate: float = 2.0, seed: int = 7, draws: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(draws)
    return NOISE_SOURCES["refreshed"](constant(rate))(SHAPE, progress, seed, generator)


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a * b).mean().item()


@pytest.mark.parametrize("progress", [0.0, 0.1234, 0.5, 0.75, 0.999, 1.0])
def test_it_is_unit_gaussian_noise_at_every_moment(progress: float) -> None:
    noise = at(progress)
    assert math.isclose(noise.std().item(), 1.0, abs_tol=0.02) and abs(noise.mean().item()) < 0.02
    assert math.isclose((noise**4).mean().item(), 3.0, abs_tol=0.2)


@pytest.mark.parametrize("rate", [0.5, 2.0, 20.0])
@pytest.mark.parametrize(("p", "q"), [(0.0, 1.0), (0.1, 0.15), (0.49, 0.52), (0.3, 0.9)])
def test_its_correlation_falls_with_the_time_between(rate: float, p: float, q: float) -> None:
    expected = math.exp(-rate * (q - p))
    assert math.isclose(correlation(at(p, rate), at(q, rate)), expected, abs_tol=0.03)


def test_it_needs_no_state_and_takes_nothing_from_the_generator() -> None:
    assert torch.equal(at(0.37), at(0.37, draws=5))
    assert abs(correlation(at(0.37), at(0.37, seed=8))) < 0.03
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    RefreshedNoise()(SHAPE, 0.3, 1, generator)
    assert torch.equal(generator.get_state(), before)


def test_rate_zero_is_fixed_and_a_large_rate_fresh() -> None:
    assert torch.equal(at(0.1, 0.0), at(0.9, 0.0))
    assert abs(correlation(at(0.1, 1e4), at(0.101, 1e4))) < 0.03


@pytest.mark.parametrize("rate", [0.5, 3.0])
def test_n_steps_of_it_are_the_refresh_of_a_share_gamma(rate: float) -> None:
    """Linear in both neighbours: what is left of step k + 1 after step k is as large as gamma says, and new."""
    steps = 50
    gamma = 1.0 - math.exp(-2.0 * rate / steps)
    path = [at(k / steps, rate) for k in range(steps + 1)]
    new = [b - math.sqrt(1.0 - gamma) * a for a, b in pairwise(path)]
    assert math.isclose(torch.stack(new).square().mean().item(), gamma, rel_tol=0.03)
    for k in (5, 24, 40):
        assert abs(correlation(new[k], path[k])) < 0.03 * math.sqrt(gamma)
        assert abs(correlation(new[k], new[k + 1])) < 0.03 * gamma


def test_each_view_may_have_its_own() -> None:
    generator = torch.Generator()
    shared = RefreshedNoise(constant(1.0))((2, 3, 32, 32), 0.4, 1, generator)
    own = RefreshedNoise(constant(1.0), per_view=True)((2, 3, 32, 32), 0.4, 1, generator)
    assert torch.equal(shared[0], shared[1]) and abs(correlation(own[0], own[1])) < 0.06


@pytest.mark.parametrize("rate", [-1.0, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match=f"noise.rate is {rate}"):
        RefreshedNoise(constant(rate))


def test_a_ramped_rate_drifts_by_its_integral() -> None:
    source = RefreshedNoise(Ramp(8.0, 0.0, 0.25, 0.75))
    assert math.isclose(source.spent(0.5), 2.0 + 0.25 * 6.0)
    assert math.isclose(source.spent(1.0), 2.0 + 2.0)

    def now(progress: float) -> torch.Tensor:
        return source(SHAPE, progress, 7, torch.Generator())

    for p, q in ((0.0, 0.2), (0.3, 0.6), (0.5, 1.0)):
        expected = math.exp(source.spent(p) - source.spent(q))
        assert math.isclose(correlation(now(p), now(q)), expected, abs_tol=0.03)
    assert torch.allclose(now(0.8), now(1.0))
