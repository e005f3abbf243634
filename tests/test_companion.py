"""The trainable twin of a prior: silent until trained, apart from the prior always, and right about the renders."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_guidance_laws import Dirac, NonlinearPrior, Twin, make_views
from tiny_prior import tiny_components
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from dream3d.bootstrap import BootstrapTrainer
from dream3d.cameras import orbit_cameras
from dream3d.checkpoint import optimizer_tensors
from dream3d.companion import (
    Companion,
    CompanionPair,
    CompanionSettings,
    CompanionTrainer,
    denoising_loss,
)
from dream3d.diffusion import CosineSchedule, Prediction, PredictionKind, add_noise, per_sample
from dream3d.errors import ConfigError
from dream3d.priors.base import Condition
from dream3d.priors.embedded import EmbeddedConfig
from dream3d.priors.gaussian import ClosedFormPrior, GaussianConfig
from dream3d.priors.latent.embedded_prior import EmbeddedPrior
from dream3d.priors.latent.lora_companion import LoraCompanion
from dream3d.run import run_system
from dream3d.scenes.splats import SplatsConfig
from dream3d.schedules import constant
from guidance.esd import ESD
from guidance.sds import SDS
from guidance.vsd import VSD
from systems.base import RunConfig, Stage

CPU = torch.device("cpu")


# ---------------------------------------------------------------------------------------------------------------------
# Low-rank updates


def lora(cameras: bool) -> tuple[EmbeddedPrior, LoraCompanion]:
    """A tiny prior, told cameras by itself or not at all, with its companion."""
    components = tiny_components()
    prior = EmbeddedPrior(components if cameras else replace(components, camera_encoder=None), CPU)
    return prior, LoraCompanion(prior, rank=2, seed=0)


def asked(prior: EmbeddedPrior) -> tuple[Tensor, Tensor, Condition]:
    z_t = torch.randn(4, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    cameras = orbit_cameras([0.0, 90.0, 180.0, 270.0])
    return z_t, torch.full((4,), 0.6), Condition(prior.embed(["a red cube"] * 4), cameras)


def told(prior: EmbeddedPrior, condition: Condition) -> Condition:
    return condition if prior.accepts_cameras else Condition(condition.tokens)


@pytest.mark.parametrize("cameras", [True, False])
def test_training_moves_the_companion_and_never_the_prior(cameras: bool) -> None:
    prior, companion = lora(cameras)
    z_t, t, condition = asked(prior)
    before = prior.predict(z_t, t, told(prior, condition)).value
    torch.testing.assert_close(
        companion.predict(z_t, t, condition).value, before, rtol=0, atol=1e-6
    )
    own = {id(p) for p in companion.parameters().values()}
    unet = prior.network
    shared = {n: p.clone() for n, p in unet.named_parameters() if id(p) not in own}
    trainer = CompanionTrainer(companion, prior.schedule, CompanionSettings(2, 2e-2, 0.0))
    generator = torch.Generator().manual_seed(1)
    z = 0.3 * z_t
    noise = torch.randn(z.shape, generator=generator)

    def loss() -> float:
        noisy = add_noise(prior.schedule, z, noise, t)
        return denoising_loss(companion.predict(noisy, t, condition), z, noise).item()

    untrained = loss()
    for _ in range(50):
        trainer.step(z, condition, generator)
    assert loss() < 0.8 * untrained
    assert torch.equal(prior.predict(z_t, t, told(prior, condition)).value, before)
    assert not torch.allclose(companion.predict(z_t, t, condition).value, before, atol=1e-3)
    for name, p in unet.named_parameters():
        if name in shared:
            assert torch.equal(p, shared[name]) and p.grad is None, name


def test_a_companions_optimiser_works_once_for_all_its_updates() -> None:
    """On a GPU a kernel for each of several hundred small updates takes longer than training does."""

    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            del types
            self.calls += 1
            return func(*args, **(kwargs or {}))

    prior, companion = lora(cameras=False)
    trainer = CompanionTrainer(companion, prior.schedule, CompanionSettings())
    z_t, _, condition = asked(prior)
    trainer.step(z_t, condition, torch.Generator().manual_seed(0))
    with Count() as count:
        trainer.optimizer.step()
    assert len(companion.parameters()) > 16 > count.calls
    names = {key.rpartition("/")[0] for key in optimizer_tensors(trainer.optimizer)}
    assert names == set(companion.parameters())


def test_a_companion_of_a_16_bit_network_keeps_no_activation_in_32() -> None:
    """PEFT alone would: a fifth more memory here, and twice the traffic at every update."""
    answers, parts = [], replace(tiny_components(), camera_encoder=None)
    for dtype in (torch.float32, torch.bfloat16):
        parts.unet.to(dtype)
        prior = EmbeddedPrior(parts, CPU)
        companion = LoraCompanion(prior, rank=2, seed=0)
        for n, p in enumerate(companion.parameters().values()):
            p.data += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(n))
        z_t, t, condition = asked(prior)
        answers.append(companion.predict(z_t, t, condition).value)
    assert 0 < (answers[1] - answers[0]).norm() < 0.03 * answers[0].norm()
    kept: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.data_ptr()] = x
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        answer = companion.output(z_t, t, condition).value
    parameters = companion.parameters().values()
    wide, narrow = (
        sum(x.nbytes for x in kept.values() if x.dtype == dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert 0 < wide < 0.1 * narrow  # the latents and the camera's embedding
    answer.square().mean().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in parameters)


def test_a_companion_looks_through_its_network_a_few_times_a_call_and_not_per_update(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    walks: list[torch.nn.Module] = []
    walk = torch.nn.Module._named_members

    def counted(module: torch.nn.Module, *given: object, **more: object) -> object:
        if module is prior.network:
            walks.append(module)
        return walk(module, *given, **more)  # type: ignore[arg-type]

    prior, companion = lora(cameras=True)
    z_t, t, condition = asked(prior)
    monkeypatch.setattr(torch.nn.Module, "_named_members", counted)
    companion.output(z_t, t, condition)
    # A walk takes a tenth of a call; diffusers' `dtype` is one, and was asked for at every update.
    assert len(walks) <= 3 < len(companion.parameters())


def test_the_camera_reaches_a_companion_whose_prior_takes_none() -> None:
    prior, companion = lora(cameras=False)
    z_t, t, condition = asked(prior)
    with torch.no_grad():
        for name, p in companion.parameters().items():
            if name.startswith("camera."):
                p.copy_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2)))
    turned = replace(condition, cameras=orbit_cameras([45.0] * 4))
    anywhere = replace(condition, cameras=None)
    outputs = [companion.predict(z_t, t, c).value for c in (condition, turned, anywhere)]
    assert not torch.allclose(outputs[0], outputs[1], atol=1e-4)
    assert not torch.allclose(outputs[0], outputs[2], atol=1e-4)
    torch.testing.assert_close(outputs[2], prior.predict(z_t, t, anywhere).value, rtol=0, atol=1e-6)


def test_a_new_companion_forgets_the_one_before() -> None:
    prior, companion = lora(cameras=True)
    z_t, t, condition = asked(prior)
    with torch.no_grad():
        for p in companion.parameters().values():
            p.add_(0.5)
    again = prior.companion(2, 0)
    torch.testing.assert_close(
        again.predict(z_t, t, condition).value,
        prior.predict(z_t, t, condition).value,
        rtol=0,
        atol=1e-6,
    )


def test_twins_beside_each_other_are_alike_and_apart() -> None:
    prior, own = lora(cameras=True)
    z_t, t, condition = asked(prior)
    sizes = sorted(p.shape for p in own.parameters().values())
    dreamer = prior.companion(2, 1, "dreamer")
    assert sorted(p.shape for p in dreamer.parameters().values()) == sizes
    plain = prior.predict(z_t, t, condition).value
    with torch.no_grad():
        for p in dreamer.parameters().values():
            p.add_(0.5)
    assert not torch.allclose(dreamer.predict(z_t, t, condition).value, plain, atol=1e-4)
    assert torch.equal(own.predict(z_t, t, condition).value, plain)
    assert torch.equal(prior.predict(z_t, t, condition).value, plain)
    # A later run on the same prior, when two twins have been there.
    assert sorted(p.shape for p in prior.companion(2, 0).parameters().values()) == sizes


@pytest.mark.parametrize("kind", ["eps", "x0", "v", "flow"])
def test_the_loss_is_zero_for_the_truth_and_positive_beside_it(kind: PredictionKind) -> None:
    generator = torch.Generator().manual_seed(0)
    z, noise = torch.randn(2, 3, 2, 4, 4, generator=generator, dtype=torch.float64)
    schedule, t = CosineSchedule(), torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    z_t = add_noise(schedule, z, noise, t)
    alpha, sigma = per_sample(schedule.alpha(t), z), per_sample(schedule.sigma(t), z)
    exact = Prediction(noise, "eps", z_t, alpha, sigma)
    value = {"eps": exact.eps, "x0": exact.x0, "v": exact.v, "flow": exact.flow}[kind]
    right = denoising_loss(Prediction(value, kind, z_t, alpha, sigma), z, noise)
    assert right < 1e-20
    wrong = denoising_loss(Prediction(value + 0.1, kind, z_t, alpha, sigma), z, noise)
    assert wrong > 0.005


class Listening(Companion):
    """Learns one number and remembers at what it was asked."""

    def __init__(self) -> None:
        self.number = torch.zeros((), requires_grad=True)
        self.asked: list[tuple[Tensor, Condition]] = []

    def parameters(self) -> dict[str, Tensor]:
        return {"number": self.number}

    def output(self, z_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        self.asked.append((t, condition))
        level = torch.ones_like(z_t[:, :1, :1, :1])
        return Prediction(z_t * self.number, "eps", z_t, level, level)


@pytest.mark.parametrize("paired", [False, True], ids=["one", "pair"])
def test_training_draws_one_level_per_object_and_leaves_the_render_alone(paired: bool) -> None:
    prior, own, dreamer = ClosedFormPrior(4), Listening(), Listening()
    cameras = orbit_cameras([0.0, 90.0, 10.0, 100.0])
    told = Condition(prior.embed(["a mug"] * 4), cameras, views_per_object=2)
    z = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    settings = CompanionSettings(camera_dropout=0.0, augment=(0.4, 1))
    trainer = (
        BootstrapTrainer(prior, CompanionPair(own, dreamer), settings)
        if paired
        else CompanionTrainer(own, prior.schedule, settings)
    )
    trainer.step(z, told, torch.Generator().manual_seed(1))
    for twin in (own, dreamer) if paired else (own,):
        ((t, condition),) = twin.asked
        assert t[0] == t[1] != t[2] == t[3] and condition.views_per_object == 2
        assert twin.number.grad is not None and twin.number.grad != 0.0
    assert z.grad is None  # what a companion learns is no gradient of the scene's


def test_the_twin_of_a_closed_form_prior_begins_as_it_and_learns_mean_and_spread() -> None:
    prior, generator = ClosedFormPrior(4), torch.Generator().manual_seed(0)
    told = Condition(prior.embed(["a red mug"]).expand(64, -1, -1))
    companion = prior.companion(1, 0)
    z, t = torch.randn(64, 3, 4, 4, generator=generator), torch.full((64,), 0.5)
    assert torch.equal(companion.predict(z, t, told).value, prior.predict(z, t, told).value)
    mean = torch.tensor([0.5, -0.3, 0.0]).reshape(3, 1, 1).expand(3, 4, 4)
    trainer = CompanionTrainer(companion, prior.schedule, CompanionSettings(1, 0.02, 0.1))
    for _ in range(400):
        z = mean + 0.6 * torch.randn(64, 3, 4, 4, generator=generator)
        trainer.step(z, told, generator)
    learnt = companion.parameters()
    assert (prior.means("a red mug") + learnt["shift"] - mean).abs().max() < 0.12
    assert 0.2 * learnt["log_widening"].exp().item() == pytest.approx(0.6, rel=0.06)


# ---------------------------------------------------------------------------------------------------------------------
# What VSD and ESD are in the limits


def test_vsd_with_a_companion_of_one_point_is_sds() -> None:
    prior = NonlinearPrior()
    views = make_views(prior, [0.7, 0.2, 0.9, 0.4])
    known = replace(views, companion=Dirac(views.z, CosineSchedule()), plain=views.condition)
    torch.testing.assert_close(
        VSD(constant(5.0))(prior, known).grad, SDS(constant(5.0))(prior, views).grad
    )


def test_vsd_with_an_untrained_companion_is_the_classifier_score() -> None:
    prior = NonlinearPrior()
    views = make_views(prior, [0.7, 0.2, 0.9, 0.4])
    twin = replace(views, companion=Twin(prior), plain=views.condition)
    ours = VSD(constant(5.0))(prior, twin).grad
    classifier = SDS(constant(2.0))(prior, views).grad - SDS(constant(1.0))(prior, views).grad
    torch.testing.assert_close(ours, 4.0 * classifier)


def test_esd_is_vsd_whose_companion_is_guided_by_its_camera() -> None:
    prior = NonlinearPrior()
    views = make_views(prior, [0.7, 0.2, 0.9, 0.4])
    plain = replace(views.condition, cameras=orbit_cameras([0.0, 90.0, 180.0, 270.0]))
    views = replace(views, companion=Twin(prior), plain=plain)
    vsd = VSD(constant(5.0))(prior, views).grad
    torch.testing.assert_close(ESD(0.0, constant(5.0))(prior, views).grad, vsd)
    anywhere = VSD(constant(5.0))(prior, replace(views, plain=views.condition)).grad
    torch.testing.assert_close(ESD(1.0, constant(5.0))(prior, views).grad, anywhere)
    torch.testing.assert_close(
        ESD(0.3, constant(5.0))(prior, views).grad, 0.7 * vsd + 0.3 * anywhere
    )
    assert not torch.allclose(vsd, anywhere)


class Moments(Companion):
    """The exact score of Gaussian particles: mean and variance as they are now."""

    def __init__(self, z: Tensor, schedule: CosineSchedule, exact: bool) -> None:
        self.z, self.schedule, self.exact = z, schedule, exact

    def parameters(self) -> dict[str, Tensor]:
        return {}

    def output(self, z_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        alpha = per_sample(self.schedule.alpha(t), z_t)
        sigma = per_sample(self.schedule.sigma(t), z_t)
        if condition.cameras is not None and not self.exact:
            # With the camera known, what is rendered is known: a point.
            return Prediction(self.z, "x0", z_t, alpha, sigma)
        variance = alpha**2 * self.z.var() + sigma**2
        return Prediction(
            sigma * (z_t - alpha * self.z.mean()) / variance, "eps", z_t, alpha, sigma
        )


def particles(guidance: VSD | ESD, exact: bool, lam: float, steps: int = 400) -> Tensor:
    """1500 particles from N(0, 1) under N(m, .6^2) at one noise level; one particle per entry of the latent."""
    prior = ClosedFormPrior(8, std=0.6)
    tokens = torch.full((1500, 1, 1), 0.7, dtype=torch.float64)
    t = torch.full((1500,), 2.0 / torch.pi, dtype=torch.float64) * torch.tensor(lam).atan()
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1500, 1, 1, 1, generator=generator, dtype=torch.float64)
    condition = Condition(tokens)
    cameras = orbit_cameras([0.0] * 1500)
    for _ in range(steps):
        noise = torch.randn(z.shape, generator=generator, dtype=z.dtype)
        views = replace(
            make_views(prior, [0.5]),
            z=z,
            t=t,
            noise=noise,
            condition=condition,
            empty=condition,
            companion=Moments(z, CosineSchedule(), exact),
            plain=replace(condition, cameras=cameras),
        )
        z = z - 0.05 * guidance(prior, views).grad
    return z


def test_vsd_recovers_mean_and_spread_where_sds_collapses() -> None:
    z = particles(VSD(constant(1.0), weight="uniform"), exact=True, lam=0.5)
    # Where the spreads agree the noise cancels, so that what is left of it goes too.
    assert float(z.mean()) == pytest.approx(0.7, rel=0.01)
    assert float(z.std()) == pytest.approx(0.6, rel=0.01)


@pytest.mark.parametrize(("entropy", "variance"), [(0.6, 0.116), (0.9, 0.299)])
def test_esd_settles_between_collapse_and_the_prior(entropy: float, variance: float) -> None:
    """max(0, entropy (s^2 + lambda^2) - lambda^2) with s = .6, lambda = .5, for short steps.

    A step of r = .05 maps the variance v to v (1 - r k)^2 + (r b)^2, k = lambda (1 / (s^2 + lambda^2) - entropy / (v +
    lambda^2)) and b = lambda k - (1 - entropy) the factor of the drawn noise: it rests where this repeats itself, at
    .129 instead of .116 for the smaller entropy.
    """
    z = particles(ESD(entropy, constant(1.0), weight="uniform"), exact=False, lam=0.5)
    assert float(z.mean()) == pytest.approx(0.7, rel=0.01)
    lam, rate, rest = 0.5, 0.05, variance
    for _ in range(1000):
        k = lam * (1.0 / (0.6**2 + lam**2) - entropy / (rest + lam**2))
        rest = rest * (1.0 - rate * k) ** 2 + (rate * (lam * k - (1.0 - entropy))) ** 2
    assert float(z.var()) == pytest.approx(rest, rel=0.01)
    assert rest == pytest.approx(variance, rel=0.12)


# ---------------------------------------------------------------------------------------------------------------------
# In a run

SCENE = SplatsConfig(count=60, max_count=80)


def config(guidance: VSD | ESD, steps: int = 8, **changes: object) -> RunConfig:
    stage = Stage(
        guidance,
        SCENE,
        steps=steps,
        views=2,
        render_size=16,
        checkpoint_every=3,
        conditioning="text",
    )
    values: dict = {"prompt": "a red mug", "prior": GaussianConfig(8), "stages": [stage], "seed": 3}
    return RunConfig(**(values | changes))


@pytest.mark.parametrize("guidance", [VSD(companion_rate=0.01), ESD(companion_rate=0.01)])
def test_a_resumed_run_equals_an_unbroken_one(guidance: VSD | ESD, tmp_path: Path) -> None:
    def state(name: str, resume: bool = False, until: int = 99) -> dict[str, Tensor]:
        count = iter(range(1, 100))
        run = run_system(
            config(guidance),
            tmp_path / name,
            resume=resume,
            should_stop=lambda: next(count) >= until,
        )
        return run.scene.state()

    whole = state("whole")
    state("part", until=4)
    rest = state("part", resume=True)
    assert all(torch.equal(rest[name], value) for name, value in whole.items())


def test_the_embedded_priors_companion_resumes_too(tmp_path: Path) -> None:
    run = config(VSD(companion_rate=0.01), steps=3, prior=EmbeddedConfig())
    whole = run_system(run, tmp_path / "whole").scene.state()
    seen = iter(range(1, 10))
    run_system(run, tmp_path / "part", should_stop=lambda: next(seen) >= 2)
    rest = run_system(run, tmp_path / "part", resume=True).scene.state()
    assert all(torch.equal(rest[name], value) for name, value in whole.items())


def test_a_prior_without_a_companion_is_refused_before_the_first_step(tmp_path: Path) -> None:
    class Frozen(ClosedFormPrior):
        companion = ClosedFormPrior.__mro__[1].companion  # the base class's refusal

    with pytest.raises(ConfigError, match="needs a trainable companion"):
        run_system(config(VSD()), tmp_path, prior=Frozen(8))
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VSD(rank=0), "guidance.rank is 0"),
        (lambda: VSD(companion_rate=0.0), "guidance.companion_rate is 0.0"),
        (lambda: VSD(camera_dropout=1.5), "guidance.camera_dropout is 1.5"),
        (lambda: ESD(entropy=2.0), "guidance.entropy is 2.0"),
        (lambda: ESD(camera_dropout=0.0), "never learns to do without the camera"),
    ],
)
def test_settings_outside_their_range_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=message):
        make()
