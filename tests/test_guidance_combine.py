"""What all rules share: guiders, Perp-Neg, clips and norms; and rules added up."""

from dataclasses import replace

import diffusers.guiders
import pytest
import torch
from test_guidance_identities import PRIORS, SCALE, assert_same, gradient
from test_guidance_laws import TIMES, NonlinearPrior, make_views

from dream3d.cameras import orbit_cameras
from dream3d.errors import ConfigError
from dream3d.priors.base import Condition
from dream3d.priors.gaussian import ClosedFormPrior
from dream3d.prompts import Prompts, between_sides
from dream3d.schedules import Ramp, constant
from guidance import GUIDANCE, Views
from guidance.base import Sides
from guidance.classifier_score import ClassifierScore
from guidance.clips import clip_entries, clip_norm, clip_pixels, unit_norm
from guidance.guiders import GUIDERS, Guider, GuiderName
from guidance.perp_neg import perp_neg, perpendicular
from guidance.sds import SDS
from guidance.sum import Sum
from guidance.vsd import VSD


def test_perp_neg_adds_only_what_is_across_the_prompts_direction() -> None:
    draw = torch.Generator().manual_seed(0)
    empty, text, negative = torch.randn(3, 2, 3, 4, 4, generator=draw, dtype=torch.float64)
    across = perpendicular(negative - empty, text - empty)
    assert (across * (text - empty)).flatten(1).sum(1).abs().max() < 1e-12
    plain = empty + 5.0 * (text - empty)
    off = torch.zeros(1, 2, dtype=torch.float64)
    assert_same(perp_neg(empty, text, negative[None], off, 5.0), plain)
    full = off - 1.0
    assert_same(perp_neg(empty, text, text[None], full, 5.0), plain)
    assert_same(perp_neg(empty, text, negative[None], full, 5.0), plain - 5.0 * across)
    # Weights belong to samples.
    only_second = torch.tensor([[0.0, -1.0]]).double()
    mixed = perp_neg(empty, text, negative[None], only_second, 5.0)
    assert_same(mixed[:1], plain[:1])
    assert_same(mixed[1:], (plain - 5.0 * across)[1:])


@PRIORS
def test_perp_neg_keeps_every_picture_with_its_own_prompts(prior: NonlinearPrior) -> None:
    negative = Condition(prior.embed(["dull", "blurry, of low quality", "", "grey"]))
    views = replace(make_views(prior, TIMES), negative=negative)
    guidance = SDS(SCALE, perp_neg=-1.0)
    together = gradient(guidance, prior, views)
    for i in range(4):
        alone = Views(
            views.z[[i]],
            views.t[[i]],
            views.noise[[i]],
            views.condition[[i]],
            views.empty[[i]],
            negative[[i]],
        )
        assert_same(gradient(guidance, prior, alone), together[[i]])
    # The third negative prompt is empty, so there it is plain guidance by the empty prompt.
    plain = gradient(SDS(SCALE), prior, replace(views, negative=None))
    assert_same(together[[2]], plain[[2]])
    assert not torch.allclose(together[0], plain[0])


def test_clips_and_norms() -> None:
    draw = torch.Generator().manual_seed(0)
    grad = torch.randn(4, 3, 4, 4, generator=draw, dtype=torch.float64)
    assert clip_entries(grad, 0.0) is grad
    clipped = clip_entries(grad, 0.7)
    assert clipped.abs().max() == 0.7 and torch.equal(clipped.sign(), grad.sign())
    small = grad.abs() < 0.7
    assert torch.equal(clipped[small], grad[small])
    prior = NonlinearPrior()
    free, bound = gradient(SDS(SCALE), prior), gradient(SDS(SCALE, clip=constant(0.1)), prior)
    assert_same(bound, free.clamp(-0.1, 0.1))
    torch.testing.assert_close(unit_norm(grad).flatten(1).norm(dim=1), torch.ones(4).double())
    joint = unit_norm(grad, 2)
    torch.testing.assert_close(joint.reshape(2, -1).norm(dim=1), torch.ones(2).double())
    assert_same(joint[0] / joint[1], grad[0] / grad[1])
    assert torch.equal(unit_norm(0.0 * grad), 0.0 * grad)
    score = gradient(ClassifierScore(normalize=True), prior)
    torch.testing.assert_close(score.flatten(1).norm(dim=1), torch.ones(4).double())


