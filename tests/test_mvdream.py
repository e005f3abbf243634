"""MVDream's network and adapter on tiny random weights; the real ones were never tried."""

import json
import shutil
from pathlib import Path
from typing import Any

import original_layout
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file, save_file
from tiny_pipelines import HIDDEN, save_tiny, unet

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.compatibility import check_run
from dream3d.config import load_config
from dream3d.diffusion import add_noise
from dream3d.errors import ConfigError, ModelError
from dream3d.priors.base import Condition
from dream3d.priors.pipelines.mvdream import MVDreamPrior, camera_rows, open_mvdream
from dream3d.prompts import Prompts
from guidance.base import Views
from guidance.x0_reconstruction import X0Reconstruction

CPU = torch.device("cpu")


def views(count: int = 4, start: float = 20.0, elevation: float = 10.0) -> CameraBatch:
    azimuth = [start + 360.0 / 4 * i for i in range(count)]
    return orbit_cameras(azimuth, elevation, distance=2.7)


def camera_network() -> Any:
    """Plain groups and heads as the published settings give them."""
    torch.manual_seed(3)
    return unet(
        block_out_channels=(32, 64),
        norm_num_groups=32,
        attention_head_dim=(4, 8),
        use_linear_projection=True,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=16,
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the network under diffusers' names."""
    directory = tmp_path_factory.mktemp("mvdream")
    save_tiny("StableDiffusionPipeline", directory)
    for file in (directory / "unet").iterdir():
        file.unlink()
    camera_network().save_pretrained(directory / "unet")
    return directory


@pytest.fixture(scope="module")
def prior(saved: Path) -> MVDreamPrior:
    return open_mvdream(saved, CPU)


def asked(prior: MVDreamPrior, objects: int = 1) -> tuple[torch.Tensor, torch.Tensor, Condition]:
    """Noisy latents, one time per object, and the condition."""
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(4 * objects, *prior.latent_shape, generator=generator)
    t = torch.rand(objects, generator=generator).repeat_interleave(4)
    cameras = CameraBatch.concatenate([views(start=20.0 + 35.0 * i) for i in range(objects)])
    tokens = prior.embed(["a red mug"]).expand(4 * objects, -1, -1)
    return z, t, Condition(tokens, cameras, views_per_object=4)


def test_rows_are_the_published_cameras() -> None:
    """Our azimuth a is a - 90 degrees in Blender's frame; there, the published construction of a look-at matrix."""
    cameras = orbit_cameras([0.0, 90.0, 200.0], [0.0, 15.0, -20.0], distance=[2.0, 3.2, 5.0])
    for row, azimuth, elevation in zip(
        camera_rows(cameras), [-90.0, 0.0, 110.0], [0.0, 15.0, -20.0], strict=True
    ):
        a, e = torch.deg2rad(torch.tensor([azimuth, elevation]))
        backward = torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin()])
        right = torch.nn.functional.normalize(
            torch.linalg.cross(-backward, torch.tensor([0.0, 0.0, 1.0])), dim=0
        )
        up = torch.linalg.cross(right, -backward)
        expected = torch.eye(4)
        expected[:3] = torch.stack([right, up, backward, backward], dim=1)  # at distance 1
        assert torch.allclose(row.reshape(4, 4), expected, atol=1e-5)


def test_the_callers_cameras_are_not_changed() -> None:
    cameras = views()
    before = cameras.c2w.clone()
    camera_rows(cameras)
    assert torch.equal(cameras.c2w, before)


