"""What a setting says reaches the gradient: schedules, weights, clips, negative prompts, guiders, Perp-Neg.

Over the registry where a law can be. Most were seen red with the rule or seam they speak of broken.
"""

import dataclasses
import math
from dataclasses import replace

import pytest
import torch
from test_guidance_identities import PRIORS, SCALE, assert_same, gradient, with_negative
from test_guidance_laws import TIMES, Dirac, NonlinearPrior, Twin, make_views

from dream3d.cameras import orbit_cameras
from dream3d.companion import CompanionPair
from dream3d.diffusion import CosineSchedule, Prediction, RectifiedFlowSchedule, add_noise
from dream3d.priors.base import Condition
from dream3d.prompts import Prompts
from dream3d.schedules import Ramp, constant
from guidance import GUIDANCE, Guidance, Views
from guidance.affine_fit import affine_fit
from guidance.asynchronous_score import AsynchronousScore
from guidance.base import Sides
from guidance.bootstrapped_score import BootstrappedScore
from guidance.classifier_score import ClassifierScore
from guidance.classifier_score_inverted import ClassifierScoreInverted
from guidance.combine import guided
from guidance.coupled_score import CoupledScore
from guidance.distribution_mapping import DistributionMapping
from guidance.guiders import Guider
from guidance.inversion import ascend, denoise, eps_under, guided_eps, noised_along, steps_to
from guidance.ism import ISM
from guidance.ode_consistency import OdeConsistency
from guidance.pfd import PFD
from guidance.sdi import SDI
from guidance.sds import SDS
from guidance.tsm import TSM
from guidance.weights import WEIGHTS, Weight, weight_at


def fields(name: str) -> dict[str, object]:
    """A rule's settings at their defaults."""
    rule = GUIDANCE[name]()
    return {f.name: getattr(rule, f.name) for f in dataclasses.fields(rule)}  # type: ignore[arg-type]


def having(key: str) -> list[str]:
    return [name for name in GUIDANCE.names() if key in fields(name)]


SCHEDULED = [(n, k) for n in GUIDANCE.names() for k, v in fields(n).items() if isinstance(v, Ramp)]


@pytest.mark.parametrize(("name", "key"), SCHEDULED)
def test_a_schedule_speaks_at_the_stages_progress(name: str, key: str) -> None:
    prior, cls = NonlinearPrior(), GUIDANCE[name]
    views = with_negative(prior, make_views(prior, TIMES, progress=0.25))
    first = getattr(cls(), key).initial or 0.1
    ramped, now, then = (
        gradient(cls(**{key: value}), prior, views)
        for value in (Ramp(first, 0.2 * first), constant(0.8 * first), constant(first))
    )
    torch.testing.assert_close(ramped, now)
    assert not torch.allclose(ramped, then)


@pytest.mark.parametrize("name", having("weight"))
def test_a_weight_is_a_factor_of_the_level_alone(name: str) -> None:
    prior, cls = NonlinearPrior(), GUIDANCE[name]
    views = make_views(prior, TIMES, progress=0.25)
    plain = gradient(cls(weight="uniform"), prior, views)
    for weight in WEIGHTS if name != "cfd" else ("lambda",):
        factor = weight_at(weight, prior.schedule, views.t, views.z)
        assert_same(gradient(cls(weight=weight), prior, views), factor * plain)


@pytest.mark.parametrize(
    ("weight", "cosine", "flow"),
    [
        ("uniform", 1.0, 1.0),
        ("sigma", 0.5, 0.25),
        ("sigma2", 0.25, 0.0625),
        ("lambda", 1 / math.sqrt(3), 1 / 3),
        ("sqrt_alpha_bar", math.sqrt(0.75), 0.75),
        ("fantasia", math.sqrt(0.75) * 0.25, 0.75 * 0.0625),
    ],
)
def test_the_weights_by_hand(weight: Weight, cosine: float, flow: float) -> None:
    for schedule, t, expected in (
        (CosineSchedule(), 1 / 3, cosine),
        (RectifiedFlowSchedule(), 0.25, flow),
    ):
        at = torch.tensor([t], dtype=torch.float64)
        got = weight_at(weight, schedule, at, torch.zeros(1, 1, 1, 1, dtype=torch.float64))
        assert got.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "key"), [(n, k) for k in ("rescale", "clamp_x0") for n in having(k)]
)
def test_bounds_on_the_clean_prediction_are_heeded(name: str, key: str) -> None:
    prior, cls = NonlinearPrior(), GUIDANCE[name]
    views = make_views(prior, TIMES)
    other = cls(**{key: 0.3})
    assert not torch.allclose(gradient(other, prior, views), gradient(cls(), prior, views))


