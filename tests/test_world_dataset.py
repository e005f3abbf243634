"""Batches of the world: repeatable, labelled truly, drawn in the promised shares; and their backgrounds."""

import colorsys
from collections import Counter

import numpy as np
import pytest
import torch

from dream3d.world.backgrounds import random_background_arrays, random_backgrounds
from dream3d.world.catalog import CATEGORIES, PRIMITIVES
from dream3d.world.colors import COLORS
from dream3d.world.dataset import Mix, WorldBatch, sample_batch, sample_cameras
from dream3d.world.grammar import (
    STACKABLE,
    caption_text,
    is_caption_held_out,
    parse,
    view_words,
)
from dream3d.world.render import UNLIT

CATEGORY_NAMES, COLOR_NAMES = list(CATEGORIES), list(COLORS)


@pytest.fixture(scope="module")
def batch() -> WorldBatch:
    return sample_batch(np.random.default_rng(11), objects=12, views=4, size=32)


def test_equal_generators_give_equal_batches(batch: WorldBatch) -> None:
    again = sample_batch(np.random.default_rng(11), objects=12, views=4, size=32)
    assert torch.equal(batch.images, again.images)
    assert torch.equal(batch.cameras.c2w, again.cameras.c2w)
    assert batch.captions == again.captions
    other = sample_batch(np.random.default_rng(12), objects=12, views=4, size=32)
    assert not torch.equal(batch.images, other.images)


def test_shapes_ranges_and_labels(batch: WorldBatch) -> None:
    assert batch.images.shape == (12, 4, 32, 32, 3)
    assert batch.images.dtype == torch.float32
    assert batch.alpha.shape == (12, 4, 32, 32, 1)
    assert len(batch.cameras) == 48
    assert float(batch.images.min()) >= 0.0 and float(batch.images.max()) <= 1.0 + 1e-6
    coverage = batch.alpha.mean(dim=(2, 3, 4))
    assert float(coverage.min()) > 0.02
    assert float(coverage.max()) < 0.8
    for n, thing in enumerate(batch.objects):
        assert caption_text(thing.caption) == batch.captions[n]
        assert parse(batch.captions[n]) == thing.caption
        names = [name for _, name in thing.caption.objects]
        assert [CATEGORY_NAMES[i] for i in batch.category[n].tolist() if i >= 0] == names
        assert [COLOR_NAMES[i] for i in batch.color[n].tolist() if i >= 0] == list(thing.colors)
        assert int(batch.relation[n]) == [None, "on", "next to"].index(thing.caption.relation)
        for v, words in enumerate(batch.views[n]):
            camera = batch.cameras[[4 * n + v]]
            angles = float(camera.azimuth_deg), float(camera.elevation_deg)
            assert words == view_words(*angles)
            off = (angles[0] - 45.0 * int(batch.azimuth_bin[n, v]) + 180.0) % 360.0 - 180.0
            assert abs(off) <= 22.5 + 1e-3


def test_main_colour_is_in_the_picture() -> None:
    mix = Mix(pair_share=0.0, primitive_share=1.0)
    plain = sample_batch(np.random.default_rng(0), 12, 2, 32, mix=mix, light=UNLIT)
    for n in range(12):
        assert CATEGORY_NAMES[int(plain.category[n, 0])] in PRIMITIVES
        solid = plain.alpha[n, ..., 0] == 1.0
        expected = torch.tensor(COLORS[COLOR_NAMES[int(plain.color[n, 0])]])
        torch.testing.assert_close(plain.images[n][solid].median(dim=0).values, expected)


def test_markers_face_the_front() -> None:
    mix = Mix(pair_share=0.0, primitive_share=0.0, front_share=1.0)
    fronts = sample_batch(np.random.default_rng(1), 48, 4, 32, mix=mix)
    assert fronts.has_front.all()
    turn = (fronts.cameras.azimuth_deg.reshape(48, 4) + 180.0) % 360.0 - 180.0
    level = fronts.cameras.elevation_deg.reshape(48, 4) < 40.0
    seen = fronts.marker_visible
    assert seen[(turn.abs() < 40.0) & level].float().mean() > 0.95
    assert seen[turn.abs() > 125.0].float().mean() < 0.05


def test_splits_and_shares() -> None:
    held_out = sample_batch(np.random.default_rng(2), 10, 1, 16, split="held_out")
    assert all(is_caption_held_out(thing.caption) for thing in held_out.objects)
    many = sample_batch(np.random.default_rng(3), 400, 1, 8)
    assert not any(is_caption_held_out(thing.caption) for thing in many.objects)
    pairs = (many.relation > 0).float().mean()
    single = many.relation == 0
    names = [CATEGORY_NAMES[i] for i in many.category[:, 0].tolist()]
    primitive = torch.tensor([name in PRIMITIVES for name in names]) & single
    # Four standard deviations of a share of 400 is at most .1.
    assert float(pairs) == pytest.approx(0.15, abs=0.08)
    assert float(primitive.float().mean()) == pytest.approx(0.15, abs=0.08)
    assert float(many.has_front.float().mean()) == pytest.approx(0.7 * 0.7, abs=0.1)


