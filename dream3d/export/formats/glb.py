"""Meshes for everything that shows 3D on the web and in engines."""

from dream3d.export.asset import Asset
from dream3d.export.formats.base import FORMATS, Encoded, ExportOptions, Format
from dream3d.export.glb import glb_bytes
from dream3d.export.materials import check_faces, mesh_details
from dream3d.export.textured_glb import textured_glb_bytes


@FORMATS.register("glb")
class Glb(Format):
    """Binary glTF 2.0: a textured mesh for viewers, engines and Blender."""

    holds = "mesh"
    file_name = "asset.glb"
    media_type = "model/gltf-binary"
    opens_in = "browsers, Blender, Unity, Unreal, Godot, Windows"
    frame = "+Y up, front +Z"
    color = "sRGB base colour texture, linear other maps"

    def encode(self, asset: Asset, options: ExportOptions) -> Encoded:
        if options.texture_size == 0 and asset.own_texture() is None:
            plain = asset.mesh(options.faces)
            check_faces(plain.vertices, plain.faces)
            data = glb_bytes(plain.vertices, plain.faces, plain.colors, asset.about)
            return Encoded(data, {"vertices": len(plain.vertices), "faces": len(plain.faces)})
        mesh = asset.textured(options.faces, options.texture_size)
        return Encoded(textured_glb_bytes(mesh, asset.about), mesh_details(mesh))
