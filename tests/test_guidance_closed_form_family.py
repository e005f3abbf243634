"""What each rule does to N(m, s^2), worked out by hand; lambda = sigma / alpha, c = s / sqrt(s^2 + lambda^2)."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from test_guidance_closed_form import (
    COUNT,
    MEAN,
    SCHEDULES,
    STD,
    draws,
    gradient,
    level,
    scalar_prior,
    scalar_views,
)

from dream3d.bench.toy import stable_diffusion_schedule
from dream3d.bootstrap import improved
from dream3d.cameras import orbit_cameras
from dream3d.companion import Companion, CompanionPair
from dream3d.diffusion import Prediction
from dream3d.priors.base import Condition
from dream3d.priors.gaussian import ClosedFormPrior, MovedPrior
from dream3d.schedules import constant
from guidance import Guidance
from guidance.asynchronous_score import AsynchronousScore
from guidance.bootstrapped_score import BootstrappedScore
from guidance.cfd import CFD
from guidance.classifier_score import ClassifierScore
from guidance.classifier_score_inverted import ClassifierScoreInverted
from guidance.coupled_score import CoupledScore
from guidance.esd import ESD
from guidance.flow_inversion import FlowInversion
from guidance.inversion import ascend, guided_eps
from guidance.noise_free_score import NoiseFreeScore
from guidance.ode_consistency import OdeConsistency
from guidance.pfd import PFD
from guidance.rectified_flow import RectifiedFlow
from guidance.score_difference import ScoreDifference
from guidance.sdi import SDI
from guidance.sjc import SJC
from guidance.vsd import VSD
from guidance.x0_reconstruction import X0Reconstruction

EVERY_SCHEDULE = pytest.mark.parametrize("schedule", SCHEDULES)
EVERY_LEVEL = pytest.mark.parametrize("t", [0.1, 0.5, 0.9])


def mean_gradient(
    guidance: Guidance, prior: ClosedFormPrior, z: torch.Tensor, t: float, progress: float = 0.5
) -> torch.Tensor:
    """Over the noise: the rules here are affine in it, so a pair of opposites is exact."""
    noise = draws(9, len(z))
    return 0.5 * sum(
        gradient(guidance, prior, replace(scalar_views(z, t, sign * noise), progress=progress))
        for sign in (-1.0, 1.0)
    )


def rest_point(guidance: Guidance, prior: ClosedFormPrior, t: float) -> float:
    """Where the mean gradient, affine in z, vanishes."""
    at = mean_gradient(guidance, prior, torch.tensor([0.0, 1.0]).double(), t)
    return (-at[0] / (at[1] - at[0])).item()


@EVERY_SCHEDULE
@EVERY_LEVEL
def test_sjc_has_one_mean_with_and_without_variance_reduction(schedule: str, t: float) -> None:
    prior, z = scalar_prior(schedule), draws(1, COUNT)
    lam = level(prior, t)
    for reduced, per_noise in ((True, -(STD**2)), (False, lam**2)):
        rule = SJC(constant(1.0), variance_reduced=reduced)
        expected = lam * (z - MEAN) / (STD**2 + lam**2)
        torch.testing.assert_close(mean_gradient(rule, prior, z, t), expected)
        noise = draws(2, COUNT)
        slope = gradient(rule, prior, scalar_views(z, t, noise)) - expected
        torch.testing.assert_close(slope, per_noise / (STD**2 + lam**2) * noise)


@EVERY_SCHEDULE
@EVERY_LEVEL
def test_x0_reconstruction_on_a_gaussian(schedule: str, t: float) -> None:
    prior, z = scalar_prior(schedule), draws(1, COUNT)
    lam = level(prior, t)
    got = mean_gradient(X0Reconstruction(constant(1.0), rescale=0.0), prior, z, t)
    torch.testing.assert_close(got, (z - MEAN) * lam**2 / (STD**2 + lam**2))


@EVERY_SCHEDULE
@EVERY_LEVEL
@pytest.mark.parametrize(
    "rule",
    [
        ClassifierScore(weight="uniform"),
        ClassifierScoreInverted(weight="uniform"),
        ScoreDifference("prompt", "empty", weight="uniform"),
    ],
    ids=lambda rule: rule.registered_name,
)
def test_the_classifier_direction_drifts_for_ever_at_one_speed(
    rule: Guidance, schedule: str, t: float
) -> None:
    prior, z = scalar_prior(schedule), 10.0 * draws(1, COUNT)
    lam = level(prior, t)
    got = gradient(rule, prior, scalar_views(z, t, draws(2, COUNT)))
    torch.testing.assert_close(got, torch.full_like(z, -lam * MEAN / (STD**2 + lam**2)))


@EVERY_LEVEL
def test_the_classifier_score_rests_where_the_empty_prompt_is_wider(t: float) -> None:
    prior = scalar_prior(empty_std=1.1)
    lam = level(prior, t)
    mine, other = 1 / (STD**2 + lam**2), 1 / (1.1**2 + lam**2)
    expected = mine * MEAN / (mine - other)
    assert math.isclose(rest_point(ClassifierScore(), prior, t), expected, rel_tol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 7.5, 100.0])
@pytest.mark.parametrize(
    "make",
    [
        lambda g: RectifiedFlow(constant(g)),
        lambda g: RectifiedFlow(constant(g), weight="sigma"),
        lambda g: CoupledScore(constant(g), constant(g)),
        lambda g: X0Reconstruction(constant(g), rescale=0.0),
        lambda g: NoiseFreeScore(constant(g), threshold=1.0),
        lambda g: SJC(constant(g)),
    ],
)
@EVERY_SCHEDULE
def test_saturation_is_linear_in_the_scale(make, scale: float, schedule: str) -> None:  # type: ignore[no-untyped-def]
    assert math.isclose(
        rest_point(make(scale), scalar_prior(schedule), 0.4), scale * MEAN, rel_tol=0.01
    )


@EVERY_LEVEL
def test_consistency_rests_off_the_mean_by_its_noise_and_its_other_sign_runs_away(t: float) -> None:
    prior, noise = scalar_prior(), draws(2, COUNT)
    lam = level(prior, t)
    rule = OdeConsistency(constant(1.0), constant(0.02))
    rest = MEAN - lam * noise
    at_rest = gradient(rule, prior, scalar_views(rest, t, noise))
    assert at_rest.abs().max() < 1e-9
    beside = gradient(rule, prior, scalar_views(rest + 0.1, t, noise))
    assert (beside > 0).all()  # descent returns; the loss's own sign would leave
    lower = level(prior, t - 0.02)
    f = [x / math.hypot(STD, x) for x in (lam, lower)]
    k = 0.1 / math.hypot(STD, lam)
    torch.testing.assert_close(
        beside, torch.full_like(beside, k * (f[0] - f[1])), rtol=0.15, atol=0.0
    )


@EVERY_SCHEDULE
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_flow_ends_at_a_sample(schedule: str, scale: float) -> None:
    prior, count, steps = scalar_prior(schedule), 1000, 600
    noise, start = draws(3, count), draws(4, count)
    # Even steps in log lambda, where the flow is smooth.
    highest, lowest = math.log(level(prior, 0.98)), math.log(1e-3)
    ladder = [math.exp(highest + (lowest - highest) * i / steps) for i in range(steps + 1)]
    z = start.clone()
    for here, after in pairwise(ladder):
        t = math.atan(here) / (0.5 * math.pi) if schedule == "cosine" else here / (1 + here)
        grad = gradient(CFD(constant(scale), "uniform"), prior, scalar_views(z, t, noise))
        z = z - (here - after) * grad
    mean = scale * MEAN
    top = ladder[0]
    expected = mean + STD * (top * noise + start - mean) / math.hypot(STD, top)
    torch.testing.assert_close(z, expected, rtol=0.0, atol=0.02)
    assert math.isclose(z.mean().item(), expected.mean().item(), rel_tol=0.01)
    assert math.isclose(z.std().item(), STD, rel_tol=0.1)


@EVERY_SCHEDULE
@EVERY_LEVEL
def test_sdi_with_one_score_contracts_to_the_mean(schedule: str, t: float) -> None:
    prior, z = scalar_prior(schedule), draws(1, COUNT)
    c = STD / math.hypot(STD, level(prior, t))
    rule = SDI(constant(1.0), constant(1.0), steps_per_unit=400, t_start=0.0)
    views = scalar_views(z, t, z, empty=MEAN)
    # Euler's error of the slope, 2.5 % at t = .1 where the slope itself is a hundredth; .3 % at .5.
    torch.testing.assert_close(
        gradient(rule, prior, views), (z - MEAN) * (1 - c), rtol=0.03 if t == 0.1 else 0.01, atol=0
    )
    assert gradient(rule, prior, scalar_views(z * 0 + MEAN, t, z, empty=MEAN)).abs().max() < 1e-12


@pytest.mark.parametrize("scales", [(7.5, -7.5), (7.5, 1.0), (1.0, 7.5)])
def test_where_sdi_rests_between_two_scales(scales: tuple[float, float]) -> None:
    prior, t = scalar_prior(), 0.5
    down, up = scales[0] * MEAN, scales[1] * MEAN
    c = STD / math.hypot(STD, level(prior, t))
    rule = SDI(constant(scales[0]), constant(scales[1]), steps_per_unit=600, t_start=0.0)
    assert math.isclose(rest_point(rule, prior, t), down + c * (down - up), rel_tol=0.01)


def test_probability_flow_with_the_particles_own_source_ends_at_the_prior() -> None:
    x = 0.2 * draws(1, 400) - 2.0
    mean, std = 1.7, 0.6
    rule = PFD(constant(1.0), constant(0.0), 40, 40, 0.0)
    for step in range(24):
        # In coordinates where the particles' mean, which stands for the empty prompt, is 0.
        at, own = x.mean().item(), x.std().item()
        prior = ClosedFormPrior(2, std, own)
        t = (0.3, 0.5, 0.8)[step % 3]
        x = x - 0.5 * gradient(rule, prior, scalar_views(x - at, t, x, mean=mean - at))
    assert math.isclose(x.mean().item(), mean, rel_tol=0.01)
    assert math.isclose(x.std().item(), std, rel_tol=0.1)


@EVERY_SCHEDULE
def test_asynchronous_score_attracts_at_high_noise_and_repels_at_low(schedule: str) -> None:
    prior, z = scalar_prior(schedule), draws(1, COUNT)
    rule = AsynchronousScore(constant(1.0), shift=0.1, t_min=0.0, weight="uniform")
    for t in (0.15, 0.3, 0.6, 0.8):
        lam, later = level(prior, t), level(prior, 1.1 * t)
        slope = lam / (STD**2 + lam**2) - later / (STD**2 + later**2)
        torch.testing.assert_close(mean_gradient(rule, prior, z, t), slope * (z - MEAN))
        if not lam < STD < later:
            assert (slope > 0) == (lam > STD)


@EVERY_LEVEL
def test_rectified_flow_on_a_gaussian(t: float) -> None:
    prior, z = scalar_prior("flow"), draws(1, COUNT)
    variance = (1 - t) ** 2 * STD**2 + t**2
    got = mean_gradient(RectifiedFlow(constant(1.0)), prior, z, t)
    torch.testing.assert_close(got, (z - MEAN) * t / variance)


def test_inverted_noise_balances_at_one_level_and_repels_below() -> None:
    prior, z = scalar_prior("flow"), draws(1, COUNT)
    rule = FlowInversion(constant(1.0), steps=500, t_start=0.0)
    for t in (0.2, STD / (1 + STD), 0.6):
        variance = (1 - t) ** 2 * STD**2 + t**2
        slope = 1 - 1 / STD + (t - (1 - t) * STD**2) / variance * ((1 - t) + t / STD)
        got = gradient(rule, prior, replace(scalar_views(z, t, z), progress=0.5))
        torch.testing.assert_close(got, slope * (z - MEAN), rtol=0.01, atol=5e-3)
        assert abs(slope) < 1e-9 if t == STD / (1 + STD) else (slope > 0) == (t > STD / (1 + STD))


def average(guidance: Guidance, prior: ClosedFormPrior, own: float) -> float:
    """Slope of the mean gradient, over the levels 20 to 980, with companions of N(MEAN, own^2)."""
    schedule, t = prior.schedule, torch.arange(20, 981).double() / 999.0
    z = torch.full_like(t, MEAN + 1.0)

    class Known(Companion):
        def parameters(self) -> dict[str, torch.Tensor]:
            return {}

        def output(self, z_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> Prediction:
            alpha = schedule.alpha(t).reshape(-1, 1, 1, 1)
            sigma = schedule.sigma(t).reshape(-1, 1, 1, 1)
            if condition.cameras is not None:  # told the camera it knows the point
                return Prediction(z.reshape(-1, 1, 1, 1), "x0", z_t, alpha, sigma)
            eps = sigma * (z_t - alpha * MEAN) / (alpha**2 * own**2 + sigma**2)
            return Prediction(eps, "eps", z_t, alpha, sigma)

    views = replace(scalar_views(z, 0.5, torch.zeros_like(z), empty=MEAN), t=t, companion=Known())
    told = replace(views.condition, cameras=orbit_cameras([0.0] * len(z)))
    return gradient(guidance, prior, replace(views, plain=told)).mean().item()


@pytest.mark.parametrize(
    ("entropy", "variance"), [(0.5, 0.0108), (0.7, 0.1049), (0.9, 0.2611), (1.0, 0.36)]
)
def test_where_esd_rests_when_all_levels_speak(entropy: float, variance: float) -> None:
    """The root of E_t lambda [1 / (s^2 + lambda^2) - entropy / (v + lambda^2)] on Stable Diffusion's levels."""
    prior = ClosedFormPrior(2, STD, schedule=stable_diffusion_schedule())
    rule = ESD(entropy, constant(1.0), weight="uniform")
    low, high = 1e-4, 1.0
    for _ in range(30):
        middle = 0.5 * (low + high)
        # Too wide a companion pulls less than the prior: the particles draw together.
        spread = average(rule, prior, math.sqrt(middle)) > 0.0
        low, high = (low, middle) if spread else (middle, high)
    assert math.isclose(low, variance, rel_tol=0.01)


