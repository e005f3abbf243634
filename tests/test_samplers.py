"""Time, noise, cameras and backgrounds: pure given a generator, inside their stated ranges."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dream3d.background_samplers import BACKGROUND_SAMPLERS, RandomBackground, SolidBackground
from dream3d.camera_samplers import CAMERA_SAMPLERS, OrbitCameras, RingCameras
from dream3d.errors import ConfigError
from dream3d.noise_sources import NOISE_SOURCES, FixedNoise, FreshNoise
from dream3d.schedules import Ramp, constant
from dream3d.time_samplers import (
    TIME_SAMPLERS,
    AnnealedTime,
    DreamTime,
    FlowTime,
    PairTime,
    ShrinkingWindow,
    TimeSampler,
    TwoStageTime,
    UniformTime,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CALLS: dict[str, Callable[[torch.Generator], torch.Tensor]] = {
    **{f"time {n}": lambda g, n=n: TIME_SAMPLERS[n]()(5, 0.4, g) for n in TIME_SAMPLERS},
    **{
        f"noise {n}": lambda g, n=n: NOISE_SOURCES[n]()((2, 3, 4, 4), 0.4, 9, g)
        for n in NOISE_SOURCES
    },
    **{
        f"cameras {n}": lambda g, n=n: CAMERA_SAMPLERS[n]()(4, 8, 0.4, g).c2w
        for n in CAMERA_SAMPLERS
    },
    **{
        f"background {n}": lambda g, n=n: BACKGROUND_SAMPLERS[n]()(4, 8, 0.4, g)
        for n in BACKGROUND_SAMPLERS
    },
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_passed_generator_is_the_only_randomness(
    call: Callable[[torch.Generator], torch.Tensor],
) -> None:
    before = torch.get_rng_state()
    first, second = call(seeded()), call(seeded())
    assert torch.equal(first, second) and torch.isfinite(first).all()
    assert torch.equal(before, torch.get_rng_state())


class Operations(TorchDispatchMode):
    """Counts what PyTorch is asked to do."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["cameras", "background"])
def test_sixteen_views_are_drawn_by_as_many_operations_as_one(kind: str) -> None:
    registry = {"cameras": CAMERA_SAMPLERS, "background": BACKGROUND_SAMPLERS}[kind]
    for name in registry:
        counts = []
        for views in (1, 16):
            with Operations() as operations:
                registry[name]()(views, 8, 0.4, seeded())
            counts.append(operations.count)
        assert counts[0] == counts[1], f"{name}: {counts}"


def test_uniform_time_fills_a_shrinking_window() -> None:
    sampler = UniformTime(max=Ramp(0.98, 0.5, 0.2, 0.6))
    for progress, high in ((0.0, 0.98), (0.4, 0.74), (1.0, 0.5)):
        t = sampler(4000, progress, seeded())
        assert t.min() >= 0.02 and t.max() <= high
        torch.testing.assert_close(t.mean().item(), (0.02 + high) / 2, rtol=0.03, atol=0)
        assert t.max() > high - 0.01


def test_stratified_time_puts_one_draw_in_each_slice() -> None:
    t = UniformTime(constant(0.0), constant(1.0), stratified=True)(8, 0.0, seeded())
    assert sorted((t * 8).floor().int().tolist()) == list(range(8))
    assert not torch.equal(t, t.sort().values)


@pytest.mark.parametrize("law", ["sqrt", "linear"])
def test_annealed_time_falls_from_end_to_end(law: str) -> None:
    sampler = AnnealedTime(0.98, 0.3, law)  # type: ignore[arg-type]
    t = torch.stack([sampler(2, i / 100, seeded()) for i in range(101)])
    assert torch.equal(t[:, 0], t[:, 1])
    assert (t[:, 0].diff() < 0).all()
    torch.testing.assert_close(
        t[[0, 25, 100], 0], torch.tensor([0.98, {"sqrt": 0.64, "linear": 0.81}[law], 0.3])
    )
    jittering = AnnealedTime(0.98, 0.3, law, jitter=0.1)  # type: ignore[arg-type]
    jittered = jittering(500, 0.5, seeded())
    assert 0.09 < (jittered - sampler(1, 0.5, seeded())).abs().max() <= 0.1
    assert sampler.falls and not jittering.falls  # what is drawn may rise, so `cfd` must refuse it


