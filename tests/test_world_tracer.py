"""Solids and tracers: distances against dense samples, images against closed forms and against each other."""

import math

import numpy as np
import pytest
import torch

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.world.catalog import CATEGORIES
from dream3d.world.colors import COLORS
from dream3d.world.grammar import Caption
from dream3d.world.objects import build_object
from dream3d.world.parts import Part
from dream3d.world.render import UNLIT, marker_visibility, render_object, trace
from dream3d.world.solid import (
    Solid,
    bounds,
    normalised,
    pack,
    radius_about,
    signed_distance,
    support_points,
    transformed,
)
from dream3d.world.torch_tracer import pack_batch, trace_batch

POSE = {"position": (0.1, -0.05, 0.08), "rotation_deg": (25.0, 40.0, -70.0)}
PARTS = {
    "box": Part("box", (0.5, 0.3, 0.2), "red", **POSE),
    "rounded box": Part("box", (0.5, 0.3, 0.2), "red", rounding=0.1, **POSE),
    "sphere": Part("ellipsoid", (0.5, 0.5, 0.5), "red", **POSE),
    "ellipsoid": Part("ellipsoid", (0.6, 0.15, 0.3), "red", **POSE),
    "cylinder": Part("frustum", (0.4, 0.5, 0.4), "red", **POSE),
    "cone": Part("frustum", (0.5, 0.5, 0.0), "red", **POSE),
    "inverted frustum": Part("frustum", (0.1, 0.4, 0.5), "red", **POSE),
    "rounded cone": Part("frustum", (0.5, 0.5, 0.0), "red", rounding=0.08, **POSE),
    "torus": Part("torus", (0.5, 0.12, 0.0), "red", **POSE),
    "capsule": Part("capsule", (0.2, 0.4, 0.0), "red", **POSE),
    "prism": Part("prism", (0.5, 0.4, 0.3), "red", **POSE),
    "rounded prism": Part("prism", (0.5, 0.4, 0.3), "red", rounding=0.06, **POSE),
}
MUG = [
    Part("frustum", (0.5, 0.6, 0.5), "red", rounding=0.05),
    Part("torus", (0.3, 0.07, 0.0), "blue", (0.5, 0.0, 0.0), (90.0, 0.0, 0.0)),
    Part("frustum", (0.4, 0.6, 0.4), "white", (0.0, 0.12, 0.0), carve=True),
]
RING_BITE = [  # a torus and a ball, both cut by a box and by a torus, and a part added after the cuts
    Part("torus", (0.6, 0.2, 0.0), "red"),
    Part("ellipsoid", (0.45, 0.6, 0.45), "yellow"),
    Part(
        "box", (0.3, 0.5, 0.3), "cyan", (0.5, 0.4, 0.3), (0.0, 30.0, 0.0), rounding=0.1, carve=True
    ),
    Part("torus", (0.42, 0.12, 0.0), "green", (0.0, 0.3, 0.0), carve=True),
    Part("capsule", (0.1, 0.4, 0.0), "purple", (0.35, 0.3, 0.2)),
]
AROUND = orbit_cameras([0.0, 50.0, 140.0, 215.0, 300.0], [10.0, 45.0, -10.0, 30.0, 80.0], size=40)


def gradients(solid: Solid, points: np.ndarray, step: float = 1e-5) -> np.ndarray:
    columns = [
        signed_distance(solid, points + step * axis)[0]
        - signed_distance(solid, points - step * axis)[0]
        for axis in np.eye(3)
    ]
    return np.stack(columns, axis=-1) / (2.0 * step)


@pytest.mark.parametrize("name", PARTS)
def test_distance_is_exact(name: str) -> None:
    # An exact distance has a unit gradient, and walking it down ends on the surface.
    solid = pack([PARTS[name]])
    points = np.random.default_rng(0).uniform(-1.2, 1.2, (3000, 3))
    distance, _ = signed_distance(solid, points)
    gradient = gradients(solid, points)
    norm = np.linalg.norm(gradient, axis=-1)
    assert norm.max() < 1.0 + 1e-5
    assert np.quantile(norm, 0.02) > 1.0 - 1e-4  # all but the few points on the medial axis
    landed, _ = signed_distance(solid, points - distance[:, None] * gradient)
    assert np.quantile(np.abs(landed), 0.98) < 1e-4


