import math

import pytest
import torch

from dream3d.cameras import CameraBatch, orbit_cameras


def project(cameras: CameraBatch, point: tuple[float, float, float]) -> torch.Tensor:
    """Pixel coordinates and depth, [B, 3]."""
    homogeneous = torch.tensor([*point, 1.0])
    in_camera = (cameras.w2c @ homogeneous)[:, :3]
    pixels = torch.einsum("bij,bj->bi", cameras.K, in_camera)
    return torch.cat([pixels[:, :2] / pixels[:, 2:], in_camera[:, 2:]], dim=1)


ANGLES = [0.0, 30.0, 90.0, 145.0, 180.0, 270.0]


@pytest.mark.parametrize("elevation", [-90.0, -10.0, 0.0, 60.0, 90.0])
def test_poses_are_rigid_and_inverse(elevation: float) -> None:
    cameras = orbit_cameras(ANGLES, elevation)
    rotation = cameras.c2w[:, :3, :3].double()
    eye = torch.eye(3, dtype=torch.float64).expand_as(rotation)
    torch.testing.assert_close(rotation.transpose(1, 2) @ rotation, eye, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        torch.linalg.det(rotation), torch.ones(6).double(), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        cameras.w2c @ cameras.c2w, torch.eye(4).repeat(6, 1, 1), atol=1e-5, rtol=0
    )


def test_origin_projects_to_the_centre_at_the_distance() -> None:
    seen = project(orbit_cameras(ANGLES, 20.0, distance=3.0, size=64), (0.0, 0.0, 0.0))
    torch.testing.assert_close(
        seen, torch.tensor([[32.0, 32.0, 3.0]]).repeat(6, 1), atol=1e-4, rtol=0
    )


def test_up_is_up_and_the_objects_left_is_on_the_right_from_the_front() -> None:
    front, left = orbit_cameras([0.0, 90.0], 0.0, size=64)[[0]], orbit_cameras([90.0], 0.0, size=64)
    assert project(front, (0.0, 0.5, 0.0))[0, 1] < 32
    # The object faces +Z, so its own left is +X; someone facing it sees that on the right-hand side.
    assert project(front, (0.5, 0.0, 0.0))[0, 0] > 32
    # From +X the front (+Z) of the object points to the left of the image.
    assert project(left, (0.0, 0.0, 0.5))[0, 0] < 32


def test_rays_pass_through_the_points_that_project_to_their_pixels() -> None:
    cameras = orbit_cameras(ANGLES, 25.0, size=(48, 64))
    origins, directions = cameras.rays()
    point = origins[2, 10, 50] + 2.7 * directions[2, 10, 50]
    seen = project(cameras, tuple(point.tolist()))[2]
    torch.testing.assert_close(seen[:2], torch.tensor([50.5, 10.5]), atol=1e-3, rtol=0)


def test_field_of_view_and_resizing() -> None:
    cameras = orbit_cameras([0.0], fovy_deg=40.0, size=64)
    assert math.isclose(cameras.fovy_deg.item(), 40.0, abs_tol=1e-4)
    bigger = cameras.resized(128, 128)
    assert math.isclose(bigger.fovy_deg.item(), 40.0, abs_tol=1e-4)
    torch.testing.assert_close(
        project(bigger, (0.3, 0.2, 0.1))[:, :2], 2 * project(cameras, (0.3, 0.2, 0.1))[:, :2]
    )
