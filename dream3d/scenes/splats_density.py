"""Density control: where splats are added, moved and removed while they are optimised.

Two strategies. "adaptive" clones, splits and prunes by screen gradients (Kerbl et al. 2023). "relocate" treats the
splats as samples: dead ones move onto living ones, the number grows to a fixed budget, and noise explores (3DGS-MCMC,
Kheradmand et al. 2024). Both keep Adam's moments with the splats they belong to.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from renderers.splats_torch import rotation_matrices

DEAD_OPACITY = 0.005
"""Below this a splat hardly passes the renderer's alpha cut-off (1/255) and gets almost no gradient."""
FEWEST = 16
"""Pruning never leaves fewer splats than this."""

Raw = dict[str, Tensor]
"""Raw splat parameters by name; the first dimension of each counts splats."""


@dataclass(frozen=True)
class Edit:
    """A new set of splats.

    Attributes:
        values: raw parameters of the M new splats.
        moments_from: for each, the old splat whose optimiser moments it keeps, or -1 to start fresh.
    """

    values: Raw
    moments_from: Int[Tensor, " M"]


def apply_edit(
    optimizer: torch.optim.Optimizer, parameters: dict[str, torch.nn.Parameter], edit: Edit
) -> dict[str, torch.nn.Parameter]:
    """Put the new splats in place of the old ones, in the optimiser too; returns the new parameters.

    Moments move with their splats. The step count stays: it is the optimiser's, not a splat's.
    """
    kept = edit.moments_from >= 0
    source = edit.moments_from.clamp_min(0)
    groups = {group["name"]: group for group in optimizer.param_groups}
    new: dict[str, torch.nn.Parameter] = {}
    for name, old in parameters.items():
        # A fused optimiser walks parameters and moments side by side in memory: both lie in order.
        value = edit.values[name].detach().clone(memory_format=torch.contiguous_format)
        new[name] = torch.nn.Parameter(value)
        if name not in groups:
            continue
        groups[name]["params"] = [new[name]]
        state = optimizer.state.pop(old, {})
        if not state:
            continue
        for key, moment in state.items():
            if torch.is_tensor(moment) and moment.shape == old.shape:
                mask = kept.reshape(-1, *([1] * (moment.ndim - 1)))
                state[key] = torch.where(mask, moment[source], 0.0)
        optimizer.state[new[name]] = state
    return new


def _logit(opacity: Tensor) -> Tensor:
    return torch.logit(opacity.clamp(DEAD_OPACITY, 1.0 - 1e-4))


def _pick(weights: Float[Tensor, " N"], count: int, generator: torch.Generator) -> Tensor:
    """`count` indices drawn with replacement, proportionally to `weights`; drawn on the CPU so that devices agree."""
    weights = weights.detach().cpu().double().clamp_min(0.0)
    total = torch.cumsum(weights, dim=0)
    draw = torch.rand(count, generator=generator, dtype=torch.float64) * total[-1]
    return torch.searchsorted(total, draw, right=True).clamp_max(len(weights) - 1)


