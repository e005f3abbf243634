"""Classifier-free guidance, defined once for every algorithm.

`scale` means diffusers' scale: prediction = empty + scale (prompt - empty). 0 ignores the prompt, 1 is the plain
conditional prediction, more exaggerates. (Some published code calls the same thing scale - 1.)
"""

from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.diffusion import Prediction, per_sample
from dream3d.priors.base import Condition, Prior
from guidance.base import Sides, Views
from guidance.guiders import rescaled
from guidance.perp_neg import perp_neg


def cfg_evaluations(scale: float) -> int:
    """Network evaluations of one `guided` prediction: scales 0 and 1 need only one prompt."""
    return 1 if scale in (0.0, 1.0) else 2


def _std(x: Float[Tensor, "B C H W"], views_per_object: int) -> Float[Tensor, " N"]:
    """Standard deviation over all views of an object and all their entries, of each object."""
    return x.reshape(x.shape[0] // views_per_object, -1).std(dim=1)


@runtime_checkable
class Predictor(Protocol):
    """What can be asked for a prediction: a prior or a companion."""

    def predict(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Prediction:
        """The prediction at z_t, without gradient."""
        ...


def guided(
    prior: Predictor,
    z_t: Float[Tensor, "B C H W"],
    t: Float[Tensor, " B"],
    views: Views,
    scale: float,
    rescale: float = 0.0,
    clamp_x0: float = 0.0,
    perp_neg_weight: float = 0.0,
) -> Prediction:
    """The prior's prediction at z_t, guided toward the prompt and away from the empty (or negative) one.

    All prompts are one batched call; scales 1 and 0 need only one of them. How the two are mixed is `views.guider`;
    with `views.sides` it is Perp-Neg against the other sides' prompts, whose network evaluations come on top.

    Args:
        prior: asked once.
        z_t: noisy latents.
        t: their noise levels.
        views: gives the conditions; a negative prompt takes the empty one's place, but see `kept_from`.
        scale: classifier-free guidance scale.
        rescale: share in [0, 1] by which the guided x0's standard deviation (jointly over one object's views) is
            brought back to the unguided one's, against over-saturation (Lin et al. 2023, MVDream's x0 form).
        clamp_x0: bound on |x0| in latent units; 0 is off.
        perp_neg_weight: below 0 a negative prompt does not replace the empty one; of its direction the part across the
            prompt's is added with this weight (see `guidance.perp_neg`).
    """
    prediction, plain = guided_and_plain(prior, z_t, t, views, scale, perp_neg_weight)
    if rescale == 0.0 and clamp_x0 == 0.0:
        return prediction
    x0 = prediction.x0
    if rescale > 0.0:
        per_object = views.condition.views_per_object
        ratio = _std(plain.x0, per_object) / _std(x0, per_object)
        factor = (rescale * ratio + (1.0 - rescale)).repeat_interleave(per_object)
        x0 = x0 * per_sample(factor, x0)
    if clamp_x0 > 0.0:
        x0 = x0.clamp(-clamp_x0, clamp_x0)
    return Prediction(x0, "x0", z_t, prediction.alpha, prediction.sigma)


def guided_and_plain(
    prior: Predictor,
    z_t: Float[Tensor, "B C H W"],
    t: Float[Tensor, " B"],
    views: Views,
    scale: float,
    perp_neg_weight: float = 0.0,
) -> tuple[Prediction, Prediction]:
    """`guided`, and the prompt's own prediction from the same call (at scale 0, where it is not asked, the other's)."""
    count, sides = len(z_t), kept_from(views, perp_neg_weight)
    away = views.empty if sides is not None else negative_or_empty(views)
    if sides is not None and scale != 0.0:
        return _around(prior, z_t, t, views, sides, scale)
    if scale in (0.0, 1.0):
        plain = prior.predict(z_t, t, away if scale == 0.0 else views.condition)
        return plain, plain
    both = prior.predict(
        torch.cat([z_t, z_t]),
        torch.cat([t, t]),
        Condition.concatenate([away, views.condition]),
    )
    empty, text = both.value[:count], both.value[count:]
    plain = Prediction(text, both.kind, z_t, both.alpha[:count], both.sigma[:count])
    # eps, x0, v and flow are affine in each other, so plain mixing of the native output mixes all of them alike.
    return replace(plain, value=views.guider(empty, text, scale)), plain


def kept_from(views: Views, weight: float) -> Sides | None:
    """What Perp-Neg keeps the views away from, or None where it is off.

    Under Perp-Neg the empty prompt stays empty: a negative prompt is one more direction to keep across of.

    Args:
        views: with the other sides, or none.
        weight: of the negative prompt, at most 0. 0: beside other sides it counts -1, else it replaces the empty one.
    """
    if views.negative is None or (views.sides is None and weight == 0.0):
        return views.sides
    own = torch.full_like(views.t, weight or -1.0)[None]
    if views.sides is None:
        return Sides((views.negative,), own)
    return Sides((*views.sides.away, views.negative), torch.cat([views.sides.weights.to(own), own]))


def _around(
    prior: Predictor,
    z_t: Float[Tensor, "B C H W"],
    t: Float[Tensor, " B"],
    views: Views,
    sides: Sides,
    scale: float,
) -> tuple[Prediction, Prediction]:
    """Perp-Neg: the guided mixture, and the unguided prediction toward each view's own side.

    One batched call; pictures are stacked block by block like the prompts, so that each stays with its own, whatever
    the batch (threestudio's port pairs them wrongly beyond one view).
    """
    count, blocks = len(z_t), 2 + len(sides.away)
    conditions = Condition.concatenate([views.empty, views.condition, *sides.away])
    each = prior.predict(z_t.repeat(blocks, 1, 1, 1), t.repeat(blocks), conditions)
    empty, text, *negatives = each.value.chunk(blocks)
    mixed = perp_neg(empty, text, torch.stack(negatives), sides.weights.to(z_t), scale)
    if views.guider.rescale > 0.0:
        mixed = rescaled(mixed, text, views.guider.rescale)
    plain = Prediction(text, each.kind, z_t, each.alpha[:count], each.sigma[:count])
    return replace(plain, value=mixed), plain


def predict_each(
    prior: Prior, z_t: Float[Tensor, "B C H W"], t: Float[Tensor, " B"], *conditions: Condition
) -> tuple[Float[Tensor, "B C H W"], ...]:
    """The prior's noise prediction at the same points under each of several conditions, in one batched call."""
    count = len(conditions)
    batch = Condition.concatenate(list(conditions))
    eps = prior.predict(z_t.repeat(count, 1, 1, 1), t.repeat(count), batch).eps
    return eps.chunk(count)


def negative_or_empty(views: Views) -> Condition:
    """The negative prompt, or the empty one where none is given."""
    return views.empty if views.negative is None else views.negative
