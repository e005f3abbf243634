"""ImageDream's network and adapter on tiny random weights; the real ones were never tried."""

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import original_layout
import pytest
import torch
import transformers
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from test_mvdream import PUBLISHED, ByHand, asked, views
from test_zero123 import small_picture
from tiny_pipelines import HIDDEN, save_tiny
from torch.utils._python_dispatch import TorchDispatchMode

from dream3d.cameras import orbit_cameras
from dream3d.compatibility import check_run
from dream3d.config import load_config
from dream3d.errors import ConfigError, ModelError
from dream3d.picture_file import write_picture
from dream3d.priors.base import Condition
from dream3d.priors.pipelines.imagedream import ImageDreamPrior, load_network, open_imagedream
from dream3d.priors.pipelines.mvdream import camera_rows, network_settings
from dream3d.priors.pipelines.pictures import CLIP_MEAN, CLIP_STD
from dream3d.priors.pipelines.resampler import Resampler
from dream3d.prompts import Prompts
from dream3d.rendering import RenderOutput
from dream3d.run import run_system
from dream3d.train import TrainState, with_reference
from systems.reference import Reference

CPU = torch.device("cpu")
SEES, TOKENS = 16, 3
"""Width of the image encoder; tokens the resampler makes."""
CONFIG = PUBLISHED | {"ip_dim": TOKENS, "ip_weight": 0.7}
FRONT = orbit_cameras([0.0], 0.0, 2.65, 47.5, size=16)


