"""Four prompts of suite `first`, made with the default preset and held to the bars of the whole suite."""

from pathlib import Path

import pytest

from dream3d.evaluation.suite import continuous_rows, generate_with_preset, run_suite
from dream3d.evaluation.table import met, summary


@pytest.mark.slow
def test_four_prompts_meet_the_bars(tmp_path: Path) -> None:
    results = run_suite(tmp_path, generate_with_preset("default"), continuous_rows())
    found = summary(results)
    assert len(results) == 4
    assert all(met(found).values()), found
