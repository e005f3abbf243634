"""Recorded calls return what the calls do: the buffers and the bookkeeping, with a stand-in for CUDA graphs.

The stand-in runs the work again into the same tensors. What only a GPU can say is marked `gpu`.
"""

import copy
import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dream3d import train
from dream3d.bench.networks import Shape, random_prior
from dream3d.cameras import orbit_cameras
from dream3d.companion import CompanionSettings, CompanionTrainer, restore_parameters
from dream3d.errors import ConfigError
from dream3d.phases import Phases
from dream3d.priors.base import Condition
from dream3d.priors.pipelines.acceleration import (
    PLAIN,
    Acceleration,
    Accelerator,
    acceleration_of,
)
from dream3d.priors.pipelines.prior import PipelinePrior
from dream3d.priors.pipelines.recording import MOST, Recorded
from dream3d.prompts import Prompts
from dream3d.run import make_companion
from dream3d.scenes.canvas import CanvasConfig
from dream3d.train import StepReport, TrainState, make_optimizer, train_stage
from guidance.base import GUIDANCE
from systems.base import Stage

CPU = torch.device("cpu")
SMALL = Shape("small", (32, 32), (1, 1), (32, 32, 32, 32), 16, 64)


class Rerun:
    """Stands in for CUDA graphs: the same work, into the tensors of the first time; counts what it did."""

    def __init__(self) -> None:
        self.recorded, self.replayed = 0, [0]

    def warm(self, work: Any) -> None:
        work()

    def record(self, work: Any) -> Any:
        self.recorded += 1
        result = work()

        def replay() -> None:
            self.replayed[0] += 1
            again = work()
            pairs = (
                zip(result, again, strict=True) if isinstance(result, list) else [(result, again)]
            )
            with torch.no_grad():
                for mine, new in pairs:
                    if mine is not None:
                        mine.copy_(new)

        return result, replay

    def apart(self) -> "Rerun":
        return self


def recorded(function: Any, *parameters: Tensor) -> tuple[Recorded, Rerun]:
    recorder = Rerun()
    return Recorded(function, recorder, "test", parameters), recorder


def test_a_kind_is_recorded_at_its_second_call_and_replayed_after() -> None:
    calls, recorder = recorded(lambda x, more: x * more["by"][0] + more["plus"])
    for turn in range(4):
        x = torch.full((3,), float(turn))
        assert torch.equal(calls(x=x, more={"by": [x], "plus": 1}), x * x + 1)
    assert recorder.recorded == 1 and recorder.replayed == [3]
    calls(x=torch.ones(3), more={"by": [torch.ones(3)], "plus": 2})  # another value: another kind
    assert recorder.recorded == 1


def test_answers_are_the_callers_own() -> None:
    calls, _ = recorded(lambda x: 2 * x)
    for _ in range(2):
        calls(x=torch.ones(2))
    first = calls(x=torch.ones(2))
    calls(x=torch.zeros(2))
    assert torch.equal(first, torch.full((2,), 2.0))


def test_gradients_reach_inputs_and_parameters_also_out_of_order() -> None:
    weight = nn.Parameter(torch.tensor([2.0, 3.0]))
    calls, recorder = recorded(lambda x, index: (weight * x.sin())[index], weight)
    index = torch.tensor([1, 0])
    for turn in range(4):
        a = torch.tensor([0.1 * turn, 0.4], requires_grad=True)
        b = torch.tensor([0.7, -0.2 * turn], requires_grad=True)
        one, two = calls(x=a, index=index), calls(x=b, index=index)
        weight.grad = None
        (one * torch.tensor([1.0, 5.0])).sum().backward()  # after the second call took its place
        two.sum().backward()
        slope = torch.tensor([5.0, 1.0])
        assert a.grad is not None and torch.allclose(
            a.grad, slope * weight.detach() * a.detach().cos()
        )
        assert b.grad is not None and torch.allclose(b.grad, weight.detach() * b.detach().cos())
        expected = slope * a.detach().sin() + b.detach().sin()
        assert weight.grad is not None and torch.allclose(weight.grad, expected)
    assert recorder.recorded == 2


