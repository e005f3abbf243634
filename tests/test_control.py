"""ControlNet conditions: the pictures in closed form, the prior against diffusers' own pipelines, the loop."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image
from test_pipelines import guided, run, times
from tiny_pipelines import save_tiny, tiny_pipeline
from torch import Tensor

from dream3d.cameras import orbit_cameras
from dream3d.config import load_config
from dream3d.controls import control_picture, depth_picture, normal_picture
from dream3d.errors import ConfigError, ModelError
from dream3d.priors.base import Condition
from dream3d.priors.pipelines.call import from_layout, to_layout
from dream3d.priors.pipelines.codec import LatentCodec
from dream3d.priors.pipelines.control import ControlSettings, open_control
from dream3d.priors.pipelines.control_branches import ControlBranch
from dream3d.priors.pipelines.opening import Opening, open_prior
from dream3d.priors.pipelines.table import ROWS
from dream3d.priors.pretrained import DiffusersConfig
from dream3d.rendering import RenderOutput

CPU = torch.device("cpu")
CLASSES = {
    "StableDiffusionPipeline": diffusers.StableDiffusionControlNetPipeline,
    "StableDiffusionXLPipeline": diffusers.StableDiffusionXLControlNetPipeline,
    "StableDiffusion3Pipeline": diffusers.StableDiffusion3ControlNetPipeline,
    "FluxPipeline": diffusers.FluxControlNetPipeline,
}
SD, SD3, FLUX = "StableDiffusionPipeline", "StableDiffusion3Pipeline", "FluxPipeline"


def controlnet_class(name: str) -> Any:
    return getattr(diffusers, ROWS[name].control)


def tiny_controlnet(name: str, network: Any, **changes: Any) -> Any:
    """For a tiny network, with no weight that is zero."""
    cls = controlnet_class(name)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        if name in (SD3, FLUX):
            network = cls.from_config({**network.config, "num_layers": 1, **changes})
        else:
            network = cls.from_unet(network, conditioning_embedding_out_channels=(8, 8))
        for weight in network.parameters():
            if weight.abs().max() == 0.0:
                weight.data.normal_(std=0.1)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Directories of a tiny pipeline and of its ControlNet, saved once per class."""
    made: dict[str, tuple[Path, Path]] = {}

    def get(name: str) -> tuple[Path, Path]:
        if name not in made:
            place = tmp_path_factory.mktemp(name)
            pipeline = save_tiny(name, place / "model")
            network = pipeline.components.get("unet", pipeline.components.get("transformer"))
            tiny_controlnet(name, network).save_pretrained(place / "control")
            made[name] = (place / "model", place / "control")
        return made[name]

    return get


class Asked:
    """A pipeline whose call is given further arguments."""

    def __init__(self, pipeline: Any, **extra: Any) -> None:
        self.pipeline, self.extra, self.scheduler = pipeline, extra, pipeline.scheduler

    def __call__(self, **options: Any) -> Any:
        return self.pipeline(**{**options, **self.extra})


def with_picture(prior: Any, picture: Tensor) -> Any:
    """`prior` always told `picture`, for helpers that know nothing of it."""

    class Told:
        def __getattr__(self, name: str) -> Any:
            return getattr(prior, name)

        def predict(self, z: Tensor, t: Tensor, condition: Condition) -> Any:
            pictures = picture.expand(len(z), -1, -1, -1)
            return prior.predict(z, t, replace(condition, control=pictures))

    return Told()


BARE = {"force_zeros_for_pooled_projection": True}
TOLD = {"force_zeros_for_pooled_projection": False}
# Stable Diffusion 3.5's own: no words, and places as the network looks at them.
WORDLESS = {**TOLD, "use_pos_embed": False, "joint_attention_dim": None}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *((SD3, BARE), (SD3, TOLD), (SD3, WORDLESS)),
        *((FLUX, {"guidance_embeds": True}), (FLUX, {"guidance_embeds": False})),
    ],
)
def test_steps_of_transformers_equal_the_controlnet_pipelines_own(
    name: str, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guided and scaled. The pipelines draw the picture's latents, this prior takes their mean."""
    posterior = diffusers.models.autoencoders.vae.DiagonalGaussianDistribution
    monkeypatch.setattr(posterior, "sample", lambda self, generator=None: self.mode())
    # Of Stable Diffusion 3 the last block is never corrected.
    directory, control = tmp_path / "model", tmp_path / "control"
    whole = save_tiny(name, directory, **({"layers": 2} if name == SD3 else {}))
    tiny_controlnet(name, whole.transformer, **changes).save_pretrained(control)
    settings = ControlSettings(control, scale=0.7)
    told = {"guidance_embedding": 3.0, "resolution": 16}
    prior = open_prior(directory, CPU, Opening(control=settings, **told))
    picture = torch.rand(1, *([prior.image_size] * 2), 3, generator=torch.manual_seed(2))
    pipeline = CLASSES[name](
        **whole.components, controlnet=controlnet_class(name).from_pretrained(control)
    )
    pipeline.set_progress_bar_config(disable=True)
    # A tensor is taken as it is, where a file's picture is brought to [-1, 1].
    signal = 2.0 * picture.permute(0, 3, 1, 2) - 1.0
    shown = {"control_image": signal, "controlnet_conditioning_scale": 0.7}
    z = torch.randn(1, *prior.latent_shape, generator=torch.Generator().manual_seed(1))
    plain = open_prior(directory, CPU, Opening(**told))
    asked = Asked(pipeline, **shown, latents=to_layout(prior.row, z))
    calls = run(asked, z, 3.0, 3, prior.image_size)
    for i in range(2):
        sample = from_layout(prior.row, calls[i]["sample"], z)
        level = torch.tensor([times(prior, pipeline, calls, i)[0]])
        ours = guided(with_picture(prior, picture), sample, level, 3.0)
        theirs = from_layout(prior.row, calls[i]["output"], z)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        assert (ours - guided(plain, sample, level, 3.0)).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", [SD, "StableDiffusionXLPipeline"])
def test_steps_equal_the_controlnet_pipelines_own(name: str, saved: Any) -> None:
    """Guided, scaled, and over at the half of the way, as diffusers does it."""
    directory, control = saved(name)
    settings = ControlSettings(control, scale=0.7, end=0.55)
    prior = open_prior(directory, CPU, Opening(control=settings))
    assert prior.control == "depth"
    picture = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(2))
    parts = dict(tiny_pipeline(name).components)
    parts = {key: part for key, part in parts.items() if not key.startswith("image_encoder")}
    network = diffusers.ControlNetModel.from_pretrained(control)
    more = {"requires_safety_checker": False} if name == SD else {}
    pipeline = CLASSES[name](**parts, controlnet=network, **more)
    pipeline.set_progress_bar_config(disable=True)
    asked = Asked(
        pipeline,
        image=picture.permute(0, 3, 1, 2),
        controlnet_conditioning_scale=0.7,
        control_guidance_end=0.55,
    )
    z = torch.randn(1, *prior.latent_shape, generator=torch.Generator().manual_seed(1))
    calls = run(asked, z, 3.0, 4, prior.image_size)
    plain = open_prior(directory, CPU)
    for i, active in ((0, True), (1, True), (2, False)):
        sample, (t, _) = calls[i]["sample"], times(prior, pipeline, calls, i)
        level = torch.tensor([t])
        if name != SD:  # Euler walks in z / alpha
            sample = sample * prior.schedule.alpha(level)
        ours = guided(with_picture(prior, picture), sample, level, 3.0)
        torch.testing.assert_close(ours, calls[i]["output"], atol=1e-5, rtol=1e-5)
        off = (ours - guided(plain, sample, level, 3.0)).abs().max()
        assert (off > 1e-3) == active


def test_corrections_between_two_shares_of_the_way(tmp_path: Path) -> None:
    """`control_start` and `control_end` reach the branch, both ends included; t is 1 - t of the way."""
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": SD}))
    config = DiffusersConfig(
        model="a/b",
        controlnet=str(tmp_path),
        control_scale=0.7,
        control_start=0.25,
        control_end=0.75,
    )
    settings = config._control(tmp_path)
    branch = ControlBranch(None, ROWS[SD], settings)
    t = torch.tensor([1.0, 0.8, 0.75, 0.5, 0.25, 0.2, 0.0])
    expected = 0.7 * torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    torch.testing.assert_close(branch.weight(t), expected)


