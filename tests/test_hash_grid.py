"""The hash grid: interpolation, gradients, agreement of backends, bad input."""

import pytest
import torch

from dream3d.errors import ConfigError
from renderers.hash_grid import HashGridLayout, encode, geometric_layout

DOUBLE = torch.float64


def inputs(layout, count, dtype=torch.float32, seed=0, spread=2.4):
    """Points, some of them outside the cube, and a table."""
    g = torch.Generator().manual_seed(seed)
    points = spread * torch.rand(count, 3, generator=g) - 0.5 * spread
    table = torch.randn(layout.offsets[-1], layout.features, generator=g)
    return points.to(dtype).requires_grad_(), table.to(dtype).requires_grad_()


def test_layout():
    layout = geometric_layout(4, 4, 32, 9, 2)
    assert layout.resolutions == (4, 8, 16, 32)
    assert layout.offsets == (0, 125, 125 + 512, 125 + 2 * 512, 125 + 3 * 512)
    assert layout.width == 8


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_dense_level_interpolates_linear_functions_exactly(backend):
    layout = HashGridLayout((5,), 10, 2)
    axis = torch.linspace(-1, 1, 6)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")  # x fastest in the table
    table = torch.stack([x + 2 * y - 3 * z, 0.5 - y], dim=-1).reshape(-1, 2)
    points = 2 * torch.rand(100, 3, generator=torch.Generator().manual_seed(0)) - 1
    expected = torch.stack([points @ torch.tensor([1.0, 2.0, -3.0]), 0.5 - points[:, 1]], dim=1)
    assert (encode(points, table, layout, backend) - expected).abs().max() < 1e-5
    corner = encode(torch.tensor([[1.0, 1.0, 1.0], [7.0, 1.0, 2.0]]), table, layout, backend)
    assert corner[:, 0].tolist() == pytest.approx([0.0, 0.0], abs=1e-5)


@pytest.mark.parametrize("resolutions", [(3,), (2, 7)], ids=["dense", "hashed"])
def test_reference_gradients_match_finite_differences(resolutions):
    layout = HashGridLayout(resolutions, 6, 2)
    points, table = inputs(layout, 6, DOUBLE, spread=1.8)
    assert torch.autograd.gradcheck(lambda p, t: encode(p, t, layout, "torch"), (points, table))


@pytest.mark.parametrize(
    ("layout", "count"),
    [
        (geometric_layout(8, 4, 64, 12, 2), 3000),
        (geometric_layout(3, 2, 300, 8, 4), 500),
        (HashGridLayout((16,), 14, 1), 1),
        (HashGridLayout((2048,), 8, 5), 60),
        (geometric_layout(2, 4, 8, 10, 2), 0),
    ],
)
def test_numba_agrees_with_the_reference(layout, count):
    found = []
    for backend, dtype in (("numba", torch.float32), ("torch", DOUBLE)):
        # The float32 values in both, or a point next to a vertex would lie in another cell.
        points, table = (v.detach().to(dtype).requires_grad_() for v in inputs(layout, count))
        out = encode(points, table, layout, backend)
        g = torch.Generator().manual_seed(5)
        cotangent = torch.randn(out.shape, generator=g).to(dtype)
        found.append([out, *torch.autograd.grad(out, (points, table), cotangent)])
    finest = max(layout.resolutions)
    for name, ours, theirs in zip(("out", "points", "table"), *found, strict=True):
        # The position in a cell is a difference of numbers as large as the resolution.
        tolerance = 1e-4 if name != "out" else max(1e-5, 1e-6 * finest)
        error = (ours - theirs).norm() / theirs.norm().clamp_min(1e-9)
        assert error <= tolerance, (name, error)


def test_results_do_not_depend_on_the_number_of_threads():
    layout, before, found = geometric_layout(5, 4, 64, 10, 2), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            points, table = inputs(layout, 5000)
            out = encode(points, table, layout, "numba")
            found.append([out, *torch.autograd.grad(out.square().sum(), (points, table))])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_bad_input_is_refused():
    layout = HashGridLayout((4,), 8, 2)
    points, table = inputs(layout, 5)
    with pytest.raises(ConfigError, match=r"points have shape \[5, 2\]"):
        encode(points[:, :2], table, layout)
    with pytest.raises(ConfigError, match=r"hash table has shape \[7, 2\]"):
        encode(points, table[:7], layout)
    with pytest.raises(ConfigError, match=r"points are torch\.float64"):
        encode(points.double(), table, layout)
    with pytest.raises(ConfigError, match="needs float32"):
        encode(points.double(), table.double(), layout, "numba")
    with pytest.raises(ConfigError, match="each from 1 to 2048"):
        HashGridLayout((4, 100_000))
    with pytest.raises(ConfigError, match="hash grid has tables"):
        HashGridLayout((4,), 40)
    with pytest.raises(ConfigError, match="cannot be made"):
        geometric_layout(4, 64, 8, 15, 2)
