"""PlayCanvas' compressed PLY: chunks of 256 splats, each with its bounds, 16 bytes a splat."""

import numpy as np
from jaxtyping import Int

from dream3d.export.about import About
from dream3d.export.asset import Asset
from dream3d.export.formats.base import FORMATS, Encoded, ExportOptions, Format
from dream3d.export.splat_codes import (
    along_a_curve,
    base_colors,
    opacities,
    quantised,
    smallest_three,
    unit_quaternions,
)
from dream3d.export.splat_ply import SplatArrays, check_splats, turned_about_x

CHUNK = 256


@FORMATS.register("compressed-ply")
class CompressedPly(Format):
    """Gaussian splats as a compressed PLY, about a quarter of the size."""

    holds = "splats"
    file_name = "asset.compressed.ply"
    media_type = "application/octet-stream"
    opens_in = "SuperSplat, PlayCanvas"
    frame = "+Y down, front -Z"
    color = "sRGB, 8 bits, degree 0 to 3"

    def encode(self, asset: Asset, options: ExportOptions) -> Encoded:
        splats = asset.splats()
        return Encoded(compressed_ply_bytes(splats, asset.about), {"splats": len(splats.means)})


def compressed_ply_bytes(splats: SplatArrays, about: About) -> bytes:
    """The file; splats are put in an order in which each chunk is compact.

    Raises:
        AssetError: see `check_splats`.
    """
    check_splats(splats)
    turned = turned_about_x(along_a_curve(splats))
    count = len(turned.means)
    chunk = np.arange(count) // CHUNK
    bounds, units = [], []
    for values in (turned.means, np.clip(turned.log_scales, -20.0, 20.0), base_colors(turned)):
        low, high, unit = _within_chunks(np.asarray(values, np.float32), chunk)
        bounds += [low, high]
        units.append(unit)
    largest, others = smallest_three(unit_quaternions(turned))
    rotation = quantised(others * np.sqrt(0.5) + 0.5, 1023)
    color = quantised(np.concatenate([units[2], opacities(turned)[:, None]], axis=1), 255)
    packed = np.stack(
        [
            _eleven_ten_eleven(units[0]),
            largest << 30 | rotation[:, 0] << 20 | rotation[:, 1] << 10 | rotation[:, 2],
            _eleven_ten_eleven(units[1]),
            color[:, 0] << 24 | color[:, 1] << 16 | color[:, 2] << 8 | color[:, 3],
        ],
        axis=1,
    )
    # Channel-major, as in the plain PLY: all of red, then green, then blue.
    rest = turned.sh[:, 1:].transpose(0, 2, 1).reshape(count, -1)
    sh = np.clip(np.floor((rest / 8.0 + 0.5) * 256.0), 0, 255).astype(np.uint8)
    table = np.concatenate(bounds, axis=1).astype("<f4")
    body = table.tobytes() + packed.astype("<u4").tobytes() + sh.tobytes()
    header = _header(about.ply_comments(), len(table), count, sh.shape[1])
    return header.encode("ascii") + body


def _within_chunks(
    values: np.ndarray, chunk: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bounds of every chunk, and the values within them from 0 to 1."""
    starts = np.arange(0, len(values), CHUNK)
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    span = (high - low)[chunk]
    flat = span < 1e-5
    return low, high, np.where(flat, 0.0, (values - low[chunk]) / np.where(flat, 1.0, span))


def _eleven_ten_eleven(unit: np.ndarray) -> Int[np.ndarray, " N"]:
    x, y, z = (quantised(unit[:, axis], steps) for axis, steps in enumerate((2047, 1023, 2047)))
    return x << 21 | y << 11 | z


def _header(comments: list[str], chunks: int, count: int, rest: int) -> str:
    bounds = [
        f"{side}_{prefix}{axis}"
        for prefix, axes in (("", "xyz"), ("scale_", "xyz"), ("", "rgb"))
        for side in ("min", "max")
        for axis in axes
    ]
    lines = ["ply", "format binary_little_endian 1.0", *comments]
    lines += [f"element chunk {chunks}"]
    lines += [f"property float {name}" for name in bounds]
    lines += [f"element vertex {count}"]
    lines += [f"property uint packed_{name}" for name in ("position", "rotation", "scale", "color")]
    if rest:
        lines += [f"element sh {count}", *(f"property uchar f_rest_{i}" for i in range(rest))]
    return "\n".join([*lines, "end_header\n"])
