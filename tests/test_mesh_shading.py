"""Materials under an environment light: the furnace test, the split sum's integrals, conventions, gradients."""

import math

import numpy as np
import pytest
import torch
import trimesh

from dream3d.cameras import orbit_cameras
from dream3d.errors import ConfigError
from renderers.environment import (
    LEVELS,
    environment_light,
    integrate_reflectance,
    linear_to_srgb,
    look_up,
    map_directions,
    shade_lambert,
    shade_pbr,
    srgb_to_linear,
    studio,
)
from renderers.mesh import MeshData, SurfacePoints, render_mesh


def white(height: int = 8):
    return environment_light(torch.ones(height, 2 * height, 3))


def points(n: int = 200, dtype=torch.float32):
    """Random normals, and views on their side."""
    g = torch.Generator().manual_seed(0)
    normal, view = torch.nn.functional.normalize(torch.randn(2, n, 3, generator=g), dim=-1)
    view = torch.where((view * normal).sum(-1, keepdim=True) < 0, -view, view)
    return normal.to(dtype), view.to(dtype), torch.rand(n, 1, generator=g).to(dtype)


@pytest.mark.parametrize("metallic", [0.0, 1.0])
def test_a_white_surface_in_a_white_furnace_is_white(metallic):
    normal, view, roughness = points()
    base = torch.ones(len(normal), 3)
    metal = torch.full_like(roughness, metallic)
    seen = shade_pbr(base, roughness, metal, normal, view, white())
    assert (seen - 1).abs().max() < 1e-4
    # And no surface is brighter than what shines on it.
    g = torch.Generator().manual_seed(1)
    base, metal = torch.rand(len(normal), 3, generator=g), torch.rand(len(normal), 1, generator=g)
    assert shade_pbr(base, roughness, metal, normal, view, white()).max() <= 1 + 1e-4


def test_the_integrals_are_those_of_the_hemisphere():
    """A + B is the share of light a white GGX mirror reflects: compared with a sum over directions."""
    count = 400
    polar = (torch.arange(count, dtype=torch.float64) + 0.5) / count * math.pi / 2
    azimuth = (torch.arange(2 * count, dtype=torch.float64) + 0.5) / count * math.pi
    polar, azimuth = torch.meshgrid(polar, azimuth, indexing="ij")
    light = torch.stack(
        [polar.sin() * azimuth.cos(), polar.sin() * azimuth.sin(), polar.cos()], dim=-1
    )
    area = polar.sin() * (math.pi / 2 / count) * (math.pi / count)
    for facing, roughness in ((0.9, 0.5), (0.5, 0.4), (0.3, 0.9)):
        view = torch.tensor([math.sqrt(1 - facing**2), 0.0, facing], dtype=torch.float64)
        half = torch.nn.functional.normalize(light + view, dim=-1)
        n_h, v_h, n_l, a2 = half[..., 2], half @ view, light[..., 2], roughness**4
        d = a2 / (math.pi * (n_h.square() * (a2 - 1) + 1).square())
        lambda_l = n_l * math.sqrt(a2 + (1 - a2) * facing**2)
        lambda_v = facing * (a2 + (1 - a2) * n_l.square()).sqrt()
        brdf = d * 0.5 / (lambda_l + lambda_v)
        fresnel = (1 - v_h) ** 5
        a, b = (((part * brdf * n_l) * area).sum().item() for part in (1 - fresnel, fresnel))
        found = integrate_reflectance(torch.tensor([facing]), torch.tensor([roughness]))[0]
        assert found.tolist() == pytest.approx([a, b], abs=4e-3)


def test_a_smooth_metal_shows_the_mirrored_direction():
    radiance = torch.zeros(32, 64, 3)
    radiance[:, 48] = torch.tensor([1.0, 0.0, 0.0])  # on the right, +X
    light = environment_light(radiance)
    normal = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]]), dim=1)
    view = torch.tensor([[0.0, 0.0, 1.0]]).expand(2, 3)  # from the front, mirrored to +X and to -X
    ones = torch.ones(2, 1)
    seen = shade_pbr(torch.ones(2, 3), 0.0 * ones, ones, normal, view, light)
    assert seen[0, 0] > 0.4 and seen[0, 1] == 0 and seen[1].max() < 0.01
    rough = shade_pbr(torch.ones(2, 3), ones, ones, normal, view, light)
    assert 0.0 < rough[0, 0] < 0.3


def test_directions_and_look_up_agree():
    directions = map_directions(16, 32)
    assert (directions[0, :, 1] > 0.9).all()  # the first row is up
    assert directions[8, 16, 2] > 0.98 and directions[8, 24, 0] > 0.98  # front, right
    found = look_up(directions, directions[4:12].reshape(-1, 3))
    assert (found - directions[4:12].reshape(-1, 3)).abs().max() < 1e-4


def test_blurring_keeps_the_mean_and_diffuse_is_the_cosine_mean():
    light = environment_light(studio())
    assert len(light.blurred) == len(LEVELS)
    spreads = [m.std().item() for m in (light.radiance, *light.blurred, light.irradiance)]
    assert spreads[:-1] == sorted(spreads[:-1], reverse=True)
    # Light from above only: an upward surface sees the mean of cos over it, 1; a sideways one half of that.
    above = torch.zeros(32, 64, 3)
    above[:16] = 1.0
    seen = environment_light(above).diffuse(torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    assert seen[:, 0].tolist() == pytest.approx([1.0, 0.5], abs=0.02)


def test_gradients_of_the_material():
    normal, view, roughness = points(6, torch.float64)
    light = environment_light(studio(8).double())
    g = torch.Generator().manual_seed(2)
    base = torch.rand(6, 3, generator=g, dtype=torch.float64)
    metal = torch.rand(6, 1, generator=g, dtype=torch.float64)
    inputs = tuple(x.requires_grad_() for x in (base, roughness, metal))
    assert torch.autograd.gradcheck(
        lambda b, r, m: shade_pbr(b, r, m, normal, view, light), inputs, atol=1e-5
    )


def test_colour_encoding_is_its_inverse():
    color = torch.linspace(0, 1, 50)
    assert torch.allclose(linear_to_srgb(srgb_to_linear(color)), color, atol=1e-6)
    assert srgb_to_linear(torch.tensor(0.5)).item() == pytest.approx(0.21404, abs=1e-4)


def test_a_lit_sphere_is_bright_where_the_light_is():
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.7)
    vertices = torch.tensor(np.asarray(ball.vertices), dtype=torch.float32)
    mesh = MeshData(vertices, torch.tensor(np.asarray(ball.faces), dtype=torch.int64))
    toward = torch.tensor([1.0, 0.0, 0.0])

    def lambert(p: SurfacePoints):
        return shade_lambert(torch.ones(len(p), 3), p.normal, toward, 0.5)

    row = render_mesh(mesh, orbit_cameras([0.0], size=32), lambert).rgb[0, 16, :, 0]
    inside = row[8:24]
    assert (inside.diff() > 0).all() and inside[-1] > 0.9 and inside[0] < 0.6


def test_bad_environments_are_refused():
    with pytest.raises(ConfigError, match="2000 x 4 texels"):
        environment_light(torch.ones(2000, 4, 3))
    with pytest.raises(ConfigError, match="not negative"):
        environment_light(-torch.ones(4, 8, 3))
