"""A triangle mesh as a scene: a ball or a user's file, whose surface moves while its material is found, or stays."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.errors import AssetError, ConfigError
from dream3d.rendering import RenderOutput
from dream3d.scenes.base import (
    SCENES,
    Scene,
    SceneConfig,
    check_finite,
    check_settings,
    check_state,
)
from dream3d.scenes.conversions.baked_texture import TexturedMesh, dilated, texels
from dream3d.scenes.conversions.mesh_cleanup import decimated
from dream3d.scenes.conversions.mesh_tets import fit_colors
from dream3d.scenes.mesh_file import SurfaceMesh, charts, load_mesh, sphere
from dream3d.scenes.mesh_material import (
    SLOPES,
    FieldMaterial,
    Material,
    TexelMaterial,
    channel_count,
    roughness_metallic,
    shaded,
    texture_slopes,
)
from dream3d.scenes.surface import ColoredMesh
from dream3d.scenes.tets_losses import laplacian, normal_consistency
from dream3d.scenes.texture_field import TextureField
from dream3d.schedules import Ramp
from renderers.environment import environment_light, studio
from renderers.mesh import MeshData, Normals, SurfacePoints, render_mesh
from renderers.mesh_data import check_manifold, mesh_edges
from renderers.normal_map import encoded

BALL = 4, 0.6
"""Subdivisions (5120 faces) and radius of the ball a scene without a file starts from."""
LIGHT = (0.45, 0.75, 0.5)
"""Where the directional light of "lambert" comes from: that of the shipped world."""
POINTS_AT_ONCE = 65_536
CHOICES = {
    "material": ("field", "texels"),
    "shading": ("albedo", "lambert", "pbr"),
    "normals": ("none", "smooth", "face"),
}


def _in_four(rows: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every face cut at the middles of its edges; `rows` are the vertices with all they carry."""
    sides = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, member = np.unique(sides, axis=0, return_inverse=True)
    ab, bc, ca = len(rows) + member.reshape(3, -1)
    a, b, c = faces.T
    cut = [[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]]
    faces = np.concatenate([np.stack(corner, axis=1) for corner in cut])
    return np.concatenate([rows, rows[unique].mean(axis=1)]), faces


def colored(mesh: TexturedMesh, max_faces: int) -> ColoredMesh:
    """Colours at vertices in place of a texture; faces are cut into four as long as there are at most `max_faces`."""
    pairs = np.stack([mesh.faces.reshape(-1), mesh.uv_faces.reshape(-1)], axis=1)
    unique, member = np.unique(pairs, axis=0, return_inverse=True)
    vertices, uvs = mesh.vertices[unique[:, 0]], mesh.uvs[unique[:, 1]]
    faces = member.reshape(-1, 3)
    while 4 * len(faces) <= max_faces:
        wide = np.concatenate([vertices, uvs], axis=1)
        wide, faces = _in_four(wide, faces)
        vertices, uvs = wide[:, :3], wide[:, 3:]
    size = len(mesh.texture)
    at = np.clip((uvs * size).astype(int), 0, size - 1)
    colors = mesh.texture[at[:, 1], at[:, 0]]
    # Seams are closed again; a vertex there takes the mean of its charts.
    welded, member = np.unique(vertices, axis=0, return_inverse=True)
    member = member.reshape(-1)
    total, count = np.zeros((len(welded), 3)), np.bincount(member, minlength=len(welded))
    np.add.at(total, member, colors)
    return ColoredMesh(welded, member[faces], (total / count[:, None]).clip(0.0, 1.0))


