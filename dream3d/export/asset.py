"""What formats ask a scene for, made once and only when asked: splats, a mesh, pictures."""

from dataclasses import replace
from functools import cache

import numpy as np
import torch

from dream3d.export.about import About
from dream3d.export.materials import Textured, check_faces, eight_bits, with_corners
from dream3d.export.splat_ply import SplatArrays, check_splats, splat_arrays
from dream3d.scenes.base import Scene
from dream3d.scenes.conversions.baked_texture import bake_texture
from dream3d.scenes.conversions.mesh_splats import mesh_to_splats
from dream3d.scenes.splats import exportable
from dream3d.scenes.surface import ColoredMesh

CONVERTED_FACES, CONVERTED_SPLATS = 20_000, 20_000
"""Of a scene that is not made of splats: a mesh of so many faces is covered with so many."""


class Asset:
    """A finished scene as the formats see it.

    Args:
        scene: any; what it cannot give natively is converted from what it can.
        about: where it comes from.
    """

    def __init__(self, scene: Scene, about: About | None = None) -> None:
        self.scene = scene
        self.about = About() if about is None else about
        self.mesh = cache(self._mesh)
        self.own_texture = cache(self._own_texture)
        self.textured = cache(self._textured)
        self.splats = cache(self._splats)

    def _mesh(self, faces: int) -> ColoredMesh:
        """A triangle mesh of about `faces` at most, coloured per vertex.

        Raises:
            AssetError: the scene has no surface.
        """
        return self.scene.to_mesh(max_faces=faces)

    def _own_texture(self) -> Textured | None:
        """The mesh and pictures of a scene that is optimised as such, as they are; None for others."""
        own = self.scene.to_textured_mesh()
        if own is None:
            return None
        bumpy = own.normal is not None
        made = with_corners(own.vertices, own.faces, own.uvs, own.uv_faces, own.texture, bumpy)
        maps = {}
        if own.metallic_roughness is not None:
            metallic, roughness = np.moveaxis(own.metallic_roughness, -1, 0)
            packed = np.stack([np.zeros_like(metallic), roughness, metallic], axis=-1)
            maps["metallic_roughness"] = eight_bits(packed)
        if own.normal is not None:
            maps["normal"] = eight_bits(own.normal)
        return replace(made, maps=maps)

    def _textured(self, faces: int, texture_size: int) -> Textured:
        """The mesh unwrapped, with the scene's colours in a picture.

        Raises:
            AssetError: the scene has no surface.
        """
        own = self.own_texture()
        if own is not None:
            return own
        mesh = self.mesh(faces)
        check_faces(mesh.vertices, mesh.faces)

        def color_at(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
            colors = self.scene.surface_colors(
                torch.from_numpy(points).float(), torch.from_numpy(normals).float()
            )
            assert colors is not None
            return colors.numpy()

        nothing = torch.zeros(0, 3)
        asked = self.scene.surface_colors(nothing, nothing) is not None
        baked = bake_texture(mesh, color_at if asked else None, texture_size)
        return with_corners(baked.vertices, baked.faces, baked.uvs, baked.uv_faces, baked.texture)

    def _splats(self) -> SplatArrays:
        """The splats one can see, in the world's frame.

        Raises:
            AssetError: a splat is not finite, none can be seen, or the scene has neither splats nor a surface.
        """
        native = self.scene.to_splats()
        if native is None:
            generator = torch.Generator().manual_seed(0)
            native = mesh_to_splats(self.mesh(CONVERTED_FACES), CONVERTED_SPLATS, generator)
        check_splats(splat_arrays(native))
        visible = splat_arrays(exportable(native))
        check_splats(visible)
        return visible
