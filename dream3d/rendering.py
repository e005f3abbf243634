"""What every renderer returns."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch


@dataclass(frozen=True)
class RenderOutput:
    """B rendered images, channels last.

    Attributes:
        rgb: colour premultiplied by alpha (composited over black), sRGB-encoded, in [0, 1] for valid scenes.
        alpha: coverage in [0, 1].
        depth: z-depth (along the camera's forward axis), normalised by alpha; 0 where alpha is 0.
        normal: unit world-space normals, 0 where alpha is 0; None where a renderer has none.
    """

    rgb: Float[Tensor, "B H W C"]
    alpha: Float[Tensor, "B H W 1"]
    depth: Float[Tensor, "B H W 1"]
    normal: Float[Tensor, "B H W 3"] | None = None

    def __getitem__(self, index: slice) -> "RenderOutput":
        """Some of the images."""
        normal = None if self.normal is None else self.normal[index]
        return RenderOutput(self.rgb[index], self.alpha[index], self.depth[index], normal)

    def over(self, background: Float[Tensor, "*#B #H #W C"]) -> Float[Tensor, "B H W C"]:
        """The image in front of `background` (any shape that broadcasts to [B, H, W, C])."""
        return self.rgb + (1.0 - self.alpha) * background


def normals_of_depth(output: RenderOutput, cameras: CameraBatch) -> Float[Tensor, "B H W 3"]:
    """World normals of the surface the depth describes, by central differences, facing the camera; 0 where empty.

    Good inside the object; at outlines, where depth jumps, a pixel's normal lies between those of both surfaces.
    """
    origins, directions = cameras.rays()
    forward = cameras.c2w[:, None, None, :3, 2]
    distance = output.depth / (directions * forward).sum(dim=-1, keepdim=True)
    points = origins + distance * directions
    across = points.roll(-1, dims=2) - points.roll(1, dims=2)
    down = points.roll(-1, dims=1) - points.roll(1, dims=1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(down, across), dim=-1)
    solid = output.alpha > 0.5
    whole = solid & solid.roll(1, 1) & solid.roll(-1, 1) & solid.roll(1, 2) & solid.roll(-1, 2)
    back = -directions
    facing = torch.where((normal * back).sum(-1, keepdim=True) < 0.0, -normal, normal)
    return torch.where(whole, facing, torch.where(solid, back, torch.zeros_like(back)))