def test_what_cannot_be_recorded_runs_as_written(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Rerun):
        def record(self, work: Any) -> Any:
            raise RuntimeError("operation not permitted when stream is capturing")

    calls = Recorded(lambda x: x + 1, Broken(), "the network")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert torch.equal(calls(x=torch.ones(1)), torch.full((1,), 2.0))
    assert "not permitted" in calls.refused and "not permitted" in calls.failure
    assert len(caplog.records) == 1 and "the network" in caplog.text


def test_kinds_are_bounded_and_inference_mode_is_left_alone() -> None:
    calls, recorder = recorded(lambda x: x + 1)
    for size in range(1, MOST + 4):
        for _ in range(3):
            assert torch.equal(calls(x=torch.zeros(size)), torch.ones(size))
    assert recorder.recorded == MOST
    with torch.inference_mode():
        assert torch.equal(calls(x=torch.zeros(1)), torch.ones(1))


def pair(**changes: Any) -> tuple[PipelinePrior, PipelinePrior, Rerun]:
    """The same random networks, as written and recorded."""
    plain = random_prior(SMALL, CPU, torch.float32)
    recorder = Rerun()
    how = replace(Acceleration(graphs=True, channels_last=True), **changes)
    fast = random_prior(SMALL, CPU, torch.float32, PLAIN)
    fast = PipelinePrior(fast.parts, CPU, 64, acceleration=Accelerator(how, CPU, recorder))
    plain.embed(["a red mug"])
    fast.embed(["a red mug"])
    return plain, fast, recorder


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).norm() <= 1e-4 * b.norm())


def test_a_recorded_prior_answers_as_the_plain_one() -> None:
    plain, fast, recorder = pair()
    for turn in range(3):
        g = torch.Generator().manual_seed(turn)
        tokens = plain.embed(["a red mug"]).expand(2, -1, -1)
        z, t = torch.randn(2, 4, 8, 8, generator=g), torch.rand(2, generator=g)
        assert close(
            fast.predict(z, t, Condition(tokens)).value,
            plain.predict(z, t, Condition(tokens)).value,
        )
        images = torch.rand(2, 64, 64, 3, generator=g)
        slope = torch.randn(2, 4, 8, 8, generator=g)
        found = []
        for prior in (fast, plain):
            x = images.clone().requires_grad_()
            z = prior.encode(x)
            z.backward(slope)
            assert x.grad is not None
            found.append((z.detach(), x.grad))
        for ours, theirs in zip(*found, strict=True):
            assert close(ours, theirs)
    assert recorder.recorded == 3 and not fast.accelerator.refusals


def test_a_recorded_companion_learns_as_the_plain_one() -> None:
    """Told cameras or not, gradients are the same; the prior under it stays."""
    plain, fast, recorder = pair()
    tokens = plain.embed(["a red mug"]).expand(2, -1, -1)
    condition = Condition(tokens, orbit_cameras([0.0, 90.0], size=64))
    z, t = torch.randn(2, 4, 8, 8), torch.tensor([0.3, 0.6])
    before = plain.predict(z, t, Condition(tokens)).value
    settings = CompanionSettings(2, 1e-2, 0.5)
    one, two = (
        CompanionTrainer(prior.companion(2, 0), prior.schedule, settings) for prior in (plain, fast)
    )
    for turn in range(4):
        restore_parameters(two.companion, one.companion.parameters())
        both = []
        for trainer in (one, two):
            trainer.optimizer.zero_grad(set_to_none=True)
            g = torch.Generator().manual_seed(turn)
            trainer.loss(trainer.companion, z, condition, g).backward()
            grads = {n: p.grad for n, p in trainer.companion.parameters().items()}
            answer = trainer.companion.predict(z, t, condition).value
            both.append((answer, {n: grad for n, grad in grads.items() if grad is not None}))
        (answer, grads), (answer_fast, grads_fast) = both
        assert close(answer_fast, answer) and set(grads) == set(grads_fast)
        assert close(*(torch.cat([g.flatten() for g in x.values()]) for x in (grads_fast, grads)))
        one.optimizer.step()
    assert (
        recorder.recorded == 3
    )  # a training step's two and the answer: all kinds of step are one kind
    assert close(fast.predict(z, t, Condition(tokens)).value, before)


