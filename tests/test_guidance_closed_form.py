"""Outcomes that can be worked out by hand under exact priors; lambda = sigma / alpha, f(l) = l / sqrt(s^2 + l^2)."""

import math
from itertools import pairwise

import pytest
import torch

from dream3d.diffusion import CosineSchedule, RectifiedFlowSchedule, add_noise
from dream3d.noise_sources import FixedNoise
from dream3d.priors.base import Condition
from dream3d.priors.gaussian import ClosedFormPrior
from dream3d.schedules import constant
from dream3d.time_samplers import AnnealedTime
from guidance import Guidance, Views
from guidance.ism import ISM
from guidance.multistep import Multistep
from guidance.sds import SDS

SCHEDULES = {"cosine": CosineSchedule(), "flow": RectifiedFlowSchedule()}
COUNT = 6
MEAN, STD = 0.7, 0.6


def scalar_prior(schedule: str = "cosine", empty_std: float = STD) -> ClosedFormPrior:
    """N(MEAN, STD^2) for the prompt and N(0, empty_std^2) for the empty one, given scalar latents and tokens."""
    return ClosedFormPrior(2, STD, empty_std, schedule=SCHEDULES[schedule])


def scalar_views(
    z: torch.Tensor, t: float, noise: torch.Tensor, mean: float = MEAN, empty: float = 0.0
) -> Views:
    count = len(z)

    def condition(value: float) -> Condition:
        return Condition(torch.full((count, 1, 1), value, dtype=torch.float64))

    shape = (count, 1, 1, 1)
    return Views(
        z.reshape(shape),
        torch.full((count,), t, dtype=torch.float64),
        noise.reshape(shape),
        condition(mean),
        condition(empty),
    )


def level(prior: ClosedFormPrior, t: float) -> float:
    at = torch.tensor([t], dtype=torch.float64)
    return (prior.schedule.sigma(at) / prior.schedule.alpha(at)).item()


def gradient(guidance: Guidance, prior: ClosedFormPrior, views: Views) -> torch.Tensor:
    return guidance(prior, views).grad.flatten()


