"""How true the gradients of mesh outlines are: against finite differences of large renders, along smooth deformations.

    python -m dream3d.bench.outlines

Per scene and loss: the cosine between the two vectors of directional derivatives, and the ratio of their lengths. The
"weighted" loss is the mean of the image times smooth random weights; "squared" is the mean squared difference to a
smooth random picture, whose derivative at an outline depends on how far into a pixel that reaches, and is noisier.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch, orbit_cameras
from renderers.mesh import MeshData, MeshRenderOutput, render_mesh

LOSSES = ("weighted", "squared")
STEP = 0.006
"""Mean displacement of the vertices, world units: several pixels of a large render, so that its stairs average out."""
WAVES = 3


@dataclass(frozen=True)
class OutlineRow:
    """One scene and loss.

    Attributes:
        scene, faces: what is rendered.
        size: side of the differentiated render in pixels.
        loss: one of LOSSES.
        cosine: between gradient and finite differences over all directions.
        ratio: of their lengths.
    """

    scene: str
    faces: int
    size: int
    loss: str
    cosine: float
    ratio: float


def _moved(mesh: trimesh.Trimesh, x: float, y: float, z: float) -> trimesh.Trimesh:
    mesh.apply_translation([x, y, z])
    return mesh


def _together(parts: list[trimesh.Trimesh]) -> trimesh.Trimesh:
    joined = trimesh.util.concatenate(parts)
    assert isinstance(joined, trimesh.Trimesh)
    return joined


def outline_scenes() -> Iterator[tuple[str, trimesh.Trimesh]]:
    """Three spheres and three crowded scenes; nothing touches."""
    make, ball = trimesh.creation, trimesh.creation.icosphere
    for name, subdivisions in (("sphere 320", 2), ("sphere 5k", 4), ("sphere 20k", 5)):
        yield name, ball(subdivisions=subdivisions, radius=0.75)
    parts = [
        ball(subdivisions=4, radius=0.55),
        _moved(ball(subdivisions=3, radius=0.25), 0.35, 0.25, 0.75),
        _moved(make.box((0.3, 0.5, 0.2)), -0.45, -0.1, 0.8),
        make.torus(0.85, 0.08, major_sections=96, minor_sections=24),
    ]
    yield "occluders", _together(parts)
    ring = make.torus(0.6, 0.25, major_sections=128, minor_sections=48)
    column = _moved(make.capsule(height=1.2, radius=0.15, count=[48, 48]), 0.0, 0.0, -0.6)
    yield "ring and column", _together([ring, column])
    g = np.random.default_rng(0)
    sizes, places = g.uniform(0.1, 0.25, 14), g.uniform(-0.75, 0.75, (14, 3))
    balls = [_moved(ball(subdivisions=3, radius=r), *p) for r, p in zip(sizes, places, strict=True)]
    yield "fourteen balls", _together(balls)


def _waves(points: Float[Tensor, "V 3"], generator: torch.Generator) -> Float[Tensor, "V 3"]:
    """A smooth random displacement of mean length one."""
    total = torch.zeros_like(points)
    for _ in range(WAVES):
        frequency = 1.5 * torch.randn(3, 3, generator=generator)
        phase = 2 * torch.pi * torch.rand(3, generator=generator)
        total += torch.sin(points @ frequency + phase) * torch.randn(3, generator=generator)
    return total / total.norm(dim=1).mean()


def _losses(output: MeshRenderOutput, waves: Float[Tensor, "4 3"]) -> Float[Tensor, " 2"]:
    """Both losses of one view against a smooth picture that is the same at every size."""
    image = torch.cat([output.rgb, output.alpha], dim=-1)[0]
    centre = (torch.arange(image.shape[0]) + 0.5) / image.shape[0]
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    picture = 0.5 + 0.4 * torch.sin(
        waves[:, 0] * x[..., None] + waves[:, 1] * y[..., None] + waves[:, 2]
    )
    return torch.stack([(image * picture).mean(), (image - picture).square().mean()])


def outline_gradients(
    name: str,
    solid: trimesh.Trimesh,
    sizes: tuple[int, ...],
    true_size: int = 2048,
    directions: int = 32,
) -> list[OutlineRow]:
    """One row per loss and size for one scene.

    Args:
        name: of the scene.
        solid: the scene, as `outline_scenes` gives it.
        sizes: sides of the differentiated renders, pixels.
        true_size: side of the renders whose finite differences are the truth.
        directions: smooth deformations.
    """
    g = torch.Generator().manual_seed(5)
    vertices = torch.tensor(np.asarray(solid.vertices), dtype=torch.float32)
    faces = torch.tensor(np.asarray(solid.faces), dtype=torch.int64)
    colors = 0.5 + 0.45 * torch.sin(vertices @ (2.0 * torch.randn(3, 3, generator=g)))
    waves = 5.0 * torch.randn(4, 3, generator=g)
    ways = [_waves(vertices, g) for _ in range(directions)]

    def losses(points: Tensor, cameras: CameraBatch, smooth: bool) -> Tensor:
        mesh = MeshData(points, faces, colors)
        return _losses(render_mesh(mesh, cameras, antialias=smooth), waves)

    large = orbit_cameras([25.0], [20.0], size=true_size)
    with torch.no_grad():
        change = [
            losses(vertices + STEP * way, large, False)
            - losses(vertices - STEP * way, large, False)
            for way in ways
        ]
    true = torch.stack(change) / (2.0 * STEP)
    rows = []
    for size in sizes:
        leaf = vertices.clone().requires_grad_()
        both = losses(leaf, large.resized(size, size), True)
        for index, loss in enumerate(LOSSES):
            (grad,) = torch.autograd.grad(both[index], leaf, retain_graph=True)
            ours, theirs = torch.stack([(grad * way).sum() for way in ways]), true[:, index]
            cosine = (ours @ theirs / (ours.norm() * theirs.norm())).item()
            ratio = (ours.norm() / theirs.norm()).item()
            rows.append(OutlineRow(name, len(faces), size, loss, round(cosine, 4), round(ratio, 3)))
    return rows


def main() -> None:
    """Print all rows as JSON lines."""
    for name, solid in outline_scenes():
        for row in outline_gradients(name, solid, (64, 128, 256)):
            print(json.dumps(asdict(row)), flush=True)


if __name__ == "__main__":
    main()