@PRIORS
def test_the_consistencys_entries_are_clipped(prior: NonlinearPrior) -> None:
    free = gradient(OdeConsistency(SCALE), prior)
    assert_same(gradient(OdeConsistency(SCALE, clip=constant(0.1)), prior), free.clamp(-0.1, 0.1))


def test_the_classifier_scores_norm_is_that_of_an_object() -> None:
    prior, cameras = NonlinearPrior(), orbit_cameras([0.0, 90.0, 10.0, 100.0])
    plain = make_views(prior, [0.6, 0.6, 0.3, 0.3])
    joint = replace(
        plain,
        condition=Condition(plain.condition.tokens, cameras, 2),
        empty=Condition(plain.empty.tokens, cameras, 2),
    )
    grad = gradient(ClassifierScore(normalize=True), prior, joint)
    torch.testing.assert_close(grad.reshape(2, -1).norm(dim=1), torch.ones(2).double())


@pytest.mark.parametrize(
    ("coefficient", "at"), [("linear", 0.6), ("cosine", math.cos(0.2 * math.pi))]
)
def test_the_mappings_coefficient_by_hand(coefficient: str, at: float) -> None:
    """Of one pixel per channel the map is exact, so what is subtracted is c(t) times the drawn noise."""
    prior = NonlinearPrior()
    views = make_views(prior, [0.4] * 4)
    pixel = replace(views, z=views.z[..., :1, :1], noise=views.noise[..., :1, :1])
    one, less = (
        gradient(DistributionMapping(SCALE, c, "uniform"), prior, pixel)
        for c in ("constant", coefficient)
    )
    assert_same(less - one, (1.0 - at) * pixel.noise)


def test_the_mapping_is_the_nearest_affine_picture_of_an_object() -> None:
    """What least squares leave is across both what was mapped and constants: per object and channel."""
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 4, 3, 5, 5, generator=draw, dtype=torch.float64)
    left = (y - affine_fit(x, y, 2)).unflatten(0, (2, 2))
    assert left.sum((1, 3, 4)).abs().max() < 1e-9
    assert (left * x.unflatten(0, (2, 2))).sum((1, 3, 4)).abs().max() < 1e-9
    assert left.sum((3, 4)).abs().max() > 1e-2  # not view by view


# The path to a noisy point and back.


@pytest.mark.parametrize("rule", [ISM(constant(1.0)), TSM(constant(1.0))], ids=["ism", "tsm"])
def test_the_way_up_is_the_empty_prompts_whatever_the_negative_one(rule: Guidance) -> None:
    """LucidDreamer's trap: the prompt to avoid belongs to the guidance at the top alone."""
    prior = NonlinearPrior()
    views = make_views(prior, TIMES)
    avoiding = with_negative(prior, views)
    assert_same(gradient(rule, prior, avoiding), gradient(rule, prior, views))


def test_the_inverted_classifier_score_goes_up_with_the_empty_prompt_and_avoids_the_negative() -> (
    None
):
    prior = NonlinearPrior()
    views = with_negative(prior, make_views(prior, [0.62] * 4))
    up = eps_under(prior, views.empty)
    z_t = noised_along(prior.schedule, up, views.z, views.t, 0.02, 3)
    assert views.negative is not None
    text, away = (eps_under(prior, c)(z_t, views.t) for c in (views.condition, views.negative))
    assert_same(gradient(ClassifierScoreInverted(weight="uniform"), prior, views), text - away)


def test_below_the_paths_start_a_render_stays_where_it_is() -> None:
    prior = NonlinearPrior()
    views = make_views(prior, [0.01, 0.5, 0.02, 0.005])
    up = eps_under(prior, views.empty)
    y = ascend(prior.schedule, up, views.z, views.t, 0.02, 3)
    still = [0, 2, 3]
    assert torch.equal(y[still], views.z[still]) and not torch.allclose(y[1], views.z[1])


@pytest.mark.parametrize(
    ("length", "stride", "most", "steps"),
    [
        (0.6, 0.2, 5, 3),
        (0.6000001, 0.2, 5, 3),
        (0.61, 0.2, 5, 4),
        (-0.1, 0.2, 5, 1),
        (2.0, 0.2, 5, 5),
    ],
)
def test_steps_along_a_path(length: float, stride: float, most: int, steps: int) -> None:
    assert steps_to(length, stride, most) == steps


