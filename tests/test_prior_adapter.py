"""The adapter over diffusers-format models, checked against diffusers itself with small random weights."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from tiny_prior import TINY, tiny_components
from torch import Tensor

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.diffusion import per_sample
from dream3d.errors import ConfigError, ModelError, PromptError
from dream3d.priors.base import Condition, Prior
from dream3d.priors.embedded import MANIFEST, EmbeddedConfig, read_manifest, write_manifest
from dream3d.priors.latent.build import learn_merges
from dream3d.priors.latent.camera_encoder import camera_features
from dream3d.priors.latent.components import Components, load_components, save_components
from dream3d.priors.latent.embedded_prior import EmbeddedPrior
from dream3d.priors.pipelines.parts import partial_pipeline
from dream3d.priors.pipelines.prior import PipelineParts, PipelinePrior
from dream3d.priors.pipelines.table import STABLE_DIFFUSION
from dream3d.priors.pipelines.text import TextEmbedder
from dream3d.world.freeze import FROZEN_HASH
from dream3d.world.grammar import VOCABULARY

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def components() -> Components:
    return tiny_components()


@pytest.fixture(scope="module")
def prior(components: Components) -> EmbeddedPrior:
    return EmbeddedPrior(components, CPU)


@pytest.fixture
def saved(components: Components, tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    save_components(components, directory)
    write_manifest(directory, FROZEN_HASH, {"images_seen": 0})
    return directory


def latents(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 6, 8, 8, generator=torch.Generator().manual_seed(seed))


def ring(count: int = 4) -> CameraBatch:
    return orbit_cameras([360.0 / count * i + 10.0 for i in range(count)], 15.0)


# ---------------------------------------------------------------------------------------------------------------------
# Words


@pytest.mark.parametrize("word", VOCABULARY)
def test_every_word_of_the_world_is_one_token(word: str, components: Components) -> None:
    ids = components.tokenizer(word).input_ids
    assert len(ids) == 3  # start, the word, end


def test_merges_spell_any_word() -> None:
    tokens, merges = learn_merges(["red", "ed", "banana"])
    assert len(tokens) == len(set(tokens))
    assert {"red</w>", "ed</w>", "banana</w>"} <= set(tokens)
    assert len(merges) == len(set(merges))


def test_the_longest_caption_fits(components: Components) -> None:
    text = "a white ice cream next to a yellow ice cream, high front left view"
    ids = components.tokenizer(text).input_ids
    assert len(ids) <= TINY.text_length


def test_synonyms_embed_alike_and_unknown_words_are_refused(prior: EmbeddedPrior) -> None:
    grey, gray = prior.embed(["A GREY cube!"]), prior.embed(["a gray cube"])
    assert torch.equal(grey, gray)
    assert prior.embed([""]).shape == gray.shape
    with pytest.raises(PromptError, match="unicorn"):
        prior.check_prompt("a red unicorn")
    with pytest.raises(PromptError, match="unicorn"):
        prior.embed(["a red unicorn"])


# ---------------------------------------------------------------------------------------------------------------------
# Noise levels and predictions


def test_schedule_is_the_schedulers(prior: EmbeddedPrior, components: Components) -> None:
    table = components.scheduler.alphas_cumprod
    t = torch.arange(1000) / 999.0
    assert torch.allclose(prior.schedule.alpha(t), table.sqrt(), atol=1e-7)
    assert torch.allclose(prior.schedule.sigma(t), (1 - table).sqrt(), atol=1e-7)
    assert prior.schedule.alpha(torch.ones(1)) < 1e-3


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_ddim_step_equals_diffusers(kind: str, components: Components) -> None:
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type=kind, clip_sample=False
    )
    scheduler.set_timesteps(10)
    prior = EmbeddedPrior(replace(components, scheduler=scheduler), CPU)
    z = latents(2)
    condition = Condition(prior.embed(["a red cube", "a mug"]))
    now, following = int(scheduler.timesteps[3]), int(scheduler.timesteps[4])
    t, s = (torch.full((2,), index / 999.0) for index in (now, following))
    prediction = prior.predict(z, t, condition)
    ours = (
        per_sample(prior.schedule.alpha(s), z) * prediction.x0
        + per_sample(prior.schedule.sigma(s), z) * prediction.eps
    )
    theirs = scheduler.step(prediction.value, now, z, return_dict=False)[0]
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_unknown_prediction_type_is_refused(components: Components) -> None:
    scheduler = DDIMScheduler(prediction_type="sample")
    scheduler.register_to_config(prediction_type="flow_prediction")
    with pytest.raises(ModelError, match="flow_prediction"):
        EmbeddedPrior(replace(components, scheduler=scheduler), CPU)


def test_encoding_is_differentiable_and_resamples(prior: EmbeddedPrior) -> None:
    images = torch.rand(1, 48, 48, 3, requires_grad=True)
    prior.encode(images).square().sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    decoded = prior.decode(latents(1))
    assert decoded.shape == (1, 32, 32, 3) and decoded.min() >= 0 and decoded.max() <= 1


# ---------------------------------------------------------------------------------------------------------------------
# Cameras and several views


def predict(prior: EmbeddedPrior, z: Tensor, condition: Condition) -> Tensor:
    return prior.predict(z, torch.full((len(z),), 0.7), condition).value


def test_without_cameras_the_camera_encoder_is_not_there(
    prior: EmbeddedPrior, components: Components
) -> None:
    text_only = EmbeddedPrior(replace(components, camera_encoder=None), CPU)
    tokens = prior.embed(["a red cube"] * 2)
    z = latents(2)
    assert torch.allclose(
        predict(prior, z, Condition(tokens)), predict(text_only, z, Condition(tokens)), atol=1e-6
    )
    told = predict(prior, z, Condition(tokens, ring(2)))
    assert (told - predict(prior, z, Condition(tokens))).abs().max() > 1e-4
    assert prior.accepts_cameras and not text_only.accepts_cameras
    with pytest.raises(ValueError, match="camera encoder"):
        predict(text_only, z, Condition(tokens, ring(2)))


def test_camera_features_come_from_the_pose() -> None:
    cameras = orbit_cameras([0.0, 130.0, 359.0], [0.0, 50.0, 89.9])
    unknown = replace(cameras, azimuth_deg=torch.full((3,), float("nan")))
    features = camera_features(unknown)
    azimuth = torch.rad2deg(torch.atan2(features[:, 0], features[:, 1])) % 360.0
    assert torch.allclose(azimuth, torch.tensor([0.0, 130.0, 359.0]), atol=1e-2)
    elevation = torch.rad2deg(torch.atan2(features[:, 6], features[:, 7]))
    assert torch.allclose(elevation, torch.tensor([0.0, 50.0, 89.9]), atol=5e-2)
    assert torch.allclose(features[:, 8:], torch.ones(3, 2), atol=1e-5)


def test_joint_views_are_equivariant_to_their_order(prior: EmbeddedPrior) -> None:
    z, cameras = latents(4), ring()
    tokens = prior.embed(["a red cube"] * 4)
    order = torch.tensor([2, 0, 3, 1])
    straight = predict(prior, z, Condition(tokens, cameras, 4))
    turned = predict(prior, z[order], Condition(tokens, cameras[order], 4))
    assert torch.allclose(straight[order], turned, atol=1e-5)


def test_views_see_their_own_object_only(prior: EmbeddedPrior) -> None:
    z, tokens = latents(4), prior.embed(["a red cube"] * 4)
    changed = z.clone()
    changed[3] += 1.0
    for views, touched in ((1, [3]), (2, [2, 3]), (4, [0, 1, 2, 3])):
        condition = Condition(tokens, ring(), views)
        difference = (predict(prior, z, condition) - predict(prior, changed, condition)).abs()
        moved = [i for i in range(4) if difference[i].max() > 1e-6]
        assert moved == touched


def test_several_views_need_cameras(prior: EmbeddedPrior) -> None:
    with pytest.raises(ValueError, match="need cameras"):
        predict(prior, latents(4), Condition(prior.embed([""] * 4), None, 4))


# ---------------------------------------------------------------------------------------------------------------------
# On disk


def test_saved_again_no_file_says_where_the_model_was(saved: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    save_components(load_components(saved, torch.device("cpu")), again)
    texts = [path.read_text() for path in again.rglob("*.json")]
    assert len(texts) == len([p for p in saved.rglob("*.json") if p.name != MANIFEST])
    assert not [text for text in texts if str(tmp_path.parent) in text or str(saved) in text]


def test_saved_model_reads_back(saved: Path, prior: EmbeddedPrior) -> None:
    loaded = EmbeddedConfig(path=str(saved)).load(CPU)
    tokens = prior.embed(["a red cube", "a mug on a table, front view"])
    assert torch.allclose(
        loaded.embed(["a red cube", "a mug on a table, front view"]), tokens, atol=2e-2
    )
    condition = Condition(tokens, ring(2))
    z, t = latents(2), torch.full((2,), 0.5)
    ours, theirs = (p.predict(z, t, condition).value for p in (prior, loaded))
    assert torch.allclose(ours, theirs, atol=2e-2)
    assert loaded.latent_shape == (6, 8, 8) and loaded.image_size == 32
    assert read_manifest(saved)["images_seen"] == 0


@pytest.mark.parametrize(
    "damage", ["truncate", "flip", "remove", "no manifest", "version", "world", "not json"]
)
def test_damage_is_a_model_error(damage: str, saved: Path) -> None:
    weights = saved / "unet" / "diffusion_pytorch_model.safetensors"
    manifest = saved / MANIFEST
    content = json.loads(manifest.read_text())
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "flip":
        data = bytearray(weights.read_bytes())
        data[-5] ^= 1
        weights.write_bytes(bytes(data))
    elif damage == "remove":
        (saved / "vae" / "config.json").unlink()
    elif damage == "no manifest":
        manifest.unlink()
    elif damage == "version":
        manifest.write_text(json.dumps({**content, "format_version": 99}))
    elif damage == "world":
        manifest.write_text(json.dumps({**content, "world": "another"}))
    else:
        manifest.write_text("{")
    with pytest.raises(ModelError):
        EmbeddedConfig(path=str(saved)).load(CPU)


def test_missing_model_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no embedded prior"):
        EmbeddedConfig(path=str(tmp_path / "nowhere")).load(CPU)
    with pytest.raises(ConfigError, match="precision"):
        EmbeddedConfig(precision="int3")


@pytest.mark.parametrize("how", ["truncated", "missing keys", "strange class"])
def test_unlisted_directories_are_checked_too(
    how: str, saved: Path, components: Components
) -> None:
    """A directory without a manifest, as a downloaded model is, still may not have holes or choose code."""
    from safetensors.torch import load_file, save_file

    weights = saved / "unet" / "diffusion_pytorch_model.safetensors"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "missing keys":
        tensors = load_file(weights)
        tensors.pop("conv_in.bias")
        save_file(tensors, weights)
    else:
        index = json.loads((saved / "model_index.json").read_text())
        index["vae"] = ["subprocess", "Popen"]
        (saved / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError):
        load_components(saved, CPU)


# ---------------------------------------------------------------------------------------------------------------------
# The same adapter reads a pipeline (docs/architecture.md, "One adapter over diffusers")


def assert_alike(one: Prior, other: Prior, words: list[str]) -> None:
    """The same numbers to the last bit, from words and pictures to a prediction and back."""
    tokens, others = one.embed(words), other.embed(words)
    assert torch.equal(tokens, others)
    assert (one.latent_shape, one.image_size) == (other.latent_shape, other.image_size)
    images = torch.rand(len(words), 20, 20, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(one.encode(images), other.encode(images))
    z = torch.randn(len(words), *one.latent_shape, generator=torch.Generator().manual_seed(2))
    assert torch.equal(one.decode(z), other.decode(z))
    t = torch.linspace(0.1, 0.9, len(words))
    a, b = one.predict(z, t, Condition(tokens)), other.predict(z, t, Condition(others))
    assert a.kind == b.kind and torch.equal(a.value, b.value) and torch.equal(a.eps, b.eps)


def test_told_words_only_the_embedded_model_is_a_pipeline(
    components: Components, prior: EmbeddedPrior
) -> None:
    """Its parts, its words by Stable Diffusion's own `encode_prompt`; of cameras that knows nothing."""
    given = {"text_encoder": components.text_encoder, "tokenizer": components.tokenizer}
    text = TextEmbedder(
        STABLE_DIFFUSION, lambda: partial_pipeline(STABLE_DIFFUSION, {}, given), CPU
    )
    parts = PipelineParts(
        STABLE_DIFFUSION, components.unet, components.vae, components.scheduler, text
    )
    plain = PipelinePrior(parts, CPU)
    assert_alike(prior, plain, ["a red cube", ""])
    with pytest.raises(ValueError, match="takes no cameras"):
        plain.predict(latents(1), torch.ones(1), Condition(plain.embed([""]), ring(1)))
