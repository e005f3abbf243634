"""Anything with a surface and colours -> a baked UV texture: charts by xatlas, one texel one point of the surface."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xatlas
from jaxtyping import Float, Int
from scipy import ndimage

from dream3d.errors import AssetError, ConfigError
from dream3d.kernels import kernel
from dream3d.scenes.surface import ColoredMesh

PADDING = 4
"""Texels between two charts: enough for bilinear look-up and two mip levels."""

ColorAt = Callable[[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]], Float[np.ndarray, "N 3"]]
"""sRGB colours at surface points with their unit normals."""


@dataclass(frozen=True)
class TexturedMesh:
    """A triangle mesh whose colours are a picture; a vertex on a seam has a texture coordinate for each chart.

    Attributes:
        vertices: positions.
        faces: vertex indices, counter-clockwise from outside.
        uvs: in [0, 1], (0, 0) the outer corner of the picture's first row and column (glTF's convention).
        uv_faces: rows of `uvs` at the corners of every face.
        texture: sRGB in [0, 1].
        metallic_roughness: two further channels in [0, 1], linear; None: the scene does not tell.
        normal: a normal map in [0, 1], linear: red along u, green up in the picture, blue outward; None: there is none.
    """

    vertices: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]
    uvs: Float[np.ndarray, "U 2"]
    uv_faces: Int[np.ndarray, "F 3"]
    texture: Float[np.ndarray, "T T 3"]
    metallic_roughness: Float[np.ndarray, "T T 2"] | None = None
    normal: Float[np.ndarray, "T T 3"] | None = None


def bake_texture(
    mesh: ColoredMesh, color_at: ColorAt | None = None, size: int = 1024
) -> TexturedMesh:
    """Unwrap the mesh and paint each texel with the colour of its point on the surface; seams are dilated.

    Args:
        mesh: what to unwrap.
        color_at: colours of surface points, e.g. a field's; None takes those at the mesh's vertices.
        size: side of the texture in texels, 16 to 8192.

    Raises:
        ConfigError: absurd size.
        AssetError: the mesh is empty or not finite.
    """
    if not 16 <= size <= 8192:
        raise ConfigError(f"texture size is {size}; choose a value from 16 to 8192")
    if len(mesh.faces) == 0 or not np.isfinite(mesh.vertices).all():
        raise AssetError("the mesh is empty or not finite, so there is nothing to unwrap")
    uvs, uv_faces = unwrap(mesh, size)
    face, weight = texels(uvs, uv_faces, size)
    hit = face >= 0
    if not hit.any():
        raise AssetError(f"no texel of {size} x {size} lies on the surface; choose a larger size")
    corner = np.asarray(mesh.faces)[face[hit]]
    points = _blend(np.asarray(mesh.vertices, np.float64), corner, weight[hit])
    if color_at is None:
        painted = _blend(np.asarray(mesh.colors, np.float64), corner, weight[hit])
    else:
        a, b, c = np.asarray(mesh.vertices, np.float64)[corner].transpose(1, 0, 2)
        normal = np.cross(b - a, c - a)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        painted = color_at(points, normal)
    texture = np.zeros((size, size, 3), np.float32)
    texture[hit] = np.clip(painted, 0.0, 1.0)
    vertices, faces = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32)
    return TexturedMesh(vertices, faces, uvs, uv_faces, dilated(texture, hit))


def unwrap(mesh: ColoredMesh, size: int) -> tuple[Float[np.ndarray, "U 2"], Int[np.ndarray, "F 3"]]:
    """Charts by xatlas, packed into one square: texture coordinates and, for every face, which are at its corners."""
    atlas = xatlas.Atlas()
    atlas.add_mesh(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.uint32))
    charts, pack = xatlas.ChartOptions(), xatlas.PackOptions()
    charts.max_iterations = 1
    pack.resolution, pack.padding, pack.bilinear = size, PADDING, True
    atlas.generate(charts, pack)
    _, uv_faces, uvs = atlas[0]
    # xatlas gives coordinates in shares of its own picture, which may not be square.
    scale = np.array([atlas.width, atlas.height], np.float32) / max(atlas.width, atlas.height)
    return np.clip(uvs * scale, 0.0, 1.0), uv_faces.astype(np.int32)


def texels(
    uvs: Float[np.ndarray, "U 2"], uv_faces: Int[np.ndarray, "F 3"], size: int
) -> tuple[Int[np.ndarray, "T T"], Float[np.ndarray, "T T 3"]]:
    """The face each texel's centre lies in (-1: none) and its barycentric weights there."""
    face = np.full((size, size), -1, np.int32)
    weight = np.zeros((size, size, 3), np.float32)
    _rasterise(np.ascontiguousarray(uvs[uv_faces] * size, np.float64), face, weight)
    return face, weight


def dilated(texture: Float[np.ndarray, "T T 3"], painted: np.ndarray) -> Float[np.ndarray, "T T 3"]:
    """Every texel that is not painted copies the nearest one that is, so that no look-up meets an empty texel."""
    near = ndimage.distance_transform_edt(~painted, return_distances=False, return_indices=True)
    assert isinstance(near, np.ndarray)
    return texture[near[0], near[1]]


def _blend(values: np.ndarray, corner: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return (values[corner] * weight[..., None]).sum(axis=1)


@kernel()
def _rasterise(corners, face, weight):
    """Write each triangle's index and weights to the texels whose centres it covers."""
    size = face.shape[0]
    for f in range(len(corners)):
        ax, ay = corners[f, 0, 0], corners[f, 0, 1]
        bx, by = corners[f, 1, 0], corners[f, 1, 1]
        cx, cy = corners[f, 2, 0], corners[f, 2, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0.0:
            continue
        for j in range(max(int(min(ay, by, cy) - 0.5), 0), min(int(max(ay, by, cy) + 0.5), size)):
            for i in range(
                max(int(min(ax, bx, cx) - 0.5), 0), min(int(max(ax, bx, cx) + 0.5), size)
            ):
                x, y = i + 0.5, j + 0.5
                u = ((bx - x) * (cy - y) - (by - y) * (cx - x)) / area
                v = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / area
                w = 1.0 - u - v
                if u >= -1e-9 and v >= -1e-9 and w >= -1e-9:
                    face[j, i] = f
                    weight[j, i, 0], weight[j, i, 1], weight[j, i, 2] = u, v, w
