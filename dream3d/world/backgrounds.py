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
        device: where the pixels are computed; their few colours where the generator is.
    """
    uniforms = torch.rand(count, _UNIFORMS, generator=generator, device=generator.device)
    colors = _colors(uniforms)
    return _pictures(colors if device is None else sent(colors, device), size)


def random_background_arrays(
    count: int, size: int | tuple[int, int], rng: np.random.Generator
) -> Float[np.ndarray, "N H W 3"]:
    """The same as `random_backgrounds`, for numpy."""
    uniforms = torch.from_numpy(rng.random((count, _UNIFORMS), dtype=np.float32))
    return _pictures(_colors(uniforms), size).numpy()


def _colors(u: Float[Tensor, "N 11"]) -> Float[Tensor, "N 3 3"]:
    """The colour in the middle, and what is added to it toward the right and toward the bottom edge."""
    kind, angle = u[:, :1], 2.0 * torch.pi * u[:, 1:2]
    # Of both ends of a gradient at once, [N, 2]: a grey and a colour, of which one is taken.
    gray, hue, saturation, value = u[:, 1:].unflatten(1, (2, 5))[..., 1:].unbind(-1)
    # One end of every third gradient is grey, so that grey meets hue inside a picture as well.
    gray_share = torch.linspace(GRAY_SHARE, 1.0 / 3.0, 2, device=u.device)
    is_gray = (u[:, ::6] < gray_share)[..., None]
    ends = torch.where(is_gray, _gray(gray), _color(hue, saturation, value))
    first, second = ends.unbind(1)
    second = torch.where(kind < GRAY_SHARE + HUE_SHARE, first, second)
    across, down = angle.cos(), angle.sin()
    # Scaled so that the gradient reaches its end colours exactly in two opposite corners.
    toward = 0.5 * (second - first) / (across.abs() + down.abs())
    return torch.stack([0.5 * (first + second), across * toward, down * toward], dim=1)


def _pictures(
    colors: Float[Tensor, "N 3 3"], size: int | tuple[int, int]
) -> Float[Tensor, "N H W 3"]:
    height, width = (size, size) if isinstance(size, int) else size
    middle, across, down = colors[:, :, None, None].unbind(1)  # [N, 1, 1, 3]
    rows = torch.linspace(-1.0, 1.0, height, device=colors.device)[:, None, None]
    columns = torch.linspace(-1.0, 1.0, width, device=colors.device)[:, None]
    return (middle + across * columns + down * rows).clamp_(0.0, 1.0)


def _gray(u: Float[Tensor, "N 2"]) -> Float[Tensor, "N 2 1"]:
    low, high = GRAY_RANGE
    return (low + (high - low) * u)[..., None]


def _color(
    hue: Float[Tensor, "N 2"], saturation: Float[Tensor, "N 2"], value: Float[Tensor, "N 2"]
) -> Float[Tensor, "N 2 3"]:
    """A colour from three uniform numbers: any hue, saturation .15 to 1, value .2 to 1."""
    saturation, value = 0.15 + 0.85 * saturation, 0.2 + 0.8 * value
    offsets = torch.arange(5.0, 0.0, -2.0, device=hue.device)
    k = torch.add(offsets, hue[..., None], alpha=6.0) % 6.0
    light = torch.minimum(k, 4.0 - k).clamp_(0.0, 1.0)
    return torch.addcmul(value[..., None], (saturation * value)[..., None], light, value=-1.0)
