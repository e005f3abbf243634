"""What the rules are to each other, exactly: any deterministic prior, one draw of noise, gradients compared."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from test_guidance_laws import TIMES, NonlinearPrior, Twin, make_views

from dream3d.cameras import orbit_cameras
from dream3d.diffusion import Prediction, RectifiedFlowSchedule, add_noise, per_sample
from dream3d.priors.base import Condition
from dream3d.priors.gaussian import ClosedFormPrior
from dream3d.schedules import constant
from guidance import Guidance, Views
from guidance.asynchronous_score import AsynchronousScore
from guidance.balanced_score import BalancedScore, balance
from guidance.cfd import CFD
from guidance.classifier_score import ClassifierScore
from guidance.classifier_score_inverted import ClassifierScoreInverted
from guidance.combine import guided, predict_each
from guidance.coupled_score import CoupledScore
from guidance.distribution_mapping import DistributionMapping
from guidance.flow_inversion import FlowInversion
from guidance.inversion import FlowPoint, ascend, euler_step, guided_eps, noise_level
from guidance.ism import ISM
from guidance.noise_free_score import NoiseFreeScore
from guidance.ode_consistency import OdeConsistency
from guidance.pfd import PFD
from guidance.rectified_flow import RectifiedFlow
from guidance.score_bridge import ScoreBridge
from guidance.score_difference import ScoreDifference
from guidance.sdi import SDI
from guidance.sds import SDS
from guidance.sjc import SJC
from guidance.tsm import TSM
from guidance.weights import weight_at
from guidance.x0_reconstruction import X0Reconstruction

SCALE = constant(5.0)


class FlowNet(NonlinearPrior):
    """The same rule on straight paths."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = RectifiedFlowSchedule()


PRIORS = pytest.mark.parametrize("prior", [NonlinearPrior(), FlowNet()], ids=["cosine", "flow"])


def gradient(guidance: Guidance, prior: NonlinearPrior, views: Views | None = None) -> torch.Tensor:
    return guidance(prior, make_views(prior, TIMES) if views is None else views).grad


def assert_same(a: torch.Tensor, b: torch.Tensor) -> None:
    assert a.abs().max() > 1e-3  # two zeros would agree about nothing
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def with_negative(prior: NonlinearPrior, views: Views, prompt: str = "blurry and dull") -> Views:
    return replace(views, negative=Condition(prior.embed([prompt] * len(views.z))))


# Section 5.3 to 5.7 of the sheet: SDS and what is left of it.


@PRIORS
def test_sjc_is_sds_of_weight_one_and_without_variance_reduction_keeps_the_noise(
    prior: NonlinearPrior,
) -> None:
    reduced = gradient(SJC(SCALE), prior)
    assert_same(reduced, gradient(SDS(SCALE, "uniform"), prior))
    noise = make_views(prior, TIMES).noise
    assert_same(gradient(SJC(SCALE, variance_reduced=False), prior) - reduced, noise)


@PRIORS
def test_every_x0_form_is_sds_of_weight_lambda(prior: NonlinearPrior) -> None:
    sds = gradient(SDS(SCALE, "lambda"), prior)
    assert_same(gradient(X0Reconstruction(SCALE, rescale=0.0), prior), sds)
    assert_same(gradient(CFD(SCALE, "lambda"), prior), sds)
    rescaled = gradient(SDS(SCALE, "lambda", rescale=0.5), prior)
    assert_same(gradient(X0Reconstruction(SCALE), prior), rescaled)


@PRIORS
def test_sdi_is_sds_with_the_noise_of_its_inversion(prior: NonlinearPrior) -> None:
    views = make_views(prior, TIMES)
    sdi = SDI(SCALE, constant(-5.0))
    up = guided_eps(prior, views, -5.0)
    y = ascend(prior.schedule, up, views.z, views.t, sdi.t_start, sdi.steps(0.9))
    kappa = (y - views.z) / noise_level(prior.schedule, views.t, y)
    assert_same(
        sdi(prior, views).grad, SDS(SCALE, "lambda")(prior, replace(views, noise=kappa)).grad
    )


@PRIORS
@pytest.mark.parametrize("weight", ["uniform", "sigma2", "lambda", "sqrt_alpha_bar", "fantasia"])
def test_sds_is_its_unguided_self_plus_the_classifier_score(prior: NonlinearPrior, weight) -> None:  # type: ignore[no-untyped-def]
    plain, score = (
        gradient(SDS(constant(1.0), weight), prior),
        gradient(ClassifierScore(weight=weight), prior),
    )
    assert_same(gradient(SDS(constant(7.5), weight), prior), plain + 6.5 * score)
    limit = gradient(SDS(constant(1e7), weight), prior) / 1e7
    torch.testing.assert_close(limit, score, rtol=1e-4, atol=1e-5)


