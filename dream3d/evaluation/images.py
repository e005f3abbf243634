"""Numbers for pictures: difference, colourfulness, distance of two sets."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def psnr(a: Float[Tensor, "*S"], b: Float[Tensor, "*S"]) -> float:
    """Peak signal-to-noise ratio of images in [0, 1], in dB: -10 log10(mean squared error).

    Capped at 100 dB, so that equal images give a number.
    """
    error = (a.double() - b.double()).square().mean().item()
    return 100.0 if error <= 1e-10 else -10.0 * math.log10(error)


def saturation(rgb: Float[Tensor, "B H W 3"], alpha: Float[Tensor, "B H W 1"]) -> float:
    """Mean of (largest - smallest channel) over the object's pixels, in [0, 1].

    Args:
        rgb: premultiplied colour.
        alpha: coverage; pixels more than half covered are the object.
    """
    opaque = alpha[..., 0] > 0.5
    if not opaque.any():
        return 0.0
    color = (rgb[opaque] / alpha[opaque]).clamp(0.0, 1.0)
    return (color.amax(-1) - color.amin(-1)).mean().item()


def frechet_distance(a: Float[Tensor, "N D"], b: Float[Tensor, "M D"]) -> float:
    """Squared Frechet distance of two sets of features, taken as Gaussians (Heusel et al. 2017); >= 0.

    |mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)). The trace of the root is the sum of the root eigenvalues
    of the symmetric C_a^(1/2) C_b C_a^(1/2). Biased upward for small sets: compare only sets of equal size.
    """
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = (vectors * values.clamp_min(0.0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp_min(0.0).sqrt().sum()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    return max(0.0, (shift + cov_a.trace() + cov_b.trace() - 2.0 * cross).item())
