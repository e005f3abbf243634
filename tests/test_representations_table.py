"""The table of representations counts what was made and names what was not."""

from dream3d.evaluation.representations import NUMBERS, markdown


def row(prompt: str, value: float) -> dict:
    return {"prompt": prompt, "generate_seconds": 60.0, **{name: value for name in NUMBERS}}


def test_means_are_over_what_was_made() -> None:
    results = {
        "nerf": {"a": row("a red mug", 0.5), "b": row("a blue duck", 1.0)},
        "tets": {"a": row("a red mug", 0.2), "b": {"prompt": "a blue duck", "error": "no | mesh"}},
    }
    text = markdown(results, "abc")
    assert "| nerf | **mean of 2 of 2** | 0.75 | 0.75 | 0.75 | 0.75 | 0.8 | 60 |" in text
    assert "| tets | **mean of 1 of 2** | 0.20 |" in text
    assert "| tets | a blue duck | failed: no / mesh |" in text
    assert "`abc`" in text