@PRIORS
def test_noise_free_score_is_sds_plus_noise_below_its_threshold_and_classifier_score_above(
    prior: NonlinearPrior,
) -> None:
    views = make_views(prior, [0.7, 0.1, 0.19, 0.4])
    got = gradient(NoiseFreeScore(SCALE), prior, views)
    weight = weight_at("sigma2", prior.schedule, views.t, views.z)
    low = gradient(SDS(SCALE), prior, views) + weight * views.noise
    high = 5.0 * gradient(ClassifierScore(), prior, views)
    assert_same(got[1:3], low[1:3])
    assert_same(got[[0, 3]], high[[0, 3]])
    # With a negative prompt the high levels gain the way from it to the empty one, the low ones nothing.
    views = with_negative(prior, views)
    gained = gradient(NoiseFreeScore(SCALE), prior, views) - got
    away = gradient(ScoreDifference("empty", "negative"), prior, views)
    assert_same(gained[[0, 3]], away[[0, 3]])
    assert gained[1:3].abs().max() < 1e-12


@PRIORS
def test_the_bridge_from_the_empty_prompt_is_the_classifier_score(prior: NonlinearPrior) -> None:
    views = make_views(prior, TIMES, progress=0.5)
    score = gradient(ClassifierScore(), prior, views)
    assert_same(gradient(ScoreBridge(strength=5.0), prior, views), 5.0 * score)
    assert_same(gradient(ScoreDifference("prompt", "empty", 5.0), prior, views), 5.0 * score)
    early = with_negative(prior, make_views(prior, TIMES, progress=0.49))
    plain = replace(early, negative=None)
    assert_same(gradient(ScoreBridge(SCALE), prior, early), gradient(SDS(SCALE), prior, plain))
    late = with_negative(prior, views)
    full = ClassifierScore(constant(1.0))
    assert_same(gradient(ScoreBridge(strength=1.0), prior, late), gradient(full, prior, late))


# 5.11 to 5.16: paths.


@PRIORS
def test_tsm_lies_between_ism_and_the_inverted_classifier_score(prior: NonlinearPrior) -> None:
    interval = constant(0.2)
    start = gradient(TSM(SCALE, interval, fraction=0.0), prior)
    assert_same(start, gradient(ISM(SCALE, interval), prior))
    # Two steps of 0.2 to s and one of 0.2 on to t are three steps to t.
    views = make_views(prior, [0.62] * 4)
    end = gradient(TSM(SCALE, interval, fraction=1.0), prior, views)
    score = gradient(ClassifierScoreInverted(), prior, views)
    assert_same(end, 5.0 * score)
    between = gradient(TSM(SCALE, interval, fraction=0.5), prior, views)
    assert not torch.allclose(between, end)


@PRIORS
def test_ode_consistency_and_its_loss_differ_in_sign(prior: NonlinearPrior) -> None:
    """x0(y_t) - x0(y_s) = lambda_s (eps(y_s) - eps(y_t)): the loss with its Jacobian left out climbs."""
    views = make_views(prior, TIMES)
    schedule, s = prior.schedule, views.t - 0.1
    z_t = add_noise(schedule, views.z, views.noise, views.t)
    upper = guided(prior, z_t, views.t, views, 5.0)
    here = FlowPoint(z_t / per_sample(schedule.alpha(views.t), z_t), views.t, upper.eps)
    z_s = per_sample(schedule.alpha(s), z_t) * euler_step(schedule, here, s)
    lower = guided(prior, z_s, s, views, 5.0)
    got = gradient(OdeConsistency(SCALE, constant(0.1)), prior, views)
    assert_same(got, upper.eps - lower.eps)
    assert_same(upper.x0 - lower.x0, -noise_level(schedule, s, z_t) * got)


@PRIORS
def test_ode_consistency_goes_down_to_the_level_its_time_sampler_names(
    prior: NonlinearPrior,
) -> None:
    views, rule = make_views(prior, TIMES), OdeConsistency(SCALE, constant(0.1))
    named = rule(prior, replace(views, lower=0.1)).grad
    for i, t in enumerate(TIMES):
        own = gradient(OdeConsistency(SCALE, constant(t - 0.1)), prior, views)
        assert_same(named[i], own[i])
    assert not torch.allclose(named, rule(prior, views).grad)