def levels_asked(rule: Guidance, t: float) -> list[float]:
    """At which levels a rule asks the prior, in order."""

    class Told(NonlinearPrior):
        def predict(self, z_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> Prediction:
            asked.append(t[0].item())
            return super().predict(z_t, t, condition)

    asked: list[float] = []
    prior = Told()
    rule(prior, make_views(prior, [t] * 4))
    return asked


def test_paths_are_evenly_spaced_in_time() -> None:
    down = GUIDANCE["multistep"](steps=3)
    assert levels_asked(down, 0.9) == pytest.approx([0.9, 0.6, 0.3])
    # int(10 t) inversion steps, as the authors take: 4 to 0.47, not 5.
    sdi = SDI(t_start=0.07)
    assert levels_asked(sdi, 0.47) == pytest.approx([0.07, 0.17, 0.27, 0.37, 0.47])
    both = PFD(up=2, down=3, t_start=0.1)
    assert levels_asked(both, 0.9) == pytest.approx([0.1, 0.5, 0.9, 0.6, 0.3])
    # Past the longest path the stride grows.
    assert levels_asked(ISM(max_steps=2, t_start=0.1), 0.9) == pytest.approx([0.1, 0.46, 0.82, 0.9])
    # The later level stays below pure noise, and is the level itself under t_min.
    later = AsynchronousScore(shift=1.0)
    for t, after in ((0.4, 0.78), (0.98, 0.999), (0.01, 0.01)):
        assert levels_asked(later, t) == pytest.approx([t, after])


@PRIORS
def test_the_round_trip_is_the_way_up_and_the_way_down(prior: NonlinearPrior) -> None:
    views = make_views(prior, TIMES)
    rule = PFD(SCALE, constant(-2.0), up=2, down=4)
    up = guided_eps(prior, views, -2.0)
    z_t = noised_along(prior.schedule, up, views.z, views.t, rule.t_start, 2)
    x0 = denoise(prior.schedule, lambda z, t: guided(prior, z, t, views, 5.0), z_t, views.t, 4)
    assert_same(gradient(rule, prior, views), views.z - x0)


def test_the_bootstrapped_teacher_is_the_dreamer_not_the_prior() -> None:
    """A dreamer that knows the render sees its noise; what is left of it is what the other twin sees."""
    prior = NonlinearPrior()
    views = make_views(prior, TIMES)
    pair = CompanionPair(Twin(prior), Dirac(views.z, prior.schedule))
    views = replace(views, companion=pair, plain=views.condition)
    got = gradient(BootstrappedScore(constant(1.0)), prior, views)
    assert_same(got, -gradient(SDS(constant(1.0)), prior, views))
    # The other twin is one that learns: told the plain prompt with its cameras, and asked nothing else of the prior.
    pair = CompanionPair(Dirac(views.z, prior.schedule), Twin(prior))
    plain = Condition(prior.embed(["plain"] * 4), orbit_cameras([0.0, 90.0, 180.0, 270.0]))
    views = replace(views, companion=pair, plain=plain)
    assert_same(
        gradient(BootstrappedScore(constant(5.0)), prior, views), gradient(SDS(SCALE), prior, views)
    )
    views = replace(views, companion=CompanionPair(Twin(prior), Twin(prior)))
    weight = weight_at("sigma2", prior.schedule, views.t, views.z)
    z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
    own = prior.predict(z_t, views.t, plain).eps
    taught = guided(prior, z_t, views.t, views, 5.0).eps
    assert_same(gradient(BootstrappedScore(SCALE), prior, views), weight * (taught - own))


def test_both_readings_of_the_coupled_score_have_their_scale_and_avoid_the_negative_prompt() -> (
    None
):
    prior, cameras = NonlinearPrior(), orbit_cameras([0.0, 90.0, 10.0, 100.0])
    alone = with_negative(prior, make_views(prior, [0.6, 0.6, 0.3, 0.3]))
    assert alone.negative is not None
    joint = replace(
        alone,
        condition=Condition(alone.condition.tokens, cameras, 2),
        empty=Condition(alone.empty.tokens, cameras, 2),
        negative=Condition(alone.negative.tokens, cameras, 2),
    )
    assert_same(
        gradient(CoupledScore(SCALE, constant(2.0), constant(3.0)), prior, joint),
        gradient(SDS(SCALE), prior, alone) + 3.0 * gradient(SDS(constant(2.0)), prior, joint),
    )


# Mixtures of the prompts.


@PRIORS
def test_perp_neg_of_sds_is_its_formula(prior: NonlinearPrior) -> None:
    """empty + scale (e+ + w (e_n - <e_n, e+> / |e+|^2 e+)), the inner product over a sample."""
    views = with_negative(prior, make_views(prior, TIMES))
    assert views.negative is not None

    def across(scale: float) -> torch.Tensor:
        return gradient(SDS(constant(scale), "uniform", perp_neg=-0.5), prior, views)

    z_t = (
        prior.schedule.alpha(views.t).reshape(-1, 1, 1, 1) * views.z
        + prior.schedule.sigma(views.t).reshape(-1, 1, 1, 1) * views.noise
    )
    empty, text, negative = (
        prior.predict(z_t, views.t, c).eps for c in (views.empty, views.condition, views.negative)
    )
    e, n = (text - empty).flatten(1), (negative - empty).flatten(1)
    part = n - ((n * e).sum(1) / (e * e).sum(1))[:, None] * e
    expected = empty + 5.0 * (e - 0.5 * part).view_as(empty) - views.noise
    # The prior speaks of x0; inner products of eps are those times a number per sample.
    torch.testing.assert_close(across(5.0), expected, rtol=1e-4, atol=1e-4)
    # Without guidance the empty prompt alone is asked, and it stays empty.
    assert_same(across(0.0), empty - views.noise)


@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("negative", [False, True], ids=["plain", "negative"])
@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_perp_neg_costs_what_it_says(scale: float, negative: bool, weight: float) -> None:
    prior = NonlinearPrior()
    views = make_views(prior, TIMES)
    rule = SDS(constant(scale), perp_neg=weight)
    rule(prior, with_negative(prior, views) if negative else views)
    assert prior.batches == [4 * rule.evaluations(0.9, 0.0, negative)]


GUIDED = [n for n in having("cfg_scale") if "scale (eps_y" not in GUIDANCE[n].formula]
"""Rules whose formula leaves the mixture of the prompts open."""


@pytest.mark.parametrize("name", GUIDED)
def test_the_guider_reaches_every_rule_that_mixes(name: str) -> None:
    prior, rule = NonlinearPrior(), GUIDANCE[name]()
    views = make_views(prior, TIMES)
    for guider in (Guider("apg", eta=0.2, norm=0.5), Guider(rescale=0.7)):
        guided = gradient(rule, prior, replace(views, guider=guider))
        assert not torch.allclose(guided, gradient(rule, prior, views))


class Seeing(NonlinearPrior):
    """Takes cameras, and tells prompts apart by more than a shift, so that they point to different sides."""

    accepts_cameras = True

    def embed(self, prompts: list[str]) -> torch.Tensor:
        return torch.stack([torch.full((1, 1), sum(p.encode()) % 97 / 50.0) for p in prompts])

    def predict(self, z_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> Prediction:
        plain = super().predict(z_t, t, condition)
        ramp = torch.linspace(0.0, 3.0, z_t[0].numel(), dtype=z_t.dtype).reshape(z_t[0].shape)
        told = condition.tokens.reshape(-1, 1, 1, 1).to(z_t)
        return replace(plain, value=plain.value + 0.2 * torch.sin(5.0 * told * ramp))


def sided(prior: NonlinearPrior, conditioning: str, negative: str = "") -> Views:
    cameras = orbit_cameras([10.0, 100.0, 190.0, 300.0])
    prompts = Prompts(prior, "a red mug", negative)
    condition, empty, away = prompts.conditions(cameras, conditioning, True, "perp-neg")
    sides = Sides(*prompts.sides(cameras, conditioning))
    views = make_views(prior, [0.6] * 4)
    plain = prompts.plain(cameras, conditioning)
    return replace(views, condition=condition, empty=empty, negative=away, sides=sides, plain=plain)


@pytest.mark.parametrize("conditioning", ["text", "camera", "multiview"])
@pytest.mark.parametrize("name", GUIDED)
def test_the_sides_of_perp_neg_reach_every_rule_that_mixes(name: str, conditioning: str) -> None:
    prior, rule = Seeing(), GUIDANCE[name]()
    views = sided(prior, conditioning)
    kept, off = gradient(rule, prior, views), gradient(rule, prior, replace(views, sides=None))
    assert torch.isfinite(kept).all() and not torch.allclose(kept, off)


def test_beside_perp_negs_sides_a_negative_prompt_is_one_more_to_keep_across_of() -> None:
    prior = Seeing()
    views = sided(prior, "text", "blurry")
    assert views.negative is not None and views.sides is not None
    for weight, counts in ((0.0, -1.0), (-0.3, -0.3)):
        one_more = Sides(
            (*views.sides.away, views.negative),
            torch.cat([views.sides.weights.double(), torch.full_like(views.t, counts)[None]]),
        )
        expected = gradient(SDS(SCALE), prior, replace(views, negative=None, sides=one_more))
        got = gradient(SDS(SCALE, perp_neg=weight), prior, views)
        assert_same(got, expected)
        assert not torch.allclose(got, gradient(SDS(SCALE), prior, replace(views, negative=None)))
    # The empty prompt stays empty.
    none = gradient(SDS(constant(0.0)), prior, views)
    assert_same(none, gradient(SDS(constant(0.0)), prior, replace(views, negative=None)))


def test_rescaling_perp_neg_fully_gives_the_prompts_own_spread() -> None:
    prior = Seeing()
    views = replace(sided(prior, "text"), guider=Guider(rescale=1.0))
    full = guided(prior, views.z, views.t, views, 9.0).value
    text = prior.predict(views.z, views.t, views.condition).value
    torch.testing.assert_close(full.flatten(1).std(1), text.flatten(1).std(1))
