"""Pictures with their cameras, for programs that reconstruct (nerfstudio, instant-ngp, 3DGS trainers)."""

import json
from typing import Any

import numpy as np
import torch

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.errors import AssetError
from dream3d.export.about import About
from dream3d.export.archive import zip_bytes
from dream3d.export.asset import Asset
from dream3d.export.formats.base import FORMATS, Encoded, ExportOptions, Format
from dream3d.export.pictures import BATCH, png_bytes

FORMAT_VERSION = 1
RINGS = (-15.0, 15.0, 45.0)
"""Elevations in degrees; the views are spread over them in turn."""


@FORMATS.register("views")
class Views(Format):
    """Transparent PNGs with cameras (a transforms.json as nerfstudio reads) in a ZIP."""

    holds = "pictures"
    file_name = "views.zip"
    media_type = "application/zip"
    opens_in = "nerfstudio, instant-ngp, Gaussian-splat trainers"
    frame = "+Z up world, cameras +Y up looking along -Z (OpenGL)"
    color = "sRGB with straight alpha"

    def encode(self, asset: Asset, options: ExportOptions) -> Encoded:
        azimuth = [360.0 * i / options.frames for i in range(options.frames)]
        elevation = [RINGS[i % len(RINGS)] for i in range(options.frames)]
        cameras = orbit_cameras(azimuth, elevation, size=options.picture_size)
        files: dict[str, bytes] = {}
        for first in range(0, len(cameras), BATCH):
            for picture in _rgba(asset, cameras[first : first + BATCH]):
                files[f"images/{len(files):04d}.png"] = png_bytes(picture)
        text = json.dumps(transforms(cameras, list(files), asset.about), indent=1, allow_nan=False)
        return Encoded(
            zip_bytes({"transforms.json": text.encode("ascii"), **files}), {"views": len(files)}
        )


def transforms(cameras: CameraBatch, names: list[str], about: About) -> dict[str, Any]:
    """The cameras in nerfstudio's conventions: a +Z up world, camera axes right, up, backward."""
    upright = np.array(
        [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    )
    axes = np.diag([1.0, -1.0, -1.0, 1.0])
    K = cameras.K[0].double().numpy()
    return {
        "format_version": FORMAT_VERSION,
        "generator": about.generator,
        "about": about.known(),
        "camera_model": "OPENCV",
        "w": cameras.width,
        "h": cameras.height,
        "fl_x": K[0, 0],
        "fl_y": K[1, 1],
        "cx": K[0, 2],
        "cy": K[1, 2],
        "frames": [
            {"file_path": name, "transform_matrix": (upright @ c2w @ axes).tolist()}
            for name, c2w in zip(names, cameras.c2w.double().numpy(), strict=True)
        ],
    }


def _rgba(asset: Asset, cameras: CameraBatch) -> np.ndarray:
    """Colours that are not multiplied by alpha, as PNG has them, 8 bits."""
    device = next(iter(asset.scene.parameters().values())).device
    with torch.no_grad():
        output = asset.scene.render(cameras.to(device))
    straight = output.rgb / output.alpha.clamp_min(1e-6)
    picture = torch.cat([straight.clamp(0.0, 1.0), output.alpha.clamp(0.0, 1.0)], dim=-1).cpu()
    if not torch.isfinite(picture).all():
        raise AssetError("the scene renders to numbers that are not finite; no picture made")
    return (picture * 255.0).round().to(torch.uint8).numpy()
