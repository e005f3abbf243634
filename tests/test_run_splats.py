"""The default scene through the whole loop: repeatable and resumable around density control."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dream3d.background_samplers import SolidBackground
from dream3d.cameras import orbit_cameras
from dream3d.priors.gaussian import GaussianConfig
from dream3d.run import run_system
from dream3d.scenes.splats import SplatsConfig
from dream3d.schedules import constant
from dream3d.train import StepReport
from guidance.sds import SDS
from systems.base import RunConfig, Stage

EVERY = 4


def config(density: str, steps: int = 14, **changes: object) -> RunConfig:
    scene = SplatsConfig(
        count=60,
        max_count=90,
        density=density,  # type: ignore[arg-type]
        density_every=EVERY,
        density_from=0.0,
        density_to=1.0,
        growth=0.1,
        split_gradient=1e-7,
        opacity_reset_every=6,
        **changes,  # type: ignore[arg-type]
    )
    stage = Stage(
        SDS(constant(1.5)), scene, steps=steps, views=2, render_size=16, checkpoint_every=0
    )
    return RunConfig("a red mug", GaussianConfig(16), [stage], seed=1)


@pytest.mark.parametrize("density", ["relocate", "adaptive"])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, density: str) -> None:
    reports: list[tuple[int, float]] = []

    def note(report: StepReport) -> None:
        reports.append((len(report.scene.parameters()["means"]), report.loss))

    whole = run_system(config(density), tmp_path / "whole", note)
    counts = {count for count, _ in reports}
    assert len(counts) > 1  # density control did act
    for cut in (EVERY - 1, EVERY, EVERY + 1, 13):
        steps = iter(range(1, 100))
        folder = tmp_path / str(cut)
        run_system(config(density), folder, should_stop=lambda s=steps, c=cut: next(s) == c)
        expected, mark = reports[cut:], len(reports)
        rest = run_system(config(density), folder, note, resume=True)
        assert reports[mark:] == expected
        del reports[mark:]
        for name, value in whole.scene.state().items():
            assert torch.equal(value, rest.scene.state()[name]), name


def test_splats_become_the_closed_form_priors_picture(tmp_path: Path) -> None:
    """Against grey, where the prior's picture lies too, the splats take its colours from every side."""
    plain = config("none", steps=120)
    grey = SolidBackground((0.5, 0.5, 0.5))
    stage = replace(plain.stages[0], background=grey, guidance=SDS(constant(1.0)))
    run = run_system(replace(plain, stages=[stage]), tmp_path)
    prior = plain.prior.load(torch.device("cpu"))
    truth = prior.decode(prior.embed(["a red mug"]).unflatten(2, prior.latent_shape)[:, 0])
    with torch.no_grad():
        output = run.scene.render(orbit_cameras([0.0, 120.0, 240.0], 20.0, size=16))
        error = (output.over(torch.full((1, 1, 1, 3), 0.5)) - truth).abs().mean()
    assert error < 0.6 * (truth - 0.5).abs().mean()
