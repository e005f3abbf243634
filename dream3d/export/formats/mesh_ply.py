"""PLY as a mesh with colour per vertex, for tools of research."""

import numpy as np

from dream3d.export.asset import Asset
from dream3d.export.formats.base import FORMATS, Encoded, ExportOptions, Format
from dream3d.export.glb import check_mesh, vertex_normals
from dream3d.export.materials import check_faces, y_up_to_z_up


@FORMATS.register("mesh-ply")
class MeshPly(Format):
    """Binary PLY mesh with normals and a colour per vertex, +Z up."""

    holds = "mesh"
    file_name = "asset.mesh.ply"
    media_type = "application/octet-stream"
    opens_in = "MeshLab, CloudCompare, Blender, Open3D"
    frame = "+Z up, front -Y"
    color = "sRGB per vertex, 8 bits"

    def encode(self, asset: Asset, options: ExportOptions) -> Encoded:
        mesh = asset.mesh(options.faces)
        check_faces(mesh.vertices, mesh.faces)
        check_mesh(mesh.vertices, mesh.faces, mesh.colors)
        faces = np.asarray(mesh.faces)
        normals = vertex_normals(np.asarray(mesh.vertices, np.float64), faces)
        corner = [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
        vertices = np.zeros(
            len(mesh.vertices), dtype=[*corner, *((c, "u1") for c in ("red", "green", "blue"))]
        )
        table = np.concatenate([y_up_to_z_up(mesh.vertices), y_up_to_z_up(normals)], axis=1)
        for index, (name, _) in enumerate(corner):
            vertices[name] = table[:, index]
        for index, name in enumerate(("red", "green", "blue")):
            vertices[name] = np.round(np.asarray(mesh.colors)[:, index] * 255.0)
        triangles = np.zeros(len(faces), dtype=[("count", "u1"), ("index", "<i4", 3)])
        triangles["count"], triangles["index"] = 3, faces
        header = [
            "ply",
            "format binary_little_endian 1.0",
            *asset.about.ply_comments(),
            f"element vertex {len(vertices)}",
            *(f"property float {name}" for name, _ in corner),
            *(f"property uchar {name}" for name in ("red", "green", "blue")),
            f"element face {len(faces)}",
            "property list uchar int vertex_indices",
            "end_header\n",
        ]
        data = "\n".join(header).encode("ascii") + vertices.tobytes() + triangles.tobytes()
        return Encoded(data, {"vertices": len(vertices), "faces": len(faces)})
