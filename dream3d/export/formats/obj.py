"""Wavefront OBJ with its material and picture, zipped: a browser downloads one file."""

import numpy as np

from dream3d.export.about import About
from dream3d.export.archive import zip_bytes
from dream3d.export.asset import Asset
from dream3d.export.formats.base import FORMATS, Encoded, ExportOptions, Format
from dream3d.export.materials import Textured, mesh_details, png

# Kd must be white: readers multiply it with the picture. Colours of an MTL are sRGB.
_MTL = """newmtl baked
Ka 0 0 0
Kd 1 1 1
Ks 0 0 0
illum 1
map_Kd asset.png
"""


@FORMATS.register("obj")
class Obj(Format):
    """OBJ, MTL and PNG in one ZIP: a textured mesh for every 3D program."""

    holds = "mesh"
    file_name = "asset.obj.zip"
    media_type = "application/zip"
    opens_in = "every 3D program"
    frame = "+Y up, front +Z"
    color = "sRGB texture"

    def encode(self, asset: Asset, options: ExportOptions) -> Encoded:
        mesh = asset.textured(options.faces, options.texture_size)
        files = {
            "asset.obj": obj_text(mesh, asset.about).encode(),
            "asset.mtl": mtl_text(list(mesh.maps)).encode(),
            "asset.png": png(mesh.base_color),
            **_pictures(mesh),
        }
        return Encoded(zip_bytes(files), mesh_details(mesh))


def mtl_text(maps: list[str]) -> str:
    """The MTL file. MTL has no room for a physical material; these lines are those most programs took to."""
    lines = _MTL
    if "metallic_roughness" in maps:
        lines += "map_Pr asset_roughness.png\nmap_Pm asset_metallic.png\n"
    if "normal" in maps:
        # `norm` is its name among physical materials; Blender and older programs read a normal map as `map_Bump`.
        lines += "norm asset_normal.png\nmap_Bump -bm 1 asset_normal.png\n"
    return lines


def _pictures(mesh: Textured) -> dict[str, bytes]:
    """Files of the maps beside the base colour."""
    files = {}
    if "metallic_roughness" in mesh.maps:
        for name, channel in (("roughness", 1), ("metallic", 2)):
            one = mesh.maps["metallic_roughness"][..., channel]
            files[f"asset_{name}.png"] = png(np.repeat(one[..., None], 3, axis=2))
    if "normal" in mesh.maps:
        files["asset_normal.png"] = png(mesh.maps["normal"])
    return files


def obj_text(mesh: Textured, about: About) -> str:
    """The OBJ file. Positions and normals are shared across seams; v grows upward in OBJ, downward in pictures."""
    first = _first_of(mesh)
    lines = [f"# {about.generator}"]
    lines += [f"# {note}" for note in about.notes()]
    lines += ["mtllib asset.mtl", "o asset"]
    lines += [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in mesh.vertices[first].tolist()]
    lines += [f"vn {x:.6g} {y:.6g} {z:.6g}" for x, y, z in mesh.normals[first].tolist()]
    lines += [f"vt {u:.7g} {1.0 - v:.7g}" for u, v in mesh.uvs.tolist()]
    lines += ["usemtl baked", "s 1"]
    shared = _ranks(mesh)
    for face in mesh.faces.tolist():
        corners = (f"{shared[v] + 1}/{v + 1}/{shared[v] + 1}" for v in face)
        lines.append("f " + " ".join(corners))
    return "\n".join(lines) + "\n"


def _first_of(mesh: Textured) -> list[int]:
    """For every undoubled vertex, the first of the vertices it became."""
    seen: dict[int, int] = {}
    for index, origin in enumerate(mesh.weld.tolist()):
        seen.setdefault(origin, index)
    return list(seen.values())


def _ranks(mesh: Textured) -> list[int]:
    """For every vertex, the place of its undoubled one in `_first_of`."""
    rank: dict[int, int] = {}
    return [rank.setdefault(origin, len(rank)) for origin in mesh.weld.tolist()]