def shared_splat(
    opacity: Float[Tensor, " N"], copies: Int[Tensor, " N"]
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Opacity and relative scale of each of `copies` coincident splats that together look like one of `opacity`.

    Opacity 1 - (1 - o)^(1/n) leaves the transmittance at the centre as it was; the scale conserves the integral of
    the composited profile (eq. 9 of Kheradmand et al. 2024). `copies` >= 1, at most 51 count.
    """
    n = copies.clamp(1, 51)
    new = 1.0 - (1.0 - opacity.double()).pow(1.0 / n)
    # sum over i <= n, k < i of C(i-1, k) (-1)^k o^(k+1) / sqrt(k+1); the sum over i of C(i-1, k) is C(n, k+1).
    integral = torch.zeros_like(new)
    for k in range(int(n.max())):
        binomial = torch.tensor([float(math.comb(int(m), k + 1)) for m in n.tolist()])
        integral += binomial.to(new) * (-1) ** k * new.pow(k + 1) / math.sqrt(k + 1)
    scale = torch.where(n > 1, opacity.double() / integral.clamp_min(1e-12), 1.0)
    # Many copies of a nearly opaque splat: the alternating sum loses its digits, the limits stay sensible.
    return new.to(opacity), scale.clamp(0.1, 1.0).to(opacity)


def relocate(raw: Raw, budget: int, growth: float, generator: torch.Generator) -> Edit | None:
    """Move dead splats onto living ones chosen by opacity, and add up to `growth` more within `budget`.

    Returns None when there is nothing to do. A splat and all that joined it share its opacity and start with fresh
    moments.
    """
    opacity = raw["opacities"].sigmoid()
    count = len(opacity)
    dead = torch.nonzero(opacity <= DEAD_OPACITY).squeeze(1)
    if len(dead) == count:
        return None
    added = max(0, min(int(count * growth), budget - count))
    if len(dead) + added == 0:
        return None
    alive = torch.where(opacity > DEAD_OPACITY, opacity, 0.0)
    chosen = _pick(alive, len(dead) + added, generator).to(opacity.device)
    index = torch.arange(count + added, device=opacity.device)
    index[dead] = chosen[: len(dead)]
    index[count:] = chosen[len(dead) :]
    copies = torch.bincount(index, minlength=count)
    shared = copies > 1
    new_opacity, shrink = shared_splat(opacity, copies)
    values = {name: value.clone() for name, value in raw.items()}
    values["opacities"] = torch.where(shared, _logit(new_opacity), raw["opacities"])
    values["log_scales"] = raw["log_scales"] + torch.where(shared, shrink.log(), 0.0)[:, None]
    fresh = shared[index]
    moments = torch.where(fresh, -1, index)
    return Edit({name: value[index] for name, value in values.items()}, moments)


def exploration_noise(raw: Raw, amount: float, generator: torch.Generator) -> Float[Tensor, "N 3"]:
    """Displacements shaped like each splat, only for the nearly transparent ones (eq. 8 of Kheradmand et al. 2024)."""
    free = torch.sigmoid(-100.0 * (raw["opacities"].sigmoid() - DEAD_OPACITY))
    noise = torch.randn(raw["means"].shape, generator=generator).to(raw["means"])
    axes = rotation_matrices(raw["quaternions"])
    local = (axes.transpose(1, 2) @ noise[:, :, None]) * (2 * raw["log_scales"]).exp()[:, :, None]
    return amount * free[:, None] * (axes @ local).squeeze(-1)


@dataclass(frozen=True)
class AdaptiveRules:
    """Thresholds of `densify`.

    Attributes:
        gradient: mean screen gradient (loss per half-image shift) above which a splat is cloned or split.
        large: a splat wider than this (world units) is split into two, a smaller one cloned.
        prune_opacity: splats below it are removed.
        prune_scale: splats wider than this are removed.
        budget: no more splats than this.
    """

    gradient: float
    large: float
    prune_opacity: float
    prune_scale: float
    budget: int


def densify(
    raw: Raw, gradient: Float[Tensor, " N"], rules: AdaptiveRules, generator: torch.Generator
) -> Edit:
    """Clone small and split large splats whose screen position still wants to move; prune faint and huge ones."""
    count = len(gradient)
    wanted = gradient > rules.gradient
    room = max(0, rules.budget - count)
    if int(wanted.sum()) > room:
        # Only the most wanted: the sort is stable, so ties are settled by position.
        order = torch.argsort(gradient, descending=True, stable=True)[:room]
        wanted = torch.zeros_like(wanted).index_fill(0, order, True) & wanted
    widest = raw["log_scales"].exp().amax(dim=1)
    split = torch.nonzero(wanted & (widest > rules.large)).squeeze(1)
    clone = torch.nonzero(wanted & (widest <= rules.large)).squeeze(1)
    whole = torch.ones(count, dtype=torch.bool, device=gradient.device)
    whole[split] = False
    stay = torch.nonzero(whole).squeeze(1)

    halves = split.repeat(2)
    index = torch.cat([stay, clone, halves])
    values = {name: value[index] for name, value in raw.items()}
    first = len(stay) + len(clone)
    noise = torch.randn(len(halves), 3, generator=generator).to(raw["means"])
    scales = raw["log_scales"][halves].exp()
    axes = rotation_matrices(raw["quaternions"][halves])
    values["means"][first:] += (axes @ (scales * noise)[:, :, None]).squeeze(-1)
    values["log_scales"][first:] -= math.log(1.6)
    moments = torch.cat([stay, torch.full_like(torch.cat([clone, halves]), -1)])
    return prune(Edit(values, moments), rules.prune_opacity, rules.prune_scale)


def prune(edit: Edit, opacity: float, scale: float) -> Edit:
    """Drop splats fainter than `opacity` or wider than `scale`, but leave the most opaque few in any case."""
    alpha = edit.values["opacities"].sigmoid()
    keep = (alpha >= opacity) & (edit.values["log_scales"].exp().amax(dim=1) <= scale)
    if int(keep.sum()) < FEWEST:
        best = torch.argsort(alpha, descending=True, stable=True)[:FEWEST]
        keep = keep.index_fill(0, best, True)
    return Edit({name: value[keep] for name, value in edit.values.items()}, edit.moments_from[keep])
