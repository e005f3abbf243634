"""Splats inside glTF: the ratified extension KHR_gaussian_splatting."""

import numpy as np

from dream3d.export.about import About
from dream3d.export.asset import Asset
from dream3d.export.formats.base import FORMATS, Encoded, ExportOptions, Format
from dream3d.export.glb import (
    FLOAT,
    USHORT,
    VERTICES,
    Buffer,
    asset_info,
    container,
    srgb_to_linear,
)
from dream3d.export.splat_codes import base_colors, degree, opacities, unit_quaternions
from dream3d.export.splat_ply import SplatArrays, check_splats

NAME = "KHR_gaussian_splatting"


@FORMATS.register("gltf-splat")
class GltfSplat(Format):
    """Gaussian splats in binary glTF (KHR_gaussian_splatting), points for readers without the extension."""

    holds = "splats"
    file_name = "asset.splats.glb"
    media_type = "model/gltf-binary"
    opens_in = "PlayCanvas, Babylon.js, Khronos Sample Viewer; others show points"
    frame = "+Y up, front +Z"
    color = "sRGB harmonics (srgb_rec709_display), linear point colours"

    def encode(self, asset: Asset, options: ExportOptions) -> Encoded:
        splats = asset.splats()
        return Encoded(gltf_splat_bytes(splats, asset.about), {"splats": len(splats.means)})


def gltf_splat_bytes(splats: SplatArrays, about: About) -> bytes:
    """The file. Scales and opacities are activated, quaternions are xyzw, nothing is turned.

    Raises:
        AssetError: see `check_splats`.
    """
    check_splats(splats)
    buffer = Buffer()

    def add(values: np.ndarray, kind: str, **more: object) -> int:
        return buffer.add(np.ascontiguousarray(values, "<f4"), FLOAT, kind, VERTICES, **more)

    means = splats.means.astype("<f4")
    rgba = np.concatenate(
        [srgb_to_linear(np.clip(base_colors(splats), 0.0, 1.0)), opacities(splats)[:, None]], axis=1
    )
    attributes = {
        "POSITION": add(
            means, "VEC3", min=means.min(axis=0).tolist(), max=means.max(axis=0).tolist()
        ),
        "COLOR_0": buffer.add(
            np.round(rgba * 65535.0).astype("<u2"), USHORT, "VEC4", VERTICES, normalized=True
        ),
        f"{NAME}:SCALE": add(np.exp(splats.log_scales.astype(np.float64)), "VEC3"),
        f"{NAME}:ROTATION": add(np.roll(unit_quaternions(splats), -1, axis=1), "VEC4"),
        f"{NAME}:OPACITY": add(opacities(splats), "SCALAR"),
    }
    column = 0
    for level in range(degree(splats) + 1):
        for order in range(2 * level + 1):
            attributes[f"{NAME}:SH_DEGREE_{level}_COEF_{order}"] = add(splats.sh[:, column], "VEC3")
            column += 1
    primitive = {
        "attributes": attributes,
        "mode": 0,
        "extensions": {
            NAME: {
                "kernel": "ellipse",
                "colorSpace": "srgb_rec709_display",
                "projection": "perspective",
                "sortingMethod": "cameraDistance",
            }
        },
    }
    document = {
        "asset": asset_info(about),
        "extensionsUsed": [NAME],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "asset"}],
        "meshes": [{"name": "asset", "primitives": [primitive]}],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    return container(document, bytes(buffer.data))
