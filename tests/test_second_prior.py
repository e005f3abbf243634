"""Two priors in one step: their gradients meet at the render, each with its weight."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_run import Stopper, same
from test_zero123 import saved as saved_zero123  # noqa: F401
from tiny_pipelines import save_tiny

from dream3d.background_samplers import SolidBackground
from dream3d.camera_samplers import RingCameras
from dream3d.compatibility import check_second
from dream3d.config import config_to_yaml, load_config, load_config_text
from dream3d.diffusion import per_sample
from dream3d.errors import ConfigError
from dream3d.export.run import about_run
from dream3d.generation import generate_run
from dream3d.memory import Reductions, next_reductions, sparing
from dream3d.phases import Phases
from dream3d.picture_file import write_picture
from dream3d.priors.base import Condition, Prior
from dream3d.priors.gaussian import ClosedFormPrior, GaussianConfig
from dream3d.priors.pipelines.prior import PipelinePrior
from dream3d.priors.pipelines.zero123 import Zero123Prior
from dream3d.prompts import Prompts
from dream3d.run import run_system
from dream3d.scenes.canvas import CanvasConfig
from dream3d.schedules import constant
from dream3d.time_samplers import AnnealedTime
from dream3d.train import Second, StepReport, TrainState, make_optimizer, train_stage
from guidance.base import Guidance, GuidanceOutput, Views
from guidance.sds import SDS
from systems.base import RunConfig, Stage, fingerprint
from systems.second import SecondPrior

SIZE = 8


@dataclass(frozen=True)
class Pull(Guidance):
    """Toward the prior's picture, without noise: (z - m) sigma^2 / (alpha^2 s^2 + sigma^2) for a Gaussian."""

    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        alpha = per_sample(prior.schedule.alpha(views.t), views.z)
        return GuidanceOutput(views.z - prior.predict(alpha * views.z, views.t, views.condition).x0)


STAGE = Stage(
    Pull(),
    CanvasConfig(SIZE, lr=constant(0.1)),
    time=AnnealedTime(0.6, 0.6, "linear"),
    cameras=RingCameras(),
    background=SolidBackground(),
    steps=100,
    views=2,
    render_size=SIZE,
    conditioning="text",
)


class Opposite(ClosedFormPrior):
    """Every prompt stands for the negative of its picture."""

    def means(self, prompt: str) -> torch.Tensor:
        return -super().means(prompt)