def pair(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    empty = torch.randn(3, 4, 8, 8, generator=draw, dtype=torch.float64)
    text = empty + 0.6 * torch.randn(3, 4, 8, 8, generator=draw, dtype=torch.float64)
    return empty.to(dtype), text.to(dtype)


@pytest.mark.parametrize("scale", [0.5, 3.0, 12.0])
@pytest.mark.parametrize("rescale", [0.0, 0.7])
@pytest.mark.parametrize(
    ("guider", "theirs"),
    [
        (Guider(), diffusers.guiders.ClassifierFreeGuidance),
        (
            Guider("apg", eta=0.3, norm=2.5),
            lambda g, r: diffusers.guiders.AdaptiveProjectedGuidance(
                g, None, 2.5, None, 0.3, guidance_rescale=r
            ),
        ),
        (
            Guider("apg"),
            lambda g, r: diffusers.guiders.AdaptiveProjectedGuidance(g, guidance_rescale=r),
        ),
        (
            Guider("zero-star"),
            lambda g, r: diffusers.guiders.ClassifierFreeZeroStarGuidance(g, 0, r),
        ),
        (
            Guider("tangential"),
            diffusers.guiders.TangentialClassifierFreeGuidance,
        ),
        (
            Guider("magnitude-aware", alpha=2.0),
            lambda g, r: diffusers.guiders.MagnitudeAwareGuidance(g, 2.0, r),
        ),
    ],
    ids=lambda x: x.name + str(x.norm) if isinstance(x, Guider) else "",
)
def test_guiders_equal_diffusers_own(guider: Guider, theirs, scale: float, rescale: float) -> None:  # type: ignore[no-untyped-def]
    empty, text = pair()
    ours = replace(guider, rescale=rescale)(empty, text, scale)
    other = theirs(scale, rescale)
    other._step = 1  # past the steps that one of them replaces by zero
    # One of diffusers' guiders fails on four dimensions; rows of pixels are the same to all of them.
    expected = other.forward(text.flatten(2), empty.flatten(2)).pred.reshape(ours.shape)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", GUIDERS)
def test_every_guider_leaves_equal_predictions_alone_and_reaches_every_rule(
    name: GuiderName,
) -> None:
    empty, text = pair(dtype=torch.float64)
    guider = Guider(name, eta=0.2, norm=0.5)
    torch.testing.assert_close(guider(text, text, 7.5), text)
    order = [2, 0, 1]
    torch.testing.assert_close(
        guider(empty[order], text[order], 3.0), guider(empty, text, 3.0)[order]
    )
    prior = NonlinearPrior()
    views = replace(make_views(prior, TIMES), guider=guider)
    plain = gradient(SDS(SCALE), prior)
    assert torch.allclose(gradient(SDS(SCALE), prior, views), plain) == (name == "cfg")


def test_rescaling_fully_gives_the_prompts_own_spread() -> None:
    empty, text = pair()
    full = Guider(rescale=1.0)(empty, text, 9.0)
    torch.testing.assert_close(full.flatten(1).std(1), text.flatten(1).std(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eta": 1.5}, "guider.eta is 1.5"),
        ({"norm": float("nan")}, "guider.norm is nan"),
        ({"rescale": -0.1}, "guider.rescale is -0.1"),
    ],
)
def test_guider_settings_outside_their_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Guider(**settings)


def test_pixel_and_norm_clips() -> None:
    draw = torch.Generator().manual_seed(0)
    grad = torch.randn(2, 4, 4, 3, generator=draw, dtype=torch.float64)
    clipped = clip_pixels(grad, 0.5)
    assert clipped.abs().max() <= 0.5 + 1e-12
    cosine = torch.nn.functional.cosine_similarity(clipped, grad, dim=-1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))
    assert torch.equal(clip_pixels(0.01 * grad, 0.5), 0.01 * grad)
    large = torch.randn(4, 3, 4, 4, generator=draw, dtype=torch.float64)
    large[2:] *= 1e-3
    bound = clip_norm(large, 2.0, views_per_object=2)
    assert_same(bound[:2].flatten().norm()[None], torch.tensor([2.0]).double())
    assert_same(bound[0] / bound[1], large[0] / large[1])
    assert_same(bound[2:] * 1e3, large[2:] * 1e3)
    assert clip_norm(large, 0.0) is large


