"""The table of a suite: means against their bars, and every row."""

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from dream3d.evaluation.statistics import wilson
from dream3d.files import make_directory, write_json, write_text

FORMAT_VERSION = 1
RIGHT_VIEWS = 0.75
"""A row's category is right when at least 6 of 8 views show it."""

# Name, direction ("least" or "most"), bar.
BARS: tuple[tuple[str, str, float], ...] = (
    ("alignment", "least", 0.90),
    ("category_right", "least", 0.90),
    ("janus", "most", 0.05),
    ("volume_iou_over_ceiling", "least", 0.75),
    ("ceiling_volume_iou", "least", 0.85),
    ("failures", "most", 0.0),
)


def summary(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the rows of a suite.

    alignment, category_right, volume_iou and the ceilings are over the 24 first prompts at seed 0; janus over every row
    of the front-marked prompts; failures counts rows that ended in an error.
    """
    rows = [row for row in results.values() if "error" not in row]
    first = [row for row in rows if row["first"]]
    front = [row for row in rows if row["front"] and row["janus"] is not None]
    found: dict[str, Any] = {"failures": len(results) - len(rows), "rows": len(results)}
    if first:
        right = sum(row["category"] >= RIGHT_VIEWS for row in first)
        found["category_right"] = right / len(first)
        found["category_right_interval"] = wilson(right, len(first)).to_json()
        for name in ("alignment", "colors", "silhouette_iou", "volume_iou", "f_score", "psnr"):
            found[name] = mean(row[name] for row in first)
    limited = [row for row in first if row.get("ceiling")]
    if limited:
        found["ceiling_volume_iou"] = mean(row["ceiling"]["volume_iou"] for row in limited)
        found["volume_iou_over_ceiling"] = (
            mean(row["volume_iou"] for row in limited) / found["ceiling_volume_iou"]
        )
    if front:
        two_fronts = sum(bool(row["janus"]) for row in front)
        found["janus"] = two_fronts / len(front)
        found["janus_interval"] = wilson(two_fronts, len(front)).to_json()
    seconds = [row["generate_seconds"] for row in rows if "generate_seconds" in row]
    if seconds:
        found["generate_seconds"] = mean(seconds)
    return found


def met(found: Mapping[str, Any]) -> dict[str, bool]:
    """Which bars a summary meets; a number that is missing does not."""
    return {
        name: name in found and (found[name] >= bar if side == "least" else found[name] <= bar)
        for name, side, bar in BARS
    }


def write_table(
    results: Mapping[str, Mapping[str, Any]], docs: Path, commit: str, world_hash: str
) -> None:
    """Write `suite-first.json` and `suite-first.md` into the docs.

    Args:
        results: rows by key, as `run_suite` returns them.
        docs: directory, created where missing.
        commit: what the rows were made with.
        world_hash: the procedural world they are measured against.
    """
    make_directory(docs)
    found = summary(results)
    document = {
        "format_version": FORMAT_VERSION,
        "commit": commit,
        "world_hash": world_hash,
        "summary": found,
        "bars_met": met(found),
        "rows": list(results.values()),
    }
    write_json(docs / "suite-first.json", document)
    write_text(docs / "suite-first.md", markdown(results, found, commit, world_hash))


def markdown(
    results: Mapping[str, Mapping[str, Any]],
    found: Mapping[str, Any],
    commit: str,
    world_hash: str,
) -> str:
    """The table for a reader."""
    lines = [
        "# Suite `first`",
        "",
        "Measured against the procedural world's truth by `python -m dream3d.evaluation.suite`, "
        f"at commit `{commit}`, world `{world_hash}`. What each number means: [evaluation](evaluation.md). The prompts "
        "are chosen by hash; see `dream3d/evaluation/suite.py`.",
        "",
        "| number | measured | bar | met |",
        "|---|---|---|---|",
    ]
    passed = met(found)
    for name, side, bar in BARS:
        value = f"{found[name]:.3f}" if name in found else "not measured"
        sign = "≥" if side == "least" else "≤"
        yes = "yes" if passed[name] else "no"
        lines.append(f"| {name.replace('_', ' ')} | {value} | {sign} {bar:g} | {yes} |")
    lines += [
        "",
        "| prompt | seed | chosen for | alignment | category | colors | view | Janus | volume IoU | ceiling | "
        "silhouette IoU | F-score | PSNR |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(row) for row in results.values()]
    return "\n".join(lines) + "\n"


def _line(row: Mapping[str, Any]) -> str:
    head = f"| {row['prompt']} | {row['seed']} | {row['stratum']} |"
    if "error" in row:
        return f"{head} failed: {row['error'].replace('|', '/')} | | | | | | | | | |"
    ceiling = row.get("ceiling")
    janus = {True: "yes", False: "no", None: ""}[row["janus"]]
    view = "" if row["view"] is None else f"{row['view']:.2f}"
    top = f"{ceiling['volume_iou']:.2f}" if ceiling else ""
    return (
        f"{head} {row['alignment']:.2f} | {row['category']:.2f} | {row['colors']:.2f} | {view} | {janus} | "
        f"{row['volume_iou']:.2f} | {top} | {row['silhouette_iou']:.2f} | {row['f_score']:.2f} | {row['psnr']:.1f} |"
    )
