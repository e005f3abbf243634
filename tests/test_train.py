"""The loop, on the smallest scene."""

import re
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

import guidance
from dream3d.camera_samplers import RingCameras
from dream3d.errors import NumericsError
from dream3d.phases import Phases
from dream3d.priors.base import Prior
from dream3d.priors.gaussian import ClosedFormPrior
from dream3d.prompts import Prompts
from dream3d.run import make_companion
from dream3d.scenes.canvas import Canvas, CanvasConfig
from dream3d.schedules import Ramp, constant
from dream3d.time_samplers import AnnealedTime, PairTime, UniformTime
from dream3d.train import PATIENCE, StepReport, TrainState, make_optimizer, read_out, train_stage
from guidance import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.clips import clip_pixels
from guidance.sds import SDS
from systems.base import Stage

PLAIN = Stage(SDS(constant(1.0)), CanvasConfig(8, contrast=1.0), steps=150, views=2, render_size=8)


def train(stage: Stage, prior: Prior | None = None) -> tuple[Canvas, list[StepReport], TrainState]:
    prior = prior or ClosedFormPrior(8)
    generator = torch.Generator().manual_seed(0)
    assert isinstance(stage.scene, CanvasConfig)
    scene = stage.scene.create(generator, torch.device("cpu"))
    companion = make_companion(stage, prior, 0)
    state = TrainState(0, make_optimizer(scene, stage.betas), generator, 0, companion)
    reports: list[StepReport] = []
    train_stage(stage, scene, prior, Prompts(prior, "a mug"), state, reports.append, Phases())
    return scene, reports, state


def error(images: torch.Tensor) -> float:
    prior = ClosedFormPrior(8)
    return (images - prior.decode(prior.means("a mug"))).abs().mean().item()


@pytest.mark.parametrize("conditioning", ["text", "camera", "multiview"])
def test_a_canvas_becomes_the_priors_picture(conditioning: str) -> None:
    stage = replace(PLAIN, conditioning=conditioning)
    _, reports, state = train(stage)
    assert error(reports[0].images) > 0.1
    assert error(reports[-1].images) < 0.02
    assert [r.step for r in reports] == list(range(1, 151)) and state.step == 150
    assert [r.step for r in reports if r.preview_due] == [20, 40, 60, 80, 100, 120, 140, 150]


@pytest.mark.parametrize("name", GUIDANCE.names())
def test_every_guidance_runs_in_the_loop(name: str) -> None:
    time = AnnealedTime() if GUIDANCE[name]().needs_falling_time else PLAIN.time
    _, reports, _ = train(replace(PLAIN, guidance=GUIDANCE[name](), time=time, steps=10))
    assert all(torch.isfinite(torch.tensor(list(r.metrics.values()))).all() for r in reports)
    assert not torch.equal(reports[0].images, reports[-1].images)


@dataclass(frozen=True)
class Recording(Guidance):
    """Passes on a constant gradient and remembers what it was given."""

    grad: float
    seen: list[Views]

    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        self.seen.append(views)
        return GuidanceOutput(torch.full_like(views.z, self.grad))


def test_views_that_are_denoised_jointly_share_one_time() -> None:
    for conditioning, distinct in (("multiview", 1), ("camera", 4), ("text", 4)):
        guidance = Recording(1.0, [])
        train(replace(PLAIN, guidance=guidance, steps=3, views=4, conditioning=conditioning))
        for i, views in enumerate(guidance.seen):
            assert len(views.t.unique()) == distinct
            assert views.progress == i / 3 and not views.z.requires_grad
            assert len(views.noise.flatten(1).unique(dim=0)) == 4  # independent noise either way


def test_a_rule_is_told_the_lower_level_of_a_pair_of_times() -> None:
    for time in (PairTime(), UniformTime()):
        guidance = Recording(1.0, [])
        train(replace(PLAIN, guidance=guidance, time=time, steps=3))
        assert [v.lower for v in guidance.seen] == [time.lower(i / 3) for i in range(3)]


def test_the_gradient_is_subtracted_and_divided_by_the_views() -> None:
    """One step of plain descent on one pixel, followed by hand through sigmoid and latent scaling."""
    stage = replace(PLAIN, guidance=Recording(0.5, []), steps=1, views=4)
    scene, _, _ = train(stage)
    (parameter,) = scene.parameters().values()
    start = CanvasConfig(8, contrast=1.0).create(
        torch.Generator().manual_seed(0), torch.device("cpu")
    )
    (before,) = start.parameters().values()
    image = before.detach().sigmoid()
    # dL/dz = 0.5 / 4 / entries in each of four views, z = 2 image - 1, and every view shows the same pixels.
    assert parameter.grad is not None
    torch.testing.assert_close(parameter.grad, 0.5 / 192 * 2.0 * image * (1.0 - image))
    assert (parameter < before).all()


def test_a_metric_of_several_numbers_is_named() -> None:
    with pytest.raises(ValueError, match=r"the metric 'norm' has shape \(4,\)"):
        read_out({"norm": torch.zeros(4)}, torch.optim.SGD([torch.zeros(1)]))


def test_pixel_clip_bounds_the_gradient_and_keeps_its_direction() -> None:
    grad = torch.randn(2, 5, 5, 3, generator=torch.Generator().manual_seed(0))
    clipped = clip_pixels(grad, 0.5)
    assert clipped.abs().max() <= 0.5 + 1e-6
    torch.testing.assert_close(torch.cosine_similarity(clipped, grad, dim=-1), torch.ones(2, 5, 5))
    torch.testing.assert_close(clip_pixels(0.01 * grad, 0.5), 0.01 * grad)

    for views in (1, 2, 4):
        stage = replace(PLAIN, guidance=Recording(0.5, []), steps=1, views=views)
        free, _, _ = train(stage)
        bound, _, _ = train(replace(stage, pixel_clip=0.05))
        (free_grad,) = (p.grad for p in free.parameters().values())
        (bound_grad,) = (p.grad for p in bound.parameters().values())
        assert free_grad is not None and bound_grad is not None
        # A view's own summed loss would hand every pixel 0.5 * 2.
        torch.testing.assert_close(bound_grad, free_grad * 0.05)