@PRIORS
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_cached_predictions_as_noise_make_ddim_in_the_clean_picture(
    prior: NonlinearPrior, scale: float
) -> None:
    """SDI's recursion: x0' = x0 - (x0 - D(x0 + lambda' kappa)) with kappa the prediction before."""
    views = make_views(prior, [0.9] * 4)
    z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
    x0, kappa = views.z, views.noise
    for level in (0.9, 0.7, 0.4, 0.2):
        t = torch.full_like(views.t, level)
        z_t = add_noise(prior.schedule, x0, kappa, t) if level == 0.9 else z_t
        ddim = guided(prior, z_t, t, views, scale)
        step = SDS(constant(scale), "lambda")(prior, replace(views, z=x0, t=t, noise=kappa)).grad
        x0, kappa = x0 - step, ddim.eps
        assert_same(x0, ddim.x0)
        after = {0.9: 0.7, 0.7: 0.4, 0.4: 0.2, 0.2: 0.1}[level]
        z_t = add_noise(prior.schedule, ddim.x0, ddim.eps, torch.full_like(views.t, after))


def test_noise_that_the_prior_would_predict_itself_leaves_no_gradient() -> None:
    prior = ClosedFormPrior(4, std=0.6)
    views = make_views(prior, TIMES)
    mean = views.condition.tokens.double().view_as(views.z)
    kappa = noise_level(prior.schedule, views.t, views.z) * (views.z - mean) / 0.6**2
    views = replace(views, noise=kappa)
    assert SDS(constant(1.0))(prior, views).grad.abs().max() < 1e-12


def test_a_round_trip_with_one_score_returns() -> None:
    prior = ClosedFormPrior(4, std=0.6)
    views = make_views(prior, TIMES)
    errors = [
        PFD(constant(2.0), constant(2.0), n, n, 1e-4)(prior, views).grad.abs().max().item()
        for n in (10, 100, 1000)
    ]
    assert errors[1] < 0.2 * errors[0] and errors[2] < 0.2 * errors[1] and errors[2] < 0.02


@PRIORS
def test_swapping_prompt_and_empty_prompt_swaps_the_scale_for_one_minus_it(
    prior: NonlinearPrior,
) -> None:
    views = make_views(prior, TIMES)
    swapped = replace(views, condition=views.empty, empty=views.condition)
    again = gradient(PFD(constant(0.0), constant(-2.0)), prior, swapped)
    assert_same(gradient(PFD(constant(1.0), constant(3.0)), prior, views), again)


@PRIORS
def test_an_untrained_companion_as_the_source_is_the_plain_prompt(prior: NonlinearPrior) -> None:
    views = make_views(prior, TIMES)
    views = replace(views, companion=Twin(prior), plain=views.condition)
    own = PFD(constant(3.0), source="companion")
    assert own.companion_settings() is not None and PFD().companion_settings() is None
    assert own.evaluations() == 5 + 10 and PFD().evaluations() == 20
    assert_same(
        gradient(own, prior, views),
        gradient(PFD(constant(3.0), source_scale=constant(1.0)), prior, views),
    )


# 5.17 to 5.19: other references.


@PRIORS
def test_asynchronous_score_without_shift_is_the_classifier_score(prior: NonlinearPrior) -> None:
    got = gradient(AsynchronousScore(SCALE, shift=0.0), prior)
    assert_same(got, 4.0 * gradient(ClassifierScore(), prior))
    assert gradient(AsynchronousScore(constant(1.0), shift=0.0), prior).abs().max() < 1e-12
    assert gradient(AsynchronousScore(constant(1.0)), prior).abs().max() > 1e-3


@PRIORS
@pytest.mark.parametrize("mode", ["fixed", "auto"])
def test_balanced_score_makes_neither_objective_worse(prior: NonlinearPrior, mode) -> None:  # type: ignore[no-untyped-def]
    views = make_views(prior, TIMES)
    z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
    text, empty = predict_each(prior, z_t, views.t, views.condition, views.empty)
    grad = gradient(BalancedScore(mode, kappa=2.0, weight="uniform"), prior)
    if mode == "fixed":
        c, d = 2.0 * (text - empty), empty
    else:
        c, d = text - empty, 1.25 * (empty - views.noise)
        length = (empty - views.noise).flatten(1).norm(dim=1)
        grad = grad / per_sample(length * prior.schedule.sigma(views.t) / 50.0, grad)
        # That is its whole weight, as in the released code.
        assert torch.equal(
            gradient(BalancedScore("auto"), prior),
            gradient(BalancedScore("auto", 2.0, "uniform"), prior),
        )
    share = balance(c, d)
    assert ((share >= 0) & (share <= 1)).all()
    assert_same(grad, d + per_sample(share, d) * (c - d))

    def dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * b).flatten(1).sum(1)

    length = dot(grad, grad)
    assert (dot(grad, c) >= length - 1e-9).all() and (dot(grad, d) >= length - 1e-9).all()
    inside = (share > 0) & (share < 1)
    assert inside.any()
    assert_same(dot(grad, c)[inside], length[inside])
    for at in (0.0, 0.3, 1.0):  # nothing else on the segment is shorter
        assert (dot(torch.lerp(d, c, at), torch.lerp(d, c, at)) >= length - 1e-9).all()