def test_jitter_never_leaves_the_levels_at_which_a_prior_can_be_asked() -> None:
    wide = AnnealedTime(1.0, 0.0, "linear", jitter=0.5)
    for progress, end in ((0.0, 0.999), (1.0, 0.001)):
        t = wide(500, progress, seeded())
        assert t.min() >= 0.001 and t.max() <= 0.999 and (t == end).float().mean() > 0.4


# Every row of the published rules' table: the window of a draw at moments of the stage.
PUBLISHED: dict[str, tuple[TimeSampler, dict[float, tuple[float, float]]]] = {
    "DreamFusion": (UniformTime(), {0.0: (0.02, 0.98), 1.0: (0.02, 0.98)}),
    "ProlificDreamer": (TwoStageTime(), {0.19: (0.02, 0.98), 0.21: (0.02, 0.5)}),
    "HiFA": (AnnealedTime(0.98, 0.3, "sqrt"), {0.25: (0.64, 0.64), 1.0: (0.3, 0.3)}),
    "SDI": (AnnealedTime(0.98, 0.25, "linear"), {0.5: (0.615, 0.615), 1.0: (0.25, 0.25)}),
    # 1 to 0, kept inside [0.02, 0.98].
    "DreamGaussian": (
        UniformTime(Ramp(0.98, 0.02, 0.02, 0.98), Ramp(0.98, 0.02, 0.02, 0.98)),
        {0.01: (0.98, 0.98), 0.25: (0.75, 0.75), 0.99: (0.02, 0.02)},
    ),
    "MVDream": (ShrinkingWindow(), {0.4: (0.5, 0.74), 0.8: (0.02, 0.5), 1.0: (0.02, 0.5)}),
    # 0.5 + 0.48 r, r = 1 - i / 1500 of 5000 steps.
    "LucidDreamer": (
        UniformTime(max=Ramp(0.98, 0.5, 0.0, 0.3)),
        {0.0: (0.02, 0.98), 0.15: (0.02, 0.74), 0.3: (0.02, 0.5)},
    ),
    # s from 700 to 100 by the root of progress, t - s from 100 to 300.
    "Consistent3D": (
        PairTime(),
        {0.0: (0.8, 0.999), 0.25: (0.5, 0.7), 1.0: (0.2, 0.4)},
    ),
    "Consistent3D, geometry": (PairTime(0.3, 0.02, 0.1, 0.2), {0.0: (0.4, 0.5), 1.0: (0.12, 0.22)}),
    "CFD": (FlowTime(), {0.0: (0.98, 0.98), 0.5: (0.596, 0.596), 1.0: (0.308, 0.308)}),
    "DreamTime": (DreamTime(0.2, 0.8), {0.0: (0.8, 0.8), 1.0: (0.2, 0.2)}),
}


@pytest.mark.parametrize("row", PUBLISHED)
def test_every_published_rule_of_times_is_a_setting(row: str) -> None:
    sampler, windows = PUBLISHED[row]
    for progress, (low, high) in windows.items():
        t = sampler(2000, progress, seeded())
        assert low - 1e-6 <= t.min() and t.max() <= high + 1e-6
        assert t.max() - t.min() >= 0.98 * (high - low)


def test_a_pairs_lower_level_falls_by_the_root_and_stays_below_what_is_drawn() -> None:
    sampler = PairTime()
    s = [sampler.lower(i / 100) for i in range(101)]
    assert [s[0], s[25], s[100]] == pytest.approx([0.7, 0.4, 0.1])
    assert all(b < a for a, b in pairwise(s)) and not sampler.falls
    assert PairTime(0.9)(500, 0.0, seeded()).max() == torch.tensor(0.999)
    for progress in (0.0, 0.3, 1.0):
        assert (sampler(500, progress, seeded()) > sampler.lower(progress) + 0.09).all()
    assert all(TIME_SAMPLERS[n]().lower(0.5) is None for n in TIME_SAMPLERS if n != "pair")