def draws(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_priors_noise_prediction_is_the_score_of_their_density(
    components: int, schedule: str
) -> None:
    prior = ClosedFormPrior(2, 0.4, components=components, schedule=SCHEDULES[schedule])
    tokens = prior.embed(["a mug", "a cat"])
    t = torch.tensor([0.3, 0.7], dtype=torch.float64)
    z = draws(0, 2, 3, 2, 2).requires_grad_()
    alpha, sigma = prior.schedule.alpha(t), prior.schedule.sigma(t)
    variance = alpha**2 * 0.4**2 + sigma**2
    distance = (z.flatten(1)[:, None] - alpha[:, None, None] * tokens.double()).square().sum(-1)
    density = torch.logsumexp(-0.5 * distance / variance[:, None], dim=1).sum()
    (score,) = torch.autograd.grad(density, z)
    prediction = prior.predict(z.detach(), t, Condition(tokens))
    torch.testing.assert_close(prediction.eps, -sigma.reshape(-1, 1, 1, 1) * score)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_sds_mean_and_noise_on_a_gaussian(schedule: str, t: float) -> None:
    prior = scalar_prior(schedule)
    z, noise = draws(1, COUNT), draws(2, COUNT)
    lam = level(prior, t)
    mean = lam * (z - MEAN) / (STD**2 + lam**2)
    spread = STD**2 / (STD**2 + lam**2)
    got = gradient(SDS(constant(1.0), "uniform"), prior, scalar_views(z, t, noise))
    torch.testing.assert_close(got, mean - spread * noise)


def test_sds_collapses_to_the_stationary_variance_of_its_step_size() -> None:
    prior = scalar_prior()
    t, rate, count = 0.5, 0.05, 4000
    lam = level(prior, t)
    a, b = lam / (STD**2 + lam**2), STD**2 / (STD**2 + lam**2)
    z = draws(0, count)
    generator = torch.Generator().manual_seed(1)
    for _ in range(300):
        noise = torch.randn(count, generator=generator, dtype=torch.float64)
        z = z - rate * gradient(SDS(constant(1.0), "uniform"), prior, scalar_views(z, t, noise))
    assert math.isclose(z.mean().item(), MEAN, rel_tol=0.01)
    # Far below the prior's own variance 0.36: a mode, not a sample.
    assert math.isclose(z.var().item(), rate * b**2 / (a * (2 - rate * a)), rel_tol=0.1)


@pytest.mark.parametrize("scale", [2.0, 7.5, 100.0])
@pytest.mark.parametrize("empty_std", [STD, 1.1])
def test_where_sds_rests_under_guidance(scale: float, empty_std: float) -> None:
    prior, t = scalar_prior(empty_std=empty_std), 0.5
    lam = level(prior, t)
    mine, other = scale / (STD**2 + lam**2), (scale - 1) / (empty_std**2 + lam**2)
    rest = mine * MEAN / (mine - other)
    if empty_std == STD:
        assert math.isclose(rest, scale * MEAN)  # saturation
    z, noise = torch.full((2,), rest, dtype=torch.float64), torch.tensor([1.3, -1.3]).double()
    got = gradient(SDS(constant(scale), "uniform"), prior, scalar_views(z, t, noise))
    assert (
        abs(got.mean().item()) < 1e-9
    )  # affine in the noise, so a pair of opposites is the exact mean


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ism_without_guidance_is_deterministic_and_points_at_the_mean(schedule: str) -> None:
    prior, t, interval = scalar_prior(schedule), 0.5, 0.1
    z = draws(1, COUNT)
    fine = ISM(constant(1.0), constant(interval), 2e-3, 200, 0.0, "uniform")
    views = scalar_views(z, t, draws(2, COUNT), empty=MEAN)
    got = gradient(fine, prior, views)
    lam_t, lam_s = level(prior, t), level(prior, t - interval)
    # One Euler step from s to t, from the exact flow's solution y_s = m + k sqrt(s^2 + lam_s^2).
    y_s = MEAN + (z - MEAN) / STD * math.hypot(STD, lam_s)
    eps_s = lam_s * (y_s - MEAN) / (STD**2 + lam_s**2)
    y_t = y_s + (lam_t - lam_s) * eps_s
    eps_t = lam_t * (y_t - MEAN) / (STD**2 + lam_t**2)
    torch.testing.assert_close(got, eps_t - eps_s, rtol=5e-3, atol=1e-6)
    # Up to that step's error the difference of f, hence toward the mean.
    f = [lam / math.hypot(STD, lam) for lam in (lam_t, lam_s)]
    torch.testing.assert_close(got, (z - MEAN) / STD * (f[0] - f[1]), rtol=0.25, atol=1e-6)


@pytest.mark.parametrize(("interval", "steps", "off"), [(0.1, 5, 0.2), (0.004, 200, 0.01)])
def test_ism_overshoots_sds_under_guidance_by_the_known_factor(
    interval: float, steps: int, off: float
) -> None:
    """Each Euler step of the inversion is y -> (1 + (lambda' - lambda) e(lambda)) y, e(l) = l / (s^2 + l^2).

    So y_s = up z and y_t = last y_s, and the gradient e_t (last up z - scale m) - e_s up z vanishes at scale m e_t /
    (up (last e_t - e_s)), exactly. With finer steps that is scale m times the sheet's factor: the one step from s to t
    is off by its length, 14 % at an interval of .1, under 1 % at .004.
    """
    prior, t, scale = scalar_prior(), 0.5, 3.0
    lam_t, lam_s = level(prior, t), level(prior, t - interval)
    f = [lam / math.hypot(STD, lam) for lam in (lam_t, lam_s)]
    factor = STD * lam_t / ((STD**2 + lam_t**2) * (f[0] - f[1]))
    stride = (t - interval) / steps
    rule = ISM(constant(scale), constant(interval), stride, steps, 0.0, "uniform")

    def at(x: float) -> float:
        z = torch.tensor([x], dtype=torch.float64)
        return gradient(rule, prior, scalar_views(z, t, z)).item()

    def e(lam: float) -> float:
        return lam / (STD**2 + lam**2)

    # The gradient is affine in z: solve for its zero from two values.
    zero = -at(0.0) / (at(1.0) - at(0.0))
    ladder = [level(prior, (t - interval) * j / steps) for j in range(steps + 1)]
    up = math.prod(1.0 + (after - here) * e(here) for here, after in pairwise(ladder))
    last = 1.0 + (lam_t - lam_s) * e(lam_s)
    exact = scale * MEAN * e(lam_t) / (up * (last * e(lam_t) - e(lam_s)))
    assert math.isclose(zero, exact, rel_tol=1e-9)
    assert factor > 1.5 and math.isclose(zero, scale * MEAN * factor, rel_tol=off)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_many_steps_of_denoising_end_at_the_flows_own_picture(schedule: str) -> None:
    prior, t = scalar_prior(schedule), 0.7
    z, noise = draws(1, COUNT), draws(2, COUNT)
    lam = level(prior, t)
    picture = MEAN + STD * (z + lam * noise - MEAN) / math.hypot(STD, lam)
    views = scalar_views(z, t, noise)
    errors = [
        (gradient(Multistep(n, constant(1.0)), prior, views) - (z - picture)).abs().max().item()
        for n in (1, 10, 60, 300)
    ]
    assert errors[0] > 0.2 and errors[-1] < 5e-3
    assert all(after < before for before, after in pairwise(errors))


def test_fixed_noise_at_a_fixed_level_runs_away_as_the_level_falls() -> None:
    prior, noise = scalar_prior(), torch.tensor([0.8]).double()
    for t in (0.1, 0.3, 0.6):
        rest = MEAN + STD**2 / level(prior, t) * noise
        views = scalar_views(rest, t, noise)
        assert gradient(SDS(constant(1.0)), prior, views).abs().max() < 1e-12


def follow_the_flow(prior: ClosedFormPrior, steps: int, z: torch.Tensor, **means: float):  # type: ignore[no-untyped-def]
    """SDS with fixed noise and falling time, SGD with step |d lambda|: consistent flow distillation."""
    sampler, source = AnnealedTime(0.95, 0.01, "linear"), FixedNoise(per_view=True)
    generator = torch.Generator().manual_seed(0)
    noise = source((len(z), 1, 1, 1), 0.0, 5, generator).double().flatten()
    times = [sampler(1, i / steps, generator).item() for i in range(steps + 1)]
    rule = SDS(constant(1.0), "uniform")
    iterates = []
    for now, after in pairwise(times):
        grad = gradient(rule, prior, scalar_views(z, now, noise, **means))
        z = z - (level(prior, now) - level(prior, after)) * grad
        iterates.append(z + level(prior, after) * noise)
    return z, noise, times, iterates


def test_the_fixed_noise_flow_is_ddim_step_for_step() -> None:
    prior, start = scalar_prior(), draws(3, COUNT)
    _, noise, times, iterates = follow_the_flow(prior, 12, start)
    t = [torch.full((COUNT,), x, dtype=torch.float64) for x in times]
    alpha = [prior.schedule.alpha(x) for x in t]
    sigma = [prior.schedule.sigma(x) for x in t]
    shape = (COUNT, 1, 1, 1)
    z_t = add_noise(prior.schedule, start.reshape(shape), noise.reshape(shape), t[0])
    condition = scalar_views(start, 0.5, noise).condition
    for i, iterate in enumerate(iterates):
        prediction = prior.predict(z_t, t[i], condition)
        z_t = (
            alpha[i + 1].reshape(shape) * prediction.x0
            + sigma[i + 1].reshape(shape) * prediction.eps
        )
        torch.testing.assert_close(z_t.flatten() / alpha[i + 1], iterate, rtol=1e-9, atol=1e-9)


def test_the_fixed_noise_flow_gives_samples_of_a_mixture_where_sds_gives_modes() -> None:
    prior = ClosedFormPrior(2, 0.4, components=2)
    modes = torch.tensor([-2.0, 2.0]).double()

    def condition(count: int) -> Condition:
        return Condition(modes.reshape(1, 2, 1).repeat(count, 1, 1))

    count, steps = 1500, 120
    noise, z = draws(1, count), torch.zeros(count).double()
    settled = 3.0 * draws(2, count)
    times = [0.98 - 0.96 * i / steps for i in range(steps + 1)]
    generator = torch.Generator().manual_seed(3)
    for now, after in pairwise(times):
        views = scalar_views(z, now, noise)
        views = Views(views.z, views.t, views.noise, condition(count), condition(count))
        z = z - (level(prior, now) - level(prior, after)) * gradient(
            SDS(constant(1.0), "uniform"), prior, views
        )
        fresh = torch.randn(count, generator=generator, dtype=torch.float64)
        views = scalar_views(settled, 0.3, fresh)
        views = Views(views.z, views.t, views.noise, condition(count), condition(count))
        settled = settled - 0.05 * gradient(SDS(constant(1.0), "uniform"), prior, views)
    for side in (-1, 1):
        assert math.isclose(z[z * side > 0].std().item(), 0.4, rel_tol=0.1)
        assert abs(z[z * side > 0].mean().item() - 2 * side) < 0.1
        assert settled[settled * side > 0].std().item() < 0.5 * 0.4
    assert abs((z > 0).double().mean().item() - 0.5) < 0.05
