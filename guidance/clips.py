"""Bounds on the gradient between the rule and the render; a stage applies them to whatever guidance it has.

Per entry (D-SDS, Hong et al. 2023), per pixel with its direction kept (Dreamer-XL's pixel gradient clip), and per
object (all its views together).
"""

import torch
from jaxtyping import Float
from torch import Tensor


def clip_entries(grad: Float[Tensor, "B C H W"], bound: float) -> Float[Tensor, "B C H W"]:
    """Every entry clamped to [-bound, bound]; 0 is off."""
    return grad.clamp(-bound, bound) if bound > 0.0 else grad


def clip_pixels(grad: Float[Tensor, "B H W C"], largest: float) -> Float[Tensor, "B H W C"]:
    """Shorten each pixel's gradient so that no channel exceeds `largest`; its direction is kept."""
    strongest = grad.abs().amax(dim=-1, keepdim=True)
    return grad * (largest / strongest.clamp(min=largest))


def _norms(grad: Float[Tensor, "B C H W"], views_per_object: int) -> Float[Tensor, "B 1 1 1"]:
    """Euclidean norm of each object's gradient, repeated for its views."""
    norm = grad.reshape(grad.shape[0] // views_per_object, -1).norm(dim=1)
    return norm.repeat_interleave(views_per_object).reshape(-1, 1, 1, 1)


def clip_norm(
    grad: Float[Tensor, "B C H W"], bound: float, views_per_object: int = 1
) -> Float[Tensor, "B C H W"]:
    """The gradient of each object shortened to a norm of at most `bound`; 0 is off."""
    if bound <= 0.0:
        return grad
    return grad * (bound / _norms(grad, views_per_object).clamp(min=bound))


def unit_norm(
    grad: Float[Tensor, "B C H W"], views_per_object: int = 1
) -> Float[Tensor, "B C H W"]:
    """The gradient of each object (all its views together) scaled to Euclidean norm 1; zero stays zero."""
    return grad / _norms(grad, views_per_object).clamp(min=torch.finfo(grad.dtype).tiny)