def test_settings_that_do_not_go_together() -> None:
    assert acceleration_of("auto", CPU) == PLAIN
    assert acceleration_of("auto", torch.device("cuda"), low_vram=True) == PLAIN
    assert acceleration_of("auto", torch.device("cuda")).graphs
    assert not acceleration_of("inductor", CPU).graphs
    with pytest.raises(ConfigError, match=r"prior\.compile is 'graphs', but cpu"):
        acceleration_of("graphs", CPU)
    with pytest.raises(ConfigError, match="low_vram"):
        acceleration_of("inductor", torch.device("cuda"), low_vram=True)


@pytest.mark.slow
def test_a_compiled_encoder_answers_as_the_plain_one() -> None:
    """Recorded over torch.compile, gradient included; the smallest encoder, since a CPU compiles slowly."""
    torch.manual_seed(0)
    plain, compiled = nn.Module(), nn.Module()
    plain.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU())
    compiled.encoder = copy.deepcopy(plain.encoder)
    recorder = Rerun()
    accelerator = Accelerator(Acceleration(graphs=True, codec="inductor"), CPU, recorder)
    accelerator.codec(compiled)
    encode = accelerator.call("codec", lambda x: 2.0 * compiled.encoder(x))
    slope = torch.randn(1, 8, 8, 8)
    for turn in range(3):
        x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(turn))
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        ours, theirs = encode(x=a), 2.0 * plain.encoder(b)
        ours.backward(slope)
        theirs.backward(slope)
        assert a.grad is not None and b.grad is not None
        assert close(ours.detach(), theirs.detach()) and close(a.grad, b.grad)
    assert recorder.recorded == 2 and not accelerator.refusals


@pytest.mark.gpu
def test_graphs_on_a_gpu_answer_as_the_plain_networks() -> None:
    gpu = torch.device("cuda")
    how = Acceleration(graphs=True, channels_last=True)
    plain, fast = (random_prior(SMALL, gpu, torch.float32, x) for x in (PLAIN, how))
    tokens = plain.embed(["a red mug"]).expand(2, -1, -1)
    fast.embed(["a red mug"])
    for turn in range(4):
        torch.manual_seed(turn)
        z, t = torch.randn(2, 4, 8, 8, device=gpu), torch.rand(2, device=gpu)
        images, slope = torch.rand(2, 64, 64, 3, device=gpu), torch.randn(2, 4, 8, 8, device=gpu)
        found = []
        for prior in (fast, plain):
            x = images.clone().requires_grad_()
            encoded = prior.encode(x)
            encoded.backward(slope)
            assert x.grad is not None
            found.append((prior.predict(z, t, Condition(tokens)).value, encoded.detach(), x.grad))
        for ours, theirs in zip(*found, strict=True):
            assert (ours - theirs).norm() <= 5e-3 * theirs.norm()  # convolutions may use TF32
    assert not fast.accelerator.refusals


@pytest.mark.gpu
@pytest.mark.parametrize("rule", ["sds", "vsd"])
def test_a_step_waits_for_the_gpu_only_where_it_reads_its_numbers(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = torch.device("cuda")
    prior = random_prior(SMALL, gpu, torch.float32, Acceleration(graphs=True, channels_last=True))
    stage = Stage(GUIDANCE[rule](), CanvasConfig(size=64), steps=8, views=2, render_size=64)
    stage = replace(stage, conditioning="text")
    generator = torch.Generator().manual_seed(0)
    assert stage.scene is not None
    scene = stage.scene.create(generator, gpu)
    state = TrainState(0, make_optimizer(scene, (0.9, 0.99)), generator, 0)
    state.companion = make_companion(stage, prior, 0)
    plain = train.read_out

    def read_out(*arguments: Any) -> Any:
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        try:
            return plain(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode(mode)

    def on_step(report: StepReport) -> None:
        torch.cuda.set_sync_debug_mode("error" if 3 <= report.step < report.steps else "default")

    monkeypatch.setattr(train, "read_out", read_out)
    try:
        train_stage(stage, scene, prior, Prompts(prior, "a red mug"), state, on_step, Phases())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert state.step == 8 and not prior.accelerator.refusals
