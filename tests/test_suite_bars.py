"""Four prompts of suite `first`, made with the default preset and held to the bars of the whole suite."""

from typing import Any

import pytest

from dream3d.evaluation.suite import continuous_rows, generate_with_preset, run_suite
from dream3d.evaluation.table import BARS, met, summary

# The whole suite meets every bar (docs/suite-first.md), but one of these four does not have its category: a mug on a
# torus reads as a cube from the side. When it gets better this mark turns red; remove it then.
UNMET = {"category_right"}
# The suite has a mean of .87 (docs/suite-first.md), these four .83 to .855: one of them is the white table, and what
# 400 steps make of its thin parts, and so which true table is nearest and how well that can be fitted (.68 to .79),
# hangs on how a machine rounds. Met on some machines, not on all.
BY_MACHINE = {"ceiling_volume_iou"}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("suite")
    results = run_suite(directory, generate_with_preset("default"), continuous_rows())
    assert len(results) == 4
    return summary(results)


@pytest.mark.slow
@pytest.mark.parametrize(
    "bar",
    [
        pytest.param(
            name,
            marks=[pytest.mark.xfail(strict=True, reason="not reached yet")]
            if name in UNMET
            else [pytest.mark.xfail(strict=False, reason="met on some machines only")]
            if name in BY_MACHINE
            else [],
        )
        for name, _, _ in BARS
    ],
)
def test_four_prompts_meet_the_bar(found: dict[str, Any], bar: str) -> None:
    assert met(found)[bar], found
