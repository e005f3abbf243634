"""Meshes for everything that shows 3D on the web and in engines."""

from dream3d.export.asset import Asset
from dream3d.export.formats.base import FORMATS, Encoded, ExportOptions, Format
from dream3d.export.glb import glb_bytes


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
        mesh = asset.mesh(options.faces)
        data = glb_bytes(mesh.vertices, mesh.faces, mesh.colors)
        return Encoded(data, {"vertices": len(mesh.vertices), "faces": len(mesh.faces)})
