"""One table over the renderers: tensors on two devices, a backend of another device, nothing to draw, absurd sizes."""

import dataclasses

import pytest
import torch

from dream3d.cameras import orbit_cameras
from dream3d.errors import ConfigError
from renderers.hash_grid import HashGridLayout, encode
from renderers.mesh import MeshData, render_mesh
from renderers.splats import SplatData, render_splats
from renderers.volume import composite

LAYOUT = HashGridLayout((4,), 8, 2)
VIEW = orbit_cameras([0.0], size=8)


def splats(device: str = "cpu", count: int = 3) -> SplatData:
    return SplatData(
        torch.zeros(count, 3),
        torch.full((count, 3), -3.0),
        torch.ones(count, 4),
        torch.zeros(count),
        torch.rand(count, 3).to(device),
    )


def mesh(device: str = "cpu") -> MeshData:
    return MeshData(torch.eye(3), torch.tensor([[0, 1, 2]]), torch.rand(3, 3).to(device))


def draw(kind: str, device: str, backend: str = "auto") -> None:
    """Ask a renderer, the second of its tensors on `device`."""
    if kind == "splats":
        render_splats(splats(device), VIEW, backend)
    elif kind == "mesh":
        render_mesh(mesh(device), VIEW, backend=backend)
    elif kind == "composite":
        three = torch.rand(3)
        composite(three, torch.rand(3, 2).to(device), three, torch.tensor([0, 3]), backend)
    else:
        table = torch.rand(LAYOUT.offsets[-1], 2).to(device)
        encode(torch.zeros(5, 3), table, LAYOUT, backend)


@pytest.mark.parametrize("kind", ["splats", "mesh", "composite", "hash grid"])
def test_tensors_on_two_devices_are_named(kind: str) -> None:
    draw(kind, "cpu")
    with pytest.raises(ConfigError, match=r"on meta.*(one dtype and device|must be .* there)") as e:
        draw(kind, "meta")
    assert "cpu" in str(e.value)


@pytest.mark.parametrize(
    "kind,backend",
    [
        ("splats", "gsplat"),
        ("mesh", "nvdiffrast"),
        ("mesh", "pytorch3d"),
        ("composite", "nerfacc"),
        ("hash grid", "tinycudann"),
    ],
)
def test_a_backend_of_another_device_says_what_to_do(kind: str, backend: str) -> None:
    message = rf"'{backend}' (needs {backend}, which is not installed; install|runs on cuda.*move)"
    with pytest.raises(ConfigError, match=message):
        draw(kind, "cpu", backend)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_no_splats_are_an_empty_picture(backend: str) -> None:
    out = render_splats(splats(count=0), VIEW, backend)
    assert out.rgb.shape == (1, 8, 8, 3)
    assert not out.alpha.any() and not out.rgb.any() and not out.depth.any()


def test_a_mesh_without_faces_and_absurd_pictures_are_refused() -> None:
    bare = dataclasses.replace(mesh(), faces=torch.zeros(0, 3, dtype=torch.int64))
    with pytest.raises(ConfigError, match=r"3 vertices and no faces.*check the file"):
        render_mesh(bare, VIEW)
    huge = dataclasses.replace(VIEW, height=10**6, width=10**6)
    for render in (lambda: render_splats(splats(), huge), lambda: render_mesh(mesh(), huge)):
        with pytest.raises(ConfigError, match=r"1000000 x 1000000.*render at most"):
            render()