class ByHand:
    """Self-attention over the tokens of several views in a row, by diffusers' plain attention."""

    def __init__(self, views: int = 4) -> None:
        self.views = views

    def __call__(
        self, attn: Any, states: torch.Tensor, encoder_hidden_states: Any = None, **_: Any
    ) -> torch.Tensor:
        plain = AttnProcessor()
        if encoder_hidden_states is not None:
            return plain(attn, states, encoder_hidden_states)
        batch, length, width = states.shape
        rows = states.reshape(batch // self.views, self.views * length, width)
        return plain(attn, rows).reshape(states.shape)


def test_a_prediction_is_the_networks_by_hand(saved: Path, prior: MVDreamPrior) -> None:
    """The published step: a perceptron of the camera added to the time embedding, attention over all four views."""
    z, t, condition = asked(prior)
    ours = prior.predict(z, t, condition).value
    network = open_mvdream(saved, CPU).network
    network.set_attn_processor(ByHand())
    first, last = network.class_embedding.linear_1, network.class_embedding.linear_2
    rows = camera_rows(condition.cameras)  # type: ignore[arg-type]
    told = last(torch.nn.functional.silu(first(rows)))
    network.class_embedding.register_forward_hook(lambda _, __, out: torch.zeros_like(out))
    network.time_embedding.register_forward_hook(lambda _, __, out: out + told)
    tokens = prior.parts.text.read(condition.tokens).tokens
    with torch.no_grad():
        expected = network(z, (t * 999).round().long(), tokens, class_labels=rows).sample
    assert torch.allclose(ours, expected, atol=1e-5)


def test_a_camera_perceptron_of_zeros_has_no_effect(saved: Path) -> None:
    """Then the network is plain Stable Diffusion whose self-attention sees four views, whatever the cameras."""
    prior = open_mvdream(saved, CPU)
    z, t, condition = asked(prior)
    before = prior.predict(z, t, condition).value
    for parameter in prior.network.class_embedding.linear_2.parameters():
        parameter.zero_()
    elsewhere = Condition(condition.tokens, views(start=77.0, elevation=40.0), 4)
    one, two = (prior.predict(z, t, c).value for c in (condition, elsewhere))
    assert torch.equal(one, two)
    assert not torch.allclose(one, before)


def test_views_and_objects_may_be_permuted(prior: MVDreamPrior) -> None:
    z, t, condition = asked(prior, objects=2)
    value = prior.predict(z, t, condition).value
    for order in ([2, 0, 3, 1, 4, 5, 6, 7], [4, 5, 6, 7, 0, 1, 2, 3]):
        moved = prior.predict(z[order], t[order], condition[order]).value
        assert torch.allclose(moved, value[order], atol=1e-5)
    wrong = [1, 0, 2, 3, 4, 5, 6, 7]
    moved = prior.predict(z[wrong], t[wrong], condition).value  # the cameras stay behind
    assert not torch.allclose(moved, value[wrong], atol=1e-4)


def test_views_see_each_other_and_objects_do_not(prior: MVDreamPrior) -> None:
    z, t, condition = asked(prior, objects=2)
    value = prior.predict(z, t, condition).value
    other = z.clone()
    other[0] += 1.0
    changed = (prior.predict(other, t, condition).value - value).abs().amax((1, 2, 3))
    assert (changed[1:4] > 1e-6).all()
    assert (changed[4:] < 1e-6).all()


@pytest.mark.slow
def test_chunks_keep_objects_whole(saved: Path, prior: MVDreamPrior) -> None:
    z, t, condition = asked(prior, objects=2)
    small = open_mvdream(saved, CPU, chunk=6)
    small.embed(["a red mug"])
    assert torch.allclose(
        small.predict(z, t, condition).value, prior.predict(z, t, condition).value, atol=1e-5
    )


def test_reconstruction_is_the_residual_of_the_rescaled_x0(prior: MVDreamPrior) -> None:
    """grad = x - x0, x0 guided and rescaled to the conditional's standard deviation, over all four views jointly."""
    z, t, _ = asked(prior)
    prompts = Prompts(prior, "a red mug")
    given, empty, _ = prompts.conditions(views(), "multiview", words=False)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(2))
    rule = X0Reconstruction(rescale=0.5)
    grad = rule(prior, Views(z, t, noise, given, empty)).grad
    z_t = add_noise(prior.schedule, z, noise, t)
    text, none = prior.predict(z_t, t, given), prior.predict(z_t, t, empty)
    eps = none.eps + rule.cfg_scale(0.0) * (text.eps - none.eps)
    guided = (z_t - text.sigma * eps) / text.alpha
    x0 = guided * (0.5 * text.x0.std() / guided.std() + 0.5)
    assert torch.allclose(grad, rule.factor(0.0) * (z - x0), atol=1e-3)


