"""Meshes ready for a file: simplified, unwrapped, with their colours (and other material maps) baked into pictures."""

import io
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from dream3d.errors import AssetError
from dream3d.export.glb import vertex_normals

FEWEST_FACES = 4
"""A closed surface has at least four triangles; fewer are the rest of something that failed."""
ROUGHNESS = 0.9
"""Of surfaces whose scene does not tell: matt, as the prior's pictures are."""


@dataclass(frozen=True)
class Textured:
    """A mesh as most formats want it: one texture coordinate and one normal per vertex.

    Vertices on a seam of the texture are doubled; `weld` tells which were one.

    Attributes:
        vertices: positions in the world, +Y up.
        normals: unit, pointing outward.
        uvs: in [0, 1]; (0, 0) is the outer corner of the texture's first row and column (glTF's convention).
        faces: vertex indices, counter-clockwise from outside.
        weld: index of the undoubled vertex.
        base_color: sRGB-encoded picture, first row first.
        maps: further linear pictures by name: "metallic_roughness" (G roughness, B metallic), "normal" (tangent space,
            +Y up).
    """

    vertices: Float[np.ndarray, "V 3"]
    normals: Float[np.ndarray, "V 3"]
    uvs: Float[np.ndarray, "V 2"]
    faces: Int[np.ndarray, "F 3"]
    weld: Int[np.ndarray, " V"]
    base_color: UInt8[np.ndarray, "T T 3"]
    maps: dict[str, UInt8[np.ndarray, "T T 3"]] = field(default_factory=dict)


def check_faces(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> None:
    """Refuse what is not a surface.

    Raises:
        AssetError: too few faces, or positions that are not finite.
    """
    if len(faces) < FEWEST_FACES:
        raise AssetError(
            f"the mesh has {len(faces)} faces and a surface has at least {FEWEST_FACES}, so it is not exported; "
            "run more steps or start from another seed"
        )
    broken = int((~np.isfinite(vertices)).any(axis=1).sum())
    if broken:
        raise AssetError(
            f"{broken} of {len(vertices)} vertices are not finite, so the mesh is not exported; resume from the "
            "last checkpoint with lower learning rates"
        )


def with_corners(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    uvs: Float[np.ndarray, "U 2"],
    uv_faces: Int[np.ndarray, "F 3"],
    texture: Float[np.ndarray, "T T 3"],
) -> Textured:
    """One vertex for every (position, texture coordinate) that occurs; normals are smooth across the seams.

    Faces without area are left out: they show nothing and have no normal.
    """
    corners = np.asarray(vertices, np.float64)[faces]
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    faces, uv_faces = faces[area > 0.0], uv_faces[area > 0.0]
    check_faces(vertices, faces)
    pairs = np.stack([faces.reshape(-1), uv_faces.reshape(-1)], axis=1).astype(np.int64)
    unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
    normals = vertex_normals(np.asarray(vertices, np.float64), np.asarray(faces))
    return Textured(
        np.asarray(vertices, np.float32)[unique[:, 0]],
        normals[unique[:, 0]].astype(np.float32),
        np.asarray(uvs, np.float32)[unique[:, 1]],
        inverse.reshape(-1, 3).astype(np.int32),
        unique[:, 0].astype(np.int32),
        eight_bits(texture),
    )


def eight_bits(picture: Float[np.ndarray, "T T 3"]) -> UInt8[np.ndarray, "T T 3"]:
    """[0, 1] to 0 to 255.

    Raises:
        AssetError: something is not finite.
    """
    if not np.isfinite(picture).all():
        raise AssetError("the texture holds numbers that are not finite; not exported")
    return np.round(np.clip(picture, 0.0, 1.0) * 255.0).astype(np.uint8)


def png(picture: UInt8[np.ndarray, "T T 3"]) -> bytes:
    """A PNG file."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG", compress_level=6)
    return stream.getvalue()


def y_up_to_z_up(vectors: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    """From the world (+Y up, front +Z) to printing and Blender's frame (+Z up, front -Y): a quarter turn about X."""
    return np.stack([vectors[:, 0], -vectors[:, 2], vectors[:, 1]], axis=1)


def mesh_details(mesh: Textured) -> dict[str, int]:
    """Counts for the user."""
    return {
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "texture_size": len(mesh.base_color),
    }