def test_a_fixed_picture_is_read_once() -> None:
    """For whatever number of samples; it may cost a pass through the codec."""
    read: list[Tensor] = []

    class Counted(ControlBranch):
        def read(self, picture: Tensor, codec: Any) -> Tensor:
            read.append(picture)
            return picture

    picture = torch.rand(1, 3, 12, 12)
    branch: Any = Counted(None, ROWS[SD], ControlSettings(Path()), picture)
    one, many = (branch.seen(count, None, 12, LatentCodec(None, "none")) for count in (1, 5))
    assert len(read) == 1 and one.shape == (1, 3, 12, 12)
    assert torch.equal(many, picture.expand(5, -1, -1, -1)) and branch.wants == ""


def test_depth_in_closed_form() -> None:
    """The nearest is white, twice as far half as bright, the background black; an empty view is black."""
    depth = torch.tensor([[2.0, 4.0], [8.0, 0.0]])[None, :, :, None]
    alpha = torch.tensor([[1.0, 1.0], [1.0, 0.0]])[None, :, :, None]
    picture = depth_picture(depth, alpha)
    expected = torch.tensor([[1.0, 0.5], [0.25, 0.0]])[None, :, :, None].expand(-1, -1, -1, 3)
    torch.testing.assert_close(picture, expected)
    assert (depth_picture(depth, 0.0 * alpha) == 0.0).all()
    torch.testing.assert_close(depth_picture(3.0 * depth, alpha), expected)


@pytest.mark.parametrize("azimuth", [0.0, 90.0, 200.0])
def test_normals_are_coloured_as_seen(azimuth: float) -> None:
    """Left is red, up green, toward the camera blue, from whatever side one looks; the background faces the camera."""
    cameras = orbit_cameras(torch.tensor([azimuth]), torch.tensor([0.0]), 3.0, 40.0, 2)
    right, down, away = cameras.c2w[0, :3, :3].T
    normal = torch.stack([-right, -down, -away, torch.zeros(3)]).reshape(1, 2, 2, 3)
    alpha = torch.tensor([1.0, 1.0, 1.0, 0.0]).reshape(1, 2, 2, 1)
    colours = normal_picture(normal, alpha, cameras).reshape(4, 3)
    expected = torch.tensor([[1.0, 0.5, 0.5], [0.5, 1.0, 0.5], [0.5, 0.5, 1.0], [0.5, 0.5, 1.0]])
    torch.testing.assert_close(colours, expected, atol=1e-6, rtol=0.0)


def test_normals_come_from_depth_where_a_scene_renders_none() -> None:
    """A wall across the view faces the camera: blue."""
    cameras = orbit_cameras([30.0], 0.0, 3.0, 40.0, 8)
    flat = torch.ones(1, 8, 8, 1)
    picture = control_picture(
        "normal", RenderOutput(flat.expand(-1, -1, -1, 3), flat, 2.0 * flat), cameras
    )
    assert picture is not None
    inside = picture[0, 2:-2, 2:-2]
    torch.testing.assert_close(
        inside, torch.tensor([0.5, 0.5, 1.0]).expand_as(inside), atol=1e-4, rtol=0.0
    )


def test_conditions_carry_their_pictures(saved: Any) -> None:
    """Chunks and a companion see the picture of their own sample; without one the prior says so."""
    directory, control = saved(SD)
    opened = [
        open_prior(directory, CPU, Opening(control=ControlSettings(control), chunk=chunk))
        for chunk in (0, 1)
    ]
    whole, parts = opened
    tokens = whole.embed(["a red mug", "a car"])
    parts.embed([""])
    z, t = torch.randn(2, *whole.latent_shape), torch.tensor([0.3, 0.6])
    told = Condition(tokens, control=torch.rand(2, 12, 12, 3))
    expected = whole.predict(z, t, told).value
    torch.testing.assert_close(parts.predict(z, t, told).value, expected, atol=1e-6, rtol=1e-5)
    swapped = Condition.concatenate([told[1:], told[:1]])
    turned = whole.predict(z.flip(0), t.flip(0), swapped).value.flip(0)
    torch.testing.assert_close(turned, expected, atol=1e-6, rtol=1e-5)
    companion = whole.companion(rank=2, seed=0)
    assert torch.equal(companion.predict(z, t, told).value, whole.predict(z, t, told).value)
    with pytest.raises(ValueError, match="needs a depth picture"):
        whole.predict(z, t, Condition(tokens))
    with pytest.raises(ValueError, match="with and without control"):
        Condition.concatenate([told, Condition(tokens)])


