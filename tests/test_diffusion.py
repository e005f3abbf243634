import pytest
import torch

from dream3d.diffusion import (
    CosineSchedule,
    NoiseSchedule,
    Prediction,
    RectifiedFlowSchedule,
    TableSchedule,
    add_noise,
    per_sample,
)

betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
SCHEDULES: dict[str, NoiseSchedule] = {
    "cosine": CosineSchedule(),
    "flow": RectifiedFlowSchedule(),
    "table": TableSchedule(torch.cumprod(1.0 - betas, 0)),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", ["eps", "x0", "v", "flow"])
def test_every_kind_of_prediction_reads_as_every_other(name: str, kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 5, 3, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.02, 0.3, 0.5, 0.8, 0.98], dtype=torch.float64)
    schedule = SCHEDULES[name]
    z_t = add_noise(schedule, x0, eps, t)
    alpha, sigma = schedule.levels(t, x0)
    assert torch.equal(alpha, per_sample(schedule.alpha(t), x0))
    assert torch.equal(sigma, per_sample(schedule.sigma(t), x0))
    truth = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0, "flow": eps - x0}
    prediction = Prediction(truth[kind], kind, z_t, alpha, sigma)  # type: ignore[arg-type]
    for other, value in truth.items():
        torch.testing.assert_close(getattr(prediction, other), value)


def test_schedules_run_from_clean_to_noise() -> None:
    ends = torch.tensor([0.0, 1.0])
    for name in ("cosine", "flow"):
        torch.testing.assert_close(SCHEDULES[name].alpha(ends), torch.tensor([1.0, 0.0]))
        torch.testing.assert_close(SCHEDULES[name].sigma(ends), torch.tensor([0.0, 1.0]))
    t = torch.linspace(0.0, 1.0, 200)
    for schedule in SCHEDULES.values():
        assert (schedule.alpha(t).diff() <= 0).all() and (schedule.sigma(t).diff() >= 0).all()


def test_the_stable_diffusion_table_has_the_published_noise_levels() -> None:
    # Independent reference values of sigma / alpha at integer timesteps of SD's "scaled_linear" betas.
    t = torch.tensor([0, 20, 100, 500, 999], dtype=torch.float64) / 999
    levels = SCHEDULES["table"].sigma(t) / SCHEDULES["table"].alpha(t)
    expected = torch.tensor([0.0292, 0.1380, 0.3439, 1.6183, 14.615], dtype=torch.float64)
    torch.testing.assert_close(levels, expected, rtol=2e-3, atol=0)
