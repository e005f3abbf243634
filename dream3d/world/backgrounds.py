"""Random backgrounds: greys, flat hues and two-colour gradients.

Optimisation hides in whatever the background always is: against greys alone it fills objects with grey fog. Drawn anew
for each view, no solid can imitate these. The same law serves training data and optimisation.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.transfer import sent

GRAY_SHARE = 0.3
HUE_SHARE = 0.3  # the rest are gradients
GRAY_RANGE = (0.05, 0.95)
_UNIFORMS = 11  # numbers that decide one background


def random_backgrounds(
    count: int,
    size: int | tuple[int, int],
    generator: torch.Generator,
    device: torch.device | None = None,
) -> Float[Tensor, "N H W 3"]:
    """Backgrounds on `device` (the generator's without one), each drawn independently.

    Args:
        count: how many.
        size: pixels, one number for square images or (height, width).
        generator: the only source of randomness.
        device: where the pixels are computed.
    """
    uniforms = torch.rand(count, _UNIFORMS, generator=generator, device=generator.device)
    uniforms = uniforms if device is None else sent(uniforms, device)
    return _backgrounds(uniforms, (size, size) if isinstance(size, int) else size)


def random_background_arrays(
    count: int, size: int | tuple[int, int], rng: np.random.Generator
) -> Float[np.ndarray, "N H W 3"]:
    """The same as `random_backgrounds`, for numpy."""
    uniforms = torch.from_numpy(rng.random((count, _UNIFORMS), dtype=np.float32))
    return _backgrounds(uniforms, (size, size) if isinstance(size, int) else size).numpy()


def _backgrounds(u: Float[Tensor, "N 11"], size: tuple[int, int]) -> Float[Tensor, "N H W 3"]:
    kind, angle = u[:, 0], 2.0 * torch.pi * u[:, 1]
    first = torch.where(
        (kind < GRAY_SHARE)[:, None], _gray(u[:, 2]), _color(u[:, 3], u[:, 4], u[:, 5])
    )
    # One end of every third gradient is grey, so that grey meets hue inside a picture as well.
    second = torch.where(
        (u[:, 6] < 1.0 / 3.0)[:, None], _gray(u[:, 7]), _color(u[:, 8], u[:, 9], u[:, 10])
    )
    second = torch.where((kind < GRAY_SHARE + HUE_SHARE)[:, None], first, second)
    rows = torch.linspace(-1.0, 1.0, size[0], device=u.device)
    columns = torch.linspace(-1.0, 1.0, size[1], device=u.device)
    across, down = angle.cos()[:, None, None], angle.sin()[:, None, None]
    # Scaled so that the gradient reaches its end colours exactly in two opposite corners.
    along = (across * columns + down * rows[:, None]) / (across.abs() + down.abs())
    mix = (0.5 + 0.5 * along)[..., None]  # [N, H, W, 1]
    return (first[:, None, None] * (1.0 - mix) + second[:, None, None] * mix).clamp(0.0, 1.0)


def _gray(u: Float[Tensor, " N"]) -> Float[Tensor, "N 3"]:
    low, high = GRAY_RANGE
    return (low + (high - low) * u)[:, None].expand(-1, 3)


def _color(
    hue: Float[Tensor, " N"], saturation: Float[Tensor, " N"], value: Float[Tensor, " N"]
) -> Float[Tensor, "N 3"]:
    """A colour from three uniform numbers: any hue, saturation .15 to 1, value .2 to 1."""
    saturation, value = 0.15 + 0.85 * saturation, 0.2 + 0.8 * value
    offsets = torch.arange(5.0, 0.0, -2.0, device=hue.device)
    k = (offsets + 6.0 * hue[:, None]) % 6.0
    chroma = (saturation * value)[:, None]
    return value[:, None] - chroma * torch.minimum(k, 4.0 - k).clamp(0.0, 1.0)