def published_weights() -> dict[str, torch.Tensor]:
    """Random weights under the original names, none of them zero."""
    torch.manual_seed(3)
    network: Any = UNet2DConditionModel(**network_settings(CONFIG, linear=True))
    weights = {
        key.removeprefix("model.diffusion_model."): value
        for key, value in original_layout.network(network).items()
    }
    names = {
        "class_embedding.linear_1": "camera_embed.0",
        "class_embedding.linear_2": "camera_embed.2",
    }
    for new, old in names.items():
        weights = {key.replace(new, old): value for key, value in weights.items()}
    for key in [key for key in weights if key.endswith("attn2.to_k.weight")]:
        for x in "kv":
            weights[key.replace("to_k", f"to_{x}_ip")] = torch.randn_like(weights[key])
    resampler = Resampler(TOKENS, SEES, HIDDEN, 128, HIDDEN, 4, 4 * HIDDEN)
    torch.nn.init.normal_(resampler.latents)
    weights |= {f"image_embed.{key}": value for key, value in resampler.state_dict().items()}
    return {key: value.contiguous() for key, value in weights.items()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny directory in the published layout."""
    directory = tmp_path_factory.mktemp("imagedream")
    save_tiny("StableDiffusionPipeline", directory)
    for file in (directory / "unet").iterdir():
        file.unlink()
    (directory / "unet" / "config.json").write_text(json.dumps(CONFIG))
    save_file(published_weights(), directory / "unet" / "diffusion_pytorch_model.safetensors")
    vision = transformers.CLIPVisionConfig(
        hidden_size=SEES,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    transformers.CLIPVisionModel(vision).save_pretrained(directory / "image_encoder")
    index = json.loads((directory / "model_index.json").read_text())
    index |= {
        "_class_name": "MVDreamPipeline",
        "unet": ["mv_unet", "MultiViewUNetModel"],
        "image_encoder": ["transformers", "CLIPVisionModel"],
    }
    (directory / "model_index.json").write_text(json.dumps(index))
    return directory


@pytest.fixture(scope="module")
def picture() -> RenderOutput:
    return small_picture()


@pytest.fixture(scope="module")
def prior(saved: Path, picture: RenderOutput) -> ImageDreamPrior:
    return open_imagedream(saved, CPU).seeing(picture, FRONT)


# The network.


def tokens_by_hand(saved: Path, picture: RenderOutput) -> torch.Tensor:
    """Those of no picture (features of zeros) and of the picture, by diffusers' and transformers' own modules."""
    weights = load_file(saved / "unet" / "diffusion_pytorch_model.safetensors")
    state = {k.removeprefix("image_embed."): v for k, v in weights.items() if "image_embed" in k}
    network: Any = UNet2DConditionModel(**network_settings(CONFIG, linear=True))
    resampler = network._convert_ip_adapter_image_proj_to_diffusers(state, False)
    encoder = transformers.CLIPVisionModel.from_pretrained(saved / "image_encoder")
    white = (picture.rgb + 1.0 - picture.alpha).permute(0, 3, 1, 2)
    small = torch.nn.functional.interpolate(white, (8, 8), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (CLIP_MEAN, CLIP_STD))
    with torch.no_grad():
        features = encoder(
            (small.clamp(0, 1) - mean) / std, output_hidden_states=True
        ).hidden_states[-2]
        return torch.cat([resampler(torch.zeros_like(features)), resampler(features)])


class TwiceByHand:
    """Two attentions written out, to the words and to what comes last, added; self-attention over all views."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, views: int) -> None:
        self.keys, self.values, self.joint = keys, values, ByHand(views)

    def __call__(
        self, attn: Any, states: torch.Tensor, encoder_hidden_states: Any = None, **_: Any
    ) -> torch.Tensor:
        words, seen = encoder_hidden_states[:, :-TOKENS], encoder_hidden_states[:, -TOKENS:]

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.reshape(*x.shape[:2], attn.heads, -1).permute(0, 2, 1, 3)

        def attended(key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
            query = heads(attn.to_q(states))
            scores = query @ heads(key).mT / query.shape[-1] ** 0.5
            return (scores.softmax(-1) @ heads(value)).permute(0, 2, 1, 3).reshape(states.shape)

        both = attended(attn.to_k(words), attn.to_v(words))
        both = both + 0.7 * attended(seen @ self.keys.mT, seen @ self.values.mT)
        return attn.to_out[0](both)


def by_hand(
    saved: Path,
    z: torch.Tensor,
    t: torch.Tensor,
    words: torch.Tensor,
    seen: torch.Tensor,
    fifth: torch.Tensor | None,
    rows: torch.Tensor,
) -> torch.Tensor:
    """One object's prediction from the parts alone, with the picture's latent as a fifth view or without one."""
    weights = load_file(saved / "unet" / "diffusion_pytorch_model.safetensors")
    network, _ = load_network(saved / "unet", torch.float32)  # its renaming is tested below
    count = 4 if fifth is None else 5
    for name in network.attn_processors:
        attention = network.get_submodule(name.removesuffix(".processor"))
        own = attention.processor
        made: Any = ByHand(count)
        if "attn2" in name:
            keys, values = own.to_k_ip.weight, own.to_v_ip.weight
            assert any(torch.equal(keys, w) for k, w in weights.items() if "to_k_ip" in k)
            made = TwiceByHand(keys, values, count)
            del attention._modules["processor"]
        attention.processor = made
    if fifth is not None:
        z, t = torch.cat([z, fifth]), t[:1].expand(5)
        rows = torch.cat([rows, torch.zeros(1, 16)])
    first, last = network.class_embedding.linear_1, network.class_embedding.linear_2
    told = last(torch.nn.functional.silu(first(rows)))
    network.class_embedding.register_forward_hook(lambda _, __, out: torch.zeros_like(out))
    network.time_embedding.register_forward_hook(lambda _, __, out: out + told)
    context = torch.cat([words, seen], dim=1).expand(count, -1, -1)
    with torch.no_grad():
        out = network(z, (t * 999).round().long(), context, class_labels=rows).sample
    return out[:4]


@pytest.mark.parametrize("controller", ["pixel", "local"])
def test_a_prediction_is_the_networks_by_hand(
    controller: Any, saved: Path, picture: RenderOutput
) -> None:
    """Under the prompt, and under the empty one: other words, tokens of zeros' features, a fifth latent of zeros."""
    prior = open_imagedream(saved, CPU, controller=controller).seeing(picture, FRONT)
    cameras = views(start=0.0)
    z = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    t = torch.full((4,), 0.4)
    told, empty, _ = Prompts(prior, "a red mug").conditions(cameras, "multiview", words=False)
    tokens = tokens_by_hand(saved, picture)
    white = (picture.rgb + 1.0 - picture.alpha).permute(0, 3, 1, 2)
    with torch.no_grad():
        mode = prior.codec.vae.encode(2.0 * white - 1.0).latent_dist.mode()
    latent = mode * prior.codec.vae.config.scaling_factor
    # The picture's side, our front, is where the network's azimuth is 90 degrees: our camera at +X, unturned.
    rows = camera_rows(views(start=90.0))
    results = []
    for condition, seen, fifth in ((told, tokens[1:], latent), (empty, tokens[:1], 0.0 * latent)):
        words = prior.parts.text.read(condition.tokens).tokens[:1]
        expected = by_hand(saved, z, t, words, seen, fifth if controller == "pixel" else None, rows)
        results.append(prior.predict(z, t, condition).value)
        torch.testing.assert_close(results[-1], expected, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(*results, atol=1e-3)


def test_no_numbers_are_sent_for_the_cameras_after_the_first_call(
    saved: Path, picture: RenderOutput
) -> None:
    """A GPU would be waited for. A device without numbers stands in for one; the picture's turn is made once."""

    class Made(TorchDispatchMode):
        asked: ClassVar[list[str]] = []

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self.asked.append(func.overloadpacket._qualified_op_name)
            return func(*args, **(kwargs or {}))

    prior = open_imagedream(saved, CPU).seeing(picture, FRONT)
    here, there = views(), views().to(torch.device("meta"))
    for _ in range(2):
        Made.asked.clear()
        with Made():
            prior._rows(here)
            camera_rows(there)
    assert not {"aten::lift_fresh", "aten::_to_copy", "aten::eye"} & set(Made.asked)


def test_the_picture_tells_its_side(saved: Path, picture: RenderOutput) -> None:
    """Turning the picture's camera and all others together changes nothing; turning one of them does."""
    z = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    t = torch.full((4,), 0.4)
    unseen = open_imagedream(saved, CPU)
    values = []
    for side, start in ((0.0, 20.0), (50.0, 70.0), (50.0, 20.0)):
        prior = unseen.seeing(picture, orbit_cameras([side], 0.0, size=16))
        tokens = prior.embed(["a red mug"]).expand(4, -1, -1)
        values.append(prior.predict(z, t, Condition(tokens, views(start=start), 4)).value)
    assert torch.allclose(values[0], values[1], atol=1e-5)
    assert not torch.allclose(values[0], values[2], atol=1e-4)


def test_words_and_picture_both_count_and_objects_stay_apart(prior: ImageDreamPrior) -> None:
    z, t, condition = asked(prior, objects=2)  # type: ignore[arg-type]
    value = prior.predict(z, t, condition).value
    other = z.clone()
    other[0] += 1.0
    changed = (prior.predict(other, t, condition).value - value).abs().amax((1, 2, 3))
    assert (changed[1:4] > 1e-6).all()
    assert (changed[4:] < 1e-6).all()
    words = Condition(prior.embed(["a blue car"]).expand(8, -1, -1), condition.cameras, 4)
    assert not torch.allclose(prior.predict(z, t, words).value, value, atol=1e-4)
    blind = Condition(prior.avoided(condition.tokens), condition.cameras, 4)
    assert not torch.allclose(prior.predict(z, t, blind).value, value, atol=1e-4)
    mixed = torch.cat([condition.tokens[:4], blind.tokens[4:]])
    halves = prior.predict(z, t, Condition(mixed, condition.cameras, 4)).value
    assert torch.allclose(halves[:4], value[:4], atol=1e-5)
    assert torch.allclose(halves[4:], prior.predict(z, t, blind).value[4:], atol=1e-5)


@pytest.mark.slow
def test_chunks_keep_objects_whole(
    saved: Path, prior: ImageDreamPrior, picture: RenderOutput
) -> None:
    z, t, condition = asked(prior, objects=2)  # type: ignore[arg-type]
    small = open_imagedream(saved, CPU, chunk=6).seeing(picture, FRONT)
    small.embed(["a red mug"])
    assert torch.allclose(
        small.predict(z, t, condition).value, prior.predict(z, t, condition).value, atol=1e-5
    )


# What does not fit.


def test_without_a_picture_it_says_so(saved: Path, prior: ImageDreamPrior) -> None:
    with pytest.raises(ValueError, match="--image"):
        open_imagedream(saved, CPU).embed(["a mug"])
    config = load_config("imagedream", prompt="a red mug")
    with pytest.raises(ConfigError, match="--image FILE"):
        check_run(config, prior)
    with pytest.raises(ValueError, match="ImageDream takes 4 views"):
        prior.predict(
            torch.zeros(1, 4, 8, 8), torch.tensor([0.5]), Condition(prior.embed(["a mug"]))
        )
    with pytest.raises(ConfigError, match="controller is 'both'"):
        load_config("imagedream", {"prior.controller": "both"}, prompt="a mug")


def test_directories_that_do_not_fit(saved: Path, tmp_path: Path) -> None:
    place = tmp_path / "model"
    shutil.copytree(saved, place)
    file = place / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    place_of = next(key for key in weights if "to_v_ip" in key)
    for key, words in (
        (place_of, "1 missing keys"),
        ("image_embed.norm_out.bias", "no resampler as published"),
        ("image_embed.latents", "no resampler as published"),
        ("camera_embed.2.bias", "not MVDream"),
    ):
        save_file({k: v for k, v in weights.items() if k != key}, file)
        with pytest.raises(ModelError, match=words):
            open_imagedream(place, CPU)
    save_file(weights, file)
    for changes, words in (
        ({"ip_dim": 0}, "no ImageDream network"),
        ({"ip_dim": 4}, "makes 3 tokens"),
    ):
        (place / "unet" / "config.json").write_text(json.dumps({**CONFIG, **changes}))
        with pytest.raises(ModelError, match=words):
            open_imagedream(place, CPU)
    (place / "unet" / "config.json").write_text(json.dumps(CONFIG))
    encoder = json.loads((place / "image_encoder" / "config.json").read_text())
    (place / "image_encoder" / "config.json").write_text(json.dumps({**encoder, "hidden_size": 20}))
    with pytest.raises(ModelError, match="makes 20 channels"):
        open_imagedream(place, CPU)


# A run.


def test_a_picture_without_a_loss_is_not_looked_at(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[4:12, 4:12] = 255
    write_picture(tmp_path / "a.png", pixels)
    for weight, count in ((0.0, 4), (1.0, 5)):
        settings = {"reference.weight_mask": weight, "reference.image": str(tmp_path / "a.png")}
        reference = Reference(load_config("imagedream", settings, prompt="a mug").reference)
        state = TrainState(0, None, torch.Generator(), 0, reference=reference)  # type: ignore[arg-type]
        assert len(with_reference(views(), state)) == count


def test_a_run_from_picture_and_words(saved: Path, tmp_path: Path) -> None:
    """The published system, tiny, from file to scene."""
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[8:24, 8:24] = (200, 30, 30, 255)
    write_picture(tmp_path / "a.png", pixels)
    settings = {
        "prior.model": str(saved),
        "reference.image": str(tmp_path / "a.png"),
        "scene": {"name": "splats", "count": 60, "max_count": 60},
        "steps": 2,
        "render_size": 16,
    }
    made = run_system(load_config("imagedream", settings, prompt="a red mug"), tmp_path)
    assert made.status == "finished"
    assert all(bool(torch.isfinite(p).all()) for p in made.scene.parameters().values())