@SCENES.register("mesh")
@dataclass(frozen=True)
class MeshConfig(SceneConfig):
    """A triangle mesh with a material: a ball to begin with, or an OBJ, GLB, PLY or STL file.

    Attributes:
        mesh: "sphere", or the path of a file; it is centred and scaled into the world's cube.
        move: whether the vertices move; without, only the material is found.
        material: "field" (a function of space, looked up at the surface) or "texels" (a picture on the file's texture
            coordinates, or on new charts).
        texture_size: side of the picture in texels, of "texels" and of exported textures.
        field_resolution: "field": cells per side of the finest level of its hash grid.
        field_table_log2: "field": a level has at most 2^field_table_log2 rows.
        shading: "albedo" (colours as they are), "lambert" (under a soft directional light) or "pbr" (base colour,
            roughness and metallic under an environment light).
        normal_map: "lambert", "pbr": the material also says how far normals lean, and exports have a normal map.
        ambient: "lambert": share of the light that comes from everywhere.
        lr_vertices: Adam's learning rate of the vertices over the stage, in world units.
        lr_field: that of the field's grid; its network takes a quarter.
        lr_texels: that of the texels' logits.
        weight_normals: penalty on 1 - cos of the angle between neighbouring triangles, mean over edges.
        weight_laplacian: penalty on the squared distance of a vertex to its neighbours' mean, in mean edge lengths.
        normals: also render normals: "none", "smooth" or "face".
        backend: renderer backend: "auto", "numba", "torch", "nvdiffrast", "pytorch3d".
    """

    mesh: str = "sphere"
    move: bool = True
    material: Literal["field", "texels"] = "field"
    texture_size: int = 512
    field_resolution: int = 256
    field_table_log2: int = 15
    shading: Literal["albedo", "lambert", "pbr"] = "albedo"
    normal_map: bool = False
    ambient: float = 0.64
    lr_vertices: Ramp = dataclasses.field(default_factory=lambda: Ramp(0.004, 0.001))
    lr_field: Ramp = dataclasses.field(default_factory=lambda: Ramp(0.02, 0.005))
    lr_texels: Ramp = dataclasses.field(default_factory=lambda: Ramp(0.05, 0.02))
    weight_normals: Ramp = dataclasses.field(default_factory=lambda: Ramp(0.05, 0.05))
    weight_laplacian: Ramp = dataclasses.field(default_factory=lambda: Ramp(0.05, 0.05))
    normals: Normals = "none"
    backend: str = "auto"

    def __post_init__(self) -> None:
        limits = {
            "texture_size": (16, 4096),
            "field_resolution": (2, 2048),
            "field_table_log2": (8, 24),
            "ambient": (0.0, 1.0),
        }
        check_settings(self, limits, CHOICES)
        if self.normal_map and self.shading == "albedo":
            raise ConfigError(
                "scene.normal_map is true and scene.shading is 'albedo', which shows no light that normals could bend; "
                "choose shading 'lambert' or 'pbr', or leave the normal map out"
            )

    @property
    def channels(self) -> int:
        """Of the material; see `channel_count`."""
        return channel_count(self.shading, SLOPES[self.material] if self.normal_map else 0)

    def create(self, generator: torch.Generator, device: torch.device) -> "Mesh":
        """The ball or the file's mesh, grey.

        Raises:
            ConfigError: the file cannot be used; see `load_mesh`.
        """
        start = sphere(*BALL) if self.mesh == "sphere" else load_mesh(Path(self.mesh))
        return Mesh(self, start, self._material(generator).to(device), device)

    def convert(self, previous: Scene, generator: torch.Generator, device: torch.device) -> "Mesh":
        """The surface of the scene before; a field without light takes its colours too.

        Raises:
            AssetError: `previous` shows no surface.
        """
        mesh = previous.to_mesh()
        material = self._material(generator)
        if isinstance(material, FieldMaterial) and self.shading == "albedo":
            fit_colors(TextureField(material.encoding, material.head), mesh, generator)
        faces = np.asarray(mesh.faces, np.int64)
        start = SurfaceMesh(np.asarray(mesh.vertices, np.float64), faces)
        return Mesh(self, start, material.to(device), device)

    def _material(self, generator: torch.Generator) -> Material:
        if self.material == "texels":
            return TexelMaterial(self.channels, self.texture_size)
        return FieldMaterial(self.channels, self.field_resolution, self.field_table_log2, generator)

    @classmethod
    def tiny(cls) -> "MeshConfig":
        return cls(field_resolution=16, field_table_log2=8, texture_size=64)


