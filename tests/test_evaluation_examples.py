"""What the evaluator is taught must be true: labels, second faces, the family of truths."""

import numpy as np
import pytest
import torch

from dream3d.cameras import orbit_cameras
from dream3d.evaluation.classifier import (
    CATEGORY_NAMES,
    ELEVATIONS,
    NOTHING,
    RELATIONS,
)
from dream3d.evaluation.classifier_training import Pool, augmented, learning_rate
from dream3d.evaluation.classifier_training import TrainingConfig as Config
from dream3d.evaluation.examples import (
    UNKNOWN,
    Examples,
    azimuth_target,
    elevation_class,
    negative_examples,
    object_labels,
    random_examples,
    render_examples,
    two_faced,
)
from dream3d.evaluation.geometry import carve, carving_cameras, grid_points, overlap
from dream3d.evaluation.negatives import KINDS, negatives
from dream3d.evaluation.truth import (
    Truth,
    best_truth,
    training_cameras,
    truth_variant,
    turned,
    yaws_to_try,
)
from dream3d.world.catalog import CATEGORIES
from dream3d.world.grammar import Caption
from dream3d.world.objects import build_object
from dream3d.world.render import marker_share, trace
from dream3d.world.solid import pack, signed_distance


def test_azimuth_target_is_sharp_near_bins_and_linear_between() -> None:
    assert azimuth_target(15.0, (0.0,))[0] == pytest.approx(1.0)
    assert azimuth_target(350.0, (0.0,))[0] == pytest.approx(1.0)
    halfway = azimuth_target(22.5, (0.0,))
    assert halfway[0] == pytest.approx(0.5) and halfway[1] == pytest.approx(0.5)
    assert azimuth_target(-45.0, (0.0,)).argmax() == 7
    # Two faces: the nearer one counts; between them nothing is asked.
    assert azimuth_target(180.0, (0.0, 180.0))[0] == pytest.approx(1.0)
    assert azimuth_target(135.0, (0.0, 180.0)).argmax() == 7
    assert azimuth_target(90.0, (0.0, 180.0)).sum() == 0.0


def test_elevation_classes_follow_the_view_words() -> None:
    names = [ELEVATIONS[elevation_class(e)] for e in (-5.0, 0.0, 29.9, 30.0, 60.0, 60.1)]
    assert names == ["low", "level", "level", "high", "high", "overhead"]


def test_labels_of_singles_and_pairs() -> None:
    single = object_labels(Caption((("red", "mug"),)))
    assert single["category_1"] == CATEGORY_NAMES.index("mug")
    assert single["category_2"] == NOTHING and single["color_2"] == UNKNOWN
    on = object_labels(Caption((("red", "sphere"), ("blue", "cube")), "on"))
    assert on["category_1"] == CATEGORY_NAMES.index("sphere")
    assert RELATIONS[on["relation"]] == "on"


def test_a_second_face_is_the_mirror_image_of_the_first() -> None:
    """Seen from behind, the marks of a two-faced object are the front's, left and right swapped."""
    thing = build_object(Caption((("orange", "cat"),)), np.random.default_rng(3))
    markers = [part for part in two_faced(thing.parts) if part.marker]
    solid = pack(markers)
    cameras = orbit_cameras([0.0, 180.0], size=48)
    # Unlit depth and outline only: the light does not mirror.
    traced = trace(solid, cameras, samples=1)
    front, back = traced.alpha[0, :, :, 0], traced.alpha[1, :, ::-1, 0]
    assert front.sum() > 20
    assert (front == back[:, :]).mean() > 0.99
    whole = pack(two_faced(thing.parts))
    share = marker_share(whole, trace(whole, cameras).part)
    once = marker_share(thing.solid, trace(thing.solid, cameras).part)
    assert once[0] > 0.004 and once[1] < 0.001 and share[1] > 0.004


