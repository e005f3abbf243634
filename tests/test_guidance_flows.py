"""What the rules are to samplers, and ISM to SDS (5.10, 5.13 and 5.14 of the identities): the same by other roads."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from test_guidance_identities import PRIORS, SCALE, FlowNet, assert_same, gradient
from test_guidance_laws import TIMES, NonlinearPrior, make_views

import guidance.inversion
from dream3d.diffusion import per_sample
from dream3d.noise_sources import RefreshedNoise
from dream3d.schedules import constant
from guidance.cfd import CFD
from guidance.combine import guided
from guidance.inversion import FlowPoint, noise_level
from guidance.ism import ISM
from guidance.rectified_flow import RectifiedFlow
from guidance.sds import SDS


@PRIORS
def test_ism_from_forward_noise_is_sds_of_weight_lambda(
    prior: NonlinearPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its path replaced by forward noising, its reference by the drawn noise."""
    views = make_views(prior, TIMES)

    def noised(schedule, predict, z, s, t_start, steps):  # type: ignore[no-untyped-def]
        return FlowPoint(z + noise_level(schedule, s, z) * views.noise, s, views.noise)

    monkeypatch.setattr(guidance.inversion, "invert", noised)
    got = gradient(ISM(SCALE, weight="lambda"), prior, views)
    assert_same(got, gradient(SDS(SCALE, "lambda"), prior, views))


def levels(prior: NonlinearPrior, ladder: list[float]) -> tuple[list[torch.Tensor], list[float]]:
    """Times for four views and their lambda."""
    times = [torch.full((4,), t, dtype=torch.float64) for t in ladder]
    return times, [(prior.schedule.sigma(t) / prior.schedule.alpha(t))[0].item() for t in times]


@PRIORS
def test_noise_renewed_as_the_level_falls_is_the_churned_sampler(prior: NonlinearPrior) -> None:
    """CFD's stochastic form, level by level, beside noise added to z and one Euler step (Karras et al. 2022)."""
    _, heights = levels(prior, [0.9, 0.7, 0.5, 0.3])
    ups, up_heights = levels(prior, [0.95, 0.75, 0.52, 0.3])
    views, draw = make_views(prior, TIMES), torch.Generator().manual_seed(5)
    x, noise = views.z, views.noise
    z = x + heights[0] * noise
    for i in range(3):
        here, up, after = heights[i], up_heights[i], heights[i + 1]
        new = torch.randn(x.shape, generator=draw, dtype=torch.float64)
        kept = here / up
        noise = kept * noise + (1.0 - kept**2) ** 0.5 * new
        x = x - (up - after) * gradient(
            CFD(SCALE, "uniform"), prior, replace(views, z=x, noise=noise, t=ups[i])
        )
        z = z + (up**2 - here**2) ** 0.5 * new
        z_t = per_sample(prior.schedule.alpha(ups[i]), z) * z
        z = z + (after - up) * guided(prior, z_t, ups[i], views, 5.0).eps
        assert_same(x + after * noise, z)


def test_the_flow_on_straight_paths_is_their_euler_sampler() -> None:
    prior, ladder = FlowNet(), [0.95, 0.7, 0.4, 0.1]
    views = make_views(prior, TIMES)
    x, noise = views.z, views.noise
    z_t = (1.0 - ladder[0]) * x + ladder[0] * noise
    for here, after in pairwise(ladder):
        t = torch.full_like(views.t, here)
        step = gradient(RectifiedFlow(SCALE), prior, replace(views, z=x, t=t))
        x = x + (after - here) / (1.0 - after) * step
        z_t = z_t + (after - here) * guided(prior, z_t, t, views, 5.0).flow
        assert_same((1.0 - after) * x + after * noise, z_t)


def test_noise_renewed_wholly_is_fresh_noise() -> None:
    source, shape = RefreshedNoise(constant(1e5), per_view=True), (2, 3, 32, 32)
    path = torch.stack([source(shape, i / 50, 3, torch.Generator()) for i in range(50)])
    assert abs(path.std().item() - 1.0) < 0.01
    assert (path[1:] * path[:-1]).mean().abs() < 0.01 and (path[2:] * path[:-2]).mean().abs() < 0.01
