"""The tetrahedral grid as a scene: closed, rendered, fitted, regularised, resumed."""

from dataclasses import replace

import pytest
import torch
import trimesh

from dream3d.cameras import orbit_cameras
from dream3d.errors import AssetError, CheckpointError, ConfigError, NumericsError
from dream3d.scenes.fit import fit_to_views
from dream3d.scenes.tets import Tets, TetsConfig
from dream3d.scenes.tets_losses import eikonal, laplacian, normal_consistency
from dream3d.schedules import Ramp
from renderers.marching_tets import grid_vertices, marching_tets
from renderers.mesh_data import mesh_edges

SMALL = TetsConfig(resolution=16, coarser=2, field_resolution=32, field_table_log2=10)
CAMERAS = orbit_cameras([0.0, 90.0, 180.0, 270.0], 20.0, size=32)


def made(config: TetsConfig = SMALL, seed: int = 0) -> Tets:
    return config.create(torch.Generator().manual_seed(seed), torch.device("cpu"))


def test_starts_as_a_grey_ball() -> None:
    scene = made()
    mesh = scene.to_mesh()
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces)
    assert solid.is_watertight and solid.volume == pytest.approx(4 / 3 * 3.1416 * 0.5**3, rel=0.05)
    assert abs(mesh.colors - 0.5).max() < 0.1
    output = scene.render(CAMERAS)
    assert output.rgb.shape == (4, 32, 32, 3)
    centre = output.alpha[:, 15:17, 15:17]
    assert (centre > 0.99).all() and (output.alpha[:, 0] < 0.01).all()
    assert torch.allclose(output.depth[:, 16, 16, 0], torch.tensor(3.2 - 0.5), atol=0.03)


@pytest.mark.parametrize("seed", range(3))
def test_any_parameters_give_a_closed_mesh(seed: int) -> None:
    """Noise in every grid and offset: closed all the same, even where it reaches the walls."""
    scene = made()
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for grid in scene.grids:
            grid.add_(0.3 * torch.randn(grid.shape, generator=g))
        scene.offset.copy_(3.0 * torch.randn(scene.offset.shape, generator=g))
    vertices, faces, _ = scene.surface()
    counts = mesh_edges(faces).face_counts
    assert (counts == 2).all() and len(faces) > 100
    assert vertices.abs().max() < 1.05 + 0.45 * scene.cell + 1e-6


def test_every_parameter_is_reached() -> None:
    scene = made()
    output = scene.render(CAMERAS)
    terms = scene.regularisation(output, 0.5)
    assert set(terms) == {"normals", "laplacian", "eikonal"}
    (output.rgb.sum() + output.alpha.square().sum() + sum(terms.values())).backward()
    for name, parameter in scene.parameters().items():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0.0, name
    assert set(scene.learning_rates(0.5)) == set(scene.parameters())


def test_moves_to_true_views() -> None:
    """An off-centre smaller ball of another colour is found from its pictures."""
    target = made()
    with torch.no_grad():
        corner = grid_vertices(16, 1.05)
        away = (corner - torch.tensor([0.15, 0.1, 0.0])).norm(dim=-1) - 0.4
        target.grids[0].copy_(away.reshape(17, 17, 17))
        target.texture.head[-1].bias.copy_(torch.tensor([2.0, -2.0, 0.0]))  # pyright: ignore
        true = target.render(CAMERAS)
    scene = made(replace(SMALL, lr_sdf=Ramp(0.02, 0.004)))
    losses = fit_to_views(
        scene, CAMERAS, true.rgb, true.alpha, 40, torch.Generator().manual_seed(0), views=2
    )
    assert sum(losses[-5:]) < 0.25 * sum(losses[:5])
    found = scene.render(CAMERAS)
    overlap = (
        torch.minimum(found.alpha, true.alpha).sum() / torch.maximum(found.alpha, true.alpha).sum()
    )
    assert overlap > 0.9