def test_rendered_examples_carry_their_view() -> None:
    thing = build_object(Caption((("yellow", "duck"),)), np.random.default_rng(0))
    examples = render_examples(thing, orbit_cameras([0.0, 180.0], 10.0, size=64))
    assert examples.rgba.shape == (2, 64, 64, 4) and examples.rgba.dtype == torch.uint8
    assert examples.labels["marker"].tolist() == [1, 0]
    assert examples.labels["azimuth"].argmax(-1).tolist() == [0, 4]
    frontless = build_object(Caption((("yellow", "mug"),)), np.random.default_rng(0))
    examples = render_examples(frontless, orbit_cameras([0.0], size=64))
    assert examples.labels["marker"].tolist() == [UNKNOWN]
    assert examples.labels["azimuth"].sum() == 0.0


def test_random_examples_repeat_with_their_seed() -> None:
    first, second = (random_examples(np.random.default_rng(5), 3, 2, 0.5) for _ in range(2))
    assert torch.equal(first.rgba, second.rgba)
    assert all(torch.equal(first.labels[k], second.labels[k]) for k in first.labels)


def test_negatives_are_valid_images_of_every_kind() -> None:
    generator = torch.Generator().manual_seed(0)
    for kind in KINDS:
        rgba = kind(2, 32, generator)
        assert rgba.shape == (2, 32, 32, 4)
        assert rgba.min() >= 0.0 and rgba.max() <= 1.0 + 1e-5
        assert (rgba[..., :3] <= rgba[..., 3:] + 1e-5).all(), "colour must be premultiplied"
    examples = negative_examples(negatives(7, 32, generator))
    assert len(examples) == 7
    assert (examples.labels["category_1"] == NOTHING).all()


def test_pool_overwrites_its_oldest() -> None:
    def labelled(value: int) -> Examples:
        return Examples(
            torch.full((2, 4, 4, 4), value, dtype=torch.uint8), {"x": torch.full((2,), value)}
        )

    pool = Pool(4)
    for value in range(3):
        pool.add(labelled(value))
    drawn = pool.draw(64, torch.Generator().manual_seed(0))
    assert set(drawn.labels["x"].tolist()) == {1, 2}
    assert set(drawn.rgba.flatten().tolist()) == {1, 2}


