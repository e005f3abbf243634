"""Zero123's adapter on tiny random weights; the real ones were never tried."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_pipelines import HIDDEN, save_tiny, unet

from dream3d.cameras import orbit_cameras
from dream3d.compatibility import check_run
from dream3d.config import load_config
from dream3d.diffusion import add_noise
from dream3d.errors import ConfigError, ModelError, PromptError
from dream3d.picture_file import write_picture
from dream3d.priors.base import Condition
from dream3d.priors.gaussian import GaussianConfig
from dream3d.priors.pipelines import zero123
from dream3d.priors.pipelines.opening import from_main_memory
from dream3d.priors.pipelines.pictures import CLIP_MEAN, CLIP_STD
from dream3d.priors.pipelines.zero123 import (
    Zero123Prior,
    open_zero123,
    relative_pose,
)
from dream3d.prompts import Prompts
from dream3d.rendering import RenderOutput
from dream3d.run import run_system
from dream3d.schedules import constant
from guidance.base import Views
from guidance.sds import SDS
from systems.reference import ReferenceSettings

CPU = torch.device("cpu")
EMBEDDING = 24
FRONT = orbit_cameras([0.0], 10.0, 3.8, 20.0, size=16)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny directory in the layout of the public conversions."""
    directory = tmp_path_factory.mktemp("zero123")
    save_tiny("StableDiffusionPipeline", directory)
    torch.manual_seed(5)
    unet(in_channels=8).save_pretrained(directory / "unet")
    vision = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
        projection_dim=EMBEDDING,
    )
    transformers.CLIPVisionModelWithProjection(vision).save_pretrained(directory / "image_encoder")
    linear = torch.nn.Linear(EMBEDDING + 4, HIDDEN)
    (directory / "clip_camera_projection").mkdir()
    named = {f"proj.{key}": value.detach() for key, value in linear.named_parameters()}
    save_file(named, directory / "clip_camera_projection" / "diffusion_pytorch_model.safetensors")
    index = json.loads((directory / "model_index.json").read_text())
    index |= {
        "_class_name": "Zero123Pipeline",
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "clip_camera_projection": ["clip_camera_projection", "CLIPCameraProjection"],
    }
    (directory / "model_index.json").write_text(json.dumps(index))
    return directory


def small_picture() -> RenderOutput:
    """A picture of a coloured box, cut out, for priors that are shown one."""
    alpha = torch.zeros(1, 16, 16, 1)
    alpha[:, 4:12, 5:11] = 1.0
    rgb = alpha * torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    return RenderOutput(rgb, alpha, torch.zeros_like(alpha))


@pytest.fixture(scope="module")
def picture() -> RenderOutput:
    return small_picture()


@pytest.fixture(scope="module")
def prior(saved: Path, picture: RenderOutput) -> Zero123Prior:
    return open_zero123(saved, CPU).seeing(picture, FRONT)


# The camera's place.


def test_at_the_picture_nothing_differs() -> None:
    assert torch.allclose(relative_pose(FRONT, FRONT), torch.tensor([[0.0, 0.0, 1.0, 0.0]]))
    stable = relative_pose(FRONT, FRONT, stable=True)
    expected = torch.tensor([[0.0, 0.0, 1.0, math.radians(80.0)]])
    assert torch.allclose(stable, expected, atol=1e-6)


@pytest.mark.parametrize("start", [0.0, 40.0, 300.0])
def test_right_is_right_and_up_is_less_polar(start: float) -> None:
    """A camera that goes 90 degrees to its right has gone +pi/2 by Zero123's sign; 30 degrees left is negative."""
    reference = orbit_cameras([start], 10.0)
    # Its own right-hand axis points to where it goes.
    moved = orbit_cameras([start + 90.0, start - 30.0], [10.0, 40.0], [3.2, 4.0])
    right = reference.c2w[0, :3, 0]
    assert moved.position[0] @ right > 0.0 > moved.position[1] @ right
    polar, sine, cosine, distance = relative_pose(moved, reference).unbind(-1)
    azimuth = torch.atan2(sine, cosine)
    expected = torch.tensor([math.pi / 2, math.radians(-30.0)])
    assert torch.allclose(azimuth, expected, atol=1e-5)
    assert torch.allclose(polar, torch.tensor([0.0, math.radians(-30.0)]), atol=1e-5)
    assert torch.allclose(distance, torch.tensor([0.0, 0.8]), atol=1e-5)