def test_state_goes_on_bit_for_bit() -> None:
    scene = made()
    with torch.no_grad():
        scene.offset.add_(0.3)
    other = made(seed=1)
    other.load_state(scene.state())
    with torch.no_grad():
        a, b = scene.render(CAMERAS), other.render(CAMERAS)
    assert torch.equal(a.rgb, b.rgb) and torch.equal(a.alpha, b.alpha)
    with pytest.raises(CheckpointError, match="another kind of scene"):
        other.load_state({"sdf_0": scene.grids[0].detach()})
    wrong = scene.state() | {"sdf_0": torch.zeros(3, 3, 3)}
    with pytest.raises(CheckpointError, match="sdf_0 has shape"):
        other.load_state(wrong)


def test_an_empty_grid_is_an_empty_picture() -> None:
    scene = made()
    with torch.no_grad():
        scene.grids[0].fill_(1.0)
    output = scene.render(CAMERAS)
    assert output.rgb.abs().sum() == 0.0 and output.alpha.sum() == 0.0
    assert scene.regularisation(output, 0.5) == {}
    output.alpha.sum().backward()
    with pytest.raises(AssetError, match="no surface"):
        scene.to_mesh()


def test_broken_numbers_are_named() -> None:
    scene = made()
    with torch.no_grad():
        scene.grids[1][0, 0, 0] = float("nan")
    with pytest.raises(NumericsError, match="sdf_1"):
        scene.render(CAMERAS)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"resolution is 1\b"):
        TetsConfig(resolution=1)
    odd = made(TetsConfig(resolution=9, coarser=6, field_resolution=16))
    assert [len(grid) for grid in odd.grids] == [10, 5, 3, 2, 2, 2, 2]
    assert len(odd.surface()[1]) > 0


# Regularisers, by closed form.


def plane_and_sphere() -> tuple[
    tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]
]:
    grid = grid_vertices(12).double()
    shape = (13, 13, 13)
    flat = marching_tets((grid[:, 0] * 0.6 + grid[:, 1] * 0.8 - 0.05).reshape(shape), grid)
    ball = marching_tets((grid.norm(dim=-1) - 0.6).reshape(shape), grid)
    return flat, ball


def test_flat_surfaces_cost_nothing() -> None:
    (flat, flat_faces), (ball, ball_faces) = plane_and_sphere()
    assert normal_consistency(flat, mesh_edges(flat_faces)) < 1e-6
    assert normal_consistency(ball, mesh_edges(ball_faces)) > 1e-3


def test_normal_consistency_of_a_tetrahedron() -> None:
    """Neighbouring faces of a regular tetrahedron have normals whose cosine is -1/3."""
    vertices = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).double()
    faces = torch.tensor([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    assert normal_consistency(vertices, mesh_edges(faces)).item() == pytest.approx(4 / 3)


def test_laplacian_of_a_tetrahedron() -> None:
    """A corner is 4/3 of its distance to the centre away from the mean of the other three."""
    vertices = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).double()
    faces = torch.tensor([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    assert laplacian(vertices, mesh_edges(faces)).item() == pytest.approx(16 / 9 * 3)


def test_eikonal() -> None:
    grid = grid_vertices(16).double()
    distance = (grid @ torch.tensor([0.6, 0.0, 0.8]).double()).reshape(17, 17, 17)
    assert eikonal(distance, 2.0 / 16) < 1e-12
    assert eikonal(1.5 * distance, 2.0 / 16).item() == pytest.approx(0.25)


def test_regulariser_gradients() -> None:
    _, (ball, faces) = plane_and_sphere()
    edges = mesh_edges(faces)
    g = torch.Generator().manual_seed(0)
    vertices = (ball + 0.01 * torch.randn(ball.shape, generator=g).double()).requires_grad_()
    for term in (normal_consistency, laplacian):
        direction = torch.randn(ball.shape, generator=g).double()
        (grad,) = torch.autograd.grad(term(vertices, edges), vertices)
        step = 1e-6
        up, down = (term(vertices.detach() + s * step * direction, edges) for s in (1, -1))
        assert (grad * direction).sum().item() == pytest.approx(
            ((up - down) / (2 * step)).item(), rel=1e-4
        )