def times(sampler, count: int = 1, steps: int = 100) -> torch.Tensor:  # type: ignore[no-untyped-def]
    return torch.stack([sampler(count, i / steps, seeded(i)) for i in range(steps + 1)])


@pytest.mark.parametrize("name", TIME_SAMPLERS.names())
def test_times_that_claim_to_fall_do_and_others_draw(name: str) -> None:
    sampler = TIME_SAMPLERS[name]()
    t = times(sampler, 3)
    falls = bool((t.diff(dim=0) <= 0).all() and (t == t[:, :1]).all())
    assert sampler.falls == falls
    assert t.min() >= 0.0 and t.max() <= 1.0


def test_two_stages_halve_the_window_at_once() -> None:
    sampler = TIME_SAMPLERS["two-stage"]()
    early, late = sampler(4000, 0.199, seeded()), sampler(4000, 0.2, seeded())
    assert early.max() > 0.97 and late.max() <= 0.5 and min(early.min(), late.min()) >= 0.02


def test_the_shrinking_window_opens_downward() -> None:
    sampler = TIME_SAMPLERS["shrinking-window"]()
    for progress, low, high in ((0.0, 0.98, 0.98), (0.4, 0.5, 0.74), (0.9, 0.02, 0.5)):
        t = sampler(4000, progress, seeded())
        assert low - 1e-6 <= t.min() and t.max() <= high + 1e-6
        assert t.max() - t.min() >= 0.98 * (high - low)


def test_the_flows_time_bends_where_the_authors_does() -> None:
    t = times(FlowTime())[:, 0]
    expected = [0.98, 0.98 - 0.96 * 0.2, 0.98 - 0.96 * 0.4, 0.98 - 0.96 * 0.55, 0.98 - 0.96 * 0.7]
    torch.testing.assert_close(t[[0, 25, 50, 75, 100]], torch.tensor(expected))


def test_dreamtime_dwells_where_its_weight_is_large() -> None:
    t = times(DreamTime(), steps=200)[:, 0].double()
    torch.testing.assert_close(t[[0, -1]], torch.tensor([0.98, 0.02]).double(), rtol=0, atol=1e-6)
    # The paper's rule on its own grid: the level above which the share i / N of the weight lies.
    grid = torch.linspace(0.02, 0.98, 20001, dtype=torch.float64)
    above = (-((grid - 0.8) ** 2) / (2 * 0.3**2)).exp()
    below = (-((grid - 0.5) ** 2) / (2 * 0.1**2)).exp()
    weight = torch.where(grid > 0.8, above, torch.where(grid < 0.5, below, torch.ones_like(grid)))
    share = weight.flip(0).cumsum(0).flip(0) / weight.sum()
    for i in (10, 60, 100, 150, 190):
        nearest = grid[(share - i / 200).abs().argmin()]
        assert abs(nearest - t[i]) < 2e-4
    even = times(DreamTime(0.1, 0.9, high=1.0, low=0.0))[:, 0]
    torch.testing.assert_close(even, torch.linspace(0.9, 0.1, 101))


def test_fixed_noise_never_changes_and_fresh_noise_always_does() -> None:
    shape = (4, 3, 32, 32)
    generator = seeded()
    fixed = [FixedNoise(per_view=True)(shape, p, 5, generator) for p in (0.0, 0.9)]
    assert torch.equal(*fixed)
    assert not torch.equal(fixed[0][0], fixed[0][1])
    shared = FixedNoise()(shape, 0.0, 5, generator)
    assert torch.equal(shared[0], shared[3])
    assert not torch.equal(shared, FixedNoise()(shape, 0.0, 6, generator))
    fresh = [FreshNoise()(shape, 0.0, 5, generator) for _ in range(2)]
    assert not torch.equal(*fresh)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_blended_noise_keeps_unit_variance_and_the_stated_correlation(share: float) -> None:
    source = FixedNoise(constant(share), per_view=True)
    first, second = (source((8, 3, 32, 32), 0.0, 5, seeded(seed)) for seed in (1, 2))
    assert abs(first.var().item() - 1.0) < 0.03
    assert abs((first * second).mean().item() - share**2) < 0.03


