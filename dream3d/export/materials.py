"""Meshes ready for a file: simplified, unwrapped, with their colours (and other material maps) baked into pictures."""

import io
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image

from dream3d.errors import AssetError
from dream3d.export.glb import vertex_normals
from renderers.mesh_data import MeshData
from renderers.normal_map import uv_tangents

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
        tangents: with a normal map: unit, along growing u and at right angles to the normal; w is the sign of the
            bitangent, w cross(normal, tangent), which points up in the picture (glTF's TANGENT).
    """

    vertices: Float[np.ndarray, "V 3"]
    normals: Float[np.ndarray, "V 3"]
    uvs: Float[np.ndarray, "V 2"]
    faces: Int[np.ndarray, "F 3"]
    weld: Int[np.ndarray, " V"]
    base_color: UInt8[np.ndarray, "T T 3"]
    maps: dict[str, UInt8[np.ndarray, "T T 3"]] = field(default_factory=dict)
    tangents: Float[np.ndarray, "V 4"] | None = None


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
    tangents: bool = False,
) -> Textured:
    """One vertex for every (position, texture coordinate) that occurs; normals are smooth across the seams.

    Faces without area are left out: they show nothing and have no normal. With `tangents`, for a normal map, vertices
    where a picture meets its mirror image are doubled too.
    """
    corners = np.asarray(vertices, np.float64)[faces]
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    faces, uv_faces = faces[area > 0.0], uv_faces[area > 0.0]
    check_faces(vertices, faces)
    directions, rows = None, np.asarray(uv_faces)
    if tangents:
        directions, rows = _directions(vertices, faces, uvs, uv_faces)
    pairs = np.stack([faces.reshape(-1), rows.reshape(-1)], axis=1).astype(np.int64)
    unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
    normals = vertex_normals(np.asarray(vertices, np.float64), np.asarray(faces))[unique[:, 0]]
    made = Textured(
        np.asarray(vertices, np.float32)[unique[:, 0]],
        normals.astype(np.float32),
        np.asarray(uvs, np.float32)[unique[:, 1] % len(uvs)],
        inverse.reshape(-1, 3).astype(np.int32),
        unique[:, 0].astype(np.int32),
        eight_bits(texture),
    )
    if directions is None:
        return made
    sign = np.where(unique[:, 1] >= len(uvs), -1.0, 1.0)
    return replace(made, tangents=_upright(directions[unique[:, 1]], normals, sign))


def _directions(
    vertices: np.ndarray, faces: np.ndarray, uvs: np.ndarray, uv_faces: np.ndarray
) -> tuple[Float[np.ndarray, "U2 3"], Int[np.ndarray, "F 3"]]:
    """What `renderers.normal_map.uv_tangents` gives, as arrays: its values and which are at every face's corners."""
    places = (torch.from_numpy(np.asarray(one, np.float64)) for one in (vertices, uvs))
    corners = (torch.from_numpy(np.asarray(one, np.int64)) for one in (faces, uv_faces))
    (where, uv), (face, uv_face) = places, corners
    found = uv_tangents(MeshData(where, face, None, uv, uv_face))
    return found.values.numpy(), found.corners.numpy()


def _upright(
    directions: Float[np.ndarray, "V 3"], normals: Float[np.ndarray, "V 3"], sign: np.ndarray
) -> Float[np.ndarray, "V 4"]:
    """glTF's TANGENT: directions turned to be at right angles to the normals, and the bitangents' signs."""

    def flat(vectors: np.ndarray) -> np.ndarray:
        return vectors - (vectors * normals).sum(axis=1, keepdims=True) * normals

    # Where the coordinates give no direction, any that is not the normal's does.
    spare = flat(np.eye(3)[np.abs(normals).argmin(axis=1)])
    found = flat(directions)
    found = np.where(np.linalg.norm(found, axis=1, keepdims=True) > 1e-6, found, spare)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return np.concatenate([found, sign[:, None]], axis=1).astype(np.float32)


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
