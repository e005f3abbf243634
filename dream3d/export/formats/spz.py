"""SPZ, Niantic's compressed splats, version 3 of its specification: about a tenth of the size of a PLY."""

import gzip
import struct

import numpy as np

from dream3d.errors import AssetError
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
from dream3d.export.splat_ply import SplatArrays, check_splats

MAGIC, VERSION = 0x5053474E, 3
FRACTION = 12
"""Bits after the binary point of a position: a step of 1/4096 world unit, a reach of 2048."""
COLOR_SCALE = 0.15


@FORMATS.register("spz")
class Spz(Format):
    """Gaussian splats as SPZ: small files for the web and phones."""

    holds = "splats"
    file_name = "asset.spz"
    media_type = "application/octet-stream"
    opens_in = "Scaniverse, SuperSplat, Spark, Babylon.js, Unity and Unreal plug-ins"
    frame = "+Y up, front +Z (the specification's RUB)"
    color = "sRGB, 8 bits, degree 0 to 3"

    def encode(self, asset: Asset, options: ExportOptions) -> Encoded:
        splats = asset.splats()
        return Encoded(spz_bytes(splats), {"splats": len(splats.means)})


def spz_bytes(splats: SplatArrays) -> bytes:
    """The file. SPZ's axes are right, up, back: the world's own, so nothing is turned.

    Raises:
        AssetError: see `check_splats`; or a splat lies farther out than the format reaches.
    """
    check_splats(splats)
    splats = along_a_curve(splats)
    count = len(splats.means)
    fixed = np.round(splats.means.astype(np.float64) * (1 << FRACTION)).astype(np.int64)
    if np.abs(fixed).max() >= 1 << 23:
        raise AssetError(
            f"a splat lies {np.abs(splats.means).max():g} from the origin and SPZ reaches 2047; write a PLY instead"
        )
    three_bytes = (fixed & 0xFFFFFF).astype("<u4").view(np.uint8).reshape(count, 3, 4)[..., :3]
    colors = quantised(splats.sh[:, 0] * COLOR_SCALE + 0.5, 255)
    scales = np.clip(np.round((splats.log_scales + 10.0) * 16.0), 0, 255)
    parts = [
        three_bytes,
        quantised(opacities(splats), 255).astype(np.uint8),
        colors.astype(np.uint8),
        scales.astype(np.uint8),
        _rotations(splats),
        _harmonics(splats),
    ]
    header = struct.pack("<IIIBBBB", MAGIC, VERSION, count, degree(splats), FRACTION, 0, 0)
    body = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
    return gzip.compress(header + body, mtime=0)


def _rotations(splats: SplatArrays) -> np.ndarray:
    """Four bytes each: two bits for the largest component (xyzw), then sign and nine bits of size for the others."""
    w, x, y, z = unit_quaternions(splats).T
    largest, others = smallest_three(np.stack([x, y, z, w], axis=1))
    size = quantised(np.abs(others) / np.sqrt(0.5), 511)
    coded = size | (others < 0.0).astype(np.int64) << 9
    packed = largest << 30 | coded[:, 0] << 20 | coded[:, 1] << 10 | coded[:, 2]
    return packed.astype("<u4")


def _harmonics(splats: SplatArrays) -> np.ndarray:
    """Per splat and coefficient red, green, blue: 5 bits of degree 1, 4 of the others, as the format advises."""
    rest = splats.sh[:, 1:].astype(np.float64)
    step = np.where(np.arange(rest.shape[1]) < 3, 8.0, 16.0)[None, :, None]
    coded = np.round(rest * 128.0) + 128.0
    return np.clip(np.floor((coded + 0.5 * step) / step) * step, 0, 255).astype(np.uint8)
