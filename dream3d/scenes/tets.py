"""A deformable tetrahedral grid as a scene (DMTet, Shen et al. 2021): signed distances whose zero level is a mesh.

    s = sum over levels of upsampled grids;   p = grid corner + half a cell * tanh(offset)
    mesh = marching tetrahedra(s, p);   colour = texture field at the surface

Only corners next to the surface get gradients, so a single fine grid moves one cell at a time and crumples. Coarse
grids under it carry the whole neighbourhood along; their sum can be anything a single grid can.
"""

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from dream3d.cameras import CameraBatch
from dream3d.errors import AssetError
from dream3d.rendering import RenderOutput
from dream3d.scenes.base import (
    SCENES,
    Scene,
    SceneConfig,
    check_finite,
    check_settings,
    check_state,
)
from dream3d.scenes.conversions.mesh_cleanup import decimated
from dream3d.scenes.conversions.mesh_tets import fit_colors, mesh_to_grid
from dream3d.scenes.surface import ColoredMesh
from dream3d.scenes.tets_losses import eikonal, laplacian, normal_consistency
from dream3d.scenes.texture_field import TextureField, make_texture_field
from dream3d.schedules import Ramp
from renderers.marching_tets import close_border, grid_vertices, marching_tets
from renderers.mesh import MeshData, MeshEdges, Normals, render_mesh
from renderers.mesh_data import mesh_edges

EXTENT = 1.05
"""Half-side of the grid: an object that touches the cube's walls still has a corner outside."""
REACH = 0.45
"""A corner moves by less than this share of a cell, so that no tetrahedron can turn inside out."""
POINTS_AT_ONCE = 65_536


@SCENES.register("tets")
@dataclass(frozen=True)
class TetsConfig(SceneConfig):
    """A deformable tetrahedral grid with a texture field: always a closed mesh.

    Attributes:
        resolution: cells per side.
        coarser: further grids under the finest, each with half the cells of the one above; they make the surface
            move as a whole. 0 is a single grid.
        init_radius: of the ball a fresh grid starts from, in world units.
        field_levels, field_coarsest, field_resolution, field_table_log2, field_features, field_hidden: of the texture
            field, see scene `nerf`.
        lr_sdf: Adam's learning rate of the distances over the stage, in world units.
        lr_offset: that of the corners' offsets.
        lr_grid, lr_net: those of the texture field.
        weight_normals: penalty on 1 - cos of the angle between neighbouring triangles, mean over edges.
        weight_laplacian: penalty on the squared distance of a vertex to its neighbours' mean, in cells, mean over
            vertices.
        weight_eikonal: penalty on (|gradient| - 1)^2 of the signed distance near the surface.
        normals: also render normals: "none", "smooth" or "face".
        backend: renderer backend: "auto", "numba", "torch".
    """

    resolution: int = 64
    coarser: int = 3
    init_radius: float = 0.5
    field_levels: int = 8
    field_coarsest: int = 8
    field_resolution: int = 256
    field_table_log2: int = 15
    field_features: int = 2
    field_hidden: int = 32
    lr_sdf: Ramp = dataclasses.field(default_factory=lambda: Ramp(0.005, 0.001))
    lr_offset: Ramp = dataclasses.field(default_factory=lambda: Ramp(0.01, 0.003))
    lr_grid: Ramp = dataclasses.field(default_factory=lambda: Ramp(0.02, 0.005))
    lr_net: Ramp = dataclasses.field(default_factory=lambda: Ramp(0.005, 0.001))
    weight_normals: Ramp = dataclasses.field(default_factory=lambda: Ramp(0.01, 0.01))
    weight_laplacian: Ramp = dataclasses.field(default_factory=lambda: Ramp(0.01, 0.01))
    weight_eikonal: float = 0.01
    normals: Normals = "none"
    backend: str = "auto"

    def __post_init__(self) -> None:
        limits = {
            "resolution": (4, 256),
            "coarser": (0, 6),
            "init_radius": (0.05, 1.0),
            "field_levels": (1, 32),
            "field_coarsest": (1, self.field_resolution),
            "field_resolution": (2, 2048),
            "field_table_log2": (8, 24),
            "field_features": (1, 64),
            "field_hidden": (1, 1024),
        }
        check_settings(self, limits, {"normals": ("none", "smooth", "face")})

    @classmethod
    def tiny(cls) -> "TetsConfig":
        return cls(
            resolution=16,
            coarser=2,
            init_radius=0.7,
            field_levels=4,
            field_resolution=32,
            field_table_log2=10,
            field_hidden=8,
        )

    def create(self, generator: torch.Generator, device: torch.device) -> "Tets":
        """A grey ball."""
        side = self.resolution + 1
        distance = grid_vertices(self.resolution, EXTENT).norm(dim=-1) - self.init_radius
        return self._made(distance.reshape(side, side, side), self._texture(generator), device)

    def convert(self, previous: Scene, generator: torch.Generator, device: torch.device) -> "Tets":
        """The surface and the colours of the scene before."""
        mesh = previous.to_mesh()
        sdf, texture = mesh_to_grid(mesh, self.resolution, EXTENT), self._texture(generator)
        texture = texture.to(device)
        fit_colors(texture, mesh, generator, self.backend)
        return self._made(sdf, texture, device)

    def _texture(self, generator: torch.Generator) -> TextureField:
        return make_texture_field(
            self.field_levels,
            self.field_coarsest,
            self.field_resolution,
            self.field_table_log2,
            self.field_features,
            self.field_hidden,
            generator,
        )

    def _made(self, sdf: Tensor, texture: TextureField, device: torch.device) -> "Tets":
        grids = [sdf.to(device)]
        for level in range(1, self.coarser + 1):
            side = max(self.resolution >> level, 1) + 1
            grids.append(torch.zeros(side, side, side, device=device))
        return Tets(self, grids, texture.to(device))


