"""Turntables where films do not play: mails, old wikis."""

import io

from PIL import Image

from dream3d.export.asset import Asset
from dream3d.export.formats.base import FORMATS, Encoded, ExportOptions, Format
from dream3d.export.pictures import FRAMES_PER_SECOND, turntable


@FORMATS.register("gif")
class Gif(Format):
    """A turntable as endless GIF of 256 colours: colours, normals or depth."""

    holds = "pictures"
    file_name = "turntable.gif"
    media_type = "image/gif"
    opens_in = "everything that shows pictures"
    frame = "a full turn from the front, toward +X"
    color = "sRGB, one palette of 256"

    def encode(self, asset: Asset, options: ExportOptions) -> Encoded:
        frames = turntable(asset.scene, options.picture_size, options.frames, options.channel)
        # One palette for all frames, from a strip of them: palettes of their own would flicker.
        strip = Image.fromarray(frames[:: max(1, len(frames) // 8)].reshape(-1, frames.shape[2], 3))
        palette = strip.quantize(256)
        pictures = [
            Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
            for frame in frames
        ]
        stream = io.BytesIO()
        # GIF counts in hundredths of a second.
        duration = 10 * round(100 / FRAMES_PER_SECOND)
        pictures[0].save(
            stream,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=duration,
            loop=0,
            disposal=1,
            comment=asset.about.comment().encode(),
        )
        return Encoded(stream.getvalue(), {"frames": len(frames), "channel": options.channel})