def test_balance_of_orthogonal_and_of_parallel_vectors() -> None:
    c = torch.zeros(3, 1, 1, 2, dtype=torch.float64)
    d = c.clone()
    c[:, ..., 0] = torch.tensor([1.0, 1.0, 3.0]).reshape(3, 1, 1)
    d[0, ..., 1] = 1.0  # orthogonal, equal
    d[1, ..., 0] = 2.0  # c is the shorter
    d[2, ..., 0] = 1.0  # d is
    torch.testing.assert_close(balance(c, d), torch.tensor([0.5, 1.0, 0.0]).double())


def test_rectified_flow_is_sds_over_one_minus_sigma_on_straight_paths() -> None:
    prior = FlowNet()
    views = make_views(prior, TIMES)
    sds = gradient(SDS(SCALE, "uniform"), prior)
    assert_same(gradient(RectifiedFlow(SCALE), prior), sds / per_sample(1.0 - views.t, sds))
    z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
    predicted = prior.predict(z_t, views.t, views.condition)
    assert_same(
        views.noise + per_sample(1.0 - views.t, z_t) * (predicted.flow + views.z - views.noise),
        predicted.eps,
    )
    reverse = gradient(RectifiedFlow(SCALE, reverse=True), prior)
    again = replace(views, noise=predicted.eps)
    assert_same(reverse, gradient(RectifiedFlow(SCALE), prior, again))


def test_on_a_straight_coupling_inverted_noise_leaves_no_gradient() -> None:
    class Shifted(FlowNet):
        """Data that is its noise plus a constant: the flow is the constant's negative everywhere."""

        def predict(self, z_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> Prediction:
            alpha, sigma = per_sample(1.0 - t, z_t), per_sample(t, z_t)
            return Prediction(torch.full_like(z_t, -0.7), "flow", z_t, alpha, sigma)

    prior = Shifted()
    views = make_views(prior, TIMES, progress=0.5)
    assert gradient(FlowInversion(constant(1.0), t_start=0.0), prior, views).abs().max() < 1e-12
    early = replace(views, progress=0.1)
    drawn = gradient(FlowInversion(constant(1.0)), prior, early)
    assert_same(drawn, gradient(RectifiedFlow(constant(1.0)), prior, early))


def test_inverted_noise_is_eulers_end_on_straight_paths() -> None:
    prior = FlowNet()
    views = make_views(prior, TIMES, progress=0.5)
    levels = [0.02, 0.02 + (2 / 3 - 0.02) / 2, 2 / 3, 1.0]
    x = (1.0 - levels[0]) * views.z
    for here, after in pairwise(levels):
        t = torch.full_like(views.t, here)
        x = x + (after - here) * prior.predict(x, t, views.condition).flow
    coupled = gradient(RectifiedFlow(SCALE), prior, replace(views, noise=x))
    assert_same(gradient(FlowInversion(SCALE), prior, views), coupled)


@PRIORS
def test_coupled_score_without_its_joint_half_is_text_only_sds(prior: NonlinearPrior) -> None:
    views = make_views(prior, [0.6, 0.6, 0.3, 0.3])
    assert_same(
        gradient(CoupledScore(SCALE, SCALE, constant(0.5)), prior, views),
        1.5 * gradient(SDS(SCALE), prior, views),
    )
    cameras = orbit_cameras([0.0, 90.0, 10.0, 100.0])
    joint = replace(
        views,
        condition=Condition(views.condition.tokens, cameras, 2),
        empty=Condition(views.empty.tokens, cameras, 2),
    )
    alone = gradient(SDS(SCALE), prior, views)
    assert_same(gradient(CoupledScore(SCALE, SCALE, constant(0.0)), prior, joint), alone)
    one, none = constant(1.0), constant(0.0)
    assert_same(
        gradient(CoupledScore(one, one, none), prior, joint), gradient(SDS(one), prior, views)
    )
    assert_same(
        gradient(CoupledScore(SCALE, SCALE, constant(2.0)), prior, joint),
        alone + 2.0 * gradient(SDS(SCALE), prior, joint),
    )


@PRIORS
def test_a_map_that_reproduces_the_render_makes_distribution_mapping_sds(
    prior: NonlinearPrior,
) -> None:
    views = make_views(prior, TIMES)
    pixel = replace(views, z=views.z[..., :1, :1], noise=views.noise[..., :1, :1])
    assert_same(
        gradient(DistributionMapping(SCALE), prior, pixel), gradient(SDS(SCALE), prior, pixel)
    )
    # c = 0 at the noisiest level, nearly: nothing is subtracted.
    mapped, none = (
        gradient(
            DistributionMapping(SCALE, c, "uniform"),
            prior,
            replace(views, t=views.t * 0 + 1 - 1e-9),
        )
        for c in ("constant", "cosine")
    )
    assert not torch.allclose(mapped, none)
