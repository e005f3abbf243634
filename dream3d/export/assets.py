"""All that a finished or stopped run exports, each file on its own: one that fails does not take the others along."""

from collections.abc import Callable
from pathlib import Path

from dream3d.errors import Dream3DError
from dream3d.export.glb import write_glb
from dream3d.export.pictures import write_preview, write_turntable
from dream3d.export.splat_ply import check_splats, splat_arrays, write_splat_ply
from dream3d.phases import Phases
from dream3d.scenes.base import Scene
from dream3d.scenes.nerf import Nerf
from dream3d.scenes.splats import Splats, exportable
from dream3d.scenes.splats_mesh import to_mesh


def export_all(scene: Scene, directory: Path, phases: Phases) -> list[Dream3DError]:
    """Write preview.png, asset.ply, asset.glb and turntable.mp4 as far as the scene has them.

    Args:
        scene: the optimised scene. Splats and fields have a mesh, splats a PLY too.
        directory: of the run.
        phases: charged with the time of each export.

    Returns:
        What went wrong, in the order of the files; empty when all is well.
    """
    exports: list[tuple[str, Callable[[Path], None]]] = [
        ("preview.png", lambda path: write_preview(scene, path))
    ]
    if isinstance(scene, Splats):
        exports.append(("asset.ply", lambda path: export_splats(scene, path)))
    if isinstance(scene, Splats | Nerf):
        exports.append(("asset.glb", lambda path: export_mesh(scene, path)))
    exports.append(("turntable.mp4", lambda path: write_turntable(scene, path)))
    problems: list[Dream3DError] = []
    for name, export in exports:
        try:
            with phases(f"export {name}"):
                export(directory / name)
        except Dream3DError as error:
            problems.append(error)
    return problems


def export_splats(scene: Splats, path: Path) -> None:
    """Write the splats one can see as a PLY.

    Raises:
        AssetError: a splat is not finite, or none can be seen.
        OutputError: the file cannot be written.
    """
    check_splats(splat_arrays(scene.splats))
    write_splat_ply(splat_arrays(exportable(scene.splats)), path)


def export_mesh(scene: Splats | Nerf, path: Path) -> None:
    """Write a closed mesh of the scene's surface, with colour per vertex, as a GLB.

    Raises:
        AssetError: there is no opaque surface.
        OutputError: the file cannot be written.
    """
    mesh = scene.to_mesh() if isinstance(scene, Nerf) else to_mesh(exportable(scene.splats))
    write_glb(mesh.vertices, mesh.faces, mesh.colors, path)
