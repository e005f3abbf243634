"""The 32-byte format of the first web viewer (antimatter15/splat): no harmonics, for previews."""

import numpy as np

from dream3d.export.asset import Asset
from dream3d.export.formats.base import FORMATS, Encoded, ExportOptions, Format
from dream3d.export.splat_codes import (
    base_colors,
    opacities,
    quantised,
    reordered,
    unit_quaternions,
)
from dream3d.export.splat_ply import SplatArrays, check_splats, turned_about_x


@FORMATS.register("splat")
class Splat(Format):
    """Gaussian splats of 32 bytes each, one colour from every side."""

    holds = "splats"
    file_name = "asset.splat"
    media_type = "application/octet-stream"
    opens_in = "web viewers (antimatter15/splat, gsplat.js, SuperSplat)"
    frame = "+Y down, front -Z"
    color = "sRGB, 8 bits, degree 0"

    def encode(self, asset: Asset, options: ExportOptions) -> Encoded:
        splats = asset.splats()
        return Encoded(splat_bytes(splats), {"splats": len(splats.means)})


def splat_bytes(splats: SplatArrays) -> bytes:
    """Position and scale as floats, RGBA and rotation (wxyz) as bytes; the largest and most opaque splats first.

    Raises:
        AssetError: see `check_splats`.
    """
    check_splats(splats)
    weight = np.exp(splats.log_scales.sum(axis=1)) * opacities(splats)
    turned = turned_about_x(reordered(splats, np.argsort(-weight, kind="stable")))
    rows = np.zeros(
        len(weight), [("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("rot", "u1", 4)]
    )
    rows["mean"], rows["scale"] = turned.means, np.exp(turned.log_scales)
    rows["rgba"][:, :3] = quantised(base_colors(turned), 255)
    rows["rgba"][:, 3] = quantised(opacities(turned), 255)
    rows["rot"] = np.clip(np.round(unit_quaternions(turned) * 128.0 + 128.0), 0, 255)
    return rows.tobytes()