class Silent(ClosedFormPrior):
    """One that must not be asked."""

    def predict(self, z_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> Any:
        raise AssertionError("asked")


def trained(prior: Prior, weight: float, stage: Stage = STAGE) -> tuple[torch.Tensor, StepReport]:
    """The picture a canvas ends with under two priors, in latents, and the last report."""
    generator = torch.Generator().manual_seed(0)
    first = ClosedFormPrior(SIZE)
    assert stage.scene is not None
    scene = stage.scene.create(generator, torch.device("cpu"))
    state = TrainState(0, make_optimizer(scene, stage.betas), generator, 0)
    settings = SecondPrior(GaussianConfig(SIZE), stage.guidance, constant(weight), "text")
    state.second = Second(settings, prior, Prompts(prior, "a mug"))
    reports: list[StepReport] = []
    train_stage(stage, scene, first, Prompts(first, "a mug"), state, reports.append, Phases())
    return first.encode(reports[-1].images)[0], reports[-1]


@pytest.mark.parametrize("weight", [0.5, 3.0])
def test_two_gaussians_of_one_spread_meet_at_their_weighted_mean(weight: float) -> None:
    z, report = trained(Opposite(SIZE), weight)
    mean = ClosedFormPrior(SIZE).means("a mug")[0]
    torch.testing.assert_close(z, (1 - weight) / (1 + weight) * mean, atol=0.02, rtol=0.0)
    assert report.metrics["second"] > 0.0


def test_the_same_prior_twice_goes_where_it_goes_once() -> None:
    z, _ = trained(ClosedFormPrior(SIZE), 1.0)
    torch.testing.assert_close(z, ClosedFormPrior(SIZE).means("a mug")[0], atol=0.02, rtol=0.0)


def test_latents_of_another_size_count_by_their_mean() -> None:
    """Gradients are per latent entry, so a finer second one does not shout the first down."""
    coarse, _ = trained(Opposite(SIZE // 2), 1.0)
    # On the parts that the coarse grid sees, both pull alike: to the middle of the two.
    mean = torch.nn.functional.avg_pool2d(coarse[None], 2)
    assert mean.abs().max() < 0.25 * ClosedFormPrior(SIZE).means("a mug").abs().max()


def test_without_weight_it_is_not_asked_and_draws_nothing() -> None:
    stage = replace(STAGE, guidance=SDS(constant(1.0)), steps=3)
    z, report = trained(Silent(SIZE), 0.0, stage)
    assert "second" not in report.metrics
    generator = torch.Generator().manual_seed(0)
    prior = ClosedFormPrior(SIZE)
    assert stage.scene is not None
    scene = stage.scene.create(generator, torch.device("cpu"))
    state = TrainState(0, make_optimizer(scene, stage.betas), generator, 0)
    reports: list[StepReport] = []
    train_stage(stage, scene, prior, Prompts(prior, "a mug"), state, reports.append, Phases())
    assert torch.equal(z, prior.encode(reports[-1].images)[0])


SETTINGS: dict[str, Any] = {
    "prior": {"name": "gaussian", "size": SIZE},
    "guidance": {"name": "sds", "cfg_scale": 3},
    "weight": {"initial": 2, "final": 0.5},
    "conditioning": "text",
}


def two(**second: Any) -> RunConfig:
    """The default with a second prior."""
    given = {
        "prior": "gaussian",
        "scene": {"name": "canvas"},
        "conditioning": "camera",
        "steps": 6,
        "views": 2,
        "render_size": SIZE,
        "second": {**SETTINGS, **second},
    }
    return load_config("default", given, prompt="a mug")


def test_a_run_of_two_goes_on_bit_for_bit(tmp_path: Path) -> None:
    config = two()
    whole = run_system(config, tmp_path / "whole")
    run_system(config, tmp_path / "parts", should_stop=Stopper(3))
    again = run_system(config, tmp_path / "parts", resume=True)
    assert again.resumed_from == 3 and same(whole, again)
    assert not same(whole, run_system(replace(config, second=None), tmp_path / "one"))


def test_it_is_written_out_and_read_back_and_tells_runs_apart() -> None:
    config = two()
    assert config.second is not None and config.second.weight.initial == 2.0
    assert load_config_text(config_to_yaml(config)) == config
    one = replace(config, second=None)
    assert "second" not in config_to_yaml(one)
    assert fingerprint(one) != fingerprint(config) != fingerprint(two(weight=1))
    short = load_config("magic123", {"second.prior": "gaussian", "second.weight": 3}, prompt="x")
    assert short.second is not None and short.second.weight == constant(3.0)
    assert isinstance(short.second.prior, GaussianConfig)


def test_an_asset_tells_both_models_and_licences() -> None:
    about = about_run(load_config("magic123", {"second.prior": "stable-zero123"}, prompt="x"))
    assert about.prior == "stable-diffusion; stable-zero123"
    assert about.license is not None and "Non-Commercial" in about.license


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"guidance": "vsd"}, "only a run's first prior has one"),
        ({"guidance": "cfd"}, "its time must fall"),
        ({"guidance": None}, "second.guidance is missing"),
        ({"prior": None}, "second.prior is missing"),
        ({"prior": "zero124"}, "second.prior.name: .*zero123"),
        ({"weight": -1}, "second: weight is -1"),
        ({"conditioning": "multiview"}, "second.conditioning"),
        ({"wait": 1}, "second.wait is not a setting of a second prior"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(
            "default",
            {"prior": "gaussian", "time": "uniform", "second": {**SETTINGS, **changes}},
            prompt="a mug",
        )


def test_a_prior_that_needs_a_picture_or_a_scene_of_latents_is_refused(
    saved_zero123: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    config = two(prior={"name": "zero123", "model": str(saved_zero123)}, conditioning="camera")
    with pytest.raises(ConfigError, match=r"second: prior 'zero123' .*--image FILE"):
        generate_run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    latent = {"scene": {"name": "nerf", "latent": 24}, "second": SETTINGS}
    with pytest.raises(ConfigError, match="a scene of latents belongs to one prior"):
        check_second(load_config("default", latent, prompt="x"), ClosedFormPrior(SIZE))


def test_sparing_memory_is_for_both_priors() -> None:
    both = sparing(load_config("magic123", (), prompt="x"))
    assert both.second is not None
    assert both.prior.low_vram and both.second.prior.low_vram  # type: ignore[attr-defined]
    assert load_config_text(config_to_yaml(both)) == both
    one = sparing(load_config("magic123", {"second.prior": "gaussian"}, prompt="x"))
    assert one.prior.low_vram and isinstance(one.second and one.second.prior, GaussianConfig)  # type: ignore[attr-defined]
    other = sparing(two(prior={"name": "zero123"}))
    assert other.second is not None and other.second.prior.low_vram  # type: ignore[attr-defined]
    with pytest.raises(
        ConfigError, match=r"prior 'gaussian' and second.prior 'gaussian' has nothing"
    ):
        sparing(two())


def test_short_of_memory_both_priors_are_asked_about_less_at_once(tmp_path: Path) -> None:
    config = load_config("magic123", {"views": 4, "scene": {"name": "canvas"}}, prompt="x")
    reductions, told = Reductions(tmp_path), []
    for _ in range(4):
        told.append("; ".join(map(str, reductions.step_down(config, MemoryError("short")))))
    assert told[0] == "prior.chunk from 8 to 4; second.prior.chunk from 8 to 4"
    assert told[2] == "prior.chunk from 2 to 1; second.prior.chunk from 2 to 1"
    assert told[3] == "stage 0: views from 4 to 2"
    # A resumed run reads them, and opens its priors so.
    lowered = Reductions(tmp_path).apply(config)
    assert lowered.second is not None
    assert lowered.prior.chunk == lowered.second.prior.chunk == 1  # type: ignore[attr-defined]
    assert lowered.stages[0].views == 2
    spared = next_reductions(sparing(config))
    assert [(r.before, r.after) for r in spared] == [(2, 1), (2, 1)]
    joint = {"prior": "mvdream", "conditioning": "multiview", "views": 4}
    views = next_reductions(load_config("default", joint, prompt="x"))
    assert [(r.setting, r.before, r.after) for r in views] == [("prior.chunk", 8, 4)]


def tiny_system(words: Path, zero123: Path, directory: Path, views: int) -> RunConfig:
    """magic123 on tiny weights, its picture and words' weights in `directory`."""
    save_tiny("StableDiffusionPipeline", words)
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[8:24, 8:24] = (200, 30, 30, 255)
    write_picture(directory / "a.png", pixels)
    settings = {
        "prior.model": str(words),
        "second.prior.model": str(zero123),
        "reference.image": str(directory / "a.png"),
        "scene": {"name": "splats", "count": 60, "max_count": 60},
        "steps": 2,
        "views": views,
        "render_size": 16,
    }
    return load_config("magic123", settings, prompt="a red mug", negative_prompt="blurry")


@pytest.mark.slow
def test_a_run_short_of_memory_goes_on_with_both_asked_about_less(
    saved_zero123: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither the loaded networks nor their weights are read anew, and nothing but the calls' size changes."""
    config = tiny_system(tmp_path / "words", saved_zero123, tmp_path, views=2)
    whole = generate_run(config, tmp_path / "whole")
    at_once: dict[str, set[int]] = {}

    def small(cls: type) -> None:
        output = cls.output

        def fake(self: Any, z_t: torch.Tensor, *rest: Any) -> Any:
            if len(z_t) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            at_once.setdefault(cls.__name__, set()).add(len(z_t))
            return output(self, z_t, *rest)

        monkeypatch.setattr(cls, "output", fake)

    small(PipelinePrior)
    small(Zero123Prior)
    made = generate_run(config, tmp_path / "run")
    assert made.status == "done" and len(made.record["warnings"]) == 2
    assert "second.prior.chunk from 2 to 1" in made.record["warnings"][1]
    assert at_once == {"PipelinePrior": {1}, "Zero123Prior": {1}}
    # Up to rounding, which Adam's first steps make full steps of wherever a gradient is nearly 0.
    assert whole.scene is not None and made.scene is not None
    for name, value in whole.scene.parameters().items():
        assert (made.scene.parameters()[name] - value).abs().mean() < 2e-4


@pytest.mark.slow
def test_words_and_picture_by_two_pipelines(
    saved_zero123: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    """The published system, tiny: Stable Diffusion's latents beside Zero123's, from files to a run's directory."""
    config = tiny_system(tmp_path / "words", saved_zero123, tmp_path, views=2)
    reports: list[StepReport] = []
    made = generate_run(config, tmp_path / "run", reports.append)
    assert made.status == "done"
    assert made.record["second"]["model"] == str(saved_zero123)
    assert made.record["prior"]["model"] == str(tmp_path / "words")
    assert all(report.metrics["second"] > 0.0 for report in reports)
