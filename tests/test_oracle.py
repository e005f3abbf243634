import numpy as np
import pytest
import torch

from dream3d.background_samplers import RandomBackground
from dream3d.cameras import orbit_cameras
from dream3d.diffusion import add_noise
from dream3d.oracle import OraclePrior, linear_background
from dream3d.priors.base import Condition
from dream3d.world.grammar import parse
from dream3d.world.objects import build_object
from dream3d.world.render import render_object

MUG = build_object(parse("a red mug"), np.random.default_rng(0))
CAMERAS = orbit_cameras([0.0, 90.0, 200.0], 20.0, size=32)


def pictures(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    background = RandomBackground()(3, 32, 0.0, generator)
    return render_object(MUG, CAMERAS).over(background)


def clean(
    prior: OraclePrior, images: torch.Tensor, t: float, prompt: str = "a red mug"
) -> torch.Tensor:
    """What the oracle makes of noised images."""
    z = prior.encode(images)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    time = torch.full((3,), t)
    condition = Condition(prior.embed([prompt] * 3), CAMERAS)
    z_t = add_noise(prior.schedule, z, noise, time)
    return prior.decode(prior.predict(z_t, time, condition).x0)


@pytest.mark.parametrize(("t", "bound"), [(0.3, 0.02), (0.7, 0.05), (0.95, 0.15)])
def test_it_sees_the_object_through_the_noise(t: float, bound: float) -> None:
    images = pictures()
    error = (clean(OraclePrior(MUG, 32), images, t) - images).abs()
    assert error.mean() < bound
    inside = render_object(MUG, CAMERAS).alpha > 0.99
    assert error[inside.expand_as(error)].mean() < 0.05  # the object is known, whatever the noise


def test_it_adds_what_is_missing_when_asked_for() -> None:
    """From bare backgrounds the object appears where it belongs, unless the prompt is empty."""
    prior = OraclePrior(MUG, 32)
    truth = render_object(MUG, CAMERAS)
    generator = torch.Generator().manual_seed(0)
    bare = RandomBackground()(3, 32, 0.0, generator)
    inside = (truth.alpha > 0.99).expand_as(bare)
    assert (clean(prior, bare, 0.9) - truth.rgb)[inside].abs().mean() < 0.05
    assert (clean(prior, bare, 0.9, prompt="") - truth.rgb)[inside].abs().mean() > 0.2


def test_a_linear_background_is_found_exactly_without_noise() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 9), torch.linspace(-1, 1, 7), indexing="ij")
    truth = torch.stack([0.3 + 0.2 * x - 0.4 * y, 0.1 * y, -0.5 + 0.0 * x])[None]
    weight = (torch.rand(1, 1, 9, 7, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    spoiled = torch.where(weight > 0, truth, 7.0)  # what the object hides must not matter
    found = linear_background(spoiled, torch.zeros(1, 1, 1, 1), weight)
    torch.testing.assert_close(found, truth, atol=1e-4, rtol=0)
    far = linear_background(spoiled, torch.full((1, 1, 1, 1), 1e3), weight)
    assert far.abs().max() < 0.01  # only noise is left: mid-grey
