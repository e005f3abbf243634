"""Balanced score distillation (PlacidDreamer, Huang et al. 2024): classifier and prior as two objectives.

    c = kappa (eps_y - eps_empty),  d = eps_empty                      mode "fixed"
    c = eps_y - eps_empty,          d = 1.25 (eps_empty - eps)         mode "auto", w = |eps_empty - eps| sigma / 50
    a = clip(<d - c, d> / |d - c|^2, 0, 1);  grad = w ( a c + (1 - a) d )

The shortest vector between c and d (two-objective MGDA), sample by sample: at w = 1 <grad, c> and <grad, d> are at
least |grad|^2, so neither objective is made worse. Orthogonal c and d of equal length give a = 1/2; of two that point
the same way the shorter is taken. Not DreamCraft3D's *bootstrapped* score. Released code: kappa 15, whatever is
asked.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.diffusion import add_noise, per_sample
from dream3d.priors.base import Prior
from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views
from guidance.checks import check_choice, check_guidance, check_number
from guidance.combine import negative_or_empty, predict_each
from guidance.weights import Weight, gradient_metrics, weight_at


def balance(c: Float[Tensor, "B C H W"], d: Float[Tensor, "B C H W"]) -> Float[Tensor, " B"]:
    """The share a in [0, 1] of c in the shortest vector a c + (1 - a) d, per sample."""
    across = (d - c).flatten(1)
    length = across.square().sum(1).clamp(min=torch.finfo(c.dtype).tiny)
    return ((across * d.flatten(1)).sum(1) / length).clamp(0.0, 1.0)


@GUIDANCE.register("balanced-score")
@dataclass(frozen=True)
class BalancedScore(Guidance):
    """The shortest vector between the prompt's direction and the prior's.

    Attributes:
        mode: "fixed" or "auto", see above.
        kappa: factor on the classifier direction in mode "fixed"; unused in "auto".
        weight: w(t) of mode "fixed", see `guidance.weights.Weight`; "auto" has the one above.
    """

    paper: ClassVar[str] = "Huang et al. 2024 (PlacidDreamer), arXiv 2407.13976"
    formula: ClassVar[str] = "w (a c + (1 - a) d), the shortest vector between the two"
    anchored: ClassVar[bool] = False

    mode: Literal["fixed", "auto"] = "fixed"
    kappa: float = 15.0
    weight: Weight = "sqrt_alpha_bar"

    def __post_init__(self) -> None:
        check_guidance(self.weight)
        check_number("kappa", self.kappa)
        check_choice("mode", self.mode, ("fixed", "auto"))

    @torch.no_grad()
    def __call__(self, prior: Prior, views: Views) -> GuidanceOutput:
        z_t = add_noise(prior.schedule, views.z, views.noise, views.t)
        pair = (views.condition, negative_or_empty(views))
        text, empty = predict_each(prior, z_t, views.t, *pair)
        if self.mode == "fixed":
            weight = weight_at(self.weight, prior.schedule, views.t, views.z)
            c, d = self.kappa * (text - empty), empty
        else:
            c, d = text - empty, 1.25 * (empty - views.noise)
            length = per_sample((empty - views.noise).flatten(1).norm(dim=1), z_t)
            weight = length * per_sample(prior.schedule.sigma(views.t), z_t) / 50.0
        share = balance(c, d)
        grad = weight * torch.lerp(d, c, per_sample(share, z_t))
        metrics = {"share": share.mean(), **gradient_metrics(grad, views.t)}
        return GuidanceOutput(grad, metrics)