def test_shares_hold_whatever_else_is_asked() -> None:
    """Many pairs starve neither the composites in them nor the single ones without a front."""
    mix = Mix(pair_share=0.6, primitive_share=0.0, front_share=0.5)
    many = sample_batch(np.random.default_rng(4), 600, 1, 4, mix=mix)
    pair = many.relation > 0
    assert float(many.has_front[~pair].float().mean()) == pytest.approx(0.5, abs=0.13)
    members = [CATEGORY_NAMES[i] for i in many.category[pair].flatten().tolist()]
    drawn = Counter(members)
    assert set(drawn) == set(STACKABLE)
    # On an 'A on B', B is one of fewer things.
    tops = Counter(CATEGORY_NAMES[i] for i in many.category[pair, 0].tolist())
    assert max(tops.values()) < 4 * min(tops.values()) + 8


def test_cameras_follow_the_law() -> None:
    cameras = sample_cameras(np.random.default_rng(4), 3000, 4, 16)
    azimuth = cameras.azimuth_deg.reshape(-1, 4)
    elevation = cameras.elevation_deg.reshape(-1, 4)
    distance = cameras.distance
    assert float(distance.min()) >= 3.04 and float(distance.max()) <= 3.3601
    assert float(elevation.min()) >= -10.0 and float(elevation.max()) <= 85.0
    assert float((elevation > 50.0).float().mean()) == pytest.approx(0.15, abs=0.03)
    spread = (elevation == elevation[:, :1]).all(dim=1)
    assert float(spread.float().mean()) == pytest.approx(0.6, abs=0.04)
    steps = (azimuth.diff(dim=1) % 360.0)[spread]
    torch.testing.assert_close(steps, torch.full_like(steps, 90.0), atol=1e-3, rtol=0.0)
    counts = torch.histc(azimuth, 8, 0.0, 360.0) / azimuth.numel()
    torch.testing.assert_close(counts, torch.full_like(counts, 0.125), atol=0.015, rtol=0.0)


def test_backgrounds_cover_greys_hues_and_gradients() -> None:
    images = random_backgrounds(2000, 8, torch.Generator().manual_seed(0))
    assert images.shape == (2000, 8, 8, 3)
    assert float(images.min()) >= 0.0 and float(images.max()) <= 1.0
    flat = (images - images[:, :1, :1]).abs().amax(dim=(1, 2, 3)) < 1e-6
    gray = (images.amax(-1) - images.amin(-1)).amax(dim=(1, 2)) < 1e-6
    assert float((flat & gray).float().mean()) == pytest.approx(0.3, abs=0.05)
    assert float((flat & ~gray).float().mean()) == pytest.approx(0.3, abs=0.05)
    values = images[flat & gray][:, 0, 0, 0]
    assert 0.05 <= float(values.min()) < 0.08
    assert 0.92 < float(values.max()) <= 0.95
    hues = [colorsys.rgb_to_hsv(*color)[0] for color in images[flat & ~gray][:, 0, 0].tolist()]
    counts, _ = np.histogram(hues, 6, (0.0, 1.0))
    assert counts.min() > 0.1 * len(hues)
    # A gradient is linear: the middle of two opposite pixels is the middle of the picture.
    graded = images[~flat]
    opposite = 0.5 * (graded + graded.flip(1).flip(2))
    centre = graded.mean(dim=(1, 2), keepdim=True).expand_as(opposite)
    torch.testing.assert_close(opposite, centre, atol=1e-5, rtol=0.0)


def test_backgrounds_repeat_and_share_one_law() -> None:
    first = random_backgrounds(5, (4, 6), torch.Generator().manual_seed(3))
    assert torch.equal(first, random_backgrounds(5, (4, 6), torch.Generator().manual_seed(3)))
    assert first.shape == (5, 4, 6, 3)
    arrays = random_background_arrays(2000, 2, np.random.default_rng(0))
    tensors = random_backgrounds(2000, 2, torch.Generator().manual_seed(0)).numpy()
    np.testing.assert_allclose(arrays.mean((0, 1, 2)), tensors.mean((0, 1, 2)), atol=0.03)
    np.testing.assert_allclose(arrays.std((0, 1, 2)), tensors.std((0, 1, 2)), atol=0.03)
