"""Splats in the layout every splat program began with."""

from dream3d.export.asset import Asset
from dream3d.export.formats.base import FORMATS, Encoded, ExportOptions, Format
from dream3d.export.splat_ply import splat_ply_bytes


@FORMATS.register("ply")
class SplatPly(Format):
    """Gaussian splats in the original 62-property layout."""

    holds = "splats"
    file_name = "asset.ply"
    media_type = "application/octet-stream"
    opens_in = "SuperSplat, gsplat, nerfstudio, Unity and Unreal splat plug-ins"
    frame = "+Y down, front -Z"
    color = "sRGB as spherical harmonics, degree 0 to 3"

    def encode(self, asset: Asset, options: ExportOptions) -> Encoded:
        splats = asset.splats()
        data = splat_ply_bytes(splats, asset.about.ply_comments())
        return Encoded(data, {"splats": len(splats.means)})
