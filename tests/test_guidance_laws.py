"""What every score-distillation algorithm must satisfy, and how they relate to each other exactly."""

import dataclasses
import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dream3d.cameras import orbit_cameras
from dream3d.companion import Companion, CompanionPair
from dream3d.diffusion import NoiseSchedule, Prediction, add_noise, per_sample
from dream3d.errors import ConfigError
from dream3d.noise_sources import FixedNoise, FreshNoise
from dream3d.priors.base import Condition, Prior
from dream3d.priors.gaussian import ClosedFormPrior
from dream3d.schedules import Ramp, constant
from guidance import GUIDANCE, Views, gradient_as_loss
from guidance.asynchronous_score import AsynchronousScore
from guidance.balanced_score import BalancedScore
from guidance.checks import check_guidance
from guidance.classifier_score import ClassifierScore
from guidance.combine import guided
from guidance.coupled_score import CoupledScore
from guidance.flow_inversion import FlowInversion
from guidance.ism import ISM
from guidance.multistep import Multistep
from guidance.noise_free_score import NoiseFreeScore
from guidance.ode_consistency import OdeConsistency
from guidance.pfd import PFD
from guidance.score_bridge import ScoreBridge
from guidance.score_difference import ScoreDifference
from guidance.sdi import SDI
from guidance.sds import SDS
from guidance.tsm import TSM
from guidance.weights import WEIGHTS, Weight