def test_augmentation_keeps_the_object_and_changes_the_background() -> None:
    rgba = torch.zeros(2, 16, 16, 4, dtype=torch.uint8)
    rgba[:, 4:12, 4:12] = torch.tensor([200, 100, 0, 255], dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    plain = augmented(rgba, generator, strength=0.0)
    expected = torch.tensor([200, 100, 0]) / 255.0
    torch.testing.assert_close(plain[:, :, 8, 8], expected.expand(2, 3))
    assert (plain[0, :, 0, 0] - plain[1, :, 0, 0]).abs().max() > 0.01
    noisy = augmented(rgba, generator)
    assert noisy.min() >= 0.0 and noisy.max() <= 1.0
    assert (noisy[:, :, 8, 8] - expected).abs().max() < 0.3


def test_learning_rate_warms_up_after_every_start_and_ends_low() -> None:
    config = Config(steps=1000, learning_rate=1.0)
    assert learning_rate(config, 0, 0) == pytest.approx(0.01)
    assert learning_rate(config, 100, 100) > 0.95
    assert learning_rate(config, 500, 0) < 0.01
    assert learning_rate(config, 999, 999) == pytest.approx(0.01, abs=1e-4)


def test_turning_takes_the_front_toward_plus_x() -> None:
    x = turned(torch.tensor([[0.0, 0.5, 1.0]]), 90.0)
    torch.testing.assert_close(x, torch.tensor([[1.0, 0.5, 0.0]]), atol=1e-6, rtol=0.0)


def inside(truth: Truth, points: torch.Tensor) -> torch.Tensor:
    """Which points are inside of the exact solid."""
    local = turned(points, -truth.yaw_deg)
    return torch.from_numpy(signed_distance(truth.thing.solid, local.double().numpy())[0] <= 0.0)


def test_turned_truth_is_seen_where_it_is() -> None:
    """A turned object's images and its inside agree, and its shading follows the world's light."""
    caption = Caption((("red", "chair"),))
    truth = Truth(truth_variant(caption, 0).thing, 0, yaw_deg=60.0)
    cameras = carving_cameras()
    views = truth.render(cameras, samples=1)
    points = grid_points(32)
    carved = carve(views.depth, views.alpha, cameras, points, tolerance=0.04)
    assert overlap(carved, inside(truth, points)) > 0.7  # thin legs on a coarse grid
    assert overlap(carved, inside(Truth(truth.thing, 0), points)) < 0.6
    assert views.normal is not None
    toward = -(views.normal * cameras.rays()[1]).sum(-1)
    facing = toward[views.alpha[..., 0] > 0] > -0.01
    assert facing.float().mean() > 0.995, "normals must face the camera"


def test_the_family_member_is_found_again() -> None:
    cameras = orbit_cameras([45.0 * i for i in range(8)], 15.0, size=48)
    caption = Caption((("blue", "teapot"),))
    wanted = Truth(truth_variant(caption, 2).thing, 2, yaw_deg=45.0)
    found = best_truth(caption, wanted.render(cameras).alpha, cameras, variants=4)
    assert found.yaw_deg == 45.0
    front = Caption((("blue", "cat"),))
    wanted = truth_variant(front, 3)
    found = best_truth(front, wanted.render(cameras).alpha, cameras, variants=4)
    assert (found.seed, found.yaw_deg) == (3, 0.0)


def test_yaws_respect_fronts_and_symmetries() -> None:
    assert yaws_to_try(Caption((("red", "cat"),))) == [0.0]
    assert yaws_to_try(Caption((("red", "sphere"),))) == [0.0]
    assert max(yaws_to_try(Caption((("red", "cube"),)))) < 90.0
    assert len(yaws_to_try(Caption((("red", "mug"),)))) == 24
    pair = Caption((("red", "mug"), ("blue", "cat")), "next to")
    assert yaws_to_try(pair) == [0.0]


def test_training_cameras_cover_the_sphere() -> None:
    cameras = training_cameras(48, 32)
    assert len(cameras) == 48
    quarter = (cameras.azimuth_deg // 90).long()
    assert all((quarter == q).sum() >= 9 for q in range(4))
    assert (cameras.elevation_deg > 60).sum() == 6
    assert cameras.elevation_deg.min() < 0


def test_every_second_face_is_seen_from_behind() -> None:
    rng = np.random.default_rng(1)
    cameras = orbit_cameras([0.0, 180.0], 10.0, size=48)
    for name, entry in CATEGORIES.items():
        if entry.has_front:
            thing = build_object(Caption((("blue", name),)), rng)
            solid = pack(two_faced(thing.parts))
            front, back = marker_share(solid, trace(solid, cameras).part)
            assert back >= 0.5 * front, name


def test_views_that_hide_one_of_a_pair_ask_nothing() -> None:
    pair = Caption((("red", "cube"), ("blue", "cube")), "next to")
    thing = build_object(pair, np.random.default_rng(0))
    examples = render_examples(thing, orbit_cameras([0.0, 90.0], 0.0, size=64))
    assert examples.labels["category_1"].tolist() == [CATEGORY_NAMES.index("cube"), UNKNOWN]
    assert examples.labels["relation"].tolist() == [RELATIONS.index("next to"), UNKNOWN]
    truth = Truth(thing, 0)
    assert truth.shows_all(orbit_cameras([0.0, 90.0], 0.0, size=64)).tolist() == [True, False]
    assert Truth(thing, 0, 90.0).shows_all(orbit_cameras([90.0, 0.0], 0.0)).tolist() == [
        True,
        False,
    ]
