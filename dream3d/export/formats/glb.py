"""Meshes for everything that shows 3D on the web and in engines."""

from dataclasses import replace

import numpy as np

from dream3d.export.asset import Asset
from dream3d.export.formats.base import FORMATS, Encoded, ExportOptions, Format
from dream3d.export.glb import glb_bytes
from dream3d.export.materials import eight_bits, mesh_details, with_corners
from dream3d.export.textured_glb import textured_glb_bytes


@FORMATS.register("glb")
class Glb(Format):
    """Binary glTF 2.0: a mesh for viewers, engines and Blender."""

    holds = "mesh"
    file_name = "asset.glb"
    media_type = "model/gltf-binary"
    opens_in = "browsers, Blender, Unity, Unreal, Godot, Windows"
    frame = "+Y up, front +Z"
    color = "linear per vertex"

    def encode(self, asset: Asset, options: ExportOptions) -> Encoded:
        own = asset.scene.to_textured_mesh()
        if own is not None:
            made = with_corners(own.vertices, own.faces, own.uvs, own.uv_faces, own.texture)
            if own.metallic_roughness is not None:
                metallic, roughness = np.moveaxis(own.metallic_roughness, -1, 0)
                packed = np.stack([np.zeros_like(metallic), roughness, metallic], axis=-1)
                made = replace(made, maps={"metallic_roughness": eight_bits(packed)})
            return Encoded(textured_glb_bytes(made, asset.about), mesh_details(made))
        mesh = asset.mesh(options.faces)
        data = glb_bytes(mesh.vertices, mesh.faces, mesh.colors)
        return Encoded(data, {"vertices": len(mesh.vertices), "faces": len(mesh.faces)})