@pytest.mark.slow
def test_a_fixed_picture(saved: Any, tmp_path: Path) -> None:
    """A user's file, whatever its size, is the same as that picture with every condition."""
    directory, control = saved(SD)
    picture = torch.rand(16, 16, 3).mul(255).round()
    file = tmp_path / "seen.png"
    Image.fromarray(picture.byte().numpy()).save(file)
    config = DiffusersConfig(
        model=str(directory), controlnet=str(control), control_image=str(file), control_scale=0.5
    )
    prior = config.load(CPU)
    assert not prior.control
    assert [(one.use, one.model) for one in prior.origins[1:]] == [("controlnet", str(control))]
    other = open_prior(directory, CPU, Opening(control=ControlSettings(control, scale=0.5)))
    tokens = prior.embed(["a red mug"])
    other.embed([""])
    z, t = torch.randn(1, *prior.latent_shape), torch.tensor([0.5])
    told = Condition(tokens, control=picture[None] / 255.0)
    expected = other.predict(z, t, told).value
    torch.testing.assert_close(prior.predict(z, t, Condition(tokens)).value, expected)
    file.write_bytes(b"no picture")
    with pytest.raises(ModelError, match=r"prior\.control_image\) is not a readable picture"):
        config.load(CPU)
    file.unlink()
    with pytest.raises(ModelError, match="there is no picture"):
        config.load(CPU)


def test_the_loop_shows_the_prior_its_own_render(
    saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dream3d import train
    from dream3d.run import run_system

    directory, control = saved(SD)
    seen = []
    monkeypatch.setattr(
        train,
        "control_picture",
        lambda *given: seen.append(control_picture(*given)) or seen[-1],
    )
    config = load_config(
        "gaussian",
        {
            "prior": {
                "name": "diffusers",
                "model": str(directory),
                "controlnet": str(control),
            },
            "conditioning": "text",
            "guidance": "vsd",
            "steps": 2,
            "render_size": 16,
        },
        prompt="a red mug",
    )
    assert run_system(config, tmp_path).status == "finished"
    assert len(seen) == 2 and all(picture.max() > 0.9 for picture in seen)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"control": "canny"}, "depth"),
        ({"control_image": "x.png"}, r"no prior\.controlnet"),
        ({"controlnet": "a/b", "control_scale": -1.0}, "choose 0 or a positive number"),
        ({"control_start": 0.6, "control_end": 0.5}, "0 <= start <= end <= 1"),
    ],
)
def test_settings_out_of_range(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(
            "default", {"prior": {"name": "diffusers", "model": "a/b", **change}}, prompt="x"
        )


def test_controlnets_that_do_not_fit(saved: Any, tmp_path: Path) -> None:
    directory, control = saved(SD)
    with pytest.raises(ModelError, match="its cross_attention_dim is 64"):
        open_prior(
            directory,
            CPU,
            Opening(control=ControlSettings(saved("StableDiffusionXLPipeline")[1])),
        )
    with pytest.raises(ModelError, match="holds UNet2DConditionModel"):
        open_prior(directory, CPU, Opening(control=ControlSettings(directory / "unet")))
    with pytest.raises(ModelError, match="holds no network"):
        open_prior(directory, CPU, Opening(control=ControlSettings(tmp_path)))
    flux = save_tiny(FLUX, tmp_path / "flux")
    union = tiny_controlnet(FLUX, flux.transformer, num_mode=3)
    union.save_pretrained(tmp_path / "union")
    with pytest.raises(ModelError, match=r"num_mode is 3, expected None"):
        open_prior(tmp_path / "flux", CPU, Opening(control=ControlSettings(tmp_path / "union")))
    told = tiny_controlnet(FLUX, flux.transformer, guidance_embeds=True)
    told.save_pretrained(tmp_path / "told")
    bare: Any = SimpleNamespace(config={**flux.transformer.config, "guidance_embeds": False})
    with pytest.raises(ModelError, match="is told the guidance scale and this FluxPipeline is not"):
        open_control(ControlSettings(tmp_path / "told"), ROWS[FLUX], bare, torch.float32)
    save_tiny("SanaPipeline", tmp_path / "sana")
    with pytest.raises(ModelError, match="takes no ControlNet here"):
        open_prior(tmp_path / "sana", CPU, Opening(control=ControlSettings(control)))
    with pytest.raises(ConfigError, match="names nothing for a StableDiffusionXLPipeline"):
        place = saved("StableDiffusionXLPipeline")[0]
        DiffusersConfig(model=str(place), controlnet="controlnet-normal").load(CPU)