@dataclass(frozen=True)
class Breaking(Guidance):
    """Not finite in the steps whose number is in `bad`."""

    bad: frozenset[int]
    steps: int

    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        broken = round(views.progress * self.steps) in self.bad
        return GuidanceOutput(torch.full_like(views.z, float("nan") if broken else 0.1))


def test_a_step_that_is_not_finite_is_skipped_and_counted() -> None:
    _, reports, _ = train(replace(PLAIN, guidance=Breaking(frozenset({3, 4}), 8), steps=8))
    assert [r.metrics["skipped"] for r in reports] == [0, 0, 0, 1, 2, 0, 0, 0]
    assert torch.equal(reports[3].images, reports[5].images)
    assert torch.isfinite(reports[-1].images).all()
    assert not torch.equal(reports[5].images, reports[7].images)


def test_numbers_are_read_and_whatever_is_not_finite_is_named() -> None:
    inf, largest = float("inf"), torch.finfo(torch.float32).max
    grads = {
        "fine": [largest, -largest, largest],
        "none": [],
        "nan": [0.0, float("nan"), 1.0],
        "up": [inf, 0.0],
        "down": [-inf, 1.0],
        "both": [inf, -inf],
        "half": torch.tensor([1.0, 2.0], dtype=torch.float16),
    }
    groups = []
    for name, grad in grads.items():
        p = torch.nn.Parameter(torch.zeros_like(torch.as_tensor(grad)))
        p.grad = torch.as_tensor(grad)
        groups.append({"params": [p], "name": name})
    unused = {"params": [torch.nn.Parameter(torch.zeros(2))], "name": "unused"}
    third = torch.tensor(1.0 / 3.0, requires_grad=True)
    scalars = {
        "a": third,
        "b": 2.5,
        "c": torch.tensor(3),
        "d": torch.tensor(0.1, dtype=torch.float64),
    }
    numbers, broken = read_out(scalars, torch.optim.SGD([*groups, unused], lr=0.1))
    assert broken == ["nan", "up", "down", "both"]
    assert numbers == {"a": third.item(), "b": 2.5, "c": 3.0, "d": 0.1}


def test_too_many_of_them_end_the_run_with_advice() -> None:
    bad = frozenset(range(5, 100))
    with pytest.raises(NumericsError, match=rf"pixels was not finite {PATIENCE} steps .*time\.min"):
        train(replace(PLAIN, guidance=Breaking(bad, 100), steps=100))


def test_learning_rates_and_regularisers_come_from_the_scene() -> None:
    class Heavy(Canvas):
        def regularisation(self, output, progress):  # type: ignore[no-untyped-def]
            return {"bright": (1.0 - output.rgb).mean() * 5.0}

    class HeavyConfig(CanvasConfig):
        def create(self, generator: torch.Generator, device: torch.device) -> Canvas:
            plain = super().create(generator, device)
            return Heavy(plain.parameters()["pixels"].detach(), self.lr)

    stage = replace(
        PLAIN, scene=HeavyConfig(8, contrast=1.0, lr=Ramp(0.2, 0.0, 0.5, 0.5)), steps=60
    )
    _, reports, _ = train(replace(stage, guidance=Recording(0.0, []), cameras=RingCameras()))
    assert reports[-1].metrics["bright"] < reports[0].metrics["bright"]
    assert reports[0].loss == pytest.approx(reports[0].metrics["bright"])
    assert torch.equal(reports[35].images, reports[59].images)  # rate 0 in the second half


@pytest.mark.parametrize("name", ["sds", "cfd", "sdi", "vsd", "esd", "sum"])
def test_a_step_waits_for_the_device_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way to read a tensor is counted by the file that does so; on a GPU each would make the host wait."""
    reads: Counter[str] = Counter()

    def counted(method: str):  # type: ignore[no-untyped-def]
        original = getattr(torch.Tensor, method)

        def read(self: torch.Tensor, *args: object) -> object:
            path = Path(sys._getframe(1).f_code.co_filename)
            if "site-packages" not in path.parts:  # torch's optimiser counts its steps on the host
                reads[f"{path.parent.name}/{path.name}"] += 1
            return original(self, *args)

        monkeypatch.setattr(torch.Tensor, method, read)

    time = AnnealedTime() if GUIDANCE[name]().needs_falling_time else PLAIN.time
    stage = replace(PLAIN, guidance=GUIDANCE[name](), time=time, steps=3)
    for method in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy"):
        counted(method)
    train(stage)
    assert reads["dream3d/train.py"] == stage.steps
    # The rest reads what was drawn on the host: the cameras' angles, the levels, the chance to drop a camera.
    assert set(reads) <= {
        "dream3d/train.py",
        "dream3d/prompts.py",
        "dream3d/companion.py",
        "guidance/sdi.py",
        "priors/gaussian.py",  # when a prompt is embedded
    }
    assert reads["dream3d/companion.py"] in (0, stage.steps)


def test_no_rule_reads_a_tensor_but_the_levels_on_the_host() -> None:
    package = Path(guidance.__file__).parent
    for path in package.glob("*.py"):
        for line in path.read_text().splitlines():
            if re.search(r"\.(item|tolist|cpu|numpy)\(", line):
                assert "host_t" in line or "highest.item()" in line, f"{path.name}: {line}"
