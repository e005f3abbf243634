"""STL for printing: shape only."""

import numpy as np
import trimesh

from dream3d.errors import AssetError
from dream3d.export.asset import Asset
from dream3d.export.formats.base import FORMATS, Encoded, ExportOptions, Format
from dream3d.export.materials import check_faces, y_up_to_z_up
from dream3d.scenes.surface import ColoredMesh

MILLIMETRES = 50.0
"""Of one world unit: STL has no unit and slicers read millimetres, so an object that fills the world is 100 mm."""


@FORMATS.register("stl")
class Stl(Format):
    """Binary STL in millimetres, +Z up, without colour: a mesh for printing."""

    holds = "mesh"
    file_name = "asset.stl"
    media_type = "model/stl"
    opens_in = "slicers, CAD, Blender"
    frame = "+Z up, front -Y, 1 unit = 50 mm"
    color = "none"

    def encode(self, asset: Asset, options: ExportOptions) -> Encoded:
        mesh = welded(asset.mesh(options.faces))
        closed = bool(mesh.is_watertight)
        if options.watertight and not closed:
            mesh = closed_mesh(mesh)
        mesh.apply_scale(MILLIMETRES)
        data = mesh.export(file_type="stl")
        assert isinstance(data, bytes)
        details = {
            "faces": len(mesh.faces),
            "watertight": bool(mesh.is_watertight),
            "millimetres": [round(float(side), 2) for side in mesh.extents],
        }
        return Encoded(data, details)


def welded(mesh: ColoredMesh) -> trimesh.Trimesh:
    """The shape alone, +Z up, without doubled vertices and faces without area."""
    check_faces(mesh.vertices, mesh.faces)
    shape = trimesh.Trimesh(
        y_up_to_z_up(np.asarray(mesh.vertices, np.float64)), mesh.faces, process=True
    )
    shape.update_faces(shape.nondegenerate_faces(height=0.0))
    check_faces(np.asarray(shape.vertices), np.asarray(shape.faces))
    return shape


def closed_mesh(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh with its holes filled.

    Raises:
        AssetError: some hole cannot be filled.
    """
    mesh.fill_holes()
    mesh.fix_normals()
    if not mesh.is_watertight:
        raise AssetError(
            "the mesh is not watertight and its holes cannot all be filled; leave --watertight out, or generate "
            "with a scene that has a closed surface (splats, nerf, tets)"
        )
    return mesh
