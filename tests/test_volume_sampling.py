"""Importance sampling and lighting: samples follow the density they should, and nothing is lost by it."""

import math

import pytest
import torch

from dream3d.cameras import orbit_cameras
from dream3d.errors import ConfigError
from renderers.volume import composite, lit, march, render_volume
from renderers.volume_data import Light
from renderers.volume_resample import FLOOR, absorption, resample


class Shape:
    """A field given by a function from points to density, coloured by position."""

    def __init__(self, density, channels=3):
        self.function, self.channels, self.like = density, channels, torch.zeros(1)

    def density(self, points, backend="auto"):
        return self.function(points)

    def __call__(self, points, backend="auto"):
        return self.density(points), (0.5 + 0.5 * points[:, :1]).expand(-1, self.channels)


def rays(count, seed=0):
    g = torch.Generator().manual_seed(seed)
    origins = 3.0 * torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1)
    aim = 1.2 * torch.rand(count, 3, generator=g) - 0.6
    directions = torch.nn.functional.normalize(aim - origins, dim=1)
    directions[3::4] *= -1.0  # these look away
    return origins, directions


def coarse(count=40, jitter=0.5, gaps=False):
    origins, directions = rays(count)
    shift = torch.full((count,), jitter)
    occupied = None
    if gaps:
        occupied = torch.rand(8, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.4
    return origins, directions, shift, march(origins, directions, occupied, 0.05, shift, "torch")


@pytest.mark.parametrize("jitter", [0.5, 0.2])
@pytest.mark.parametrize("gaps", [False, True])
def test_samples_follow_the_weights(jitter, gaps):
    origins, directions, shift, first = coarse(jitter=jitter, gaps=gaps)
    g = torch.Generator().manual_seed(2)
    weight = torch.rand(len(first), generator=g) ** 4
    count = 2000
    new = resample(first, weight, origins, directions, count, shift)
    begin = first.t - shift[first.ray] * first.length
    for ray in range(0, 40, 5):
        old = slice(int(first.start[ray]), int(first.start[ray + 1]))
        mine = slice(int(new.start[ray]), int(new.start[ray + 1]))
        if old.start == old.stop:
            assert mine.start == mine.stop
            continue
        assert mine.stop - mine.start == count
        share = weight[old] / weight[old].sum()
        length = first.length[old] / first.length[old].sum()
        expected = ((1 - FLOOR) * share + FLOOR * length).cumsum(0)
        # The share of new samples before the end of each old interval is the distribution function there.
        end = (begin + first.length)[old]
        found = (new.t[mine][:, None] <= end + 1e-5).float().mean(dim=0)
        assert (found - expected).abs().max() < 2e-3
        assert (new.t[mine].diff() >= -1e-5).all()  # still nearest first


@pytest.mark.parametrize("gaps", [False, True])
def test_lengths_still_sum_to_the_whole(gaps):
    """Hence a homogeneous medium keeps its transmittance, whatever the weights."""
    origins, directions, shift, first = coarse(gaps=gaps)
    weight = torch.rand(len(first), generator=torch.Generator().manual_seed(4)) ** 8
    new = resample(first, weight, origins, directions, 12, shift)

    def alpha(samples):
        ones = torch.ones(len(samples), 1)
        return composite(0.8 * ones[:, 0], ones, samples.length, samples.start, "torch")[1]

    assert (alpha(first) - alpha(new)).abs().max() < 1e-5
    along = origins[new.ray] + new.t[:, None] * directions[new.ray]
    assert (along - new.points).abs().max() < 1e-5 and (new.points.abs() <= 1 + 1e-4).all()


def test_weights_of_the_first_look_are_those_of_compositing():
    _, _, _, first = coarse()
    density = 9.0 * torch.rand(len(first), generator=torch.Generator().manual_seed(0))
    weight = absorption(density, first)
    _, alpha = composite(density, weight[:, None], first.length, first.start, "torch")
    assert (torch.zeros(40).index_add(0, first.ray, weight) - alpha).abs().max() < 1e-5


def test_few_samples_in_the_right_place_see_a_thin_shell():
    def shell(p):
        return 400.0 * (-((p.norm(dim=1) - 0.6) / 0.02).square()).exp()

    cameras = orbit_cameras([20.0], size=12)
    truth = render_volume(Shape(shell), cameras, step=0.001).alpha
    plain = render_volume(Shape(shell), cameras, step=0.12).alpha
    fine = render_volume(Shape(shell), cameras, step=0.04, fine=24).alpha
    assert (fine - truth).abs().mean() < 0.25 * (plain - truth).abs().mean()
    assert (fine - truth).abs().mean() < 0.02


def test_no_samples_is_no_error():
    field = Shape(lambda p: 0.0 * p[:, 0])
    occupied = torch.zeros(4, 4, 4, dtype=torch.bool)
    out = render_volume(field, orbit_cameras([0.0], size=6), occupied, fine=8)
    assert (out.alpha == 0).all()
    assert (render_volume(field, orbit_cameras([0.0], size=6), fine=8).alpha == 0).all()


def test_light_by_hand():
    features, eyes = torch.tensor([[0.5, 1.0, 0.2]]), torch.tensor([[0.0, 0.0, 2.0]])
    normal, points = torch.tensor([[0.0, 0.0, 1.0]]), torch.zeros(1, 3)
    sixty = torch.tensor([[0.0, math.sin(math.pi / 3), math.cos(math.pi / 3)]])
    back = -normal

    def shade(n, **settings):
        return lit(features, n, points, eyes, Light(**settings))[0].tolist()

    assert shade(normal) == pytest.approx([0.5, 1.0, 0.2])
    assert shade(normal, mode="lambert", ambient=0.2) == pytest.approx([0.5, 1.0, 0.2])
    assert shade(sixty, mode="lambert", ambient=0.2) == pytest.approx([0.3, 0.6, 0.12])
    assert shade(sixty, mode="textureless", ambient=0.2) == pytest.approx([0.6, 0.6, 0.6])
    assert shade(back, mode="textureless", ambient=0.2) == pytest.approx([0.2, 0.2, 0.2])
    aside = Light("textureless", 0.0, (0.0, 2.0, -2.0))  # the lamp is straight up
    assert lit(features, normal, points, eyes, aside)[0].tolist() == pytest.approx([0.0] * 3)


def test_a_lit_ball_is_brightest_where_it_faces_the_lamp():
    field = Shape(lambda p: 200.0 * torch.sigmoid(60.0 * (0.6 - p.norm(dim=1))))
    options = {"normals": "analytic", "step": 0.01}
    out = render_volume(
        field, orbit_cameras([0.0], size=25), light=Light("textureless", 0.0), **options
    )
    middle = out.rgb[0, 12, :, 0]
    assert middle[12] > 0.95 and (middle[12:18].diff() <= 1e-4).all()


def test_bad_settings_are_refused():
    field, cameras = Shape(lambda p: p[:, 0].abs()), orbit_cameras([0.0], size=4)
    with pytest.raises(ConfigError, match="needs normals"):
        render_volume(field, cameras, light=Light("lambert"))
    with pytest.raises(ConfigError, match="fine is -1"):
        render_volume(field, cameras, fine=-1)
    with pytest.raises(ConfigError, match="choose albedo, lambert or textureless"):
        Light("shiny")  # type: ignore[arg-type]
