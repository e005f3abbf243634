"""SOG, PlayCanvas' splats as lossless WebP pictures in a ZIP (version 2 of its specification)."""

import io
import json
import math

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image
from scipy.cluster.vq import kmeans2

from dream3d.export.about import About
from dream3d.export.archive import zip_bytes
from dream3d.export.asset import Asset
from dream3d.export.formats.base import FORMATS, Encoded, ExportOptions, Format
from dream3d.export.splat_codes import (
    along_a_curve,
    degree,
    opacities,
    quantised,
    smallest_three,
    unit_quaternions,
)
from dream3d.export.splat_ply import SplatArrays, check_splats, turned_about_x

BOOK = 256
PALETTE = 1024
"""Sets of higher harmonics at most; each splat names the one nearest to its own."""


@FORMATS.register("sog")
class Sog(Format):
    """Gaussian splats as SOG: WebP pictures in a ZIP, the smallest files for the web."""

    holds = "splats"
    file_name = "asset.sog"
    media_type = "application/zip"
    opens_in = "SuperSplat, PlayCanvas, Spark"
    frame = "+Y down, front -Z"
    color = "sRGB in a book of 256 values, degree 0 to 3 in a palette"

    def encode(self, asset: Asset, options: ExportOptions) -> Encoded:
        splats = asset.splats()
        return Encoded(sog_bytes(splats, asset.about), {"splats": len(splats.means)})


def sog_bytes(splats: SplatArrays, about: About) -> bytes:
    """The file.

    Raises:
        AssetError: see `check_splats`.
    """
    check_splats(splats)
    turned = turned_about_x(along_a_curve(splats))
    count = len(turned.means)
    files: dict[str, bytes] = {}

    def add(name: str, *columns: np.ndarray) -> None:
        files[name] = _webp(np.stack(columns, axis=1), _width(count))

    far = np.sign(turned.means) * np.log1p(np.abs(turned.means.astype(np.float64)))
    low, high = far.min(axis=0), far.max(axis=0)
    sixteen = quantised((far - low) / np.where(high > low, high - low, 1.0), 65535)
    opaque = np.full(count, 255)
    add("means_l.webp", *(sixteen & 255).T, opaque)
    add("means_u.webp", *(sixteen >> 8).T, opaque)
    largest, others = smallest_three(unit_quaternions(turned))
    add("quats.webp", *quantised(others * math.sqrt(0.5) + 0.5, 255).T, 252 + largest)
    scale_book, scale_codes = _book(turned.log_scales)
    add("scales.webp", *scale_codes.T, opaque)
    color_book, color_codes = _book(turned.sh[:, 0])
    add("sh0.webp", *color_codes.T, quantised(opacities(turned), 255))
    meta = {
        "version": 2,
        "asset": {"generator": about.generator, "extras": about.known()},
        "count": count,
        "means": {
            "mins": low.tolist(),
            "maxs": high.tolist(),
            "files": ["means_l.webp", "means_u.webp"],
        },
        "scales": {"codebook": scale_book.tolist(), "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": color_book.tolist(), "files": ["sh0.webp"]},
    }
    if degree(turned):
        palette, labels = _palette(turned.sh[:, 1:])
        rest_book, rest_codes = _book(palette)
        width = 64 * palette.shape[1]
        # One row of the picture is 64 palette entries, a texel a coefficient.
        texels = rest_codes.reshape(-1, 3)
        texels = np.concatenate([texels, np.full((len(texels), 1), 255)], axis=1)
        files["shN_centroids.webp"] = _webp(texels, width)
        zero = np.zeros(count, np.int64)
        add("shN_labels.webp", labels & 255, labels >> 8, zero, opaque)
        meta["shN"] = {
            "count": len(palette),
            "bands": degree(turned),
            "codebook": rest_book.tolist(),
            "files": ["shN_centroids.webp", "shN_labels.webp"],
        }
    text = json.dumps(meta, separators=(",", ":"), allow_nan=False).encode("ascii")
    return zip_bytes({"meta.json": text, **files})


def _width(count: int) -> int:
    """Of a picture with a texel per splat: about square, a multiple of four."""
    return 4 * math.ceil(math.sqrt(count) / 4.0)


def _webp(texels: Int[np.ndarray, "N 4"], width: int) -> bytes:
    """A lossless picture of the texels in rows of `width`; `exact` keeps colours under transparent texels."""
    height = math.ceil(len(texels) / width)
    picture = np.zeros((height * width, 4), np.uint8)
    picture[: len(texels)] = texels
    stream = io.BytesIO()
    Image.fromarray(picture.reshape(height, width, 4)).save(
        stream, format="WEBP", lossless=True, exact=True, quality=100, method=4
    )
    return stream.getvalue()


def _book(
    values: Float[np.ndarray, "*shape"],
) -> tuple[Float[np.ndarray, " 256"], UInt8[np.ndarray, "*shape"]]:
    """256 ascending values and, for every number, the nearest one's place.

    Half of the book divides the range evenly, which bounds every error; the other half follows the quantiles, which
    lowers the usual one.
    """
    flat = values.reshape(-1).astype(np.float64)
    even = np.linspace(flat.min(), flat.max(), BOOK // 2)
    often = np.quantile(flat, (np.arange(BOOK // 2) + 0.5) / (BOOK // 2))
    book = np.sort(np.concatenate([even, often])).astype(np.float32)
    right = np.clip(np.searchsorted(book, flat), 1, BOOK - 1)
    codes = np.where(flat - book[right - 1] < book[right] - flat, right - 1, right)
    return book, codes.reshape(values.shape).astype(np.uint8)


def _palette(
    rest: Float[np.ndarray, "N C 3"],
) -> tuple[Float[np.ndarray, "P C 3"], Int[np.ndarray, " N"]]:
    """At most `PALETTE` sets of coefficients and which one stands for each splat's."""
    flat = rest.reshape(len(rest), -1).astype(np.float64)
    different = np.unique(flat, axis=0)
    if len(different) <= PALETTE:
        palette, labels = np.unique(flat, axis=0, return_inverse=True)
    else:
        start = different[np.linspace(0, len(different) - 1, PALETTE).astype(int)]
        palette, labels = kmeans2(flat, start, iter=8, minit="matrix", missing="warn")
    return palette.reshape(-1, *rest.shape[1:]), labels.reshape(-1).astype(np.int64)