@pytest.mark.parametrize("scale", [2.0, 7.5])
def test_vsd_under_guidance_keeps_the_spread_about_a_moved_mean(scale: float) -> None:
    """With equal spreads the rest is N(m_empty + scale (m - m_empty), s^2)."""
    prior, x = scalar_prior(), 0.2 * draws(1, 400) - 1.0
    rule = VSD(constant(scale), weight="uniform")
    for step in range(250):
        t, mean, variance = (0.3, 0.5, 0.7)[step % 3], x.mean(), x.var()

        class Own(Companion):
            def parameters(self) -> dict[str, torch.Tensor]:
                return {}

            def output(
                self,
                z_t: torch.Tensor,
                t: torch.Tensor,
                condition: Condition,
                mean: torch.Tensor = mean,
                variance: torch.Tensor = variance,
            ) -> Prediction:
                alpha = prior.schedule.alpha(t).reshape(-1, 1, 1, 1)
                sigma = prior.schedule.sigma(t).reshape(-1, 1, 1, 1)
                eps = sigma * (z_t - alpha * mean) / (alpha**2 * variance + sigma**2)
                return Prediction(eps, "eps", z_t, alpha, sigma)

        views = replace(scalar_views(x, t, torch.zeros_like(x)), companion=Own())
        x = x - 0.6 * gradient(rule, prior, replace(views, plain=views.condition))
    assert math.isclose(x.mean().item(), scale * MEAN, rel_tol=0.01)
    assert math.isclose(x.std().item(), STD, rel_tol=0.1)