@PRIORS
def test_a_sum_is_the_sum_of_its_parts(prior: NonlinearPrior) -> None:
    views = make_views(prior, TIMES, progress=0.5)
    parts = (SDS(SCALE), ClassifierScore(), VSD(SCALE))
    shares = (constant(1.0), Ramp(0.0, 4.0), constant(0.0))
    whole = Sum(parts, shares)
    got = gradient(whole, prior, views)
    assert_same(got, gradient(parts[0], prior, views) + 2.0 * gradient(parts[1], prior, views))
    # What has no share costs nothing.
    assert whole.evaluations(progress=0.5) == 4 and whole.evaluations(progress=0.0) == 2
    assert whole.companion_settings() == VSD().companion_settings()
    with pytest.raises(ConfigError, match="ask for different companions"):
        Sum((VSD(), VSD(rank=8)), (constant(1.0), constant(1.0)))
    with pytest.raises(ConfigError, match="has 1 entries"):
        Sum((VSD(),), (constant(1.0), constant(1.0)))
    assert Sum((SDS(), GUIDANCE["cfd"]()), shares[:2]).needs_falling_time


# Perp-Neg by azimuth.


def test_weights_by_azimuth_are_the_published_decays() -> None:
    front, side = between_sides(0.0, 10.0).away
    assert front == pytest.approx(-(4.0 * 2.718281828**-0.5 - 2.426), abs=1e-6)
    assert side == pytest.approx(-1.574, abs=1e-6)
    at_side = between_sides(90.0, 10.0)
    assert at_side.away[0] == pytest.approx(-(0.6065307 + 0.967), abs=1e-6)
    assert between_sides(180.0, 10.0).away[0] == pytest.approx(-1.967, abs=1e-6)
    assert between_sides(70.0, 70.0).away == (0.0, 0.0)
    for azimuth in range(-180, 181, 15):
        view, mirrored = (between_sides(float(a), 0.0) for a in (azimuth, -azimuth))
        assert view.away == mirrored.away and max(view.away) <= 0.0 <= view.share <= 1.0
        if abs(azimuth) not in (0, 180):
            assert {view.flank, mirrored.flank} == {"left", "right"}
    assert between_sides(45.0, 0.0).share == pytest.approx(0.5)


@PRIORS
def test_perp_neg_by_azimuth_pairs_every_view_with_its_own_prompts(prior: NonlinearPrior) -> None:
    cameras = orbit_cameras([10.0, 100.0, 190.0, 300.0])
    prompts = Prompts(prior, "a red mug")
    condition, empty, _ = prompts.conditions(cameras, "text", True, "perp-neg")
    sides = Sides(*prompts.sides(cameras, "text"))
    views = replace(make_views(prior, TIMES), condition=condition, empty=empty, sides=sides)
    prior.batches.clear()
    together = gradient(SDS(SCALE), prior, views)
    assert prior.batches == [16]  # one call: empty, prompt, front, flank
    for i in range(4):
        own = Sides(tuple(away[[i]] for away in sides.away), sides.weights[:, [i]])
        alone = Views(
            views.z[[i]], views.t[[i]], views.noise[[i]], condition[[i]], empty[[i]], sides=own
        )
        assert_same(gradient(SDS(SCALE), prior, alone), together[[i]])
    off = replace(views, sides=Sides(sides.away, torch.zeros_like(sides.weights)))
    plain = gradient(SDS(SCALE), prior, replace(views, sides=None))
    assert_same(gradient(SDS(SCALE), prior, off), plain)
    assert not torch.allclose(together, plain)


def test_interpolated_prompts_mix_the_two_nearest_sides() -> None:
    prior = ClosedFormPrior(4)

    class Told(ClosedFormPrior):
        def embed(self, prompts: list[str]) -> torch.Tensor:
            return torch.stack([torch.tensor([[float(sum(p.encode()))]]) for p in prompts])

    prior = Told(4)
    prompts = Prompts(prior, "a mug")
    one = {
        w: prior.embed([f"a mug, {w} view"]).item()
        for w in ("front", "left", "right", "back", "overhead", "high left", "high back")
    }
    cameras = orbit_cameras([0.0, 45.0, 90.0, -30.0, 180.0, 10.0, 120.0], [5.0] * 5 + [80.0, 40.0])
    tokens = prompts.conditions(cameras, "text", True, "interpolated")[0].tokens.flatten().tolist()
    expected = [
        one["front"],
        0.5 * (one["front"] + one["left"]),
        one["left"],
        2 / 3 * one["front"] + 1 / 3 * one["right"],
        one["back"],
        one["overhead"],
        2 / 3 * one["high left"] + 1 / 3 * one["high back"],
    ]
    assert tokens == pytest.approx(expected, rel=1e-6)