def test_distance_matches_dense_surface_samples() -> None:
    rng = np.random.default_rng(1)
    sphere = rng.normal(size=(80_000, 3))
    sphere /= np.linalg.norm(sphere, axis=-1, keepdims=True)
    angle, height = rng.uniform(0, 2 * np.pi, 80_000), rng.uniform(-0.4, 0.4, 80_000)
    radius = 0.45 - 0.375 * (height + 0.4)  # from 0.45 at the bottom to 0.15 at the top
    side = np.stack([radius * np.cos(angle), height, radius * np.sin(angle)], axis=-1)
    area = np.sqrt(rng.uniform(0, 1, 80_000))
    cap = np.stack([area * np.cos(angle), np.ones(80_000), area * np.sin(angle)], axis=-1)
    surfaces = {
        Part("ellipsoid", (0.6, 0.2, 0.35), "red"): sphere * (0.6, 0.2, 0.35),
        Part("frustum", (0.45, 0.4, 0.15), "red"): np.concatenate(
            [side, cap * (0.45, -0.4, 0.45), cap * (0.15, 0.4, 0.15)]
        ),
    }
    points = rng.uniform(-0.8, 0.8, (40, 3))
    for part, surface in surfaces.items():
        distance, _ = signed_distance(pack([part]), points)
        nearest = [np.linalg.norm(surface - point, axis=-1).min() for point in points]
        np.testing.assert_allclose(np.abs(distance), nearest, atol=6e-3)


