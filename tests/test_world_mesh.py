"""Meshes of the world: closed, oriented, of the right volume and colour."""

import math

import numpy as np
import pytest

from dream3d.world.catalog import CATEGORIES
from dream3d.world.colors import COLORS
from dream3d.world.grammar import Caption
from dream3d.world.mesh import object_mesh
from dream3d.world.objects import build_object
from dream3d.world.parts import Part
from dream3d.world.solid import pack, signed_distance


def test_sphere_has_its_volume_and_outward_normals() -> None:
    mesh = object_mesh(pack([Part("ellipsoid", (0.8, 0.8, 0.8), "red")]), resolution=64)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(4.0 / 3.0 * math.pi * 0.8**3, rel=0.02)
    outward = mesh.triangles_center / np.linalg.norm(mesh.triangles_center, axis=-1, keepdims=True)
    assert (mesh.face_normals * outward).sum(-1).min() > 0.9
    np.testing.assert_allclose(np.abs(mesh.bounds), 0.8, atol=1e-3)


def test_carving_makes_a_hollow_in_its_own_colour() -> None:
    wall, hollow = (0.5, 0.6, 0.5), (0.4, 0.6, 0.4)
    parts = [
        Part("frustum", wall, "red"),
        Part("frustum", hollow, "white", (0.0, 0.2, 0.0), carve=True),
    ]
    solid, cup = pack(parts[:1]), object_mesh(pack(parts), resolution=96)
    full = object_mesh(solid, resolution=96)
    assert full.volume == pytest.approx(math.pi * 0.25 * 1.2, rel=0.02)
    assert cup.is_watertight
    assert full.volume - cup.volume == pytest.approx(math.pi * 0.16 * 1.0, rel=0.02)
    colors = np.asarray(cup.visual.vertex_colors)[:, :3] / 255.0
    radius = np.hypot(cup.vertices[:, 0], cup.vertices[:, 2])
    height = cup.vertices[:, 1]
    inside = (radius < 0.41) & (height > -0.5)
    outside = (radius > 0.49) & (np.abs(height) < 0.5)
    np.testing.assert_allclose(colors[inside].mean(0), COLORS["white"], atol=0.02)
    np.testing.assert_allclose(colors[outside].mean(0), COLORS["red"], atol=0.02)


def test_a_closed_cavity_stays() -> None:
    parts = [
        Part("ellipsoid", (0.8, 0.8, 0.8), "red"),
        Part("ellipsoid", (0.5, 0.5, 0.5), "blue", carve=True),
    ]
    mesh = object_mesh(pack(parts), resolution=64)
    assert mesh.volume == pytest.approx(4.0 / 3.0 * math.pi * (0.8**3 - 0.5**3), rel=0.02)


def check_mesh(name: str, resolution: int) -> None:
    """Closed, on the surface, and of the volume that random points find inside."""
    thing = build_object(Caption((("orange", name),)), np.random.default_rng(3))
    mesh = object_mesh(thing, resolution)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    cell = float(mesh.extents.max()) / resolution
    assert np.linalg.norm(mesh.vertices, axis=-1).max() < 1.0 + cell
    distance, _ = signed_distance(thing.solid, np.asarray(mesh.vertices))
    assert np.quantile(np.abs(distance), 0.95) < 0.5 * cell
    points = np.random.default_rng(0).uniform(*mesh.bounds, (40_000, 3))
    inside = (signed_distance(thing.solid, points)[0] < 0.0).mean()
    box = float(np.prod(mesh.extents))
    noise = 4.0 * np.sqrt(inside * (1.0 - inside) / len(points)) * box
    assert abs(mesh.volume - inside * box) < noise + 0.1 * cell * mesh.area


@pytest.mark.parametrize("name", CATEGORIES)
def test_every_category_is_watertight(name: str) -> None:
    check_mesh(name, 48)


@pytest.mark.slow
@pytest.mark.parametrize("name", CATEGORIES)
def test_every_category_is_watertight_at_full_resolution(name: str) -> None:
    check_mesh(name, 128)


def test_refuses_a_resolution_that_shows_nothing() -> None:
    with pytest.raises(ValueError, match="at least 8"):
        object_mesh(pack([Part("ellipsoid", (1.0, 1.0, 1.0), "red")]), resolution=4)