def test_straight_overhead_is_defined() -> None:
    above = orbit_cameras([90.0], 90.0)
    pose = relative_pose(above, orbit_cameras([0.0], 0.0))
    expected = torch.tensor([[-math.pi / 2, 1.0, 0.0, 0.0]])
    assert torch.allclose(pose, expected, atol=1e-3)


# The network.


def by_hand(
    saved: Path, picture: RenderOutput, z: torch.Tensor, t: torch.Tensor, last: Callable
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise under the picture and without it, from the parts alone; `last` gives the camera's fourth number."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    network = UNet2DConditionModel.from_pretrained(saved / "unet")
    vae = AutoencoderKL.from_pretrained(saved / "vae")
    encoder = transformers.CLIPVisionModelWithProjection.from_pretrained(saved / "image_encoder")
    weights = load_file(saved / "clip_camera_projection" / "diffusion_pytorch_model.safetensors")
    white = (picture.rgb + 1.0 - picture.alpha).permute(0, 3, 1, 2)
    small = torch.nn.functional.interpolate(white, (8, 8), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (CLIP_MEAN, CLIP_STD))
    with torch.no_grad():
        clip = encoder((small.clamp(0, 1) - mean) / std).image_embeds
        latent = vae.encode(2.0 * white - 1.0).latent_dist.mode()  # not scaled
        elevation, azimuth = torch.tensor([10.0, 30.0]), torch.tensor([90.0, 200.0])
        pose = torch.stack(
            [
                torch.deg2rad(10.0 - elevation),
                torch.deg2rad(azimuth).sin(),
                torch.deg2rad(azimuth).cos(),
                last(torch.tensor([3.8, 3.8])),
            ],
            dim=-1,
        )
        token = (
            torch.cat([clip.expand(2, -1), pose], dim=-1) @ weights["proj.weight"].T
            + weights["proj.bias"]
        )
        index = (t * 999).round().long()
        told = network(
            torch.cat([z, latent.expand(2, -1, -1, -1)], 1), index, token[:, None]
        ).sample
        zeros = torch.zeros_like(z), torch.zeros_like(token)[:, None]
        free = network(torch.cat([z, zeros[0]], 1), index, zeros[1]).sample
    return told, free


@pytest.mark.parametrize("stable", [False, True])
def test_predictions_and_guidance_are_those_by_hand(
    stable: bool, saved: Path, picture: RenderOutput
) -> None:
    """With and without the picture, and SDS from both: weight sigma^2, guidance 3."""
    prior = open_zero123(saved, CPU, stable=stable).seeing(picture, FRONT)
    cameras = orbit_cameras([90.0, 200.0], [10.0, 30.0], 3.8, 20.0)
    z, noise = torch.randn(2, 2, *prior.latent_shape, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0.3, 0.8])
    z_t = add_noise(prior.schedule, z, noise, t)
    told, free = by_hand(
        saved,
        picture,
        z_t,
        t,
        lambda d: torch.full_like(d, math.radians(80.0)) if stable else d - 3.8,
    )
    condition, empty, _ = Prompts(prior, "x").conditions(cameras, "camera", words=True)
    assert torch.allclose(prior.predict(z_t, t, condition).eps, told, atol=1e-5)
    assert torch.allclose(prior.predict(z_t, t, empty).eps, free, atol=1e-5)
    assert not torch.allclose(told, free, atol=1e-3)
    grad = SDS(cfg_scale=constant(3.0), weight="sigma2")(
        prior, Views(z, t, noise, condition, empty)
    ).grad
    sigma2 = prior.schedule.sigma(t).square().reshape(-1, 1, 1, 1)
    assert torch.allclose(grad, sigma2 * (free + 3.0 * (told - free) - noise), atol=1e-4)


