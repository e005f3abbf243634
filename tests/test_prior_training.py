"""Training learns, resumes from its averaged weights, and sampling follows the closed form of a known prior."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dream3d.errors import ConfigError
from dream3d.prior_training import TrainingConfig, sample, train
from dream3d.prior_training.batches import draw_batch, even_times
from dream3d.prior_training.loop import learning_rate
from dream3d.prior_training.weights import (
    FlatWeights,
    open_components,
    save_prior,
    starting_directory,
)
from dream3d.priors import PRIORS
from dream3d.priors.embedded import EmbeddedConfig, read_manifest

CPU = torch.device("cpu")


def tiny(output: Path, **changes: object) -> TrainingConfig:
    settings = {
        "output": str(output),
        "processes": 1,
        "objects": 2,
        "views": 2,
        "images": 80,
        "warmup_images": 8,
        "learning_rate": 3e-3,
        "log_seconds": 0.0,
        "probe_minutes": 1000.0,
        "channels": (16, 32),
    }
    return TrainingConfig(**{**settings, **changes})  # type: ignore[arg-type]


def records(output: Path, event: str) -> list[dict]:
    lines = (output / "log.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["event"] == event]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("training")
    train(tiny(output))
    return output


def test_twenty_steps_lower_the_loss(trained: Path) -> None:
    losses = [record["loss"] for record in records(trained, "training")]
    assert len(losses) == 20
    assert losses[-1] < losses[0]
    assert records(trained, "probe")


def test_trained_directory_is_a_prior(trained: Path) -> None:
    manifest = read_manifest(trained / "embedded")
    assert manifest["images_seen"] == 80 and manifest["training"]["objects"] == 2
    assert "output" not in manifest["training"]
    prior = EmbeddedConfig(path=str(trained / "embedded")).load(CPU)
    generator = torch.Generator().manual_seed(0)
    images = sample(prior, ["a red cube", ""], steps=3, generator=generator)
    assert images.shape == (2, 64, 64, 3) and images.isfinite().all()


def test_resumed_run_begins_with_the_averaged_weights(trained: Path, tmp_path: Path) -> None:
    config = tiny(trained, images=160)
    components, manifest = open_components(config)
    assert manifest["images_seen"] == 80
    before = FlatWeights(components).values.detach().clone()
    stored = EmbeddedConfig(path=str(trained / "embedded")).load(CPU)
    again = FlatWeights(stored.components).values.detach()  # type: ignore[attr-defined]
    assert torch.equal(before, again)
    # A run whose target is already reached changes nothing but rewrites the same weights.
    train(tiny(tmp_path / "copy", start=str(trained / "embedded"), images=80))
    copy, _ = open_components(tiny(tmp_path / "copy"))
    assert torch.equal(FlatWeights(copy).values.detach(), before)
    # The next step counts on from there.
    train(tiny(tmp_path / "more", start=str(trained / "embedded"), images=84))
    assert read_manifest(tmp_path / "more" / "embedded")["images_seen"] == 84


def test_a_crash_between_the_renames_is_recovered(trained: Path, tmp_path: Path) -> None:
    config = tiny(tmp_path)
    components, _ = open_components(tiny(trained))
    save_prior(components, tmp_path, {"images_seen": 7})
    (tmp_path / "embedded").rename(tmp_path / "embedded.old")
    assert starting_directory(tmp_path) == tmp_path / "embedded.old"
    assert open_components(config)[1]["images_seen"] == 7


@pytest.mark.slow
def test_batches_drawn_ahead_train_alike(tmp_path: Path) -> None:
    train(tiny(tmp_path, workers=2, images=40))
    assert read_manifest(tmp_path / "embedded")["images_seen"] == 40


@pytest.mark.slow
def test_two_processes_share_a_step(tmp_path: Path) -> None:
    train(tiny(tmp_path, processes=2, images=40))
    assert read_manifest(tmp_path / "embedded")["images_seen"] == 40


def test_flat_weights_are_the_modules_own(trained: Path) -> None:
    components, _ = open_components(tiny(trained))
    flat = FlatWeights(components)
    weight = components.unet.conv_in.weight
    with torch.no_grad():
        flat.values.zero_()
    assert weight.abs().max() == 0
    (weight.sum() * 3.0).backward()
    assert flat.gradients.sum() == 3.0 * weight.numel()
    assert all(not p.requires_grad for p in components.vae.parameters()) or (
        components.vae.encoder.weight.abs().max() > 0
    )


def test_learning_rate_warms_up_holds_and_decays() -> None:
    config = TrainingConfig(learning_rate=1.0, warmup_images=100)
    assert learning_rate(config, 0) == pytest.approx(0.01)
    assert learning_rate(config, 10**6) == 1.0
    decay = TrainingConfig(learning_rate=1.0, warmup_images=100, decay_images=1000)
    assert learning_rate(decay, 500) == pytest.approx(0.5)
    assert learning_rate(decay, 1000) == 0.0


def test_times_are_stratified_and_favour_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    t = even_times(100, 0.65, generator)
    u = t ** (1 / 0.65)
    assert sorted((u * 100).floor().int().tolist()) == list(range(100))
    assert t.median() > 0.6
    shared = even_times(3, 0.65, generator, repeat=4).reshape(3, 4)
    assert (shared == shared[:, :1]).all()


def test_batches_never_hold_held_out_combinations_and_drop_captions_jointly(trained: Path) -> None:
    from dream3d.world.grammar import is_caption_held_out, parse

    components, _ = open_components(tiny(trained))
    config = tiny(trained, objects=12, joint_share=1.0, caption_drop=0.5)
    batch = draw_batch(config, components.tokenizer, np.random.default_rng(0))
    assert batch.told == "joint" and batch.images.shape == (24, 64, 64, 3)
    texts = components.tokenizer.batch_decode(batch.token_ids, skip_special_tokens=True)
    for one, other in zip(texts[::2], texts[1::2], strict=True):
        assert (one.strip() == "") == (other.strip() == "")
    named = [text for text in texts if text.strip()]
    assert named and not any(is_caption_held_out(parse(text)) for text in named)


def test_settings_out_of_range_are_refused() -> None:
    for change in ({"joint_share": 1.5}, {"objects": 0}, {"device": "tpu"}):
        with pytest.raises(ConfigError):
            TrainingConfig(**change)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="processes"):
        TrainingConfig(device="cuda", processes=2)


def test_sampling_a_gaussian_prior_ends_at_its_mean() -> None:
    prior = PRIORS["gaussian"]().load(CPU)  # type: ignore[call-arg]
    generator = torch.Generator().manual_seed(0)
    images = sample(prior, ["a red cube"], steps=40, cfg_scale=1.0, generator=generator)
    again = sample(
        prior,
        ["a red cube"],
        steps=40,
        cfg_scale=1.0,
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.equal(images, again)
    other = sample(prior, ["a blue mug"], steps=40, cfg_scale=1.0, generator=generator)
    assert (images - other).abs().mean() > 0.02
