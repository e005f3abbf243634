"""A contact sheet of the world: every category from several sides, drawn from the true geometry."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from dream3d.cameras import orbit_cameras
from dream3d.errors import PromptError
from dream3d.files import make_directory, write_bytes
from dream3d.registry import suggestion
from dream3d.world.catalog import CATEGORIES
from dream3d.world.grammar import Caption
from dream3d.world.objects import build_object
from dream3d.world.render import render_object

# Column heading, azimuth and elevation in degrees.
SIDES: tuple[tuple[str, float, float], ...] = (
    ("front", 0.0, 10.0),
    ("front left", 45.0, 10.0),
    ("left", 90.0, 10.0),
    ("back", 180.0, 10.0),
    ("high", 30.0, 45.0),
)
_PAPER = (236, 238, 242)
_INK = (40, 44, 52)
_TITLE = 16  # pixels of text above each object


def contact_sheet(
    path: str | Path,
    categories: Sequence[str] | None = None,
    color: str | None = None,
    size: int = 72,
    columns: int = 3,
    seed: int = 0,
    lit: bool = True,
) -> Path:
    """Draws every category from the front, front left, left, back and above, with its name, as one PNG.

    Args:
        path: where to write; replaced in one step.
        categories: names to draw, all when None.
        color: one of the twelve for everything; None draws a typical colour for each.
        size: pixels of one picture.
        columns: objects side by side.
        seed: of proportions and typical colours.
        lit: under the world's light, or plain colours.

    Raises:
        PromptError: an unknown category.
        OutputError: the file cannot be written.
    """
    names = list(CATEGORIES) if categories is None else list(categories)
    for name in names:
        if name not in CATEGORIES:
            known = list(CATEGORIES)
            raise PromptError(
                f"category is '{name}'; choose one of {', '.join(known)}.{suggestion(name, known)}"
            )
    rows = -(-len(names) // columns)
    wide, tall = size * len(SIDES) + 12, size + _TITLE + 6
    sheet = Image.new("RGB", (columns * wide + 12, rows * tall + 8), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for index, name in enumerate(names):
        left, top = 12 + (index % columns) * wide, 8 + (index // columns) * tall
        strip, title = _strip(name, color, size, seed + index, lit)
        draw.text((left, top), title, fill=_INK, font=font)
        sheet.paste(strip, (left, top + _TITLE))
    return _write_png(sheet, Path(path))


def _strip(
    name: str, color: str | None, size: int, seed: int, lit: bool
) -> tuple[Image.Image, str]:
    """One object from all sides, and its title."""
    caption = Caption(((color, name),))
    thing = build_object(caption, np.random.default_rng(seed))
    cameras = orbit_cameras([a for _, a, _ in SIDES], [e for _, _, e in SIDES], size=size)
    backdrop = torch.tensor(_PAPER).view(1, 1, 3) * (0.86 / 255.0)  # dark enough to set off white
    images = render_object(thing, cameras, lit=lit).over(backdrop)
    pixels = (images.clamp(0, 1).numpy() * 255.0).round().astype(np.uint8)  # [V, H, W, 3]
    front = "" if not CATEGORIES[name].has_front else " (front)"
    return Image.fromarray(np.concatenate(list(pixels), axis=1)), f"{thing.colors[0]} {name}{front}"


def _write_png(image: Image.Image, path: Path) -> Path:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    make_directory(path.parent)
    write_bytes(path, buffer.getvalue())
    return path
