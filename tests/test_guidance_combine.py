"""What all rules share: Perp-Neg, clips and norms."""

from dataclasses import replace

import torch
from test_guidance_identities import PRIORS, SCALE, assert_same, gradient
from test_guidance_laws import TIMES, NonlinearPrior, make_views

from dream3d.priors.base import Condition
from dream3d.schedules import constant
from guidance import Views
from guidance.classifier_score import ClassifierScore
from guidance.combine import clip_entries, unit_norm
from guidance.perp_neg import perp_neg, perpendicular
from guidance.sds import SDS


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
