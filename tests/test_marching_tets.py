"""Marching tetrahedra: closed, outward, convergent, differentiable."""

import itertools
import math

import pytest
import torch

from dream3d.errors import ConfigError
from renderers.marching_tets import TETS, close_border, grid_vertices, marching_tets

SHAPES = {
    "sphere": lambda p: p.norm(dim=-1) - 0.7,
    "box": lambda p: p.abs().amax(dim=-1) - 0.55,
    "torus": lambda p: torch.hypot(torch.hypot(p[:, 0], p[:, 2]) - 0.55, p[:, 1]) - 0.23,
    "two": lambda p: (
        torch.minimum((p - torch.tensor([0.5, 0.0, 0.0])).norm(dim=-1), (p + 0.4).norm(dim=-1))
        - 0.3
    ),
}
EULER = {"sphere": 2, "box": 2, "torus": 0, "two": 4}


def mesh_of(name: str, resolution: int) -> tuple[torch.Tensor, torch.Tensor]:
    grid = grid_vertices(resolution)
    side = resolution + 1
    return marching_tets(SHAPES[name](grid).reshape(side, side, side), grid)


def directed_edges(faces: torch.Tensor) -> torch.Tensor:
    return torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def is_closed(faces: torch.Tensor) -> bool:
    """Every directed edge once, and its reverse once: closed, manifold along edges, consistently oriented."""
    edges = directed_edges(faces)
    forth = {tuple(e) for e in edges.tolist()}
    return len(forth) == len(edges) and all((b, a) in forth for a, b in forth)


def volume(vertices: torch.Tensor, faces: torch.Tensor) -> float:
    a, b, c = vertices[faces].double().unbind(1)
    return (torch.linalg.cross(a, b) * c).sum().item() / 6.0


def area(vertices: torch.Tensor, faces: torch.Tensor) -> float:
    a, b, c = vertices[faces].double().unbind(1)
    return 0.5 * torch.linalg.cross(b - a, c - a).norm(dim=-1).sum().item()


def test_tetrahedra_fill_the_cell() -> None:
    corners = torch.tensor([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]).double()
    tets = corners[TETS]
    det = torch.det(tets[:, 1:] - tets[:, :1])
    assert torch.allclose(det, torch.ones(6, dtype=torch.float64)), "six of volume 1/6, positive"


@pytest.mark.parametrize("resolution", [5, 16, 33])
@pytest.mark.parametrize("name", SHAPES)
def test_closed_and_outward(name: str, resolution: int) -> None:
    vertices, faces = mesh_of(name, resolution)
    assert is_closed(faces)
    assert set(faces.unique().tolist()) == set(range(len(vertices)))
    assert volume(vertices, faces) > 0.0
    if resolution >= 16:
        assert len(vertices) - len(directed_edges(faces)) // 2 + len(faces) == EULER[name]


def test_any_signs_give_a_closed_surface() -> None:
    """Noise crosses in every one of the sixteen ways; the border is outside."""
    g = torch.Generator().manual_seed(0)
    sdf = close_border(torch.randn(9, 9, 9, generator=g))
    vertices, faces = marching_tets(sdf, grid_vertices(8))
    edges = directed_edges(faces)
    key = edges[:, 0] * len(vertices) + edges[:, 1]
    reverse = edges[:, 1] * len(vertices) + edges[:, 0]
    assert torch.equal(key.sort().values, reverse.sort().values)
    assert volume(vertices, faces) > 0.0


def test_sphere_converges() -> None:
    errors = []
    for resolution in (8, 16, 32, 64):
        vertices, faces = mesh_of("sphere", resolution)
        true_volume, true_area = 4 / 3 * math.pi * 0.7**3, 4 * math.pi * 0.7**2
        errors.append(
            (
                abs(volume(vertices, faces) / true_volume - 1.0),
                abs(area(vertices, faces) / true_area - 1.0),
            )
        )
    for coarse, fine in itertools.pairwise(errors):
        assert fine[0] < coarse[0] / 3.0 and fine[1] < coarse[1] / 2.5, errors
    assert errors[-1][0] < 1e-3 and errors[-1][1] < 1e-3


def test_vertices_lie_on_the_zero_level_of_a_plane() -> None:
    """Linear distances are met exactly, and normals are the plane's."""
    normal = torch.nn.functional.normalize(torch.tensor([1.0, 2.0, -0.5]), dim=0).double()
    grid = grid_vertices(6).double()
    vertices, faces = marching_tets((grid @ normal - 0.1).reshape(7, 7, 7), grid)
    assert (vertices @ normal - 0.1).abs().max() < 1e-6
    a, b, c = vertices[faces].unbind(1)
    cross = torch.linalg.cross(b - a, c - a)
    assert (cross @ normal >= -1e-9).all() and (cross @ normal).sum() > 0.0


def test_gradients() -> None:
    g = torch.Generator().manual_seed(1)
    grid = grid_vertices(3).double()
    grid = (grid + 0.05 * torch.randn(grid.shape, generator=g)).requires_grad_()
    sdf = (grid.detach().norm(dim=-1) - 0.6).reshape(4, 4, 4).requires_grad_()
    assert len(marching_tets(sdf, grid)[0]) > 10
    assert torch.autograd.gradcheck(lambda s, v: marching_tets(s, v)[0], (sdf, grid), eps=1e-7)


def test_nothing_inside_is_an_empty_mesh() -> None:
    vertices, faces = marching_tets(torch.ones(5, 5, 5), grid_vertices(4))
    assert vertices.shape == (0, 3) and faces.shape == (0, 3)


def test_bad_shapes() -> None:
    with pytest.raises(ConfigError, match="do not belong together"):
        marching_tets(torch.ones(5, 5, 5), grid_vertices(5))
    with pytest.raises(ConfigError, match="resolution is 1000"):
        grid_vertices(1000)
