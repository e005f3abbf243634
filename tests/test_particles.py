"""Closed forms of the particle prior and of the thing with four sides."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dream3d.camera_samplers import OrbitCameras
from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.companion import CompanionSettings, CompanionTrainer
from dream3d.diffusion import CosineSchedule, add_noise
from dream3d.errors import ConfigError, ModelError
from dream3d.priors.base import Condition
from dream3d.priors.gaussian import ClosedFormPrior
from dream3d.priors.particles import (
    ParticlesConfig,
    ParticlesPrior,
    SidesConfig,
    SidesPrior,
    mixture_noise,
)

CPU = torch.device("cpu")


def test_noise_is_the_gradient_of_the_log_density() -> None:
    """eps = -sigma d/dz log sum_k w_k N(z; alpha m_k, alpha^2 s^2 + sigma^2), by autograd in float64."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(2, 3, 1, 2, 2, generator=generator, dtype=torch.float64)
    z = torch.randn(2, 1, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64).log().expand(2, 3)
    alpha, sigma = torch.full((2, 1, 1, 1), 0.8).double(), torch.full((2, 1, 1, 1), 0.6).double()
    for std in (0.0, 0.3):
        variance = 0.64 * std**2 + 0.36
        distance = (z[:, None] - 0.8 * means).square().flatten(2).sum(2)
        density = torch.logsumexp(weight - 0.5 * distance / variance, dim=1).sum()
        (score,) = torch.autograd.grad(density, z)
        eps = mixture_noise(z.detach(), means, weight, std, alpha, sigma)
        torch.testing.assert_close(eps, -0.6 * score)


def test_one_particle_is_always_the_answer() -> None:
    picture = torch.rand(1, 3, 8, 8) * 2 - 1
    prior = ParticlesPrior(picture, size=8)
    tokens = prior.embed(["anything", ""])
    z = torch.randn(2, 3, 8, 8)
    for level in (0.1, 0.5, 0.95):
        x0 = prior.predict(z, torch.full((2,), level), Condition(tokens)).x0
        torch.testing.assert_close(x0, picture.expand(2, -1, -1, -1), atol=1e-4, rtol=1e-4)


def test_little_noise_finds_the_particle_and_much_noise_their_mean() -> None:
    pictures = torch.rand(5, 3, 8, 8) * 2 - 1
    prior = ParticlesPrior(pictures, size=8, schedule=CosineSchedule())
    condition = Condition(prior.embed(["a"] * 5))
    low = torch.full((5,), 0.05)
    near = add_noise(prior.schedule, pictures, torch.randn_like(pictures), low)
    torch.testing.assert_close(prior.predict(near, low, condition).x0, pictures)
    high = torch.full((5,), 1.0 - 1e-4)
    far = prior.predict(torch.randn_like(pictures), high, condition).x0
    torch.testing.assert_close(far, pictures.mean(0).expand_as(far), atol=0.02, rtol=0.0)


def test_particles_are_the_limit_of_a_mixture() -> None:
    narrow = ClosedFormPrior(8, 1e-4, components=4)
    exact = ParticlesPrior(None, 8, 4)
    z, t = torch.randn(1, 3, 8, 8), torch.tensor([0.6])
    torch.testing.assert_close(
        exact.predict(z, t, Condition(exact.embed(["a mug"]))).eps,
        narrow.predict(z, t, Condition(narrow.embed(["a mug"]))).eps,
        atol=1e-4,
        rtol=1e-3,
    )


def orbit(*azimuths: float) -> CameraBatch:
    cameras = OrbitCameras()(len(azimuths), 8, 0.0, torch.Generator().manual_seed(0))
    from dataclasses import replace

    return replace(cameras, azimuth_deg=torch.tensor(azimuths))


def test_told_its_side_the_prior_knows_it_and_untold_it_prefers_the_front() -> None:
    """The Janus toy: at high noise the text-only answer is the front's share, the camera's the side itself."""
    prior = SidesPrior(8, std=0.1, front_share=0.7, word_trust=1.0)
    sides = prior.means("a mug")
    t = torch.full((4,), 1.0 - 1e-4)
    z = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    cameras = orbit(0.0, 90.0, 180.0, 270.0)
    told = prior.predict(z, t, Condition(prior.embed(["a mug"] * 4), cameras)).x0
    torch.testing.assert_close(told, sides, atol=0.02, rtol=0.0)
    words = [f"a mug, {side} view" for side in ("front", "left", "back", "right")]
    named = prior.predict(z, t, Condition(prior.embed(words))).x0
    torch.testing.assert_close(named, sides, atol=0.02, rtol=0.0)
    untold = prior.predict(z, t, Condition(prior.embed(["a mug"] * 4))).x0
    expected = 0.7 * sides[0] + 0.1 * sides[1:].sum(0)
    torch.testing.assert_close(untold, expected.expand_as(untold), atol=0.02, rtol=0.0)


@pytest.mark.parametrize(
    "prior", [SidesPrior(4), ParticlesPrior(None, 4)], ids=["sides", "particles"]
)
@pytest.mark.parametrize("cameras", [False, True], ids=["words", "cameras"])
def test_its_companion_begins_as_the_prior_and_learns(
    prior: ClosedFormPrior, cameras: bool
) -> None:
    z, noise = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    told = Condition(
        prior.embed(["a mug"] * 4), orbit_cameras([0.0, 90.0, 10.0, 200.0]) if cameras else None
    )
    twin, t = prior.companion(1, 0), torch.full((4,), 0.5)
    same = twin.predict(noise, t, told).eps
    torch.testing.assert_close(same, prior.predict(noise, t, told).eps, rtol=1e-5, atol=1e-5)
    trainer = CompanionTrainer(twin, prior.schedule, CompanionSettings(learning_rate=0.1))
    before = {name: p.detach().clone() for name, p in twin.parameters().items()}
    assert trainer.step(z, told, torch.Generator().manual_seed(1)).isfinite()
    assert not torch.equal(twin.parameters()["shift"], before["shift"])


def test_between_two_sides_a_camera_sees_both() -> None:
    prior = SidesPrior(8)
    sides = prior.means("a mug")
    t, z = torch.tensor([1.0 - 1e-4]), torch.randn(1, 3, 8, 8)
    seen = prior.predict(z, t, Condition(prior.embed(["a mug"]), orbit(-45.0))).x0[0]
    torch.testing.assert_close(seen, (sides[0] + sides[3]) / 2, atol=0.02, rtol=0.0)


def test_pictures_from_a_directory(tmp_path: Path) -> None:
    for k, value in enumerate((0, 255)):
        Image.fromarray(np.full((20, 30, 3), value, np.uint8)).save(tmp_path / f"{k}.png")
    prior = ParticlesConfig(size=8, images=str(tmp_path)).load(CPU)
    assert prior.pictures is not None
    torch.testing.assert_close(prior.pictures[:, 0, 0, 0], torch.tensor([-1.0, 1.0]))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ModelError, match="not a readable picture"):
        ParticlesConfig(size=8, images=str(tmp_path)).load(CPU)
    with pytest.raises(ModelError, match="no PNG or JPEG"):
        ParticlesConfig(images=str(tmp_path / "nowhere")).load(CPU)
    with pytest.raises(ConfigError, match="front_share"):
        SidesConfig(front_share=1.5)