def test_other_than_four_views_are_refused(prior: MVDreamPrior) -> None:
    z, t, condition = asked(prior)
    for bad in (
        Condition(condition.tokens),
        Condition(condition.tokens, condition.cameras, 2),
        Condition(condition.tokens, condition.cameras),
    ):
        with pytest.raises(ValueError, match="takes 4 views"):
            prior.predict(z, t, bad)
    for settings, words in (
        ({"conditioning": "multiview", "views": 3}, "choose views=4"),
        ({"conditioning": "camera", "views": 4}, "conditioning=multiview"),
        ({"conditioning": "text", "views": 4}, "conditioning=multiview"),
        ({"conditioning": "multiview", "views": 4, "guidance": "vsd"}, "companion"),
    ):
        config = load_config("mvdream", {**settings, "prior": "mvdream"}, prompt="a red mug")
        with pytest.raises(ConfigError, match=words):
            check_run(config, prior)


PUBLISHED = {
    "_class_name": "MultiViewUNetModel",
    "image_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "attention_resolutions": [2],
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "num_head_channels": 8,
    "transformer_depth": 1,
    "context_dim": HIDDEN,
    "camera_dim": 16,
}


def publish(saved: Path, directory: Path, **changes: Any) -> Path:
    """The same model as the published directory has it: original names, classes of its own."""
    shutil.copytree(saved, directory, dirs_exist_ok=True)
    index = json.loads((directory / "model_index.json").read_text())
    index |= {"_class_name": "MVDreamPipeline", "unet": ["mv_unet", "MultiViewUNetModel"]}
    (directory / "model_index.json").write_text(json.dumps(index))
    (directory / "unet" / "config.json").write_text(json.dumps(PUBLISHED | changes))
    names = {
        "class_embedding.linear_1": "camera_embed.0",
        "class_embedding.linear_2": "camera_embed.2",
    }
    weights = {}
    for key, value in original_layout.network(camera_network()).items():
        name = key.removeprefix("model.diffusion_model.")
        for new, old in names.items():
            name = name.replace(new, old)
        weights[name] = value.contiguous()
    save_file(weights, directory / "unet" / "diffusion_pytorch_model.safetensors")
    return directory


@pytest.mark.slow
def test_the_published_layout_is_the_same_model(
    saved: Path, prior: MVDreamPrior, tmp_path: Path
) -> None:
    published = open_mvdream(publish(saved, tmp_path), CPU)
    published.embed(["a red mug"])
    z, t, condition = asked(prior)
    assert torch.equal(
        published.predict(z, t, condition).value, prior.predict(z, t, condition).value
    )


def test_what_does_not_fit_is_named(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="prior=imagedream"):
        open_mvdream(publish(saved, tmp_path, ip_dim=16), CPU)
    file = publish(saved, tmp_path) / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    for key, words in (("camera_embed.2.bias", "not MVDream"), ("out.2.bias", "1 missing keys")):
        save_file({k: v for k, v in weights.items() if k != key}, file)
        with pytest.raises(ModelError, match=words):
            open_mvdream(tmp_path, CPU)
    save_file(weights | {"image_embed.proj_in.bias": torch.zeros(3)}, file)
    with pytest.raises(ModelError, match="unexpected keys"):
        open_mvdream(tmp_path, CPU)
    save_tiny("StableDiffusionPipeline", tmp_path / "plain")
    with pytest.raises(ModelError, match="not told a camera"):
        open_mvdream(tmp_path / "plain", CPU)
    with pytest.raises(ModelError, match="no model_index"):
        open_mvdream(tmp_path / "nothing", CPU)


def test_sparing_memory_keeps_an_objects_views_together(saved: Path, prior: MVDreamPrior) -> None:
    spared = open_mvdream(saved, CPU, low_vram=True)
    assert spared.chunk == 4 and spared.parts.vae.use_slicing
    spared.embed(["a red mug"])
    z, t, condition = asked(prior, objects=2)
    torch.testing.assert_close(
        spared.predict(z, t, condition).value, prior.predict(z, t, condition).value
    )
    spared.ask_at_once(1)
    assert spared.chunk == 4
