"""Signed distances: closed forms of what is rendered, gradients, the scene; and the settings a field shares with it."""

import pytest
import torch
from torch import nn

from dream3d.cameras import orbit_cameras
from dream3d.errors import ConfigError
from dream3d.scenes.base import SCENES
from dream3d.scenes.fields import FrequencyEncoding
from dream3d.scenes.nerf import MIXED, NerfConfig
from dream3d.scenes.neus import NeusConfig, SdfField
from renderers.volume import march, render_volume
from renderers.volume_data import SurfaceField
from renderers.volume_resample import absorption

SMALL = {"levels": 2, "coarsest": 4, "resolution": 8, "table_log2": 8, "hidden": 8}
CPU = torch.device("cpu")


class Silent(nn.Module):
    """A network that says nothing: the distance is the sphere's own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x[:, :4] * self.weight


def sphere(radius=0.6, sharpness=200.0):
    return SdfField(FrequencyEncoding(1), nn.Sequential(Silent()), radius, sharpness)


class Plane(SdfField):
    """The half-space z < 0.2."""

    def _distance(self, raw, points):
        return points[:, 2] - 0.2 + raw


def plane(sharpness=100.0):
    return Plane(FrequencyEncoding(1), nn.Sequential(Silent()), 0.5, sharpness)


def scene(config=NeusConfig, seed=0, **settings):
    return config(**{**SMALL, **settings}).create(torch.Generator().manual_seed(seed), CPU)


def test_it_is_a_field_that_knows_its_surface():
    assert isinstance(sphere(), SurfaceField)
    assert not isinstance(scene(NerfConfig).field, SurfaceField)


@pytest.mark.parametrize("step", [0.03, 0.1])
def test_depth_of_a_sphere(step):
    cameras = orbit_cameras([30.0], [20.0], size=33)
    with torch.no_grad():
        out = render_volume(sphere(), cameras, step=step)
    origins, directions = cameras.rays()
    closest = (origins * directions).sum(-1)
    root = 0.36 - (origins.square().sum(-1) - closest**2)
    cosine = (directions * cameras.c2w[:, :3, 2][:, None, None]).sum(-1)
    hit = root > 0.05
    depth = (-closest - root.clamp_min(0).sqrt()) * cosine
    # A sample stands for its interval, so depth is known to about a third of a step.
    assert (out.depth[..., 0] - depth)[hit].abs().mean() < 0.35 * step
    assert (out.depth[..., 0] - depth)[hit].mean().abs() < 0.15 * step  # and not biased
    assert out.alpha[..., 0][hit].min() > 0.98
    assert out.alpha[..., 0][root < -0.02].max() < 0.1


@pytest.mark.parametrize("slant", [0.0, 0.5, 1.2])
@pytest.mark.parametrize("jitter", [0.5, 0.1])
def test_transmittance_and_the_heaviest_sample_do_not_depend_on_steps(slant, jitter):
    """T = S(f_end) / S(f_begin) by telescoping; the weight is largest where the plane is crossed."""
    toward = torch.tensor([[slant, 0.0, -1.0]])
    direction = torch.nn.functional.normalize(toward, dim=1)
    origin = torch.tensor([[0.0, 0.0, 0.2]]) - 3.0 * direction
    field = plane(30.0)
    for step in (0.02, 0.07):
        shift = torch.full((1,), jitter)
        samples = march(origin, direction, None, step, shift, "torch")
        centre = samples.points + ((0.5 - jitter) * samples.length)[:, None] * direction
        along = direction.expand(len(samples), 3)
        with torch.no_grad():
            density = field.interval_density(centre, along, samples.length)
        weight = absorption(density, samples)
        begin = samples.t[0] - jitter * samples.length[0]
        ends = torch.stack([begin, begin + samples.length.sum()])
        f = field.sdf(origin + ends[:, None] * direction).detach()
        through = torch.sigmoid(30.0 * f[1]) / torch.sigmoid(30.0 * f[0])
        assert 1.0 - weight.sum() == pytest.approx(through.item(), abs=1e-4)
        # t = 3 is where the ray meets the plane.
        heaviest = samples.t[weight.argmax()] + (0.5 - jitter) * samples.length[0]
        assert heaviest.item() == pytest.approx(3.0, abs=0.51 * step)


def test_leaving_the_solid_absorbs_nothing():
    up = torch.tensor([[0.0, 0.0, 1.0]])
    points, length = torch.tensor([[0.0, 0.0, 0.2]]), torch.tensor([0.1])
    assert plane().interval_density(points, up, length).item() == 0.0
    assert plane().interval_density(points, -up, length).item() > 10.0


def test_gradients_match_finite_differences():
    field = sphere(0.5, 8.0).double()
    g = torch.Generator().manual_seed(0)
    points = (torch.rand(5, 3, generator=g, dtype=torch.float64) - 0.5).requires_grad_()
    # Toward the centre, or the gradient is zero by construction.
    along = -torch.nn.functional.normalize(points.detach(), dim=1)
    length = torch.full((5,), 0.1, dtype=torch.float64)
    inputs = (points, field.log_sharpness)
    assert torch.autograd.gradcheck(
        lambda p, _: field.interval_density(p, along, length, "torch"), inputs
    )
    assert torch.autograd.gradcheck(lambda p, _: field.density(p, "torch"), inputs)


def test_the_sphere_it_starts_as_is_a_distance():
    g = torch.Generator().manual_seed(1)
    points = 2.0 * torch.rand(200, 3, generator=g) - 1.0
    assert sphere().eikonal(points) < 1e-3
    made = scene(field="hash", sdf_radius=0.4)
    distance = made.field.sdf(points)
    assert (distance - (points.norm(dim=1) - 0.4)).abs().max() < 0.05
    terms = made.regularisation(made.render(orbit_cameras([0.0], size=4)), 0.0)
    assert 0 <= terms["eikonal"] < 0.05


def test_the_sphere_s_normals_point_outward():
    with torch.no_grad():
        out = render_volume(sphere(0.6, 60.0), orbit_cameras([0.0], size=17), normals="analytic")
    assert out.normal is not None
    assert out.normal[0, 8, 8, 2] > 0.99


def test_every_parameter_learns_and_has_a_rate():
    made = scene()
    out = made.render(orbit_cameras([0.0, 90.0], size=12))
    loss = out.rgb.sum() + sum(made.regularisation(out, 0.0).values())
    names = list(made.parameters())
    grads = torch.autograd.grad(loss, list(made.parameters().values()))
    assert set(made.learning_rates(0.5)) == set(names) and "log_sharpness" in names
    for name, grad in zip(names, grads, strict=True):
        assert torch.isfinite(grad).all() and grad.abs().sum() > 0, name


def test_a_fitted_distance_is_a_mesh():
    made = scene(sdf_radius=0.55, sharpness=60.0)
    mesh = made.to_mesh(resolution=32)
    radius = torch.tensor(mesh.vertices).norm(dim=1)
    assert (radius - 0.55).abs().mean() < 0.03


@pytest.mark.parametrize("config", [NerfConfig, NeusConfig])
@pytest.mark.parametrize(
    "settings", [{"background": "learned"}, {"fine": 8}, {"shading": "mixed", "normals": "finite"}]
)
def test_state_repeats_a_render_bit_for_bit(config, settings):
    first, second = scene(config, 0, **settings), scene(config, 1, **settings)
    cameras = orbit_cameras([10.0], size=8)
    second.load_state(first.state())
    a, b = (s.render(cameras).over(torch.zeros(1, 1, 3)) for s in (first, second))
    assert torch.equal(a, b)
    first.density_control(torch.optim.SGD([torch.zeros(1)]), 0.0, 0, torch.Generator())
    assert not torch.equal(first.render(cameras).over(torch.zeros(1, 1, 3)), a)


def test_a_learned_sky_hides_the_stage_s_background_and_not_the_result():
    made = scene(NerfConfig, background="learned")
    cameras = orbit_cameras([0.0, 180.0], size=8)
    out = made.render(cameras)
    white, black = out.over(torch.ones(1, 1, 3)), out.over(torch.zeros(1, 1, 3))
    assert torch.equal(white, black)
    grads = torch.autograd.grad(
        black.sum(), [v for k, v in made.parameters().items() if "sky" in k]
    )
    assert all(g.abs().sum() > 0 for g in grads)
    sky = made.sky(cameras)
    # A function of direction alone: the same from every camera that looks the same way.
    assert torch.equal(sky, made.sky(orbit_cameras([0.0, 180.0], distance=9.0, size=8)))
    with torch.no_grad():
        plain = made.render(cameras)
    assert not torch.equal(plain.over(torch.ones(1, 1, 3)), plain.over(torch.zeros(1, 1, 3)))


def test_light_is_drawn_from_the_state_and_only_while_optimising():
    made = scene(NerfConfig, shading="mixed", normals="analytic")
    drawn = set()
    g = torch.Generator().manual_seed(0)
    for _ in range(40):
        light = made._light()
        assert light == made._light()
        drawn.add(light.mode)
        made.density_control(torch.optim.SGD([torch.zeros(1)]), 0.0, 0, g)
    assert drawn == set(MIXED)


def test_a_negative_blob_is_empty_inside_and_dense_toward_the_walls():
    made = scene(NerfConfig, blob_scale=-4.0, blob_radius=0.9)
    centre, wall = torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]])
    assert made.field.density(wall).item() > 10.0 * made.field.density(centre).item()


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("config", [NerfConfig, NeusConfig])
def test_fields_of_any_number_of_channels(config, channels):
    made = config(**SMALL, latent=channels).create_field(torch.Generator().manual_seed(0))
    out = render_volume(made, orbit_cameras([0.0], size=6))
    assert out.rgb.shape == (1, 6, 6, channels)
    _, features = made(torch.zeros(1, 3))
    assert not made.squash and features.shape == (1, channels)  # latents have no bounds


def test_bad_settings_are_refused():
    assert SCENES["neus"] is NeusConfig
    with pytest.raises(ConfigError, match=r"scene\.sharpness is 0"):
        NeusConfig(sharpness=0.0)
    with pytest.raises(ConfigError, match="choose normals=analytic or finite"):
        NerfConfig(shading="lambert")
