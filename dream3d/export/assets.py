"""All that a finished or stopped run exports, each file on its own: one that fails does not take the others along."""

from pathlib import Path

from dream3d.errors import Dream3DError
from dream3d.export.pictures import write_preview, write_turntable
from dream3d.phases import Phases
from dream3d.scenes.base import Scene


def export_all(scene: Scene, directory: Path, phases: Phases) -> list[Dream3DError]:
    """Write preview.png, asset.ply, asset.glb and turntable.mp4 as far as the scene has them.

    Args:
        scene: the optimised scene. Only splats have a PLY and a mesh.
        directory: of the run.
        phases: charged with the time of each export.

    Returns:
        What went wrong, in the order of the files; empty when all is well.
    """
    problems: list[Dream3DError] = []
    exports = [("preview.png", write_preview)]
    exports.append(("turntable.mp4", write_turntable))
    for name, write in exports:
        try:
            with phases(f"export {name}"):
                write(scene, directory / name)
        except Dream3DError as error:
            problems.append(error)
    return problems
