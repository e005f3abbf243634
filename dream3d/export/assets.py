"""All that a finished or stopped run exports, each file on its own: one that fails does not take the others along."""

from collections.abc import Callable
from pathlib import Path

from dream3d.errors import Dream3DError
from dream3d.export import pictures
from dream3d.export.about import About
from dream3d.export.asset import Asset
from dream3d.export.formats.base import FORMATS, ExportOptions
from dream3d.export.run import export_asset
from dream3d.phases import Phases
from dream3d.scenes.base import Scene


def export_all(
    scene: Scene, directory: Path, phases: Phases, about: About | None = None
) -> list[Dream3DError]:
    """Write preview.png, asset.ply, asset.glb and turntable.mp4 as far as the scene has them.

    The mesh gets colours per vertex here, which takes no time; `dream3d export` bakes textures.

    Args:
        scene: the optimised scene. A flat canvas has pictures only; splats are written for scenes made of them.
        directory: of the run.
        phases: charged with the time of each export.
        about: where the scene comes from.

    Returns:
        What went wrong, in the order of the files; empty when all is well.
    """
    asset, options = Asset(scene, about), ExportOptions(texture_size=0, frames=pictures.FRAMES)

    told = asset.about.comment()

    def written_as(name: str) -> Callable[[Path], object]:
        return lambda path: export_asset(asset, name, path, options)

    names = ["glb", "mp4"] if scene.solid else ["mp4"]
    if scene.to_splats() is not None:
        names.insert(0, "ply")
    exports: list[tuple[str, Callable[[Path], object]]] = [
        ("preview.png", lambda path: pictures.write_preview(scene, path, comment=told)),
        *((FORMATS[name].file_name, written_as(name)) for name in names),
    ]
    problems: list[Dream3DError] = []
    for name, export in exports:
        try:
            with phases(f"export {name}"):
                export(directory / name)
        except Dream3DError as error:
            problems.append(error)
    return problems
