"""A scene as pictures: a grid of eight views and a turntable film."""

import io
import math
import tempfile
from pathlib import Path
from typing import Literal

import imageio_ffmpeg
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.errors import AssetError, OutputError
from dream3d.files import write_bytes, writing
from dream3d.rendering import RenderOutput
from dream3d.scenes.base import Scene

BACKGROUND = 0.82
"""A light grey: white, black and coloured objects all stand out from it."""

VIEW_ELEVATION_DEG = 15.0
FRAMES, FRAMES_PER_SECOND = 40, 16
BATCH = 8


Channel = Literal["rgb", "normal", "depth"]
NEAREST, FARTHEST = 2.0, 4.4
"""Depths shown as white and black: about where the unit sphere begins and ends for the turntable's cameras."""


def render_views(
    scene: Scene, azimuth_deg: list[float], size: int, channel: Channel = "rgb"
) -> UInt8[np.ndarray, "V size size 3"]:
    """The scene from `azimuth_deg` over a neutral background, 8 bits.

    Args:
        scene: what to show.
        azimuth_deg: one camera each; 0 is the front.
        size: side in pixels.
        channel: colours (sRGB); normals in the camera's frame as half of (right, up, toward the viewer) plus a half;
            or depth, white at `NEAREST`, black at `FARTHEST`.

    Raises:
        AssetError: the scene renders to numbers that are not finite.
    """
    device = next(iter(scene.parameters().values())).device
    pictures = []
    with torch.no_grad():
        for first in range(0, len(azimuth_deg), BATCH):
            some = azimuth_deg[first : first + BATCH]
            cameras = orbit_cameras(some, VIEW_ELEVATION_DEG, size=size).to(device)
            output = (scene.render_normals if channel == "normal" else scene.render)(cameras)
            images = _shown(output, cameras, channel).cpu()
            if not torch.isfinite(images).all():
                raise AssetError(
                    "the scene renders to numbers that are not finite; no picture made"
                )
            pictures.append((images.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).numpy())
    return np.concatenate(pictures)


def _shown(
    output: RenderOutput, cameras: CameraBatch, channel: Channel
) -> Float[Tensor, "B H W 3"]:
    """One channel of a render as a picture."""
    if channel == "rgb":
        return output.over(torch.full_like(output.rgb[:1, :1, :1], BACKGROUND))
    if channel == "depth":
        near = (FARTHEST - output.depth) / (FARTHEST - NEAREST)
        return (near.clamp(0.0, 1.0) * output.alpha).expand(-1, -1, -1, 3)
    assert output.normal is not None  # render_normals has seen to it
    # The camera's axes are right, down, forward; pictures of normals want right, up, backward.
    seen = torch.einsum("bij,bhwi->bhwj", cameras.c2w[:, :3, :3], output.normal)
    seen = seen * seen.new_tensor([1.0, -1.0, -1.0])
    return (0.5 + 0.5 * seen) * output.alpha + 0.5 * (1.0 - output.alpha)


def grid(
    pictures: UInt8[np.ndarray, "V H W 3"], columns: int = 4
) -> UInt8[np.ndarray, "rows_H columns_W 3"]:
    """Pictures side by side, row by row; a last row that is not full is filled with the background."""
    count, height, width, _ = pictures.shape
    rows = math.ceil(count / columns)
    canvas = np.full((rows * columns, height, width, 3), round(BACKGROUND * 255), dtype=np.uint8)
    canvas[:count] = pictures
    blocks = canvas.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    return blocks.reshape(rows * height, columns * width, 3)


def png_bytes(picture: UInt8[np.ndarray, "H W C"], comment: str = "") -> bytes:
    """A PNG file of the picture, with three channels or with alpha as fourth."""
    stream, notes = io.BytesIO(), PngInfo()
    if comment:
        notes.add_itxt("Comment", comment)
    Image.fromarray(picture).save(stream, format="PNG", pnginfo=notes)
    return stream.getvalue()


def write_preview(scene: Scene, path: Path, size: int = 192, comment: str = "") -> None:
    """Eight views, 45 degrees apart from the front toward +X, as a PNG of 4 x 2 pictures.

    Raises:
        AssetError: see `render_views`.
        OutputError: the file cannot be written.
    """
    views = render_views(scene, [45.0 * index for index in range(8)], size)
    write_bytes(path, png_bytes(grid(views), comment))


def turntable_mp4(
    scene: Scene,
    size: int = 256,
    count: int = FRAMES,
    channel: Channel = "rgb",
    comment: str = "",
) -> bytes:
    """One turn around the scene as H.264 in MP4 at `FRAMES_PER_SECOND`, playable in every browser.

    Args:
        scene: what to show.
        size: side in pixels; the codec wants an even one, so an odd one is rounded up.
        count: pictures of the turn.
        channel: what to show.
        comment: goes into the file.

    Raises:
        AssetError: see `render_views`.
        OutputError: ffmpeg fails, or there is no room for a temporary file.
    """
    frames = turntable(scene, size + size % 2, count, channel)
    options = ["-movflags", "+faststart"]
    return encode_film(frames, ".mp4", "libx264", "yuv420p", options, comment)


def turntable(
    scene: Scene, size: int, count: int, channel: Channel
) -> UInt8[np.ndarray, "F size size 3"]:
    """The pictures of one turn, from the front toward +X."""
    return render_views(scene, [360.0 * index / count for index in range(count)], size, channel)


def encode_film(
    frames: UInt8[np.ndarray, "F H W 3"],
    suffix: str,
    codec: str,
    pixels: str,
    options: list[str],
    comment: str = "",
) -> bytes:
    """A film file of the frames, with `comment` in it, made by ffmpeg in a temporary directory.

    Raises:
        OutputError: ffmpeg fails, or there is no room.
    """
    with tempfile.TemporaryDirectory(prefix="dream3d-") as directory:
        path = Path(directory) / f"film{suffix}"
        writer = imageio_ffmpeg.write_frames(
            str(path),
            (frames.shape[2], frames.shape[1]),
            fps=FRAMES_PER_SECOND,
            codec=codec,
            pix_fmt_out=pixels,
            quality=8,
            macro_block_size=2,
            ffmpeg_log_level="error",
            output_params=[*options, "-metadata", f"comment={comment}"],
        )
        try:
            with writing(path):
                writer.send(None)
                for frame in frames:
                    writer.send(np.ascontiguousarray(frame))
                writer.close()
                return path.read_bytes()
        except RuntimeError as error:
            detail = " ".join(str(error).split())[-200:]
            raise OutputError(f"cannot make a film: ffmpeg failed: {detail}") from error
        finally:
            writer.close()