def test_the_latent_has_the_codecs_channels(prior: Zero123Prior) -> None:
    assert prior.latent_shape == (4, 8, 8)
    assert prior.encode(torch.rand(1, 16, 16, 3)).shape == (1, 4, 8, 8)


def test_without_picture_or_cameras_it_says_so(saved: Path, prior: Zero123Prior) -> None:
    with pytest.raises(ValueError, match="--image"):
        open_zero123(saved, CPU).embed(["x"])
    with pytest.raises(ValueError, match="conditioning=camera"):
        prior.predict(torch.zeros(1, 4, 8, 8), torch.tensor([0.5]), Condition(prior.embed(["x"])))


def test_runs_that_do_not_fit_are_refused(prior: Zero123Prior) -> None:
    config = load_config("zero123", prompt="")
    with pytest.raises(ConfigError, match="--image FILE"):
        check_run(config, prior)
    config = replace(config, reference=ReferenceSettings("a.png"))
    check_run(config, prior)  # an empty prompt is fine
    with pytest.raises(ConfigError, match="takes no words"):
        check_run(replace(config, negative_prompt="blurry"), prior)
    text = replace(config, stages=[replace(config.stages[0], conditioning="text")])
    with pytest.raises(ConfigError, match="conditioning=camera"):
        check_run(text, prior)
    wordy = replace(config, prior=GaussianConfig())
    with pytest.raises(PromptError, match="the prompt is empty"):
        check_run(wordy, GaussianConfig().load(CPU))


def test_what_does_not_fit_is_named(saved: Path, tmp_path: Path) -> None:
    file = saved / "clip_camera_projection" / "diffusion_pytorch_model.safetensors"
    whole = load_file(file)
    try:
        save_file(
            {
                "proj.weight": whole["proj.weight"][:, :-1].contiguous(),
                "proj.bias": whole["proj.bias"],
            },
            file,
        )
        with pytest.raises(ModelError, match=r"expected one weight \[32, 28\]"):
            open_zero123(saved, CPU)
    finally:
        save_file(whole, file)
    save_tiny("StableDiffusionPipeline", tmp_path)
    with pytest.raises(ModelError, match="takes 4 channels"):
        open_zero123(tmp_path, CPU)


def test_a_run_from_a_picture_without_words(saved: Path, tmp_path: Path) -> None:
    """The published system, tiny, from file to scene."""
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[8:24, 8:24] = (200, 30, 30, 255)
    write_picture(tmp_path / "a.png", pixels)
    settings = {
        "prior.model": str(saved),
        "reference.image": str(tmp_path / "a.png"),
        "scene": {"name": "splats", "count": 60, "max_count": 60},
        "steps": 2,
        "views": 2,
        "render_size": 16,
    }
    made = run_system(load_config("zero123", settings, prompt=""), tmp_path)
    assert made.status == "finished"
    assert all(bool(torch.isfinite(p).all()) for p in made.scene.parameters().values())


def test_sparing_memory_changes_no_answer(
    saved: Path, picture: RenderOutput, prior: Zero123Prior
) -> None:
    """`low_vram`, its layers' visits too, here with the CPU on both ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zero123, "placement", lambda *_: partial(from_main_memory, device=CPU))
        spared = open_zero123(saved, CPU, low_vram=True).seeing(picture, FRONT)
    assert spared.chunk == 2 and spared.parts.vae.use_slicing and spared.parts.vae.use_tiling
    cameras = orbit_cameras([0.0, 50.0, 90.0], 10.0, 3.8, 20.0, size=16)
    z, t = torch.randn(3, *prior.latent_shape), torch.tensor([0.3, 0.6, 0.9])
    told = Condition(prior.embed(["x"] * 3), cameras)
    torch.testing.assert_close(spared.predict(z, t, told).value, prior.predict(z, t, told).value)
    spared.ask_at_once(1)
    torch.testing.assert_close(spared.predict(z, t, told).value, prior.predict(z, t, told).value)
    spared.ask_at_once(0)
    assert spared.chunk == 2