def test_orbit_keeps_its_ranges() -> None:
    sampler = OrbitCameras(overhead_share=0.25)
    cameras = sampler(4000, 16, 0.0, seeded())
    overhead = cameras.elevation_deg > 60
    assert 0.2 < overhead.float().mean() < 0.3
    low = cameras.elevation_deg[~overhead]
    assert -10 <= low.min() < -9 and 49 < low.max() <= 50
    assert (cameras.distance / 3.2 - 1).abs().max() <= 0.05 + 1e-6
    assert ((cameras.azimuth_deg >= 0) & (cameras.azimuth_deg < 360)).all()
    torch.testing.assert_close(cameras.fovy_deg, torch.full((4000,), 40.0))
    assert not OrbitCameras(overhead_share=0.0)(500, 16, 0.0, seeded()).elevation_deg.gt(50).any()


def test_orbit_spreads_the_views_of_a_step_around_the_object() -> None:
    sampler = OrbitCameras(azimuth_jitter_deg=10.0, shared_elevation=True)
    generator = seeded()
    starts = []
    for _ in range(20):
        cameras = sampler(4, 16, 0.0, generator)
        steps = cameras.azimuth_deg.diff() % 360
        assert ((steps >= 70) & (steps <= 110)).all()
        assert len(cameras.elevation_deg.unique()) == len(cameras.distance.unique()) == 1
        starts.append(cameras.azimuth_deg[0].item())
    assert max(starts) - min(starts) > 180


def test_ring_begins_at_the_front() -> None:
    torch.testing.assert_close(
        RingCameras()(4, 8, 0.0, seeded()).azimuth_deg, torch.tensor([0.0, 90.0, 180.0, 270.0])
    )


def test_random_backgrounds_show_hues_greys_and_gradients_per_view() -> None:
    images = RandomBackground()(600, 8, 0.0, seeded())
    assert images.min() >= 0.0 and images.max() <= 1.0
    graded = images.flatten(1, 2).std(dim=1).amax(dim=1) > 1e-4
    assert 0.3 < graded.float().mean() < 0.5
    plain = images[~graded, 0, 0]
    gray = plain.std(dim=1) < 1e-5
    assert 0.4 < gray.float().mean() < 0.6
    # All six hue sectors occur.
    assert len({tuple(c.argsort().tolist()) for c in plain[~gray]}) == 6


def test_solid_background() -> None:
    assert torch.equal(SolidBackground()(2, 4, 0.0, seeded()), torch.ones(2, 4, 4, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniformTime(constant(0.6), constant(0.5)), r"time.min \(0.6\) exceeds time.max"),
        (lambda: UniformTime(max=Ramp(0.98, 0.01)), r"when 100% of the stage is done"),
        (lambda: UniformTime(max=constant(1.2)), "time.max.initial is 1.2"),
        (lambda: AnnealedTime(final=-0.1), "time.final is -0.1"),
        (lambda: AnnealedTime(0.2, 0.9), "time.initial .0.2. lies below time.final .0.9."),
        (lambda: PairTime(0.1, 0.7), "time.initial .0.1. lies below time.final .0.7."),
        (lambda: PairTime(0.995), "time.initial is 0.995, which leaves no room above"),
        (lambda: PairTime(nearest=0.0), "choose 0 < nearest <= farthest"),
        (lambda: PairTime(nearest=0.4), "time.nearest is 0.4 and time.farthest 0.3"),
        (lambda: FlowTime(0.2, 0.9), "time.initial .0.2. lies below time.final"),
        (lambda: FlowTime(reach=(0.5, 0.4)), "time.reach is"),
        (lambda: DreamTime(0.9, 0.1), "time.min .0.9. exceeds time.max"),
        (lambda: DreamTime(low_width=0.0), "time.low_width is 0.0"),
        (lambda: FixedNoise(constant(2.0)), "noise.share is 2.0"),
        (
            lambda: OrbitCameras(elevation_deg=(50.0, -10.0)),
            r"cameras.elevation_deg is \[50.0, -10.0\]",
        ),
        (lambda: OrbitCameras(distance=0.5), "cameras.distance is 0.5"),
        (lambda: SolidBackground((2.0, 0.0, 0.0)), "background.color"),
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
