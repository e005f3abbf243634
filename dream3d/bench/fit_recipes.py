"""How each representation is fitted to true views within its budget of CPU time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.rendering import RenderOutput
from dream3d.scenes.base import Scene, SceneConfig
from dream3d.scenes.conversions.baked_texture import TexturedMesh, bake_texture
from dream3d.scenes.fit import fit_to_views
from dream3d.scenes.nerf import NerfConfig
from dream3d.scenes.splats import SplatsConfig
from dream3d.scenes.tets import Tets, TetsConfig
from renderers.mesh import MeshData, render_mesh

CPU = torch.device("cpu")
MAX_FACES = 30_000
TEXTURE = 1024


class ShownMesh(Scene):
    """A finished mesh that only shows itself."""

    def __init__(self, mesh: MeshData) -> None:
        self.mesh = mesh

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        return {}

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {}

    def render(self, cameras: CameraBatch) -> RenderOutput:
        return render_mesh(self.mesh, cameras)

    def regularisation(self, output: RenderOutput, progress: float) -> dict[str, Float[Tensor, ""]]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return self.mesh.tensors()

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.mesh = MeshData(**state)


Made = tuple[Scene, dict[str, Any]]


@dataclass(frozen=True)
class Recipe:
    """One representation's settings.

    Attributes:
        budget_s: CPU seconds a row may take, fit and conversion together, one thread.
        make: from cameras, premultiplied colours, coverage and a generator to the scene that is compared, and further
            entries of the row.
    """

    budget_s: float
    make: Callable[
        [CameraBatch, Float[Tensor, "B H W 3"], Float[Tensor, "B H W 1"], torch.Generator], Made
    ]


@dataclass(frozen=True)
class DirectFit:
    """Steps of `fit_to_views` on a fresh scene.

    Attributes:
        scene: settings.
        steps, views, stride: see `fit_to_views`.
    """

    scene: SceneConfig
    steps: int
    views: int
    stride: int = 1

    def __call__(
        self, cameras: CameraBatch, rgb: Tensor, alpha: Tensor, generator: torch.Generator
    ) -> Made:
        scene = self.scene.create(generator, CPU)
        fit_to_views(
            scene, cameras, rgb, alpha, self.steps, generator, self.views, stride=self.stride
        )
        size = sum(p.numel() for p in scene.parameters().values())
        return scene, {"steps": self.steps, "views": self.views, "parameters": size}


SPLATS = DirectFit(
    SplatsConfig(
        count=4000,
        max_count=12_000,
        density="adaptive",  # true views show where detail is missing
        density_every=50,
        split_gradient=1e-4,
        split_scale=0.03,
        prune_opacity=0.02,
        weight_scale=0.0,
        weight_opacity=0.0,
    ),
    steps=800,
    views=2,
)
NERF = DirectFit(NerfConfig(resolution=256, step=0.03), steps=700, views=8, stride=8)
TETS = DirectFit(TetsConfig(), steps=400, views=2)


def exported(scene: Tets) -> TexturedMesh:
    """What a user gets of a tetrahedral grid: its simplified mesh with the texture field baked."""

    def color_at(points: Any, normals: Any) -> Any:
        found = scene.colors_at(torch.from_numpy(points).to(scene.texture.like))
        return found.cpu().numpy()

    return bake_texture(scene.to_mesh(max_faces=MAX_FACES), color_at, TEXTURE)


def mesh_data(mesh: TexturedMesh) -> MeshData:
    """As the renderer takes it."""
    return MeshData(
        torch.from_numpy(mesh.vertices),
        torch.from_numpy(mesh.faces).long(),
        uvs=torch.from_numpy(mesh.uvs),
        uv_faces=torch.from_numpy(mesh.uv_faces).long(),
        texture=torch.from_numpy(mesh.texture),
    )


def tets_mesh(cameras: CameraBatch, rgb: Tensor, alpha: Tensor, generator: torch.Generator) -> Made:
    """A tetrahedral grid is fitted; the mesh it exports is compared."""
    scene, row = TETS(cameras, rgb, alpha, generator)
    assert isinstance(scene, Tets)
    mesh = exported(scene)
    return ShownMesh(mesh_data(mesh)), {**row, "faces": len(mesh.faces), "texture": TEXTURE}


RECIPES: dict[str, Recipe] = {
    "splats": Recipe(120.0, SPLATS),
    "nerf": Recipe(180.0, NERF),
    "tets": Recipe(180.0, tets_mesh),
}
