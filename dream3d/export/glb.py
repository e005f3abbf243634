"""Triangle meshes as binary glTF 2.0 with colour per vertex.

Scenes share glTF's frame (+Y up, front +Z), so nothing is turned. glTF's COLOR_0 is linear while colours here are
sRGB-encoded, so they are decoded on the way out; writing them as they are would show everything too bright.
"""

import json
import struct
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from dream3d.errors import AssetError
from dream3d.export.about import About

FORMAT_VERSION = 1
_JSON, _BIN = 0x4E4F534A, 0x004E4942
FLOAT, USHORT, UINT = 5126, 5123, 5125
VERTICES, INDICES = 34962, 34963


def srgb_to_linear(color: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Decode sRGB in [0, 1] to linear light (IEC 61966-2-1)."""
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def check_mesh(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    colors: Float[np.ndarray, "V 3"],
) -> None:
    """Refuse meshes that would be a broken file.

    Raises:
        AssetError: no faces, numbers that are not finite, faces that name missing vertices, colours outside [0, 1].
    """
    if len(faces) == 0 or len(vertices) == 0:
        raise AssetError(
            "the mesh is empty: the scene has no surface dense enough to extract, so it is not "
            "exported; run more steps or start from another seed"
        )
    if not (np.isfinite(vertices).all() and np.isfinite(colors).all()):
        raise AssetError("the mesh has vertices or colours that are not finite; not exported")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise AssetError(f"a face names vertex {faces.max()} of {len(vertices)}; not exported")
    if colors.min() < 0.0 or colors.max() > 1.0:
        raise AssetError(
            f"vertex colours span [{colors.min():g}, {colors.max():g}] and must lie in [0, 1]"
        )


def vertex_normals(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]
) -> Float[np.ndarray, "V 3"]:
    """Unit normals, the mean of the adjoining faces' weighted by area; +Y for a vertex no face gives a direction."""
    corners = vertices[faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], face_normals)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    up = np.array([0.0, 1.0, 0.0])
    return np.where(length > 1e-20, normals / np.maximum(length, 1e-20), up)


class Buffer:
    """The binary chunk as it grows, with the accessors that describe it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, array: np.ndarray, component: int, kind: str, target: int, **more: Any) -> int:
        """Append an array (every element a multiple of four bytes long); returns its accessor's index."""
        self.accessors.append(
            {
                "bufferView": self.add_bytes(array.tobytes(), target),
                "componentType": component,
                "count": len(array),
                "type": kind,
                **more,
            }
        )
        return len(self.accessors) - 1

    def add_bytes(self, raw: bytes, target: int | None = None) -> int:
        """Append bytes, padded to a multiple of four; returns their view's index."""
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(raw)}
        self.views.append(view if target is None else {**view, "target": target})
        self.data += raw + b"\0" * (-len(raw) % 4)
        return len(self.views) - 1


def glb_bytes(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    colors: Float[np.ndarray, "V 3"],
    about: About | None = None,
) -> bytes:
    """A GLB file of one mesh.

    Args:
        vertices: positions in the world, +Y up.
        faces: vertex indices, counter-clockwise seen from outside.
        colors: sRGB in [0, 1].
        about: see `asset_info`.

    Raises:
        AssetError: see `check_mesh`.
    """
    check_mesh(vertices, faces, colors)
    corners = vertices[faces]
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    faces = faces[area > 0.0]
    check_mesh(vertices, faces, colors)
    positions = vertices.astype("<f4")
    linear = np.concatenate([srgb_to_linear(colors), np.ones((len(colors), 1))], axis=1)
    buffer = Buffer()
    attributes = {
        "POSITION": buffer.add(
            positions,
            FLOAT,
            "VEC3",
            VERTICES,
            min=positions.min(axis=0).tolist(),
            max=positions.max(axis=0).tolist(),
        ),
        "NORMAL": buffer.add(
            vertex_normals(vertices.astype(np.float64), faces).astype("<f4"),
            FLOAT,
            "VEC3",
            VERTICES,
        ),
        "COLOR_0": buffer.add(
            np.round(linear * 65535.0).astype("<u2"), USHORT, "VEC4", VERTICES, normalized=True
        ),
    }
    indices = buffer.add(faces.reshape(-1).astype("<u4"), UINT, "SCALAR", INDICES)
    document = {
        "asset": asset_info(about or About()),
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "asset"}],
        "meshes": [
            {
                "name": "asset",
                "primitives": [
                    {"attributes": attributes, "indices": indices, "material": 0, "mode": 4}
                ],
            }
        ],
        "materials": [
            {
                "name": "vertex colour",
                "pbrMetallicRoughness": {
                    "baseColorFactor": [1.0, 1.0, 1.0, 1.0],
                    "metallicFactor": 0.0,
                    "roughnessFactor": 0.9,
                },
            }
        ],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    return container(document, bytes(buffer.data))


def asset_info(about: About) -> dict[str, Any]:
    """glTF's `asset`: the generator, the licence where it is known, and what else is."""
    extras = {"format_version": FORMAT_VERSION, **about.known()}
    info: dict[str, Any] = {"version": "2.0", "generator": about.generator, "extras": extras}
    if about.license is not None:
        info["copyright"] = f"made with {about.prior or 'a prior'} under {about.license}"
    return info


def container(document: dict[str, Any], binary: bytes) -> bytes:
    """The two chunks of a GLB: JSON padded with spaces, data padded with zeros."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    chunks = struct.pack("<II", len(text), _JSON) + text
    chunks += struct.pack("<II", len(binary), _BIN) + binary
    return struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks
