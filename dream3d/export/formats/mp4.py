"""Turntable films."""

from dream3d.export.asset import Asset
from dream3d.export.formats.base import FORMATS, Encoded, ExportOptions, Format
from dream3d.export.pictures import turntable_mp4


@FORMATS.register("mp4")
class Mp4(Format):
    """A turntable as H.264 film: colours, normals or depth."""

    holds = "pictures"
    file_name = "turntable.mp4"
    media_type = "video/mp4"
    opens_in = "every browser and player"
    frame = "a full turn from the front, toward +X"
    color = "sRGB"

    def encode(self, asset: Asset, options: ExportOptions) -> Encoded:
        size = (options.picture_size, options.frames, options.channel)
        data = turntable_mp4(asset.scene, *size, asset.about.comment())
        return Encoded(data, {"frames": options.frames, "channel": options.channel})
