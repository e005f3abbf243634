"""An asset no two of whose sides look alike, as splats, as a radiance field and as a mesh.

A body that is red above and blue below, a green arm along +X, a small yellow nose at +Z: whoever turns or mirrors
anything shows it.
"""

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch import Tensor, nn

from dream3d.scenes.base import Scene
from dream3d.scenes.conversions.mesh_splats import mesh_to_splats
from dream3d.scenes.fields import Field
from dream3d.scenes.nerf import Nerf, NerfConfig
from dream3d.scenes.splats import Splats, SplatsConfig
from dream3d.scenes.surface import ColoredMesh

RED, BLUE, GREEN, YELLOW = (0.9, 0.1, 0.1), (0.1, 0.1, 0.9), (0.1, 0.8, 0.1), (0.9, 0.9, 0.1)
BOXES = (
    ((0.0, 0.3, 0.0), (0.5, 0.6, 0.4), RED),
    ((0.0, -0.3, 0.0), (0.5, 0.6, 0.4), BLUE),
    ((0.45, 0.0, 0.0), (0.5, 0.2, 0.2), GREEN),
    ((0.0, 0.3, 0.3), (0.16, 0.16, 0.3), YELLOW),
)
"""(centre, size, colour); the parts touch and overlap."""


def axes_mesh(divisions: int = 2) -> ColoredMesh:
    """The boxes as they are, each a closed surface of its own."""
    vertices, faces, colors, count = [], [], [], 0
    for center, size, color in BOXES:
        box = trimesh.creation.box(size)
        for _ in range(divisions):
            box = box.subdivide()
        vertices.append(np.asarray(box.vertices) + center)
        faces.append(np.asarray(box.faces) + count)
        colors.append(np.tile(color, (len(box.vertices), 1)))
        count += len(box.vertices)
    return ColoredMesh(
        np.concatenate(vertices).astype(np.float32),
        np.concatenate(faces).astype(np.int32),
        np.concatenate(colors).astype(np.float32),
    )


class MeshAsset(Scene):
    """A scene whose surface is known: what any scene with a mesh of its own is to the formats."""

    def __init__(self) -> None:
        splats = mesh_to_splats(axes_mesh(), 3000, torch.Generator().manual_seed(1), 0.95)
        self._shown = splats_asset(splats)

    def parameters(self):
        return self._shown.parameters()

    def learning_rates(self, progress):
        return {}

    def render(self, cameras):
        return self._shown.render(cameras)

    def regularisation(self, output, progress):
        return {}

    def state(self):
        return {}

    def load_state(self, state):
        pass

    def to_mesh(self, resolution: int = 128, max_faces: int = 20_000) -> ColoredMesh:
        return axes_mesh()


def splats_asset(splats=None) -> Splats:
    """Discs on the boxes, as a scene of splats with harmonics of degree 1."""
    if splats is None:
        splats = mesh_to_splats(axes_mesh(), 3000, torch.Generator().manual_seed(0), 0.95)
    raw = {
        "means": splats.means,
        "log_scales": splats.log_scales,
        "quaternions": splats.quaternions,
        "opacities": splats.opacity_logits,
        "colors": splats.sh,
        "colors_rest": torch.zeros(len(splats), 3, 3),
    }
    return Splats(SplatsConfig(count=len(splats), max_count=len(splats), sh_degree=1), raw)


class BoxField(Field):
    """Dense and coloured inside the boxes, empty outside: a radiance field in closed form."""

    def __init__(self) -> None:
        nn.Module.__init__(self)  # none of a field's own parts
        self.level = nn.Parameter(torch.tensor(60.0))

    @property
    def like(self) -> Tensor:
        return self.level

    def density(self, points: Float[Tensor, "N 3"], backend: str = "auto") -> Float[Tensor, " N"]:
        return self(points, backend)[0]

    def forward(
        self, points: Float[Tensor, "N 3"], backend: str = "auto"
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 3"]]:
        inside = torch.zeros(len(points), dtype=torch.bool)
        colors = torch.zeros(len(points), 3)
        nearest = torch.full((len(points),), float("inf"))
        for center, size, color in BOXES:
            outside = ((points - torch.tensor(center)).abs() - 0.5 * torch.tensor(size)).amax(dim=1)
            closer = outside < nearest
            nearest = torch.where(closer, outside, nearest)
            colors[closer] = torch.tensor(color)
            inside |= outside < 0.0
        return self.level * inside, colors


def nerf_asset() -> Nerf:
    """The boxes as a field."""
    config = NerfConfig(occupancy_cells=16, backend="torch")
    return Nerf(config, BoxField(), torch.tensor(0))


ASSETS = {"splats": splats_asset, "nerf": nerf_asset, "mesh": MeshAsset}
