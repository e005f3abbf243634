"""Every setting of every registered part is explained, and its bounds are what the part itself accepts."""

import dataclasses
import math
from dataclasses import dataclass, field

import pytest

from dream3d.config.build import COMPONENTS
from dream3d.errors import ConfigError
from dream3d.schedules import Ramp, constant
from dream3d.setting_docs import Bounds, bounds, help_texts, own_first, usual_settings
from guidance.vsd import VSD
from systems.base import Stage

PARTS = [(kind, name) for kind, registry in COMPONENTS.items() for name in registry.names()]


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_every_setting_is_explained(kind: str, name: str) -> None:
    part = COMPONENTS[kind][name]
    texts = help_texts(part)
    assert {f.name for f in dataclasses.fields(part)} <= set(texts)
    assert all(text == " ".join(text.split()) for text in texts.values())


def test_a_stage_is_explained() -> None:
    assert help_texts(Stage)["views"] == "cameras rendered per step."


@dataclass(frozen=True)
class Part:
    """For this test.

    Attributes:
        share: of something, in [0, 1], explained
            on two lines.
        low, high: ends.
        rate: above zero.
        count: at least 3, at most 17.
        free: anything.
        scale: at least 2.5.
        name: text.

    Raises:
        ConfigError: never mind: this line is no setting.
    """

    share: float = 0.25
    low: float = 0.2
    high: float = 0.8
    rate: float = 0.1
    count: int = 5
    free: float = 0.0
    scale: Ramp = field(default_factory=lambda: constant(3.0))
    name: str = "x"

    def __post_init__(self) -> None:
        good = (
            0 <= self.share <= 1
            and self.low < self.high
            and self.rate > 0
            and 3 <= self.count <= 17
            and self.scale.initial >= 2.5
        )
        if not good:
            raise ConfigError("no")


def test_help_is_the_docstrings() -> None:
    texts = help_texts(Part)
    assert texts["share"] == "of something, in [0, 1], explained on two lines."
    assert texts["low"] == texts["high"] == "ends."
    assert "ConfigError" not in texts


@pytest.mark.parametrize(
    ("name", "expected", "text"),
    [
        ("share", Bounds(0.0, 1.0), "0 to 1"),
        ("low", Bounds(None, 0.8, False, True), "below 0.8"),
        ("high", Bounds(0.2, None, True, False), "above 0.2"),
        ("rate", Bounds(0.0, None, True), "above 0"),
        ("count", Bounds(3, 17), "3 to 17"),
        ("free", Bounds(), ""),
        ("scale", Bounds(2.5, None), "at least 2.5"),
        ("name", Bounds(), ""),
    ],
)
def test_bounds_are_found_by_asking(name: str, expected: Bounds, text: str) -> None:
    found = bounds(Part(), name)
    assert found == expected
    assert found.text() == text


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_bounds_are_true(kind: str, name: str) -> None:
    """A closed end is accepted and the next number beyond is not, for every number of every part."""
    settings = usual_settings(COMPONENTS[kind][name])
    if settings is None:
        pytest.skip("needs to be told something first")
    for f in dataclasses.fields(settings):
        found = bounds(settings, f.name)
        value = getattr(settings, f.name)
        for edge, is_open, away in (
            (found.low, found.low_open, -1),
            (found.high, found.high_open, 1),
        ):
            if edge is None:
                continue
            whole = isinstance(value, int)
            beyond = edge + away if whole else math.nextafter(edge, away * math.inf)

            def make(number: float, value: object = value, f: dataclasses.Field = f) -> None:
                typed = constant(number) if isinstance(value, Ramp) else type(value)(number)  # type: ignore[call-arg]
                dataclasses.replace(settings, **{f.name: typed})

            if not is_open:
                make(edge)
            with pytest.raises(ConfigError):
                make(edge if is_open else beyond)


def test_shared_settings_come_after_a_class_s_own() -> None:
    names = [field.name for field in own_first(VSD)]
    assert names[0] == "cfg_scale"
    assert names[-3:] == ["rank", "companion_rate", "camera_dropout"]
