"""Scenes of latents: optimised without the encoder, seen in colours, refused where channels differ."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_prior import TINY, tiny_components

from dream3d.compatibility import check_run
from dream3d.errors import ConfigError
from dream3d.export.pictures import render_views
from dream3d.latent_scenes import fit_latent_colors, latents_of, with_latent_colors
from dream3d.priors.gaussian import GaussianConfig
from dream3d.priors.latent.embedded_prior import EmbeddedPrior
from dream3d.run import run_system
from dream3d.scenes.nerf import NerfConfig
from dream3d.scenes.neus import NeusConfig
from dream3d.train import StepReport
from guidance.sds import SDS
from systems.base import RunConfig, Stage
from systems.reference import ReferenceSettings

CPU = torch.device("cpu")
CHANNELS = TINY.latent_channels
SIDE = TINY.image_size // 4


@pytest.fixture
def prior() -> EmbeddedPrior:
    return EmbeddedPrior(tiny_components(), CPU)


def config(scene: NerfConfig, steps: int = 6) -> RunConfig:
    stage = Stage(
        SDS(), scene, steps=steps, views=2, render_size=SIDE, conditioning="text", checkpoint_every=0
    )  # fmt: skip
    return RunConfig("a red mug", GaussianConfig(16), [stage], seed=1)


def latent(kind: type[NerfConfig] = NerfConfig, channels: int = CHANNELS) -> NerfConfig:
    return replace(kind.tiny(), latent=channels)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [NerfConfig, NeusConfig])
def test_steps_move_the_scene_and_never_ask_the_encoder(
    kind: type[NerfConfig], prior: EmbeddedPrior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []
    encode = prior.encode
    monkeypatch.setattr(
        prior, "encode", lambda images: (asked.append(images.shape), encode(images))[1]
    )
    reports: list[StepReport] = []
    start = latent(kind).create(torch.Generator().manual_seed(1), CPU).state()
    run = run_system(config(latent(kind)), tmp_path, reports.append, prior=prior)
    assert len(asked) == 1  # to learn how latents are seen, before the first step
    for name, parameter in run.scene.parameters().items():
        assert not torch.equal(parameter, start[name]), name
    assert {report.images.shape[-1] for report in reports} == {3}
    assert all(report.images.min() >= 0 and report.images.max() <= 1 for report in reports)


def test_a_resumed_run_equals_an_unbroken_one(prior: EmbeddedPrior, tmp_path: Path) -> None:
    losses: list[float] = []
    whole = run_system(
        config(latent(), 9), tmp_path / "whole", lambda r: losses.append(r.loss), prior=prior
    )
    steps = iter(range(1, 100))
    run_system(
        config(latent(), 9), tmp_path / "cut", should_stop=lambda: next(steps) == 4, prior=prior
    )
    after: list[float] = []
    rest = run_system(
        config(latent(), 9), tmp_path / "cut", lambda r: after.append(r.loss), True, prior=prior
    )
    assert after == losses[4:]
    for name, value in whole.scene.state().items():
        assert torch.equal(value, rest.scene.state()[name]), name


def test_colours_of_latents_are_those_of_the_picture(prior: EmbeddedPrior) -> None:
    colors = fit_latent_colors(prior)
    wanted = torch.rand(5, 3, generator=torch.Generator().manual_seed(3))
    z = prior.encode(wanted[:, None, None].expand(-1, TINY.image_size, TINY.image_size, 3))
    assert (colors.rgb(z.mean(dim=(2, 3))) - wanted).abs().mean() < 0.05
    there_and_back = colors.rgb(colors.latents(wanted))
    assert (there_and_back - wanted).abs().max() < 0.05


@pytest.mark.slow
def test_a_scene_of_latents_is_looked_at_in_colours(prior: EmbeddedPrior) -> None:
    scene = with_latent_colors(latent().create(torch.Generator().manual_seed(0), CPU), prior)
    assert render_views(scene, [0.0], 16).shape == (1, 16, 16, 3)
    assert render_views(scene, [0.0], 16, "normal").shape == (1, 16, 16, 3)
    mesh = scene.to_mesh(24)
    assert mesh.colors.shape[1] == 3 and np.ptp(mesh.colors) >= 0 and mesh.colors.max() <= 1


def test_latents_keep_channels_and_take_the_priors_size(prior: EmbeddedPrior) -> None:
    images = torch.rand(2, SIDE, SIDE, CHANNELS, requires_grad=True)
    assert torch.equal(latents_of(images, prior), images.permute(0, 3, 1, 2))
    larger = latents_of(torch.ones(2, 3 * SIDE, 3 * SIDE, CHANNELS), prior)
    assert larger.shape == (2, *prior.latent_shape) and (larger - 1).abs().max() < 1e-6


def test_what_cannot_be_is_refused_before_a_step(prior: EmbeddedPrior) -> None:
    with pytest.raises(ConfigError, match=rf"latent is 4.*{CHANNELS} channels.*latent={CHANNELS}"):
        check_run(config(latent(channels=4)), prior)
    pixels = GaussianConfig(16).load(CPU)
    with pytest.raises(ConfigError, match=r"3 channels, which are pixels.*latent=0"):
        check_run(config(latent(channels=3)), pixels)
    with pytest.raises(ConfigError, match="reference picture"):
        check_run(replace(config(latent()), reference=ReferenceSettings(image="x.png")), prior)
    with pytest.raises(ConfigError, match=r"light and a learned background"):
        replace(latent(), background="learned")
