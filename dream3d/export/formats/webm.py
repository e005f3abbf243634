"""Turntable films in a format without patents."""

from dream3d.export.asset import Asset
from dream3d.export.formats.base import FORMATS, Encoded, ExportOptions, Format
from dream3d.export.pictures import encode_film, turntable


@FORMATS.register("webm")
class Webm(Format):
    """A turntable as VP9 film: colours, normals or depth."""

    holds = "pictures"
    file_name = "turntable.webm"
    media_type = "video/webm"
    opens_in = "browsers, VLC"
    frame = "a full turn from the front, toward +X"
    color = "sRGB"

    def encode(self, asset: Asset, options: ExportOptions) -> Encoded:
        size = options.picture_size + options.picture_size % 2
        frames = turntable(asset.scene, size, options.frames, options.channel)
        options_of_codec = ["-crf", "30", "-b:v", "0", "-row-mt", "1"]
        data = encode_film(
            frames, ".webm", "libvpx-vp9", "yuv420p", options_of_codec, asset.about.comment()
        )
        return Encoded(data, {"frames": options.frames, "channel": options.channel})
