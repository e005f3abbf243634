"""What the surface of the mesh scene carries: channels from a field in space or from a texture, and their meaning."""

import torch
from jaxtyping import Float
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
from renderers.mesh import SurfacePoints, sample_texture

SMOOTHEST = 0.08
"""Least roughness: mirrors have highlights of one pixel, which no optimiser can find."""


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
        return sample_texture(self.texels.sigmoid(), points.uv.detach())


Material = FieldMaterial | TexelMaterial


def channel_count(shading: str) -> int:
    """Base colour, and for "pbr" roughness and metallic."""
    return 5 if shading == "pbr" else 3


def roughness_metallic(
    channels: Float[Tensor, "N 5"],
) -> tuple[Float[Tensor, "N 1"], Float[Tensor, "N 1"]]:
    """From channels in (0, 1); they start at one half: half rough, hardly a metal."""
    return SMOOTHEST + (1.0 - SMOOTHEST) * channels[:, 3:4], channels[:, 4:5] ** 3


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
    if shading == "lambert":
        return shade_lambert(color, points.normal, toward, ambient)
    if shading == "pbr":
        assert light is not None
        roughness, metallic = roughness_metallic(channels)
        base = srgb_to_linear(color)
        linear = shade_pbr(base, roughness, metallic, points.normal, points.to_camera, light)
        return linear_to_srgb(linear)
    return color
