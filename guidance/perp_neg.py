"""Perp-Neg (Armandpour et al. 2023): avoid a negative prompt without cancelling what it shares with the prompt.

    e+ = eps_y - eps_empty;  e_j = eps_j - eps_empty;  perp(e; u) = e - <e, u> / |u|^2 u
    eps = eps_empty + scale (e+ + sum_j w_j perp(e_j; e+)),  w_j <= 0

Inner products run over all entries of one sample, so a batch never mixes its pictures.
"""

from jaxtyping import Float
from torch import Tensor


def perpendicular(
    e: Float[Tensor, "B C H W"], u: Float[Tensor, "B C H W"]
) -> Float[Tensor, "B C H W"]:
    """The part of `e` across `u`, sample by sample; `e` itself where u vanishes."""
    along = (e * u).flatten(1).sum(1) / u.square().flatten(1).sum(1).clamp(min=1e-6)
    return e - along.reshape(-1, 1, 1, 1) * u


def perp_neg(
    empty: Float[Tensor, "B C H W"],
    text: Float[Tensor, "B C H W"],
    negatives: Float[Tensor, "N B C H W"],
    weights: Float[Tensor, "N B"],
    scale: float,
) -> Float[Tensor, "B C H W"]:
    """Predictions under the empty prompt, the prompt and N negative prompts, combined.

    Args:
        empty: prediction under the empty prompt, of any one kind (differences of the kinds differ by a factor per
            sample only, which the rule does not see).
        text: that under the prompt.
        negatives: those under the negative prompts.
        weights: per negative prompt and sample, at most 0.
        scale: classifier-free guidance scale.
    """
    direction = text - empty
    total = direction
    for negative, weight in zip(negatives, weights, strict=True):
        total = total + weight.reshape(-1, 1, 1, 1) * perpendicular(negative - empty, direction)
    return empty + scale * total