@EVERY_SCHEDULE
def test_the_noise_sdi_finds_by_inversion_against_the_fixed_points(schedule: str) -> None:
    """kappa_inv = (z - m)(sqrt(s^2 + lambda^2) / s - 1) / lambda; the fixed point is lambda (z - m) / s^2."""
    prior, z = scalar_prior(schedule), draws(1, COUNT)
    for t in (0.05, 0.5):
        lam = level(prior, t)
        views = scalar_views(z, t, z, empty=MEAN)
        eps = guided_eps(prior, views, 1.0)
        y = ascend(prior.schedule, eps, views.z, views.t, 0.0, 200).flatten()
        kappa, offset = (y - z) / lam, z - MEAN
        expected = offset * (math.hypot(STD, lam) / STD - 1.0) / lam
        torch.testing.assert_close(kappa, expected, rtol=0.02, atol=1e-4)
        if t == 0.05:  # towards clean pictures half the fixed point
            torch.testing.assert_close(kappa, 0.5 * lam * offset / STD**2, rtol=0.05, atol=1e-4)


def test_bootstrapped_score_ends_at_the_prior() -> None:
    """Teacher: the particles, noised to lambda' and denoised: nearer to the prior by c = s / sqrt(s^2 + lambda'^2)."""
    prior, x = scalar_prior(), 0.2 * draws(1, 400) - 1.0
    level_up = 0.4
    lam = level(prior, level_up)
    c = STD / math.hypot(STD, lam)

    def gaussian(mean: float, std: float) -> Companion:
        twin = MovedPrior(prior)
        twin.shift = torch.tensor([[[mean - MEAN]]])
        twin.log_widening = torch.tensor(std / STD).log()
        return twin

    # What `improved` makes of particles is what the docstring says.
    views = scalar_views(x, 0.5, draws(2, 400))
    better = improved(prior, views.z, views.noise, views.condition, (level_up, 60)).flatten()
    expected = MEAN + c * (x + lam * views.noise.flatten() - MEAN)
    torch.testing.assert_close(better, expected, rtol=0.0, atol=0.03)
    rule = BootstrappedScore(constant(1.0), "uniform")
    for step in range(60):
        mean, std = x.mean().item(), x.std().item()
        teacher = gaussian(MEAN + c * (mean - MEAN), c * math.hypot(std, lam))
        pair = CompanionPair(gaussian(mean, std), teacher)
        views = scalar_views(x, (0.3, 0.5, 0.7)[step % 3], torch.zeros_like(x))
        views = replace(views, companion=pair, plain=views.condition)
        x = x - 1.0 * gradient(rule, prior, views)
    assert math.isclose(x.mean().item(), MEAN, rel_tol=0.01)
    assert math.isclose(x.std().item(), STD, rel_tol=0.01)
