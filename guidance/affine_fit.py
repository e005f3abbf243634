"""The least-squares affine map between pictures, per object and channel: a stand-in for a small trained network."""

import torch
from jaxtyping import Float
from torch import Tensor


def affine_fit(
    source: Float[Tensor, "B C H W"], target: Float[Tensor, "B C H W"], views_per_object: int
) -> Float[Tensor, "B C H W"]:
    """The affine image a source + b nearest to `target`, a and b per object and channel."""
    objects = (-1, views_per_object)
    x, y = source.unflatten(0, objects), target.unflatten(0, objects)
    around = (1, 3, 4)
    x_mean, y_mean = x.mean(around, keepdim=True), y.mean(around, keepdim=True)
    variance = (x - x_mean).square().mean(around, keepdim=True)
    covariance = ((x - x_mean) * (y - y_mean)).mean(around, keepdim=True)
    slope = covariance / variance.clamp(min=torch.finfo(x.dtype).tiny)
    return (y_mean + slope * (x - x_mean)).flatten(0, 1)