class Mesh(Scene):
    """An optimisable mesh; which vertices a face joins never changes.

    Args:
        config: settings.
        start: the surface at the start.
        material: what it carries.
        device: where everything lies.
    """

    def __init__(
        self, config: MeshConfig, start: SurfaceMesh, material: Material, device: torch.device
    ) -> None:
        self.config, self.material = config, material
        vertices = torch.as_tensor(start.vertices, dtype=torch.float32, device=device)
        self.vertices = torch.nn.Parameter(vertices.clone()) if config.move else vertices
        self.faces = torch.as_tensor(start.faces, dtype=torch.int64, device=device)
        self._start = start
        self.edges = mesh_edges(self.faces)
        if config.move:
            check_manifold(self.edges, "moving the vertices (scene.move)")
        a, b = vertices[self.edges.ends].unbind(1)
        self._edge_length = float((a - b).norm(dim=1).mean())
        self._toward = torch.tensor(LIGHT, device=device)
        self._light = None
        if config.shading == "pbr":
            self._light = environment_light(studio()).to(device)

    @cached_property
    def charts(self) -> tuple[Float[Tensor, "T 2"], Int[Tensor, "F 3"]]:
        """Texture coordinates and which are at every face's corners: the file's own, or new charts of the start."""
        s = self._start
        uvs, uv_faces = s.uvs, s.uv_faces
        if uvs is None or uv_faces is None:
            uvs, uv_faces = charts(s.vertices, s.faces)
        uvs = torch.as_tensor(uvs, dtype=torch.float32, device=self.faces.device)
        return uvs, torch.as_tensor(uv_faces, dtype=torch.int64, device=self.faces.device)

    def data(self) -> MeshData:
        """The surface; with texture coordinates where the material needs them."""
        if isinstance(self.material, TexelMaterial):
            return MeshData(self.vertices, self.faces, None, *self.charts)
        return MeshData(self.vertices, self.faces)

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        own = {f"material.{name}": value for name, value in self.material.named_parameters()}
        if isinstance(self.vertices, torch.nn.Parameter):
            own = {"vertices": self.vertices, **own}
        return own

    def learning_rates(self, progress: float) -> dict[str, float]:
        c = self.config
        rates = {
            "vertices": c.lr_vertices(progress),
            "material.texels": c.lr_texels(progress),
            "material.encoding.table": c.lr_field(progress),
        }
        return {name: rates.get(name, 0.25 * c.lr_field(progress)) for name in self.parameters()}

    def render(self, cameras: CameraBatch) -> RenderOutput:
        return self._drawn(cameras, self.config.normals)

    @torch.no_grad()
    def render_normals(self, cameras: CameraBatch) -> RenderOutput:
        chosen = self.config.normals
        return self._drawn(cameras, "smooth" if chosen == "none" else chosen)

    def _drawn(self, cameras: CameraBatch, normals: Normals) -> RenderOutput:
        c = self.config
        check_finite(self.parameters(), "mesh", "scene.lr_vertices and scene.lr_field")

        def shade(points: SurfacePoints) -> Tensor:
            channels = self.material(points, "auto")
            return shaded(channels, points, c.shading, c.ambient, self._toward, self._light)

        return render_mesh(
            self.data(), cameras, shade, normals, backend=c.backend, edges=self.edges
        )

    def regularisation(self, output: RenderOutput, progress: float) -> dict[str, Float[Tensor, ""]]:
        c = self.config
        terms: dict[str, Float[Tensor, ""]] = {}
        if not c.move:
            return terms
        if (weight := c.weight_normals(progress)) > 0:
            terms["normals"] = weight * normal_consistency(self.vertices, self.edges)
        if (weight := c.weight_laplacian(progress)) > 0:
            terms["laplacian"] = weight * laplacian(self.vertices / self._edge_length, self.edges)
        return terms

    @torch.no_grad()
    def to_mesh(self, resolution: int = 128, max_faces: int = 20_000) -> ColoredMesh:
        """The surface with colours at its vertices; a coarse one is subdivided first, so that they can hold a picture.

        Args:
            resolution: of no effect: the surface is known.
            max_faces: about this many triangles at most.
        """
        return decimated(colored(self.to_textured_mesh(), max_faces), max_faces)

    @torch.no_grad()
    def baked(self) -> Float[np.ndarray, "S S C"]:
        """The material's channels as a picture on the texture coordinates, without light.

        A normal map's are the last two: one half and half the slopes along the texture's axes, whatever the material.
        """
        c = self.config
        if isinstance(self.material, TexelMaterial):
            return self.material.texels.sigmoid().cpu().numpy()
        size = c.texture_size
        uvs, uv_faces = self.charts
        on, weight = texels(uvs.cpu().numpy(), uv_faces.cpu().numpy(), size)
        hit = on >= 0
        if not hit.any():
            raise AssetError(
                f"no texel of {size} x {size} lies on the surface; raise scene.texture_size"
            )
        mesh = MeshData(self.vertices.detach(), self.faces, None, uvs, uv_faces)
        face = torch.from_numpy(on[hit]).long().to(self.faces.device)
        weights = torch.from_numpy(weight[hit]).to(self.vertices)
        points = (mesh.vertices[self.faces[face]] * weights[:, :, None]).sum(dim=1)
        found = torch.cat([self.material.at(some, "auto") for some in points.split(POINTS_AT_ONCE)])
        if c.normal_map:
            slopes = texture_slopes(found, c.shading, mesh, face, weights)
            found = torch.cat([found[:, : channel_count(c.shading)], 0.5 + 0.5 * slopes], dim=1)
        picture = np.zeros((size, size, found.shape[1]), np.float32)
        picture[hit] = found.cpu().numpy()
        return dilated(picture, hit)

    def to_textured_mesh(self) -> TexturedMesh:
        """The surface and its base colour (without light) as a texture; metallic, roughness and normals if it has them.

        Raises:
            AssetError: the texture is too small to hold anything.
        """
        uvs, uv_faces = (one.cpu().numpy() for one in self.charts)
        channels, surface, normal = self.baked(), None, None
        if self.config.shading == "pbr":
            flat = torch.from_numpy(channels).reshape(-1, channels.shape[-1])
            roughness, metallic = roughness_metallic(flat)
            both = torch.cat([metallic, roughness], dim=1)
            surface = both.reshape(*channels.shape[:2], 2).numpy()
        if self.config.normal_map:
            normal = encoded(2.0 * torch.from_numpy(channels[..., -2:]) - 1.0).numpy()
        return TexturedMesh(
            self.vertices.detach().cpu().numpy(),
            self.faces.cpu().numpy().astype(np.int32),
            uvs,
            uv_faces.astype(np.int32),
            channels[..., :3],
            surface,
            normal,
        )

    def state(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.parameters().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        own = self.parameters()
        remedy = (
            "if the file scene.mesh names has changed since, put it back; otherwise start a new run"
        )
        check_state(state, own, "mesh", remedy=remedy)
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(state[name])
