"""The catalog: every object is valid, shows its colour, and shows its front from the front only."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dream3d.cameras import orbit_cameras
from dream3d.errors import OutputError, PromptError
from dream3d.world.catalog import CATEGORIES, COMPOSITES, PRIMITIVES
from dream3d.world.colors import COLORS
from dream3d.world.freeze import FROZEN_HASH, content_hash
from dream3d.world.grammar import STACKABLE, SUPPORTS, Caption, is_held_out
from dream3d.world.objects import WorldObject, build_object
from dream3d.world.parts import KINDS
from dream3d.world.render import marker_share, part_images
from dream3d.world.sheet import contact_sheet
from dream3d.world.solid import bounds, pack, radius_about, signed_distance

REQUIRED = (
    *("snowman", "mushroom", "table", "chair", "house", "rocket", "car", "robot", "tree", "lamp"),
    *("hamburger", "ice cream", "castle", "lighthouse", "train", "sailboat", "airplane", "mug"),
    *("teapot", "bed", "cactus", "flower", "duck", "penguin", "cat", "dog", "fish", "person"),
    *("barrel", "crown", "robot head"),
)
AZIMUTHS = [float(azimuth) for azimuth in range(0, 360, 15)]
OFF_FRONT = np.array([min(a, 360 - a) for a in AZIMUTHS])
PIXELS = 64 * 64


def single(name: str, seed: int, color: str | None = "red") -> WorldObject:
    return build_object(Caption(((color, name),)), np.random.default_rng(seed))


@cache
def views(name: str, seed: int) -> tuple[WorldObject, np.ndarray]:
    """A red object and which part each pixel shows, [elevations * azimuths, 64, 64]."""
    thing = single(name, seed)
    images = [
        part_images(thing, orbit_cameras(AZIMUTHS, elevation, size=64)) for elevation in (0.0, 25.0)
    ]
    return thing, np.stack(images)


def test_what_must_be_there() -> None:
    assert PRIMITIVES == ("cube", "sphere", "cylinder", "cone", "torus", "capsule")
    assert len(COMPOSITES) >= 30
    assert set(REQUIRED) <= set(COMPOSITES)
    assert sum(entry.has_front for entry in CATEGORIES.values()) >= 14
    assert set(SUPPORTS) <= set(STACKABLE)
    assert set(PRIMITIVES) <= set(SUPPORTS)


@pytest.mark.parametrize("name", CATEGORIES)
def test_every_object_is_valid_in_every_color(name: str) -> None:
    entry = CATEGORIES[name]
    assert entry.color_names
    assert set(entry.typical_colors) <= set(COLORS)
    for seed, color in enumerate(COLORS):
        thing = single(name, seed, color)
        assert thing.colors == (color,)
        assert not thing.parts[0].carve
        assert any(part.main for part in thing.parts)
        assert any(part.marker for part in thing.parts) == entry.has_front
        for part in thing.parts:
            assert part.kind in KINDS
            assert np.all(np.isfinite([*part.size, *part.position, *part.rotation_deg]))
            assert min(part.size[:2]) > 0.0
            assert (part.color == color) or not part.main
            assert not (part.carve and part.marker)
        assert radius_about(thing.parts, np.zeros(3)) <= 1.0 + 1e-6
        low, high = bounds(thing.parts)
        assert np.allclose(low, -high, atol=1e-9)


@pytest.mark.parametrize("name", COMPOSITES)
def test_the_color_can_be_read_from_all_around(name: str) -> None:
    for seed in (0, 1):
        thing, images = views(name, seed)
        main = np.append([part.main for part in thing.parts], False)
        share = main[images].sum((2, 3)) / (images >= 0).sum((2, 3))
        assert np.quantile(share, 0.1) > 0.10
        assert share.min() > 0.06


@pytest.mark.parametrize("name", CATEGORIES)
def test_objects_fill_the_picture(name: str) -> None:
    _, images = views(name, 0)
    assert (images >= 0).mean() > 0.1
    assert (images[:, :, 0] < 0).all(), "nothing is cut off"


@pytest.mark.parametrize("name", [n for n, entry in CATEGORIES.items() if entry.has_front])
def test_the_front_is_seen_from_the_front_only(name: str) -> None:
    for seed in (0, 1):
        thing, images = views(name, seed)
        share = np.stack([marker_share(thing.solid, row) for row in images]) * PIXELS
        assert share[:, OFF_FRONT <= 45].min() >= 32
        assert share[:, OFF_FRONT > 115].max() < 0.004 * PIXELS
        assert share[:, OFF_FRONT > 140].max() <= 0.001 * PIXELS


@pytest.mark.parametrize("name", [n for n, entry in CATEGORIES.items() if entry.has_front])
def test_left_and_right_see_the_front_alike(name: str) -> None:
    thing, images = views(name, 0)
    share = marker_share(thing.solid, images[0]) * PIXELS
    assert abs(share[AZIMUTHS.index(45)] - share[AZIMUTHS.index(315)]) <= 0.35 * share.max()


@pytest.mark.parametrize(
    "name", [n for n, e in CATEGORIES.items() if e.yaw_turns != 1 and n in (*PRIMITIVES, *REQUIRED)]
)
def test_round_things_are_round(name: str) -> None:
    """A turn that is said to leave the object unchanged hardly moves its surface."""
    turns = CATEGORIES[name].yaw_turns or 12
    solid = single(name, 0).solid
    rng = np.random.default_rng(0)
    points = rng.uniform(-1.0, 1.0, (4000, 3))
    angle = 2.0 * np.pi / turns
    c, s = np.cos(angle), np.sin(angle)
    turned = points @ np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
    inside, after = (signed_distance(solid, p)[0] < 0.0 for p in (points, turned))
    assert (inside & after).sum() / max((inside | after).sum(), 1) > 0.9


def test_proportions_vary_and_seeds_repeat() -> None:
    for name in CATEGORIES:
        first, again, other = (single(name, seed) for seed in (0, 0, 1))
        assert first.parts == again.parts
        if name != "sphere":
            assert first.parts != other.parts


def test_open_colors_are_typical_and_never_held_out() -> None:
    for name, entry in CATEGORIES.items():
        drawn = {single(name, seed, None).colors[0] for seed in range(5)}
        assert drawn <= set(entry.typical_colors)
        assert not any(is_held_out(color, name) for color in drawn)
        thing = single(name, 0, None)
        assert thing.named == Caption(((thing.colors[0], name),))


@pytest.mark.parametrize("name", STACKABLE)
def test_cuts_stay_within_their_object(name: str) -> None:
    """In a pair a cut also cuts the other object, so it may only stick out upward, where nothing stands."""
    for seed in range(3):
        parts = single(name, seed).parts
        low, high = bounds(parts)
        for part in parts:
            if part.carve:
                own_low, own_high = bounds([replace(part, carve=False)])
                assert np.all(own_low >= low - 0.03)
                assert own_high[0] <= high[0] + 0.03
                assert own_high[2] <= high[2] + 0.03


@pytest.mark.parametrize("relation", ["on", "next to"])
def test_pairs_touch_but_do_not_mix(relation: str) -> None:
    rng = np.random.default_rng(7)
    for lower in SUPPORTS if relation == "on" else STACKABLE:
        upper = STACKABLE[int(rng.integers(len(STACKABLE)))]
        caption = Caption((("red", upper), ("blue", lower)), relation)  # type: ignore[arg-type]
        thing = build_object(caption, rng)
        assert set(thing.solid.owner.tolist()) == {0, 1}
        assert radius_about(thing.parts, np.zeros(3)) <= 1.0 + 1e-6
        first, second = (
            [p for p, owner in zip(thing.parts, thing.solid.owner, strict=True) if owner == k]
            for k in (0, 1)
        )
        assert all(part.color == "red" for part in first if part.main)
        assert all(part.color == "blue" for part in second if part.main)
        (low, high), (other_low, other_high) = bounds(first), bounds(second)
        if relation == "on":
            assert -0.05 < low[1] - other_high[1] < 0.0
            assert abs(low[0] + high[0] - other_low[0] - other_high[0]) < 1e-6
        else:
            assert 0.0 < other_low[0] - high[0] < 0.1, "the second stands on the +X side"
            assert abs(low[1] - other_low[1]) < 1e-6


def test_the_world_is_the_frozen_one() -> None:
    """A failure here means that shipped weights no longer fit: see `dream3d.world.freeze`."""
    assert content_hash() == FROZEN_HASH


def test_the_hash_sees_a_changed_object(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = CATEGORIES["mug"]

    def thicker(rng: np.random.Generator, color: str) -> list:
        parts = entry.build(rng, color)
        return [*parts[:-1], replace(parts[-1], position=(0.0, 0.01, 0.0))]

    monkeypatch.setitem(CATEGORIES, "mug", replace(entry, build=thicker))
    assert content_hash() != FROZEN_HASH


def test_contact_sheet(tmp_path: Path) -> None:
    path = contact_sheet(tmp_path / "new" / "sheet.png", ["cube", "cat"], size=32, columns=2)
    with Image.open(path) as sheet:
        assert sheet.width > 2 * 5 * 32
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]
    with pytest.raises(PromptError, match="mug"):
        contact_sheet(tmp_path / "x.png", ["mugg"])
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        contact_sheet(tmp_path / "file" / "x.png", ["cube"], size=16)


def test_packing_keeps_order() -> None:
    thing = single("car", 0)
    again = pack(thing.parts)
    assert np.array_equal(again.size, thing.solid.size)
    assert np.array_equal(again.marker, [part.marker for part in thing.parts])


def test_the_documentation_lists_every_category() -> None:
    text = (Path(__file__).parent.parent / "docs" / "world.md").read_text(encoding="utf-8")
    for name, entry in CATEGORIES.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        pairs = "on and under" if entry.supports else "on" if entry.stackable else ""
        front = "yes" if entry.has_front else ""
        assert cells == [name, entry.color_names, front, pairs, ", ".join(entry.synonyms)]
