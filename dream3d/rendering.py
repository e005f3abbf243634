"""What every renderer returns."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


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

    def over(self, background: Float[Tensor, "*#B #H #W C"]) -> Float[Tensor, "B H W C"]:
        """The image in front of `background` (any shape that broadcasts to [B, H, W, C])."""
        return self.rgb + (1.0 - self.alpha) * background
