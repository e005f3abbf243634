"""The toy's picture: for every method two histograms against the density its prompt stands for."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from dream3d.bench.toy import TARGET, Case, Outcome
from dream3d.files import atomic_path

LOW, HIGH, BINS = -4.0, 8.0, 120
TALLEST = 1.6  # density at the top of a panel; narrower peaks are cut off there
FINE = 2  # drawn at this multiple and reduced, for smooth edges
PANEL = (212, 74)
GAP, TITLE, CAPTION, AXIS = 14, 20, 15, 14
COLUMNS = 3
HEADER = 50
PAPER, INK, FAINT = (255, 255, 255), (33, 37, 41), (134, 142, 150)
BARS: dict[Case, tuple[int, int, int]] = {"plain": (116, 160, 214), "guided": (236, 154, 90)}
CELL = (2 * PANEL[0] + GAP, TITLE + PANEL[1] + AXIS + CAPTION)


def write_picture(outcomes: list[Outcome], path: Path) -> None:
    """Draw all methods as one PNG.

    Args:
        outcomes: both cases of each method, in order.
        path: replaced in one step.

    Raises:
        OutputError: the file cannot be written.
    """
    pairs = [outcomes[i : i + 2] for i in range(0, len(outcomes), 2)]
    columns = min(COLUMNS, len(pairs))
    rows = -(-len(pairs) // columns)
    width = columns * (CELL[0] + 2 * GAP) + GAP
    height = HEADER + rows * (CELL[1] + GAP) + GAP
    sheet = Image.new("RGB", (FINE * width, FINE * height), PAPER)
    draw = ImageDraw.Draw(sheet)
    _text(draw, (2 * GAP, 10), "Every guidance as particles under exact scores", 16)
    legend = (
        "blue: no guidance, prompt = the mixture      orange: prompt = right mode, scale 7.5      "
        "line: the prompt's density"
    )
    _text(draw, (2 * GAP, 31), legend, 12, FAINT)
    for place, pair in enumerate(pairs):
        left = 2 * GAP + (place % columns) * (CELL[0] + 2 * GAP)
        top = HEADER + GAP // 2 + (place // columns) * (CELL[1] + GAP)
        _text(draw, (left, top), pair[0].method, 14)
        for side, outcome in enumerate(pair):
            _panel(draw, outcome, left + side * (PANEL[0] + GAP), top + TITLE)
    with atomic_path(path) as temporary:
        sheet.resize((width, height), Image.Resampling.LANCZOS).save(temporary, "PNG")


def _text(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size: int,
    color: tuple[int, int, int] = INK,
    anchor: str = "la",
) -> None:
    font = ImageFont.load_default(FINE * size)
    draw.text((FINE * at[0], FINE * at[1]), text, fill=color, font=font, anchor=anchor)


def _panel(draw: ImageDraw.ImageDraw, outcome: Outcome, left: int, top: int) -> None:
    """Histogram, true density, axis and numbers."""
    width, height = PANEL
    bottom = top + height
    counts = torch.histc(outcome.particles, BINS, LOW, HIGH)
    density = counts / len(outcome.particles) / ((HIGH - LOW) / BINS)
    bar = width / BINS
    for i, value in enumerate(density.tolist()):
        if value > 0.0:
            tall = height * min(value / TALLEST, 1.0)
            box = (left + i * bar, bottom - tall, left + (i + 1) * bar, bottom)
            draw.rectangle([FINE * x for x in box], fill=BARS[outcome.case])
    x = torch.linspace(LOW, HIGH, 2 * width, dtype=torch.float64)
    curve = TARGET[outcome.case].density(x) / TALLEST
    points = [
        (FINE * (left + 0.5 * i), FINE * (bottom - height * y))
        for i, y in enumerate(curve.tolist())
    ]
    draw.line(points, fill=INK, width=FINE)
    draw.line(
        [(FINE * left, FINE * bottom), (FINE * (left + width), FINE * bottom)], fill=FAINT, width=1
    )
    for mark in (-4, -2, 0, 2, 4, 6, 8):
        at = left + width * (mark - LOW) / (HIGH - LOW)
        draw.line([(FINE * at, FINE * bottom), (FINE * at, FINE * (bottom + 3))], fill=FAINT)
        _text(draw, (at, bottom + 3), str(mark), 9, FAINT, "ma")
    _text(draw, (left, bottom + AXIS), _caption(outcome), 11)
    outside = 1.0 - counts.sum().item() / len(outcome.particles)
    if outside > 0.005:
        _text(draw, (left + width, top), f"{outside:.0%} outside", 10, FAINT, "ra")


def _caption(outcome: Outcome) -> str:
    row = outcome.row()
    spread = "/".join(
        "-" if row[name] is None else f"{row[name]:.2f}" for name in ("std_left", "std_right")
    )
    return f"KS {row['ks']:.2f}   std {spread}   mean {row['mean']:.2f}"
