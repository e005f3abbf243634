"""Cameras: poses, intrinsics and rays, in one convention.

World: right-handed, +Y up, an object's front faces +Z, the object lies inside [-1, 1]^3 (glTF's own frame).
Camera: OpenCV axes (+X right, +Y down, +Z forward); `c2w` maps camera to world. Pixel centres lie at +0.5.
Orbit: azimuth 0 looks at the front (camera on +Z), positive toward +X; elevation positive above the horizon.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.transfer import sent


@dataclass(frozen=True)
class CameraBatch:
    """B pinhole cameras that share one image size.

    Attributes:
        c2w: camera-to-world, rotation columns are the OpenCV axes in world coordinates.
        K: intrinsics in pixels.
        height, width: image size in pixels.
        azimuth_deg, elevation_deg, distance: the orbit the poses were made from, kept because priors and prompts
            speak of views in these terms. NaN where a pose was given directly.
    """

    c2w: Float[Tensor, "B 4 4"]
    K: Float[Tensor, "B 3 3"]
    height: int
    width: int
    azimuth_deg: Float[Tensor, " B"]
    elevation_deg: Float[Tensor, " B"]
    distance: Float[Tensor, " B"]

    def __len__(self) -> int:
        return self.c2w.shape[0]

    def __getitem__(self, index: slice | Tensor | list[int]) -> "CameraBatch":
        """A sub-batch; `index` is a slice, a list or a tensor of positions."""
        return CameraBatch(
            self.c2w[index],
            self.K[index],
            self.height,
            self.width,
            self.azimuth_deg[index],
            self.elevation_deg[index],
            self.distance[index],
        )

    @staticmethod
    def concatenate(batches: "list[CameraBatch]") -> "CameraBatch":
        """One batch after the other; all have the first one's image size.

        Raises:
            ValueError: sizes differ.
        """
        first = batches[0]
        if any((b.height, b.width) != (first.height, first.width) for b in batches):
            raise ValueError("cameras of different image sizes cannot be one batch")
        return CameraBatch(
            torch.cat([b.c2w for b in batches]),
            torch.cat([b.K for b in batches]),
            first.height,
            first.width,
            torch.cat([b.azimuth_deg for b in batches]),
            torch.cat([b.elevation_deg for b in batches]),
            torch.cat([b.distance for b in batches]),
        )

    @property
    def w2c(self) -> Float[Tensor, "B 4 4"]:
        """World-to-camera; the rigid inverse, exact for orthonormal rotations."""
        rotation = self.c2w[:, :3, :3].transpose(1, 2)
        w2c = torch.eye(4, dtype=self.c2w.dtype, device=self.c2w.device).repeat(len(self), 1, 1)
        w2c[:, :3, :3] = rotation
        w2c[:, :3, 3] = -(rotation @ self.c2w[:, :3, 3:]).squeeze(-1)
        return w2c

    @property
    def position(self) -> Float[Tensor, "B 3"]:
        """Camera centres in the world."""
        return self.c2w[:, :3, 3]

    @property
    def fovy_deg(self) -> Float[Tensor, " B"]:
        """Vertical field of view."""
        return torch.rad2deg(2.0 * torch.atan(0.5 * self.height / self.K[:, 1, 1]))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "CameraBatch":
        """The same cameras on another device (and dtype)."""
        return CameraBatch(
            sent(self.c2w, device, dtype),
            sent(self.K, device, dtype),
            self.height,
            self.width,
            sent(self.azimuth_deg, device, dtype),
            sent(self.elevation_deg, device, dtype),
            sent(self.distance, device, dtype),
        )

    def resized(self, height: int, width: int) -> "CameraBatch":
        """The same views at another resolution."""
        K = self.K.clone()
        K[:, 0] *= width / self.width
        K[:, 1] *= height / self.height
        return CameraBatch(
            self.c2w, K, height, width, self.azimuth_deg, self.elevation_deg, self.distance
        )

    def rays(self) -> tuple[Float[Tensor, "B H W 3"], Float[Tensor, "B H W 3"]]:
        """Origins and unit directions, in the world, through every pixel centre."""
        like = {"dtype": self.c2w.dtype, "device": self.c2w.device}
        v, u = torch.meshgrid(
            torch.arange(self.height, **like) + 0.5,
            torch.arange(self.width, **like) + 0.5,
            indexing="ij",
        )
        pixels = torch.stack([u, v, torch.ones_like(u)], dim=-1)  # [H, W, 3]
        camera_directions = torch.einsum("bij,hwj->bhwi", torch.linalg.inv(self.K), pixels)
        directions = torch.einsum("bij,bhwj->bhwi", self.c2w[:, :3, :3], camera_directions)
        directions = torch.nn.functional.normalize(directions, dim=-1)
        return self.position[:, None, None, :].expand_as(directions), directions


def orbit_cameras(
    azimuth_deg: Float[Tensor, " B"] | list[float],
    elevation_deg: Float[Tensor, " B"] | list[float] | float = 0.0,
    distance: Float[Tensor, " B"] | list[float] | float = 3.2,
    fovy_deg: Float[Tensor, " B"] | list[float] | float = 40.0,
    size: int | tuple[int, int] = 64,
) -> CameraBatch:
    """Cameras on a sphere around the origin, looking at it, upright.

    Args:
        azimuth_deg: one angle per camera; 0 is the front, positive toward +X.
        elevation_deg: in [-90, 90], positive above the horizon; scalar or one per camera.
        distance: from the origin, > 0.
        fovy_deg: vertical field of view, in (0, 180).
        size: pixels, one number for square images or (height, width).
    """
    azimuth = torch.as_tensor(azimuth_deg, dtype=torch.float32).reshape(-1)
    elevation, radius, fovy = (
        torch.as_tensor(value, dtype=torch.float32, device=azimuth.device).expand(azimuth.shape)
        for value in (elevation_deg, distance, fovy_deg)
    )
    height, width = (size, size) if isinstance(size, int) else size
    az, el = torch.deg2rad(azimuth), torch.deg2rad(elevation)
    ahead, aside, level = az.cos(), az.sin(), el.cos()
    zero, one, cx, cy = (torch.full_like(az, x) for x in (0.0, 1.0, 0.5 * width, 0.5 * height))
    outward = torch.stack([aside * level, el.sin(), ahead * level], dim=-1)
    # `right` follows from the azimuth alone, so that a camera straight overhead is still well defined.
    right = torch.stack([ahead, zero, -aside], dim=-1)
    forward = -outward
    axes = [right, torch.linalg.cross(forward, right), forward, outward * radius[:, None]]
    last = torch.stack([zero, zero, zero, one], dim=-1)[:, None]
    c2w = torch.cat([torch.stack(axes, dim=-1), last], dim=1)
    focal = 0.5 * height / torch.tan(0.5 * torch.deg2rad(fovy))
    entries = [focal, zero, cx, zero, focal, cy, zero, zero, one]
    K = torch.stack(entries, dim=-1).reshape(-1, 3, 3)
    return CameraBatch(c2w, K, height, width, azimuth, elevation, radius)


def spherical(
    cameras: CameraBatch,
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Azimuth and polar angle in radians, and distance, read from the poses of upright cameras that look at the origin.

    The polar angle is from straight above, where the azimuth is defined as well.
    """
    right, forward = cameras.c2w[:, :3, 0], cameras.c2w[:, :3, 2]
    azimuth = torch.atan2(-right[:, 2], right[:, 0])
    polar = torch.acos((-forward[:, 1]).clamp(-1.0, 1.0))
    return azimuth, polar, cameras.position.norm(dim=-1)
