"""Reading a picture somebody gives us: a file is data, and may be anything.

The result is always the same plain thing, whatever came in: upright, sRGB, four channels, at most `LARGEST_SIDE` pixels
a side, without metadata.
"""

import hashlib
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from dream3d.errors import PictureError
from dream3d.files import atomic_path

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
LARGEST_FILE = 64 * 2**20
"""Bytes."""
LARGEST_AREA = 50_000_000
"""Pixels that are decoded at most: a small file may promise gigabytes."""
SMALLEST_SIDE = 16
LARGEST_SIDE = 1024
"""Larger pictures are scaled down: no prior looks closer."""


def read_picture(path: Path | str) -> UInt8[np.ndarray, "H W 4"]:
    """The picture in a file, as red, green, blue and coverage; not premultiplied.

    Raises:
        PictureError: there is none, it is not a still picture of a known format, damaged, or too small or large.
    """
    path = Path(path).expanduser()
    try:
        if not path.is_file():
            raise PictureError(f"there is no picture at {path}; give the path of a file")
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise PictureError(
                f"{path} has {size / 2**20:.0f} MB; pictures of at most {LARGEST_FILE >> 20} MB are read. Scale it down"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of the sizes that are refused below
            with Image.open(path, formats=FORMATS) as image:
                return _decoded(image, path)
    except UnidentifiedImageError as error:
        raise PictureError(
            f"{path} is not a picture dream3d reads; give a {', '.join(FORMATS)} file"
        ) from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"{path} is too large ({error}); scale it down") from error
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise PictureError(f"{path} cannot be read ({error}); save it again as PNG") from error


def _decoded(image: Image.Image, path: Path) -> UInt8[np.ndarray, "H W 4"]:
    width, height = image.size
    if width * height > LARGEST_AREA:
        raise PictureError(
            f"{path} has {width} x {height} pixels; at most {LARGEST_AREA // 10**6} million are read. Scale it down"
        )
    if min(width, height) < SMALLEST_SIDE:
        raise PictureError(
            f"{path} has {width} x {height} pixels; at least {SMALLEST_SIDE} a side are needed"
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise PictureError(f"{path} holds {frames} pictures; save the one you mean as PNG")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    image = image.convert("RGBA")
    if max(image.size) > LARGEST_SIDE:
        # Premultiplied while it is scaled, or what is transparent would bleed into the edges.
        image = image.convert("RGBa")
        image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
        image = image.convert("RGBA")
    return np.asarray(image)


def _eight_bits(image: Image.Image) -> Image.Image:
    """A picture of one deep channel, 16 bits taken as its full range; Pillow's own conversion would clip it."""
    values = np.asarray(image).astype(np.float64)
    full = 1.0 if image.mode == "F" else 65535.0
    eighth = 255.0 * (values / full).clip(0.0, 1.0)
    return Image.fromarray(eighth.round().astype(np.uint8))


def write_picture(path: Path, pixels: UInt8[np.ndarray, "H W 4"]) -> None:
    """Write a PNG that `read_picture` reads back as it was.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def pixel_digest(pixels: UInt8[np.ndarray, "H W 4"]) -> str:
    """A hash of what a picture shows, which no other encoding of the same pixels changes."""
    shape = "x".join(map(str, pixels.shape)).encode()
    return hashlib.sha256(shape + np.ascontiguousarray(pixels).tobytes()).hexdigest()