class NonlinearPrior(ClosedFormPrior):
    """A deterministic network-like rule without symmetries, so that no two errors cancel; counts its calls."""

    def __init__(self) -> None:
        super().__init__(size=4)
        self.batches: list[int] = []

    def embed(self, prompts: list[str]) -> torch.Tensor:
        return torch.stack([torch.full((1, 1), len(p) / 7.0) for p in prompts])

    def predict(self, z_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> Prediction:
        self.batches.append(len(z_t))
        alpha = per_sample(self.schedule.alpha(t), z_t)
        sigma = per_sample(self.schedule.sigma(t), z_t)
        told = per_sample(condition.tokens.flatten(), z_t)
        if condition.cameras is not None:
            told = told + torch.sin(per_sample(condition.cameras.azimuth_deg, z_t))
        if condition.views_per_object > 1:
            joined = z_t.unflatten(0, (-1, condition.views_per_object))
            told = told + joined.mean(1, keepdim=True).expand_as(joined).flatten(0, 1)
        value = torch.tanh(z_t + told) * (0.3 + sigma) + 0.1 * told
        return Prediction(value, "x0", z_t, alpha, sigma)


class Twin(Companion):
    """An untrained companion: the prior itself."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior

    def parameters(self) -> dict[str, torch.Tensor]:
        return {}

    def output(self, z_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> Prediction:
        return self.prior.predict(z_t, t, condition)


class Dirac(Companion):
    """A perfect companion of single points: it knows the clean latents it is asked about."""

    def __init__(self, z: torch.Tensor, schedule: NoiseSchedule) -> None:
        self.z, self.schedule = z, schedule

    def parameters(self) -> dict[str, torch.Tensor]:
        return {}

    def output(self, z_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> Prediction:
        alpha = per_sample(self.schedule.alpha(t), z_t)
        sigma = per_sample(self.schedule.sigma(t), z_t)
        return Prediction(self.z, "x0", z_t, alpha, sigma)


def make_views(
    prior: Prior, t: list[float], progress: float = 0.0, dtype: torch.dtype = torch.float64
) -> Views:
    count = len(t)
    generator = torch.Generator().manual_seed(3)
    shape = (2, count, *prior.latent_shape)
    z, noise = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    prompts = ["a red mug", "a cat", "two", "the fourth one"][:count]
    return Views(
        z,
        torch.tensor(t, dtype=dtype),
        noise,
        Condition(prior.embed(prompts)),
        Condition(prior.embed([""] * count)),
        progress=progress,
        companion=CompanionPair(Twin(prior), Twin(prior)),
        plain=Condition(prior.embed(["a mug, red"] * count)),
    )


TIMES = [0.7, 0.2, 0.9, 0.4]
# Some rules change over the stage.
PROGRESS = pytest.mark.parametrize("progress", [0.0, 0.75])
every_guidance = pytest.mark.parametrize("name", GUIDANCE.names())


@every_guidance
def test_a_rule_is_one_file_of_at_most_eighty_lines(name: str) -> None:
    # What makes a file longer belongs into the shared seams (guidance/combine.py, inversion.py, twin.py ...).
    file = Path(inspect.getfile(GUIDANCE[name]))
    lines = file.read_text().splitlines()
    assert len(lines) <= 80, f"{file.name} has {len(lines)} lines"
    long = [number for number, line in enumerate(lines, 1) if len(line) > 120]
    assert not long, f"{file.name}: lines {long} are longer than 120 characters"


@every_guidance
@PROGRESS
def test_calling_is_pure(name: str, progress: float) -> None:
    prior = NonlinearPrior()
    views = make_views(prior, TIMES, progress)
    before = [x.clone() for x in (views.z, views.t, views.noise)]
    first, second = GUIDANCE[name]()(prior, views), GUIDANCE[name]()(prior, views)
    told = (views.z, views.t, views.noise)
    for what, old, new in zip(("z", "t", "noise"), before, told, strict=True):
        assert torch.equal(old, new), f"changes views.{what} in place"
        assert not new.requires_grad, f"makes views.{what} require a gradient"
    assert torch.equal(first.grad, second.grad), "two calls differ: what is drawn is views.noise"
    assert first.metrics == second.metrics, "metrics are no single numbers, or two calls differ"
    assert not first.grad.requires_grad, "grad is attached to a graph: @torch.no_grad() is missing"


@every_guidance
@PROGRESS
def test_the_gradient_has_an_entry_for_each_latent_and_metrics_are_numbers(
    name: str, progress: float
) -> None:
    prior = NonlinearPrior()
    views = make_views(prior, TIMES, progress)
    output = GUIDANCE[name]()(prior, views)
    assert output.grad.shape == views.z.shape
    sizes = {key: torch.as_tensor(x).numel() for key, x in output.metrics.items()}
    assert set(sizes.values()) <= {1}, f"entries of each metric: {sizes}"


@every_guidance
@PROGRESS
@pytest.mark.parametrize("t", [0.02, 0.98])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("prior", [ClosedFormPrior(4), NonlinearPrior()], ids=["exact", "net"])
def test_finite_at_both_ends_of_time(
    name: str, t: float, prior: Prior, dtype: torch.dtype, progress: float
) -> None:
    views = make_views(prior, [t] * 4, progress, dtype)
    grad = GUIDANCE[name]()(prior, views).grad
    assert grad.dtype == dtype
    assert torch.isfinite(grad).all() and grad.abs().max() > 0
    # A difference of prompts may be 0, and then so is its norm.
    agreeing = replace(views, empty=views.condition)
    assert torch.isfinite(GUIDANCE[name]()(prior, agreeing).grad).all(), "where prompts agree"


@every_guidance
@PROGRESS
@pytest.mark.parametrize("t", [0.02, 0.3, 0.5, 0.98])
@pytest.mark.parametrize("negative", [False, True], ids=["plain", "negative"])
def test_costs_the_evaluations_it_documents(
    name: str, t: float, progress: float, negative: bool
) -> None:
    prior, guidance = NonlinearPrior(), GUIDANCE[name]()
    views = make_views(prior, [t, 0.02, t, 0.5 * t], progress)
    if negative:
        views = replace(views, negative=Condition(prior.embed(["blurry and dull"] * 4)))
    guidance(prior, views)
    assert sum(prior.batches) / 4 == guidance.evaluations(t, progress, negative), (
        f"evaluations(t={t}, progress={progress}, negative={negative}) is not what a view cost"
    )


@every_guidance
def test_tells_where_it_comes_from(name: str) -> None:
    cls = GUIDANCE[name]
    assert len(cls.paper) > 10 and len(cls.formula) > 10, "say where it comes from, and its formula"
    assert "\n" not in cls.paper + cls.formula
    assert any(year in cls.paper for year in map(str, range(2020, 2030))), "paper has no year"


@every_guidance
@PROGRESS
def test_permuting_the_batch_permutes_the_gradient(name: str, progress: float) -> None:
    prior, order = NonlinearPrior(), [2, 0, 3, 1]
    negative = Condition(prior.embed(["dull", "blurry, of low quality", "", "grey"]))
    views = replace(make_views(prior, TIMES, progress), negative=negative)
    shuffled = Views(
        views.z[order],
        views.t[order],
        views.noise[order],
        views.condition[order],
        views.empty[order],
        negative[order],
        progress,
        views.companion,
        None if views.plain is None else views.plain[order],
    )
    grad = GUIDANCE[name]()(prior, views).grad
    torch.testing.assert_close(GUIDANCE[name]()(prior, shuffled).grad, grad[order])


@every_guidance
def test_views_of_one_object_are_joint_and_objects_independent(name: str) -> None:
    prior = NonlinearPrior()
    cameras = orbit_cameras([0.0, 90.0, 10.0, 100.0])
    plain = make_views(prior, [0.6, 0.6, 0.3, 0.3])
    views = replace(
        plain,
        condition=Condition(plain.condition.tokens, cameras, views_per_object=2),
        empty=Condition(plain.empty.tokens, cameras, views_per_object=2),
    )
    grad = GUIDANCE[name]()(prior, views).grad
    touched = views.z.clone()
    touched[3] += 0.5
    other = GUIDANCE[name]()(prior, replace(views, z=touched)).grad
    assert torch.equal(other[:2], grad[:2]), "an object feels another one's views"
    assert not torch.allclose(other[2], grad[2]), "a view does not feel its object's others"


@every_guidance
def test_objects_and_the_views_of_one_may_come_in_any_order(name: str) -> None:
    prior, cameras = NonlinearPrior(), orbit_cameras([0.0, 90.0, 10.0, 100.0])
    plain = make_views(prior, [0.6, 0.6, 0.3, 0.3])
    # Words are the same for all views of an object.
    tokens = plain.condition.tokens[[0, 0, 2, 2]]
    views = replace(
        plain,
        condition=Condition(tokens, cameras, views_per_object=2),
        empty=Condition(plain.empty.tokens, cameras, views_per_object=2),
    )
    before = cameras.c2w.clone()
    grad = GUIDANCE[name]()(prior, views).grad
    assert torch.equal(cameras.c2w, before)
    for order in ([2, 3, 0, 1], [1, 0, 3, 2]):
        moved = replace(
            views,
            z=views.z[order],
            t=views.t[order],
            noise=views.noise[order],
            condition=views.condition[order],
            empty=views.empty[order],
            plain=None if views.plain is None else views.plain[order],
        )
        torch.testing.assert_close(GUIDANCE[name]()(prior, moved).grad, grad[order])


@every_guidance
def test_a_negative_prompt_replaces_the_empty_one(name: str) -> None:
    prior = NonlinearPrior()
    # Late in the stage, when every rule reads it.
    views = make_views(prior, TIMES, progress=0.75)
    negative = Condition(prior.embed(["blurry and dull"] * 4))
    guidance = GUIDANCE[name]()
    plain = guidance(prior, views).grad
    same = guidance(prior, replace(views, negative=views.empty)).grad
    torch.testing.assert_close(same, plain, rtol=1e-12, atol=1e-12)
    moved = not torch.allclose(guidance(prior, replace(views, negative=negative)).grad, plain)
    assert moved, "ignores views.negative: ask `guided` or `negative_or_empty`, not views.empty"


@pytest.mark.parametrize("name", [name for name in GUIDANCE if GUIDANCE[name].anchored])
def test_descends_to_the_mean_of_a_gaussian(name: str) -> None:
    prior = ClosedFormPrior(4, std=0.5)
    guidance = GUIDANCE[name]()
    # Prompt and empty prompt agree, so that guidance changes nothing and the mean is the only fixed point.
    views = make_views(prior, TIMES)
    views = replace(views, empty=views.condition)
    mean = views.condition.tokens.to(views.z).view_as(views.z)
    z = views.z.clone()
    generator = torch.Generator().manual_seed(0)

    def sharp(z: torch.Tensor) -> Companion:
        return CompanionPair(Dirac(z, prior.schedule), Twin(prior))

    def at(z: torch.Tensor) -> torch.Tensor:
        known = replace(views, z=z, companion=sharp(z))
        return guidance(prior, known).grad

    pushed = at(z + 1.0) - at(z)
    rate = (0.05 / pushed.mean((1, 2, 3), keepdim=True)).clamp(
        min=0.2
    )  # a slow rule takes larger steps
    for _ in range(120):
        noise = torch.randn(z.shape, generator=generator, dtype=z.dtype)
        known = replace(views, z=z, noise=noise, companion=sharp(z))
        z -= rate * guidance(prior, known).grad
    left = (z - mean).square().mean().sqrt()
    assert left < 0.2 < (views.z - mean).square().mean().sqrt(), (
        "does not find the mean: the sign is wrong (grad is subtracted), or the rule is not anchored"
    )


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_gradient_as_loss_hands_over_the_gradient_exactly(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(3, 2, 4, 4, generator=generator).mul(100.0).requires_grad_()
    grad = scale * torch.randn(3, 2, 4, 4, generator=generator)
    loss = gradient_as_loss(z, grad)
    loss.backward()
    # Relative, however small the gradient is beside the latents.
    torch.testing.assert_close(z.grad, grad / 3, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(loss.detach(), 0.5 * grad.square().sum() / 3)


@pytest.mark.parametrize("shape", [(3, 1, 1, 1), (2, 4, 4), (1, 2, 4, 4)])
def test_a_gradient_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"gradient has shape .* the latents have \(3, 2, 4, 4\)"):
        inspect.unwrap(gradient_as_loss)(torch.zeros(3, 2, 4, 4), torch.zeros(shape))


@pytest.mark.parametrize(("scale", "batches"), [(0.0, [4]), (1.0, [4]), (7.5, [8])])
def test_guidance_costs_one_call_and_no_more_samples_than_needed(
    scale: float, batches: list[int]
) -> None:
    prior = NonlinearPrior()
    SDS(constant(scale))(prior, make_views(prior, TIMES))
    assert prior.batches == batches


def test_sds_is_affine_in_the_guidance_scale() -> None:
    prior = NonlinearPrior()
    views = make_views(prior, TIMES)
    none, plain, strong = (SDS(constant(s))(prior, views).grad for s in (0.0, 1.0, 7.5))
    torch.testing.assert_close(strong, none + 7.5 * (plain - none))


def test_sds_with_lambda_weight_is_the_x0_loss() -> None:
    prior = NonlinearPrior()
    views = make_views(prior, TIMES)
    z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
    x0 = guided(prior, z_t, views.t, views, 5.0).x0
    grad = SDS(constant(5.0), weight="lambda")(prior, views).grad
    torch.testing.assert_close(grad, views.z - x0)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_one_step_of_multistep_is_sds(weight: Weight) -> None:
    prior = NonlinearPrior()
    views = make_views(prior, TIMES)
    one = Multistep(1, constant(5.0), weight, rescale=0.3)(prior, views).grad
    torch.testing.assert_close(one, SDS(constant(5.0), weight, rescale=0.3)(prior, views).grad)
    four = Multistep(4, constant(5.0), weight, rescale=0.3)
    prior.batches.clear()
    assert not torch.allclose(four(prior, views).grad, one) and prior.batches == [8] * 4


def test_rescale_restores_the_spread_jointly_over_an_object() -> None:
    prior = NonlinearPrior()
    views = make_views(prior, [0.5] * 4)
    z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
    cameras = orbit_cameras([0.0, 90.0, 180.0, 270.0])
    views = replace(
        views,
        condition=Condition(views.condition.tokens, cameras, 2),
        empty=Condition(views.empty.tokens, cameras, 2),
    )
    text = guided(prior, z_t, views.t, views, 1.0).x0
    full = guided(prior, z_t, views.t, views, 9.0, rescale=1.0).x0
    untouched = guided(prior, z_t, views.t, views, 9.0).x0

    def spread(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(0, (2, 2)).flatten(1).std(dim=1)

    torch.testing.assert_close(spread(full), spread(text))
    assert (spread(untouched) > 1.2 * spread(text)).all()
    # One factor per object: the direction of the object's joint x0 is kept.
    factor = (full / untouched).unflatten(0, (2, 2)).flatten(1)
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor))


def test_clamping_bounds_the_clean_prediction() -> None:
    prior = NonlinearPrior()
    views = make_views(prior, TIMES)
    z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
    assert guided(prior, z_t, views.t, views, 30.0).x0.abs().max() > 1.5
    assert guided(prior, z_t, views.t, views, 30.0, clamp_x0=1.5).x0.abs().max() <= 1.5


def test_blending_in_no_fixed_noise_is_sds_noise_draw_for_draw() -> None:
    shape = (2, 3, 4, 4)
    fresh = FreshNoise()(shape, 0.5, 7, torch.Generator().manual_seed(1))
    blended = FixedNoise(constant(0.0))(shape, 0.5, 7, torch.Generator().manual_seed(1))
    assert torch.equal(fresh, blended)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: check_guidance("sigma3"), "guidance.weight is 'sigma3'; choose one of"),
        (lambda: SDS(rescale=1.5), "guidance.rescale is 1.5"),
        (lambda: SDS(clamp_x0=-1.0), "guidance.clamp_x0 is -1.0"),
        (lambda: SDS(perp_neg=0.5), "guidance.perp_neg is 0.5"),
        (lambda: SDS(clip=constant(-2.0)), "guidance.clip is -2.0"),
        (lambda: ISM(interval=constant(0.0)), "guidance.interval is 0.0"),
        (lambda: Multistep(steps=0), "guidance.steps is 0"),
        (lambda: ISM(stride=0.0), "guidance.stride is 0.0"),
        (lambda: TSM(fraction=1.2), "guidance.fraction is 1.2"),
        (lambda: TSM(max_steps=0), "guidance.max_steps is 0"),
        (lambda: ClassifierScore(Ramp(0.0, 2.0)), "guidance.negative_share is 2.0"),
        (lambda: NoiseFreeScore(threshold=-0.1), "guidance.threshold is -0.1"),
        (lambda: ScoreBridge(switch=1.5), "guidance.switch is 1.5"),
        (lambda: ScoreDifference("prompt", "prompt"), "guidance.away is 'prompt', as toward is"),
        (lambda: OdeConsistency(interval=constant(0.0)), "guidance.interval is 0.0"),
        (lambda: BalancedScore(kappa=math.inf), "guidance.kappa is inf"),
        (lambda: SDI(steps_per_unit=0), "guidance.steps_per_unit is 0"),
        (lambda: PFD(down=0), "guidance.down is 0"),
        (lambda: AsynchronousScore(shift=-1.0), "guidance.shift is -1.0"),
        (lambda: CoupledScore(share=constant(-1.0)), "guidance.share is -1.0"),
        (lambda: FlowInversion(steps=1), "guidance.steps is 1"),
    ],
)
def test_settings_outside_their_range_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@every_guidance
@pytest.mark.parametrize("scale", [math.nan, -1.0, math.inf])
def test_a_guidance_scale_that_is_negative_or_no_number_is_refused(name: str, scale: float) -> None:
    cls = GUIDANCE[name]
    for key in ("cfg_scale", "joint_scale"):
        if key in {field.name for field in dataclasses.fields(cls)}:  # type: ignore[arg-type]
            with pytest.raises(ConfigError, match=f"guidance.{key} is {scale}; choose a finite"):
                cls(**{key: constant(scale)})
