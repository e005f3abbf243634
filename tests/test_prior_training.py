"""Training learns, resumes from its averaged weights, and sampling follows the closed form of a known prior."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dream3d.diffusion import TableSchedule
from dream3d.errors import ConfigError
from dream3d.prior_training import TrainingConfig, sample, train
from dream3d.prior_training.batches import draw_batch, even_times
from dream3d.prior_training.loop import Run, _step, learning_rate
from dream3d.prior_training.pool import DrawnObjects, ObjectPool, draw_objects
from dream3d.prior_training.probes import make_probe
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
    network = components.unet.state_dict()
    for name, weight in stored.network.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(weight, network[name])
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


@pytest.mark.gpu
@pytest.mark.parametrize("acceleration", ["graphs", "compile"])
def test_accelerated_steps_train_alike(tmp_path: Path, acceleration: str) -> None:
    """In a process of its own: the type checks of these tests cannot be traced."""
    for name in ("none", acceleration):
        settings = (
            f"--output {tmp_path / name} --acceleration {name} --processes 1 --objects 4 --views 2 "
            "--reuse 2 --images 160 --channels 32 64 --log-seconds 0 --device cuda"
        )
        command = [sys.executable, "-m", "dream3d", "prior", "train", *settings.split()]
        subprocess.run(command, check=True, timeout=300, capture_output=True)
    plain, other = (records(tmp_path / n, "training")[-1]["loss"] for n in ("none", acceleration))
    assert other == pytest.approx(plain, rel=2e-2)


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
    clock = TrainingConfig(learning_rate=1.0, warmup_images=100, decay_minutes=10.0)
    assert learning_rate(clock, 10**6, seconds=150.0) == pytest.approx(0.75)
    assert learning_rate(clock, 10**6, seconds=700.0) == 0.0


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


def drawn_objects(config: TrainingConfig, seed: int = 0) -> tuple[DrawnObjects, Any]:
    components, _ = open_components(config)
    drawn = draw_objects(config, components.tokenizer, np.random.default_rng(seed))
    return drawn, components.tokenizer


def test_a_pool_gives_back_what_was_drawn_over_other_backgrounds(trained: Path) -> None:
    config = tiny(trained, objects=6, reuse=2, caption_drop=0.0, view_words_share=0.0)
    drawn, tokenizer = drawn_objects(config)
    assert len(drawn.plain) == 3
    pool = ObjectPool(config, tokenizer, CPU)
    pool.add(drawn)
    generator = torch.Generator().manual_seed(1)
    one, other = (pool.draw(np.random.default_rng(0), generator) for _ in range(2))
    assert one.images.shape == (12, 64, 64, 3) and len(one.cameras) == 12
    assert not torch.equal(one.images, other.images)
    covered = drawn.pictures[..., 3].flatten(0, 1) == 255
    for image, ids, camera in zip(one.images, one.token_ids, one.cameras.c2w, strict=True):
        near = (drawn.cameras.c2w - camera).abs().amax(dim=(1, 2))
        source = int(near.argmin())
        assert near[source] == 0.0
        assert torch.equal(ids, drawn.plain[source // 2])
        truth = drawn.pictures[..., :3].flatten(0, 1)[source] / 255.0
        assert (image - truth)[covered[source]].abs().max() < 1e-6
        assert (image - truth)[~covered[source]].abs().max() > 0.02


def test_a_full_pool_drops_the_oldest(trained: Path) -> None:
    config = tiny(
        trained, objects=4, reuse=2, pool_objects=3, view_words_share=0.0, caption_drop=0.0
    )
    drawn, tokenizer = drawn_objects(config)
    pool = ObjectPool(config, tokenizer, CPU)
    later = [drawn_objects(config, seed)[0] for seed in (1, 2)]
    for objects in (drawn, *later):
        pool.add(objects)
    assert pool.count == 3
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    present = {tuple(r.tolist()) for _ in range(20) for r in pool.draw(rng, generator).token_ids}
    expected = [ids for objects in (drawn, *later) for ids in objects.plain][-3:]
    assert present == {tuple(ids.tolist()) for ids in expected}


@pytest.mark.parametrize("told", [1.0, 0.0])
def test_a_pool_drops_and_names_as_often_as_asked(trained: Path, told: float) -> None:
    config = tiny(
        trained, objects=400, reuse=100, joint_share=told, caption_drop=0.3, view_words_share=0.5
    )
    drawn, tokenizer = drawn_objects(config)
    pool = ObjectPool(config, tokenizer, CPU)
    pool.add(drawn)
    ids = pool.draw(np.random.default_rng(0), torch.Generator().manual_seed(0)).token_ids
    empty = (ids == pool.empty).all(dim=1).reshape(400, 2)
    assert empty.float().mean() == pytest.approx(0.3, abs=0.06)
    assert (empty[:, 0] == empty[:, 1]).all() == (told == 1.0)
    lengths = (ids != tokenizer.pad_token_id).sum(dim=1)[~empty.flatten()]
    plain = (drawn.plain != tokenizer.pad_token_id).sum(dim=1)
    assert lengths.float().mean() > plain.float().mean() + 0.3


@pytest.mark.slow
def test_training_from_a_pool_lowers_the_loss(tmp_path: Path) -> None:
    config = tiny(tmp_path, objects=8, reuse=4, images=320)
    fresh, _ = open_components(config)
    train(config)
    learnt, _ = open_components(config)
    schedule = TableSchedule(fresh.scheduler.alphas_cumprod)
    before, after = (
        make_probe(c, CPU, objects=8).measure(c, schedule)["loss_900"] for c in (fresh, learnt)
    )
    assert after < before - 0.05


def test_a_gradient_that_is_not_finite_is_left_out(trained: Path) -> None:
    config = tiny(trained)
    components, _ = open_components(config)
    flat, run = FlatWeights(components), Run(0, 0, 0.0)
    before = flat.values.detach().clone()
    optimiser = torch.optim.AdamW([flat.values], lr=0.1, weight_decay=0.0)
    flat.gradients.fill_(1.0)[7] = torch.inf
    _step(config, run, flat, optimiser, torch.tensor(3.0))
    assert torch.equal(flat.values.detach(), before)
    assert run.skipped == 1 and run.loss.isnan()
    flat.gradients.fill_(1.0)
    _step(config, run, flat, optimiser, torch.tensor(3.0))
    assert run.skipped == 1 and run.loss == 3.0 and not torch.equal(flat.values, before)


def test_settings_out_of_range_are_refused() -> None:
    for change in ({"joint_share": 1.5}, {"objects": 0}, {"device": "tpu"}):
        with pytest.raises(ConfigError):
            TrainingConfig(**change)  # type: ignore[arg-type]
    for acceleration, word in (("graphs", "cuda"), ("magic", "choose none")):
        with pytest.raises(ConfigError, match=word):
            TrainingConfig(acceleration=acceleration)
    with pytest.raises(ConfigError, match="divisor"):
        TrainingConfig(objects=4, reuse=3)
    with pytest.raises(ConfigError, match="decay_minutes"):
        TrainingConfig(decay_images=10, decay_minutes=1.0)
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
