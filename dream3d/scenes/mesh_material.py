"""What the surface of the mesh scene carries: channels from a field in space or from a texture, and their meaning."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dream3d.scenes.fields import HashEncoding, make_head
from renderers.environment import (
    EnvironmentLight,
    linear_to_srgb,
    shade_lambert,
    shade_pbr,
    srgb_to_linear,
)
from renderers.hash_grid import geometric_layout
from renderers.mesh import MeshData, SurfacePoints, sample_texture
from renderers.mesh_data import vertex_normals
from renderers.normal_map import in_plane, leaning, tangent_frame

SMOOTHEST = 0.08
"""Least roughness: mirrors have highlights of one pixel, which no optimiser can find."""
SLOPES = {"field": 3, "texels": 2}
"""Channels of a normal map: a field's slopes lie along the world's axes (it knows no texture, so no seam shows), those
of texels along the texture's. One half is flat, 0 and 1 lean by 45 degrees: more would make up a shape that outlines
contradict."""


class FieldMaterial(nn.Module):
    """Channels in (0, 1) as a function of space: a hash grid and a small network, looked up where the surface is.

    Args:
        channels: how many.
        resolution: cells per side of the finest of 8 levels.
        table_log2: a level has at most 2^table_log2 rows.
        generator: draws the start: grey everywhere.
    """

    def __init__(
        self, channels: int, resolution: int, table_log2: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        layout = geometric_layout(8, min(8, resolution), resolution, table_log2, 2)
        self.encoding = HashEncoding(layout, 1e-2, generator)
        self.head = make_head(self.encoding.width, 32, 1, channels, generator)

    def at(self, positions: Float[Tensor, "N 3"], backend: str) -> Float[Tensor, "N C"]:
        """Channels at positions; nothing passes back to the positions, or textures would push the surface about."""
        return self.head(self.encoding(positions.detach().clamp(-1.0, 1.0), backend)).sigmoid()

    def forward(self, points: SurfacePoints, backend: str) -> Float[Tensor, "N C"]:
        """Channels at surface points."""
        return self.at(points.position, backend)


class TexelMaterial(nn.Module):
    """Channels in (0, 1) as a picture on the surface, stored as logits.

    Args:
        channels: how many.
        size: texels a side.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.texels = nn.Parameter(torch.zeros(size, size, channels))

    def forward(self, points: SurfacePoints, backend: str) -> Float[Tensor, "N C"]:
        """Channels at surface points."""
        del backend
        # Weights of four texels sum to one only about: sampled around one half, what is one half stays so to the bit.
        return 0.5 + sample_texture(self.texels.sigmoid() - 0.5, points.uv.detach())


Material = FieldMaterial | TexelMaterial


def channel_count(shading: str, slopes: int = 0) -> int:
    """Base colour, for "pbr" roughness and metallic, then the `slopes` of a normal map."""
    return (5 if shading == "pbr" else 3) + slopes


def roughness_metallic(
    channels: Float[Tensor, "N C"],
) -> tuple[Float[Tensor, "N 1"], Float[Tensor, "N 1"]]:
    """From channels in (0, 1); they start at one half: half rough, hardly a metal."""
    return SMOOTHEST + (1.0 - SMOOTHEST) * channels[:, 3:4], channels[:, 4:5] ** 3


def _slopes(channels: Float[Tensor, "N C"], shading: str) -> Float[Tensor, "N K"]:
    return 2.0 * channels[:, channel_count(shading) :] - 1.0


def mapped_normal(
    channels: Float[Tensor, "N C"], points: SurfacePoints, shading: str
) -> Float[Tensor, "N 3"]:
    """Unit normals on the visible side, leaning as the last channels say (see SLOPES).

    Where there are none, or all of them are one half, they are the surface's own to the bit.
    """
    slopes, outward = _slopes(channels, shading), points.outward_normal
    if slopes.shape[1] == 0:
        return points.normal
    if slopes.shape[1] == SLOPES["field"]:
        return points.visible_side(leaning(outward, in_plane(slopes, outward)))
    tangent, bitangent = tangent_frame(
        points.mesh, points.face, points.barycentric, outward, points.backend
    )
    slope = slopes[:, :1] * tangent + slopes[:, 1:] * bitangent
    return points.visible_side(leaning(outward, slope))


def texture_slopes(
    channels: Float[Tensor, "N C"],
    shading: str,
    mesh: MeshData,
    face: Int[Tensor, " N"],
    barycentric: Float[Tensor, "N 3"],
) -> Float[Tensor, "N 2"]:
    """The slopes of a field's normal map along the axes of a texture.

    Args:
        channels: of `FieldMaterial`, at the points.
        shading: see `channel_count`.
        mesh: with texture coordinates.
        face: which triangles the points lie on.
        barycentric: where on them.
    """
    slopes = _slopes(channels, shading)
    corners = vertex_normals(mesh.vertices, mesh.faces)[mesh.faces[face]]
    outward = torch.nn.functional.normalize((corners * barycentric[:, :, None]).sum(dim=1), dim=-1)
    axes = tangent_frame(mesh, face, barycentric, outward, "torch")
    return torch.stack([(slopes * axis).sum(dim=-1) for axis in axes], dim=1)


def shaded(
    channels: Float[Tensor, "N C"],
    points: SurfacePoints,
    shading: str,
    ambient: float,
    toward: Float[Tensor, " 3"],
    light: EnvironmentLight | None,
) -> Float[Tensor, "N 3"]:
    """sRGB colours of surface points.

    Args:
        channels: of `Material`.
        points: where.
        shading: "albedo" (as it is), "lambert" (a soft directional light) or "pbr" (a material under an environment).
        ambient: "lambert": share of the light that comes from everywhere.
        toward: "lambert": where the rest comes from.
        light: "pbr": the environment.
    """
    color = channels[:, :3]
    if shading == "albedo":
        return color
    normal = mapped_normal(channels, points, shading)
    if shading == "lambert":
        return shade_lambert(color, normal, toward, ambient)
    assert light is not None
    roughness, metallic = roughness_metallic(channels)
    base = srgb_to_linear(color)
    return linear_to_srgb(shade_pbr(base, roughness, metallic, normal, points.to_camera, light))