@pytest.mark.parametrize("name", PARTS)
def test_support_points_lie_on_the_surface_and_bound_it(name: str) -> None:
    solid, rng = pack([PARTS[name]]), np.random.default_rng(2)
    directions = rng.normal(size=(200, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    support = support_points(solid, directions)[0]
    np.testing.assert_allclose(signed_distance(solid, support)[0], 0.0, atol=1e-9)
    inside = rng.uniform(-0.8, 0.8, (4000, 3))
    inside = inside[signed_distance(solid, inside)[0] < 0.0]
    assert len(inside) > 20
    reach = (support * directions).sum(-1)
    assert ((inside @ directions.T) <= reach + 1e-9).all()
    assert np.linalg.norm(inside - solid.translation[0], axis=-1).max() <= solid.bound[0]


def test_bounds_and_normalisation() -> None:
    low, high = bounds([Part("box", (0.5, 1.0, 2.0), "red", (1.0, 0.0, 0.0), (0.0, 90.0, 0.0))])
    np.testing.assert_allclose([low, high], [[-1.0, -1.0, -0.5], [3.0, 1.0, 0.5]], atol=1e-9)
    moved = transformed(MUG, 3.0, (1.0, 2.0, 3.0))
    for parts in (MUG, moved, list(PARTS.values())):
        result = normalised(parts)
        low, high = bounds(result)
        np.testing.assert_allclose(low + high, 0.0, atol=1e-9)
        assert radius_about(result, np.zeros(3)) == pytest.approx(1.0, abs=1e-3)
    # The carving part, far larger than the mug, does not count.
    huge = [*MUG, Part("box", (9.0, 9.0, 9.0), "red", (0.0, 9.3, 0.0), carve=True)]
    np.testing.assert_allclose(bounds(huge), bounds(MUG))


def march(solid: Solid, cameras: CameraBatch) -> tuple[np.ndarray, np.ndarray]:
    """Depth (inf for none) and part by plain sphere tracing of the reference distance."""
    origins, rays = (value.double().numpy().reshape(-1, 3) for value in cameras.rays())
    t, part, going = np.zeros(len(rays)), np.full(len(rays), -1), np.ones(len(rays), dtype=bool)
    for _ in range(400):
        distance, nearest = signed_distance(solid, origins[going] + t[going, None] * rays[going])
        arrived = distance < 1e-5
        part[np.flatnonzero(going)[arrived]] = nearest[arrived]
        t[going] += np.where(arrived, 0.0, distance)
        going[np.flatnonzero(going)[arrived | (t[going] > 6.0)]] = False
    forward = cameras.c2w[:, :3, 2].double().numpy().repeat(cameras.height * cameras.width, axis=0)
    depth = np.where(part >= 0, t * (rays * forward).sum(-1), np.inf)
    shape = (len(cameras), cameras.height, cameras.width)
    return depth.reshape(shape), part.reshape(shape)


@pytest.mark.parametrize(
    "parts", [*([part] for part in PARTS.values()), MUG, RING_BITE], ids=[*PARTS, "mug", "bite"]
)
def test_tracer_sees_what_the_distance_says(parts: list[Part]) -> None:
    solid = pack(parts)
    traced = trace(solid, AROUND, samples=1)
    depth, part = march(solid, AROUND)
    hit = part >= 0
    assert hit.mean() > 0.02
    # Rays that graze an edge may fall to either side of it.
    assert (traced.part != part).mean() < 2e-3
    agree = hit & (traced.part == part)
    assert np.quantile(np.abs(traced.depth[..., 0] - depth)[agree], 0.995) < 2e-3
    np.testing.assert_array_equal(traced.alpha[..., 0] > 0.0, traced.part >= 0)
    # Normals are the gradient of the distance (away from its kinks).
    origins, rays = (value.double().numpy() for value in AROUND.rays())
    forward = AROUND.c2w[:, :3, 2].double().numpy()[:, None, None]
    along = traced.depth.astype(np.float64) / (rays * forward).sum(-1, keepdims=True)
    gradient = gradients(solid, (origins + along * rays)[agree])
    assert np.quantile((gradient * traced.normal[agree]).sum(-1), 0.05) > 0.999


def test_torch_tracer_agrees() -> None:
    rng = np.random.default_rng(4)
    names = ["mug", "robot", "teapot", "hamburger", "house", "crown"]
    solids = [build_object(Caption((("green", name),)), rng).solid for name in names]
    solids.append(pack(RING_BITE))
    cameras = orbit_cameras(
        rng.uniform(0, 360, 14).tolist(), rng.uniform(-10, 80, 14).tolist(), size=48
    )
    output, part = trace_batch(pack_batch(solids), cameras, samples=1)
    for index, solid in enumerate(solids):
        views = slice(2 * index, 2 * index + 2)
        traced = trace(solid, cameras[views], samples=1)
        same = part[views].numpy() == traced.part
        assert same.mean() > 0.998
        for ours, theirs in zip(
            (traced.rgb, traced.alpha, traced.depth, traced.normal),
            (output.rgb, output.alpha, output.depth, output.normal),
            strict=True,
        ):
            assert theirs is not None
            error = np.abs(theirs[views].numpy() - ours)[same]
            assert np.quantile(error, 0.98) < 1e-3
    smooth, _ = trace_batch(pack_batch(solids[:1]), cameras[:2], samples=3)
    ours = trace(solids[0], cameras[:2], samples=3)
    assert np.abs(smooth.alpha.numpy() - ours.alpha).mean() < 1e-3
    assert np.abs(smooth.rgb.numpy() - ours.rgb).mean() < 1e-3


def test_sphere_against_closed_form() -> None:
    radius, distance, size = 0.7, 3.2, 96
    camera = orbit_cameras([35.0], [20.0], distance, size=size)
    output = render_object(pack([Part("ellipsoid", (radius,) * 3, "red")]), camera)
    focal = float(camera.K[0, 0, 0])
    silhouette = math.pi * (focal * radius) ** 2 / (distance**2 - radius**2)
    assert float(output.alpha.sum()) == pytest.approx(silhouette, rel=2e-3)
    jagged = render_object(pack([Part("ellipsoid", (radius,) * 3, "red")]), camera, antialias=False)
    assert set(jagged.alpha.unique().tolist()) == {0.0, 1.0}
    assert 0.0 < float(((output.alpha > 0.0) & (output.alpha < 1.0)).float().mean()) < 0.05
    middle = slice(size // 2 - 1, size // 2 + 1)
    nearest = output.depth[0, middle, middle].mean()
    assert float(nearest) == pytest.approx(distance - radius, abs=1e-3)
    assert output.normal is not None
    outward = output.normal[0, middle, middle].mean(dim=(0, 1))
    toward = camera.position[0] / distance
    torch.testing.assert_close(outward, toward, atol=2e-3, rtol=0.0)


@pytest.mark.parametrize("azimuth", [0.0, 45.0, 90.0, 180.0, 270.0])
def test_parts_appear_where_the_camera_projects_them(azimuth: float) -> None:
    spots = {"red": (0.8, 0.0, 0.0), "green": (0.0, 0.8, 0.0), "blue": (0.0, 0.0, 0.8)}
    parts = [Part("ellipsoid", (0.1, 0.1, 0.1), color, spot) for color, spot in spots.items()]
    camera = orbit_cameras([azimuth], 25.0, size=96)
    traced = trace(pack(parts), camera, UNLIT, samples=1)
    for index, spot in enumerate(spots.values()):
        rows, columns = np.nonzero(traced.part[0] == index)
        if len(rows) == 0:  # hidden behind another
            continue
        pixel = camera.K[0] @ (camera.w2c[0] @ torch.tensor([*spot, 1.0]))[:3]
        pixel = pixel[:2] / pixel[2]
        assert len(rows) > 20
        if len(rows) > 60:
            assert columns.mean() + 0.5 == pytest.approx(float(pixel[0]), abs=0.7)
            assert rows.mean() + 0.5 == pytest.approx(float(pixel[1]), abs=0.7)
    if azimuth == 0.0:  # +X is on the right of a picture of the front, up is up
        assert np.nonzero(traced.part[0] == 0)[1].mean() > 60
        assert np.nonzero(traced.part[0] == 1)[0].mean() < 36


def test_carving_opens_what_it_cuts() -> None:
    above = orbit_cameras([0.0], [89.0], size=64)
    assert trace(pack(MUG), above, samples=1).part[0, 32, 32] == 2  # the white bottom inside
    assert trace(pack(MUG[:2]), above, samples=1).part[0, 32, 32] == 0
    front = orbit_cameras([0.0], [0.0], size=64)
    assert trace(pack(MUG), front, samples=1).part[0, 32, 32] == 0  # the wall, from outside
    ring = pack([Part("torus", (0.6, 0.2, 0.0), "red")])
    assert trace(ring, above, samples=1).part[0, 32, 32] == -1
    # A cut binds what came before it, not what comes after.
    late = pack([*MUG, Part("ellipsoid", (0.2, 0.2, 0.2), "green", (0.0, 0.2, 0.0))])
    assert trace(late, above, samples=1).part[0, 32, 32] == 3
    # A carving part alone is nothing.
    nothing = pack([MUG[0], Part("box", (2.0, 2.0, 2.0), "red", carve=True)])
    assert trace(nothing, front).alpha.max() == 0.0


def test_light_keeps_colours_recognisable() -> None:
    cameras = orbit_cameras([0.0, 90.0, 180.0, 270.0], 15.0, size=48)
    shades = {}
    for name, color in COLORS.items():
        solid = pack([Part("ellipsoid", (0.9, 0.9, 0.9), name)])
        plain = render_object(solid, cameras, lit=False)
        lit = render_object(solid, cameras)
        inside = plain.alpha[..., 0] == 1.0
        torch.testing.assert_close(
            plain.rgb[inside], torch.tensor(color).expand(int(inside.sum()), 3)
        )
        ratio = (lit.rgb / plain.rgb.clamp_min(1e-6))[inside]
        assert float(ratio.min()) >= 0.55
        assert float(ratio.max()) <= 1.0 + 1e-6
        shades[name] = lit.rgb[inside].mean(-1)
    assert shades["white"].min() > shades["gray"].max()
    assert shades["gray"].min() > shades["black"].max()


def test_markers_are_seen_from_the_front_only() -> None:
    parts = [
        Part("ellipsoid", (0.9, 0.9, 0.9), "white"),
        Part("ellipsoid", (0.2, 0.2, 0.1), "black", (0.0, 0.2, 0.87), marker=True),
    ]
    seen = marker_visibility(pack(parts), orbit_cameras([0.0, 180.0], 10.0, size=64))
    assert seen[0] > 0.01
    assert seen[1] == 0.0
    assert marker_visibility(pack(parts[:1]), orbit_cameras([0.0], 10.0, size=64))[0] == 0.0


def test_render_object_composites_and_repeats() -> None:
    thing = build_object(Caption((("red", "car"),)), np.random.default_rng(0))
    camera = orbit_cameras([30.0], 15.0, size=64)
    output = render_object(thing, camera)
    assert torch.equal(output.rgb, render_object(thing, camera).rgb)
    background = torch.tensor([0.2, 0.4, 0.9]).expand(1, 1, 1, 3)
    over = render_object(thing, camera, background=background)
    torch.testing.assert_close(over.rgb, output.over(background))
    torch.testing.assert_close(over.rgb[0, 0, 0], background[0, 0, 0])
    assert torch.equal(over.alpha, output.alpha)


@pytest.mark.parametrize("name", CATEGORIES)
def test_every_category_stays_in_frame(name: str) -> None:
    thing = build_object(Caption((("blue", name),)), np.random.default_rng(7))
    cameras = orbit_cameras([0.0, 120.0, 240.0], [-10.0, 20.0, 85.0], 3.2 * 0.95, size=64)
    alpha = trace(thing.solid, cameras, samples=1).alpha[..., 0]
    assert (alpha.mean(axis=(1, 2)) > 0.02).all()
    assert (
        alpha[:, 0].max()
        == alpha[:, -1].max()
        == alpha[:, :, 0].max()
        == alpha[:, :, -1].max()
        == 0.0
    )
