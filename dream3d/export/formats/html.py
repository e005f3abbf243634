"""One page that shows the asset as splats and as mesh, and needs nothing but a browser: the file to send to someone."""

import base64
import html
import importlib.resources
import json
from typing import Any

import numpy as np
from jaxtyping import Float

from dream3d.export.about import About
from dream3d.export.asset import Asset
from dream3d.export.formats.base import FORMATS, Encoded, ExportOptions, Format
from dream3d.export.materials import Textured, mesh_details, png
from dream3d.export.splat_codes import along_a_curve, opacities, unit_quaternions
from dream3d.export.splat_ply import SplatArrays, check_splats

TYPES = {np.dtype("<f4"): "f4", np.dtype("<u4"): "u4", np.dtype("<f2"): "f2", np.dtype("u1"): "u1"}
LARGEST_HALF = 60_000.0


@FORMATS.register("html")
class Html(Format):
    """A self-contained page with viewers for splats and mesh; works offline."""

    holds = "splats"
    file_name = "asset.html"
    media_type = "text/html"
    opens_in = "every browser with WebGL 2, without a network"
    frame = "+Y up, front +Z"
    color = "sRGB harmonics, degree 0 to 3; sRGB texture"

    def encode(self, asset: Asset, options: ExportOptions) -> Encoded:
        splats = asset.splats()
        mesh = asset.textured(options.faces, options.texture_size)
        details = {"splats": len(splats.means), **mesh_details(mesh)}
        return Encoded(page(splats, mesh, asset.about), details)


def page(splats: SplatArrays, mesh: Textured, about: About) -> bytes:
    """The file. The prompt goes in as data: it is shown as text and can be neither markup nor script.

    Raises:
        AssetError: see `check_splats`.
    """
    check_splats(splats)
    arrays = {**_splat_arrays(along_a_curve(splats)), **_mesh_arrays(mesh)}
    block = bytearray()
    places: dict[str, Any] = {}
    for name, values in arrays.items():
        block += b"\0" * (-len(block) % 4)
        places[name] = {"type": TYPES[values.dtype], "offset": len(block), "length": values.size}
        block += values.tobytes()
    title = about.prompt or "dream3d"
    facts = {
        "format_version": 1,
        "title": title,
        "about": about.known(),
        "splats": len(splats.means),
        "coefficients": splats.sh.shape[1],
        "arrays": places,
    }
    files = importlib.resources.files("dream3d.export") / "viewer"
    parts = {
        "GENERATOR": html.escape(about.generator),
        "TITLE": html.escape(title),
        # Inside a script element only "<" could end it.
        "ABOUT": json.dumps(facts, allow_nan=False).replace("<", "\\u003c"),
        "DATA": base64.b64encode(bytes(block)).decode("ascii"),
        "SCRIPT": (files / "viewer.js").read_text(encoding="utf-8"),
    }
    # By pieces, not by repeated replacement: nothing that was put in is looked through again.
    pieces = (files / "viewer.html").read_text(encoding="utf-8").split("@")
    text = "".join(parts.get(piece, piece) for piece in pieces)
    return text.encode("utf-8")


def _splat_arrays(splats: SplatArrays) -> dict[str, np.ndarray]:
    """Per splat three texels: (mean, opacity), (xx, xy, xz, yy), (yz, zz, 0, 0) of its covariance; halves."""
    geometry = np.zeros((len(splats.means), 12), np.float32)
    geometry[:, :3], geometry[:, 3] = splats.means, opacities(splats)
    covariance = covariances(splats)
    for column, (i, j) in enumerate(((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))):
        geometry[:, 4 + column] = covariance[:, i, j]
    harmonics = np.clip(splats.sh, -LARGEST_HALF, LARGEST_HALF)
    return {"geometry": geometry.astype("<f4"), "harmonics": harmonics.astype("<f2")}


def covariances(splats: SplatArrays) -> Float[np.ndarray, "N 3 3"]:
    """R S S^T R^T of every splat, in world units squared."""
    w, x, y, z = unit_quaternions(splats).T
    rotation = np.stack(
        [
            *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        ],
        axis=1,
    ).reshape(-1, 3, 3)
    scaled = rotation * np.exp(splats.log_scales.astype(np.float64))[:, None, :]
    return scaled @ scaled.transpose(0, 2, 1)


def _mesh_arrays(mesh: Textured) -> dict[str, np.ndarray]:
    return {
        "position": mesh.vertices.astype("<f4"),
        "normal": mesh.normals.astype("<f4"),
        "uv": mesh.uvs.astype("<f4"),
        "faces": mesh.faces.astype("<u4"),
        "texture": np.frombuffer(png(mesh.base_color), np.uint8),
    }
