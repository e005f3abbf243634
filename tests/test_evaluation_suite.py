"""Suite `first` is the same everywhere, covers what it says, and survives interruption."""

import argparse
import json
from pathlib import Path

import pytest

from dream3d.errors import ConfigError, NumericsError
from dream3d.evaluation import suite
from dream3d.evaluation.suite import (
    FRONT_SEEDS,
    Row,
    choose,
    first_prompts,
    front_prompts,
    run_suite,
    suite_rows,
)
from dream3d.evaluation.table import markdown, met, summary
from dream3d.world.catalog import CATEGORIES
from dream3d.world.grammar import Caption, caption_text, is_caption_held_out, parse


def test_the_24_prompts_cover_their_strata() -> None:
    chosen = first_prompts()
    texts = [caption_text(caption) for _, caption in chosen]
    assert len(set(texts)) == 24
    assert all(parse(text) == caption for text, (_, caption) in zip(texts, chosen, strict=True))
    for stratum, caption in chosen:
        assert is_caption_held_out(caption) == (stratum == "held-out combination")
        assert (caption.relation or "") == (stratum if stratum in ("on", "next to") else "")
    strata = [stratum for stratum, _ in chosen]
    assert {s: strata.count(s) for s in strata} == {
        "composite": 9,
        "held-out combination": 5,
        "no colour": 2,
        "primitive": 2,
        "on": 4,
        "next to": 2,
    }


def test_twelve_prompts_have_a_front_and_three_seeds() -> None:
    fronts = front_prompts()
    names = [caption.objects[0][1] for caption in fronts]
    assert len(set(names)) == 12
    assert all(CATEGORIES[name].has_front for name in names)
    rows = suite_rows()
    assert len({row.key for row in rows}) == len(rows)
    for caption in fronts:
        seeds = [row.seed for row in rows if row.prompt == caption_text(caption)]
        assert tuple(seeds) == FRONT_SEEDS
    assert sum(row.first for row in rows) == 24
    assert all(row.seed == 0 for row in rows if row.first)


def test_choice_depends_on_the_text_alone() -> None:
    captions = [Caption(((c, n),)) for c in ("red", "blue") for n in ("cube", "mug", "cat")]
    chosen = choose(captions, 2, set())
    assert choose(reversed(captions), 2, set()) == chosen
    assert chosen[0].objects[0][1] != chosen[1].objects[0][1]
    assert choose(captions, 2, {"cube", "mug", "cat"}) == []
    assert suite_rows() == suite_rows()


ROWS = [Row(f"a {color} cube", 0, "primitive", True, False) for color in ("red", "blue", "green")]
NUMBERS = {
    "alignment": 1.0,
    "category": 0.75,
    "colors": 1.0,
    "view": None,
    "janus": None,
    "silhouette_iou": 0.9,
    "volume_iou": 0.6,
    "f_score": 0.8,
    "psnr": 20.0,
    "ceiling": {"volume_iou": 0.9},
}


def test_runner_skips_finished_rows_and_retries_failed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def generate(prompt: str, seed: int, directory: Path) -> None:
        made.append(prompt)
        if prompt == "a blue cube" and made.count(prompt) == 1:
            raise NumericsError("not finite")

    monkeypatch.setattr(suite, "evaluate_run", lambda *args, **options: dict(NUMBERS))
    evaluator = object()
    results = run_suite(tmp_path, generate, ROWS, evaluator, report=lambda line: None)  # type: ignore[arg-type]
    assert made == [row.prompt for row in ROWS]
    assert results["a blue cube #0"]["error"] == "NumericsError: not finite"
    assert summary(results)["failures"] == 1
    # Killed while writing the last line: that row and the failed one are made again, the first is not.
    journal = tmp_path / "rows.jsonl"
    journal.write_text(journal.read_text()[:-20])
    results = run_suite(tmp_path, generate, ROWS, evaluator, report=lambda line: None)  # type: ignore[arg-type]
    assert made[3:] == ["a blue cube", "a green cube"]
    assert "error" not in results["a blue cube #0"]
    json.dumps(results, allow_nan=False)


def test_summary_and_bars() -> None:
    rows = {row.key: {**vars(row), **NUMBERS, "generate_seconds": 2.0} for row in ROWS}
    front = {"prompt": "a cat", "seed": 1, "stratum": "front", "first": False, "front": True}
    rows["a cat #1"] = {**front, **NUMBERS, "janus": True, "view": 0.5, "generate_seconds": 4.0}
    rows["a cat #2"] = {**front, **NUMBERS, "janus": False, "generate_seconds": 4.0}
    found = summary(rows)
    assert found["volume_iou_over_ceiling"] == pytest.approx(2 / 3)
    assert found["category_right"] == 1.0
    assert found["janus"] == 0.5
    assert found["generate_seconds"] == pytest.approx(2.8)
    assert met(found) == {
        "alignment": True,
        "category_right": True,
        "janus": False,
        "volume_iou_over_ceiling": False,
        "ceiling_volume_iou": True,
        "failures": True,
    }
    assert not met({})["alignment"]
    rows["a dog #0"] = {**front, "error": "OutputError: no space | left"}
    text = markdown(rows, summary(rows), "abc", "def")
    table = [line for line in text.splitlines() if line.startswith("| a ")]
    assert len(table) == 6
    assert {line.count("|") for line in table} == {14}


def test_shards_share_all_rows_among_them() -> None:
    rows = suite_rows()
    parts = [rows[suite.shard(f"{i}/3")] for i in range(3)]
    assert sorted(row.key for part in parts for row in part) == sorted(row.key for row in rows)
    assert all(abs(len(part) - len(rows) / 3) < 1 for part in parts)


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "a/b", "1/0", "0/2/3"])
def test_bad_shards_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write i/n"):
        suite.shard(text)


def test_the_continuous_rows_are_the_first_of_four_strata() -> None:
    rows = suite.continuous_rows()
    strata = ["composite", "held-out combination", "primitive", "on"]
    assert [row.stratum for row in rows[:4]] == strata
    assert len({row.key for row in rows}) == 10
    assert all(row.first and row.seed == 0 for row in rows)
    for stratum, count in zip(strata, (5, 3, 1, 1), strict=True):
        own = [row.key for row in rows if row.stratum == stratum]
        assert own == [row.key for row in suite.suite_rows() if row.stratum == stratum][:count]


def test_a_preset_that_does_not_exist_is_refused_before_the_first_row() -> None:
    with pytest.raises(ConfigError, match="deafult"):
        suite.generate_with_preset("deafult")