class Tets(Scene):
    """An optimisable tetrahedral grid.

    Args:
        config: settings.
        grids: signed distances, finest first; the others are added to it.
        texture: colour in space.
    """

    def __init__(self, config: TetsConfig, grids: list[Tensor], texture: TextureField) -> None:
        self.config, self.texture = config, texture
        self.grids = [torch.nn.Parameter(grid) for grid in grids]
        side = config.resolution + 1
        like = grids[0]
        self.offset = torch.nn.Parameter(torch.zeros(side**3, 3, dtype=like.dtype).to(like))
        self._corners = grid_vertices(config.resolution, EXTENT).to(like)
        # Surface and distances of the last render with gradients, for the regularisers.
        self._last: tuple[Tensor, Tensor, MeshEdges] | None = None

    @property
    def cell(self) -> float:
        """Side of a cell in world units."""
        return 2.0 * EXTENT / self.config.resolution

    @property
    def sdf(self) -> Float[Tensor, "S S S"]:
        """The signed distance at every corner [x, y, z], the border outside."""
        total = self.grids[0]
        for grid in self.grids[1:]:
            up = functional.interpolate(
                grid[None, None], size=total.shape, mode="trilinear", align_corners=True
            )
            total = total + up[0, 0]
        return close_border(total)

    def surface(self) -> tuple[Float[Tensor, "V 3"], Int[Tensor, "F 3"], Float[Tensor, "S S S"]]:
        """Vertices, triangles, and the distances they come from, with gradient history.

        Raises:
            NumericsError: a parameter is not finite.
        """
        check_finite(self.parameters(), "grid", "scene.lr_sdf and scene.lr_grid")
        sdf = self.sdf
        moved = self._corners + (REACH * self.cell) * self.offset.tanh()
        vertices, faces = marching_tets(sdf, moved)
        return vertices, faces, sdf

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        grids = {f"sdf_{level}": grid for level, grid in enumerate(self.grids)}
        texture = {f"texture.{name}": value for name, value in self.texture.named_parameters()}
        return {**grids, "offset": self.offset, **texture}

    def learning_rates(self, progress: float) -> dict[str, float]:
        c = self.config

        def rate(name: str) -> float:
            if name.startswith("sdf_"):
                return c.lr_sdf(progress)
            if name == "offset":
                return c.lr_offset(progress)
            return (c.lr_grid if name.startswith("texture.encoding.") else c.lr_net)(progress)

        return {name: rate(name) for name in self.parameters()}

    def render(self, cameras: CameraBatch) -> RenderOutput:
        return self._drawn(cameras, self.config.normals)

    @torch.no_grad()
    def render_normals(self, cameras: CameraBatch) -> RenderOutput:
        chosen = self.config.normals
        return self._drawn(cameras, "smooth" if chosen == "none" else chosen)

    def _drawn(self, cameras: CameraBatch, normals: Normals) -> RenderOutput:
        c = self.config
        vertices, faces, sdf = self.surface()
        if len(faces) == 0:
            return self._nothing(cameras)
        edges = mesh_edges(faces)
        self._last = (vertices, sdf, edges) if torch.is_grad_enabled() else None
        return render_mesh(
            MeshData(vertices, faces),
            cameras,
            shade=lambda points: self.texture(points.position, c.backend),
            normals=normals,
            backend=c.backend,
            edges=edges,
        )

    def _nothing(self, cameras: CameraBatch) -> RenderOutput:
        """Empty views; the texture stays in the graph, so that a step can be taken."""
        self._last = None
        # A scene that has vanished can come back only by the regularisers; its views are still valid pictures.
        zero = 0.0 * sum(p.sum() for p in self.parameters().values())
        shape = (len(cameras), cameras.height, cameras.width)
        empty = self._corners.new_zeros(*shape, 1) + zero
        return RenderOutput(empty.expand(*shape, 3), empty, empty)

    def regularisation(self, output: RenderOutput, progress: float) -> dict[str, Float[Tensor, ""]]:
        c = self.config
        terms: dict[str, Float[Tensor, ""]] = {}
        if self._last is None:
            return terms
        vertices, sdf, edges = self._last
        if (weight := c.weight_normals(progress)) > 0:
            terms["normals"] = weight * normal_consistency(vertices, edges)
        if (weight := c.weight_laplacian(progress)) > 0:
            terms["laplacian"] = weight * laplacian(vertices / self.cell, edges)
        if c.weight_eikonal > 0:
            terms["eikonal"] = c.weight_eikonal * eikonal(sdf, self.cell)
        return terms

    @torch.no_grad()
    def to_mesh(self, resolution: int = 128, max_faces: int = 20_000) -> ColoredMesh:
        """The grid's own mesh with colours at its vertices.

        Args:
            resolution: of no effect: the mesh is the grid's.
            max_faces: it is simplified to about this many.

        Raises:
            AssetError: nothing is inside.
        """
        vertices, faces, _ = self.surface()
        if len(faces) == 0:
            raise AssetError(
                "the grid's distances are positive everywhere, so there is no surface; lower scene.lr_sdf or start "
                "from a larger scene.init_radius"
            )
        colors = self.colors_at(vertices)
        mesh = ColoredMesh(
            vertices.cpu().numpy(), faces.to(torch.int32).cpu().numpy(), colors.cpu().numpy()
        )
        return decimated(mesh, max_faces)

    @torch.no_grad()
    def colors_at(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """The texture field's colours."""
        parts = [self.texture(some, self.config.backend) for some in points.split(POINTS_AT_ONCE)]
        return torch.cat(parts)

    def state(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.parameters().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        own = self.parameters()
        check_state(state, own, "grid")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(state[name])
        self._last = None
