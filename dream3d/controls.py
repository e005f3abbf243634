"""Pictures that tell a prior with a ControlNet what is where in each view, made from the render itself."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.rendering import RenderOutput, normals_of_depth

Control = Literal["", "depth", "normal"]
"""What a picture shows; "" for none."""


def depth_picture(
    depth: Float[Tensor, "B H W 1"], alpha: Float[Tensor, "B H W 1"]
) -> Float[Tensor, "B H W 3"]:
    """Inverse depth as depth ControlNets were trained: white is near, the background black.

    Monocular estimators give inverse depth up to scale and shift, scaled to each picture's range. The background counts
    as infinitely far here, which fixes the shift: the value is the nearest depth of the view over the depth.

    Args:
        depth: z-depth; where alpha is 0 it does not matter.
        alpha: coverage in [0, 1]; soft edges fade into the background.
    """
    covered = torch.where(alpha > 0.5, depth, torch.inf)
    nearest = covered.amin(dim=(1, 2, 3), keepdim=True)
    # A view that shows nothing has no nearest depth: inf / inf, read as background.
    near = (nearest / torch.maximum(depth, nearest)).nan_to_num(0.0)
    return (near * alpha).expand(-1, -1, -1, 3)


def normal_picture(
    normal: Float[Tensor, "B H W 3"], alpha: Float[Tensor, "B H W 1"], cameras: CameraBatch
) -> Float[Tensor, "B H W 3"]:
    """Normals as ControlNet 1.1's `normalbae` was trained: red is left, green is up, blue faces the camera.

    Args:
        normal: in world space, unit where the view shows something.
        alpha: coverage in [0, 1]; the background is a wall that faces the camera.
        cameras: of the views, on the same device.
    """
    rotation = cameras.c2w[:, None, :3, :3].to(normal)
    seen = (normal[..., None, :] @ rotation).squeeze(-2)  # world to camera: R^T n, as a row
    facing = torch.tensor([0.0, 0.0, -1.0], device=normal.device, dtype=normal.dtype)
    seen = torch.nn.functional.normalize(alpha * seen + (1.0 - alpha) * facing, dim=-1)
    return (
        0.5 - 0.5 * seen
    )  # OpenCV's axes are right, down, away: the colours name the opposite ones


def control_picture(
    control: Control, output: RenderOutput, cameras: CameraBatch
) -> Float[Tensor, "B H W 3"] | None:
    """The picture `control` names of each rendered view, detached; None for none.

    Normals of a scene that renders none are those of its depth.
    """
    if not control:
        return None
    alpha = output.alpha.detach()
    if control == "depth":
        return depth_picture(output.depth.detach(), alpha)
    cameras = cameras.to(alpha.device)
    normal = normals_of_depth(output, cameras) if output.normal is None else output.normal
    return normal_picture(normal.detach(), alpha, cameras)
