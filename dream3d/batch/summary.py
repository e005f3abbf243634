"""What a batch leaves for people and spreadsheets: results.csv, contact.html, contact.png."""

import base64
import csv
import html
import io
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dream3d.batch.run import Row
from dream3d.files import write_bytes, write_text
from dream3d.run_directory import RunDirectory

COLUMNS = (
    *("line", "prompt", "negative", "seed", "preset", "overrides", "job", "state", "message"),
    *("steps", "seconds", "attempts", "directory"),
)
TILE, TEXT = 160, 44
MOST_TILES = 1000
_GREY = (209, 209, 209)


def write_summary(rows: Sequence[Row], out: Path) -> None:
    """Replace the three files.

    Raises:
        OutputError: one cannot be written.
    """
    write_text(out / "results.csv", results_csv(rows))
    write_text(out / "contact.html", contact_html(rows))
    write_bytes(out / "contact.png", contact_png(rows, out / "jobs"))


def cell(value: object) -> str:
    """A CSV cell; text that a spreadsheet would run as a formula gets an apostrophe before it."""
    text = "" if value is None else str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def results_csv(rows: Sequence[Row]) -> str:
    """A line for every item, under `COLUMNS`."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        item, job, request = row.item, row.job, row.item.request
        overrides = request.overrides if request is not None else {}
        pairs = overrides.items() if not isinstance(overrides, tuple) else ()
        settings = "; ".join(f"{key}={value}" for key, value in pairs)
        writer.writerow(
            cell(value)
            for value in (
                item.line,
                item.prompt,
                request.negative_prompt if request else "",
                item.seed,
                request.preset if request else "",
                settings,
                item.job,
                row.state,
                row.message,
                job.step if job else 0,
                seconds(row),
                job.attempts if job else 0,
                f"jobs/{item.job}/run" if job else "",
            )
        )
    return stream.getvalue()


def seconds(row: Row) -> float | None:
    """From the job's creation to its end; None before that."""
    if row.job is None or row.state not in ("done", "failed", "cancelled"):
        return None
    return round(row.job.since - row.job.created, 1)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>dream3d batch</title>
<meta http-equiv="Content-Security-Policy" content="script-src 'none'; object-src 'none'; base-uri 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; }}
main {{ display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); }}
article {{ border: 1px solid color-mix(in srgb, currentColor 25%, transparent); }}
article {{ border-radius: .5rem; overflow: hidden; }}
img {{ display: block; width: 100%; aspect-ratio: 2; background: #d1d1d1; }}
div {{ padding: .6rem .8rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1rem; margin: 0; white-space: pre-wrap; }}
p {{ margin: .3rem 0 0; }}
</style></head><body>
<h1>dream3d batch</h1>
<p>{counts}</p>
<main>
{articles}
</main></body></html>
"""


def contact_html(rows: Sequence[Row], whole: Path | None = None) -> str:
    """A page with every item, its preview and its files; prompts and messages are escaped, and no script may run.

    Args:
        rows: the items.
        whole: where the jobs lie, to have the previews in the page itself, which then refers to no file; None refers to
            `jobs` beside the page.
    """
    articles = "\n".join(_article(row, whole) for row in rows)
    return _PAGE.format(counts=html.escape(counts(rows)), articles=articles)


def counts(rows: Sequence[Row]) -> str:
    """How many are in each state, e.g. "3 done, 1 failed"."""
    order = ("done", "running", "queued", "failed", "cancelled", "lost")
    states = [row.state for row in rows]
    return ", ".join(f"{states.count(s)} {s}" for s in order if s in states) or "nothing"


def _article(row: Row, whole: Path | None) -> str:
    prompt, message = html.escape(row.item.prompt), html.escape(row.message)
    about = f"line {row.item.line}"
    about += "" if row.item.seed is None else f", seed {row.item.seed}"
    about += f", {row.state}"
    picture, links = "", ""
    if row.job is not None:
        run = f"jobs/{row.item.job}/run"
        if "preview.png" in row.job.files:
            source = f"{run}/preview.png" if whole is None else _as_data(row, whole)
            picture = f'<img src="{source}" alt="eight views of {prompt}" loading="lazy">'
        names = [name for name in row.job.files if name.startswith(("asset.", "turntable."))]
        names = names if whole is None else []
        places = [f"{run}/{name}" for name in sorted(names)]
        places += [f"jobs/{row.item.job}/exports/{name}" for name in row.exports]
        links = " ".join(
            f'<a href="{html.escape(place)}">{html.escape(place.rpartition("/")[2])}</a>'
            for place in places
        )
    words = f"<h2>{prompt}</h2><p>{html.escape(about)}</p>"
    words += f"<p>{message}</p>" if message else ""
    return f"<article>{picture}<div>{words}<p>{links}</p></div></article>"


def _as_data(row: Row, jobs: Path) -> str:
    """The preview as a data URI; an empty one where it cannot be read (any more)."""
    data = b""
    with suppress(OSError):
        data = _preview(row, jobs).read_bytes()
    return f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"


def _preview(row: Row, jobs: Path) -> Path:
    return RunDirectory(jobs / row.item.job / "run").path / "preview.png"


def contact_png(rows: Sequence[Row], jobs: Path) -> bytes:
    """The front view of every item (the first `MOST_TILES`) with its prompt, six in a row.

    Args:
        rows: the items.
        jobs: where their jobs lie.
    """
    shown = list(rows[:MOST_TILES])
    columns = min(6, max(1, len(shown)))
    height = -(-max(1, len(shown)) // columns) * (TILE + TEXT)
    sheet = Image.new("RGB", (columns * TILE, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for index, row in enumerate(shown):
        left, top = index % columns * TILE, index // columns * (TILE + TEXT)
        sheet.paste(_tile(row, jobs), (left, top))
        lines = textwrap.wrap(row.item.prompt, 27)[:2] or ["(no prompt)"]
        seed = "" if row.item.seed is None else f"seed {row.item.seed}, "
        for place, line in enumerate([*lines, f"{seed}{row.state}"]):
            draw.text((left + 4, top + TILE + 2 + 13 * place), line, "black", font)
    stream = io.BytesIO()
    sheet.save(stream, format="PNG")
    return stream.getvalue()


def _tile(row: Row, jobs: Path) -> Image.Image:
    """The first of the preview's 4 x 2 views; plain grey where there is none."""
    if row.job is not None and "preview.png" in row.job.files:
        # A preview damaged by hand must not take the sheet along.
        with suppress(OSError, ValueError), Image.open(_preview(row, jobs)) as picture:
            side = picture.height // 2
            return picture.convert("RGB").crop((0, 0, side, side)).resize((TILE, TILE))
    return Image.new("RGB", (TILE, TILE), _GREY)
