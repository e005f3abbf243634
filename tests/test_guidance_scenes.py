"""Any guidance on any scene: it runs in the loop and brings the renders nearer to what the prompt stands for.

Runs over both registries: a rule or a representation is covered by being registered (`SceneConfig.tiny` says how the
latter is built small).
"""

from dataclasses import replace

import pytest
import torch

from dream3d.background_samplers import SolidBackground
from dream3d.camera_samplers import RingCameras
from dream3d.noise_sources import FixedNoise, SurfaceNoise
from dream3d.phases import Phases
from dream3d.priors.gaussian import ClosedFormPrior
from dream3d.prompts import Prompts
from dream3d.run import make_companion
from dream3d.scenes.base import SCENES, Scene
from dream3d.time_samplers import AnnealedTime
from dream3d.train import TrainState, make_optimizer, train_stage
from guidance import GUIDANCE
from systems.base import Stage

STEPS, SIZE = 20, 16


class Bold(ClosedFormPrior):
    """Pictures so far from grey that twenty steps cannot overshoot them."""

    def means(self, prompt: str) -> torch.Tensor:
        return (4.0 * super().means(prompt)).clamp(-0.9, 0.9)


def stage_for(guidance: str, scene: str) -> Stage:
    rule = GUIDANCE[guidance]()
    return Stage(
        rule,
        SCENES[scene].tiny(),
        time=AnnealedTime(0.9, 0.3, "linear"),
        noise=FixedNoise() if rule.needs_falling_time else Stage(GUIDANCE["sds"]()).noise,
        cameras=RingCameras(),
        background=SolidBackground(),
        steps=STEPS,
        views=2,
        render_size=SIZE,
        conditioning="text",
    )


def residual(stage: Stage, scene: Scene, prior: ClosedFormPrior, along: bool) -> float:
    """Mean squared distance of the renders to the prompt's picture, in latent units.

    `along`: only the part of the way along the picture counts. Rules without an anchor (differences of two prompts, and
    those whose companion has learnt nothing yet) push for ever, and beside the picture too.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        output = scene.render(stage.cameras(stage.views, SIZE, 0.0, generator))
        images = output.over(stage.background(stage.views, SIZE, 0.0, generator))
        z, mean = prior.encode(images), prior.means("a mug")
        if not along and type(stage.guidance).anchored:
            return (z - mean).square().mean().item()
        return (1.0 - (z * mean).mean() / mean.square().mean()).square().item()


def before_and_after(stage: Stage, along: bool = False) -> tuple[float, float]:
    prior, generator = Bold(8), torch.Generator().manual_seed(0)
    assert stage.scene is not None
    scene = stage.scene.create(generator, torch.device("cpu"))
    state = TrainState(
        0, make_optimizer(scene, stage.betas), generator, 0, make_companion(stage, prior, 0)
    )
    before = residual(stage, scene, prior, along)
    reports = []
    train_stage(stage, scene, prior, Prompts(prior, "a mug"), state, reports.append, Phases())
    assert len(reports) == stage.steps and not any(report.metrics["skipped"] for report in reports)
    return before, residual(stage, scene, prior, along)


@pytest.mark.parametrize("name", GUIDANCE.names())
def test_every_guidance_lowers_the_residual_of_a_canvas(name: str) -> None:
    before, after = before_and_after(stage_for(name, "canvas"))
    assert after < 0.98 * before


@pytest.mark.parametrize("scene", SCENES.names())
def test_sds_lowers_the_residual_of_every_scene(scene: str) -> None:
    before, after = before_and_after(stage_for("sds", scene))
    assert after < before


@pytest.mark.parametrize("scene", SCENES.names())
def test_the_flow_with_noise_on_the_surface_runs_on_every_scene(scene: str) -> None:
    stage = replace(stage_for("cfd", scene), noise=SurfaceNoise(samples=4))
    before, after = before_and_after(stage)
    assert after < before


@pytest.mark.slow
@pytest.mark.parametrize("scene", [name for name in SCENES.names() if name != "canvas"])
@pytest.mark.parametrize("name", GUIDANCE.names())
def test_every_guidance_lowers_the_residual_of_every_scene(name: str, scene: str) -> None:
    before, after = before_and_after(stage_for(name, scene), along=True)
    assert after < before
