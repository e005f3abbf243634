"""What formats ask a scene for, made once and only when asked: splats, a mesh, pictures, and where it comes from."""

from dataclasses import dataclass
from functools import cache

import dream3d
from dream3d.errors import AssetError
from dream3d.export.splat_ply import SplatArrays, check_splats, splat_arrays
from dream3d.scenes.base import Scene
from dream3d.scenes.splats import exportable
from dream3d.scenes.surface import ColoredMesh


@dataclass(frozen=True)
class About:
    """Where an asset comes from; written into files that have a place for it.

    Attributes:
        prompt: as it was typed.
        prior: name of the prior that guided it.
        model: what weights the prior used.
        license: of those weights, as an SPDX name where there is one.
        seed: of the run.
    """

    prompt: str | None = None
    prior: str | None = None
    model: str | None = None
    license: str | None = None
    seed: int | None = None

    @property
    def generator(self) -> str:
        """The program and its version."""
        return f"dream3d {dream3d.__version__}"

    def known(self) -> dict[str, str | int]:
        """What is known, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


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
        self.splats = cache(self._splats)

    def _mesh(self, faces: int) -> ColoredMesh:
        """A triangle mesh of about `faces` at most, coloured per vertex.

        Raises:
            AssetError: the scene has no surface.
        """
        return self.scene.to_mesh(max_faces=faces)

    def _splats(self) -> SplatArrays:
        """The splats one can see, in the world's frame.

        Raises:
            AssetError: a splat is not finite, none can be seen, or the scene has neither splats nor a surface.
        """
        native = self.scene.to_splats()
        if native is None:
            raise AssetError("this kind of scene has no splats")
        check_splats(splat_arrays(native))
        visible = splat_arrays(exportable(native))
        check_splats(visible)
        return visible
