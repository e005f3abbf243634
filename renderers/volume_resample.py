"""Importance sampling: put samples where a first, coarse look found something (Mildenhall et al. 2020, 5.2)."""

import torch
from jaxtyping import Float
from torch import Tensor

from renderers.volume_data import RaySamples

FLOOR = 0.01
"""Share of a ray's samples that is spread evenly over what is left of it, so that nothing stays unseen forever."""


def absorption(density: Float[Tensor, " N"], samples: RaySamples) -> Float[Tensor, " N"]:
    """The compositing weight of every sample: transmittance before it times what it absorbs."""
    depth = (density * samples.length).double()
    before = depth.cumsum(0) - depth
    first = before[samples.start[:-1].clamp_max(max(len(depth) - 1, 0))] if len(depth) else before
    ahead = torch.exp(-(before - first[samples.ray]))
    return (ahead * -torch.expm1(-depth)).to(density)


def resample(
    samples: RaySamples,
    weight: Float[Tensor, " N"],
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    count: int,
    jitter: Float[Tensor, " R"],
) -> RaySamples:
    """`count` new samples on every ray that has some, distributed as `weight`. Not differentiable.

    The kept part of a ray (its intervals, laid end to end) is cut into `count` pieces of equal probability, constant
    within each old interval; a piece has one sample, `jitter` of the way along it, and its length. So lengths still sum
    to the whole, and a homogeneous medium keeps its transmittance.

    Args:
        samples: of a first pass.
        weight: >= 0, of each of them.
        origins: of the rays.
        directions: unit length.
        count: new samples a ray, at least 1.
        jitter: in [0, 1), one per ray.
    """
    used = torch.nonzero(samples.start[1:] > samples.start[:-1]).squeeze(1)
    if len(used) == 0:
        return samples
    length, rank = samples.length.double(), torch.zeros_like(samples.start[:-1])
    rank[used] = torch.arange(len(used), device=used.device)
    row = rank[samples.ray]  # which of the used rays a sample is on
    whole = torch.zeros(len(used), dtype=length.dtype, device=length.device)

    def sum_per_ray(values: Tensor) -> Tensor:
        return whole.index_add(0, row, values)[row]

    mass = weight.detach().double().clamp_min(0.0)
    mass = (1.0 - FLOOR) * mass / sum_per_ray(mass).clamp_min(1e-12) + FLOOR * length / sum_per_ray(
        length
    )
    mass = mass / sum_per_ray(mass)
    # One running sum over all rays, each of which adds 1: a position on ray r is r plus its share.
    end = mass.cumsum(0)
    begin = end - mass
    share = torch.arange(count + 1, device=length.device).double() / count
    place = torch.arange(len(used), device=length.device)[:, None] + share  # [r, count + 1]
    last = samples.start[used + 1] - 1
    index = torch.searchsorted(end, place.reshape(-1).contiguous(), right=True).reshape(place.shape)
    index = index.clamp(samples.start[used][:, None], last[:, None])
    inside = ((place - begin[index]) / mass[index].clamp_min(1e-300)).clamp(0.0, 1.0)
    # Arc length over the kept intervals: gaps between them count nothing.
    before = length.cumsum(0) - length
    edge = before[index] + inside * length[index]
    cut = (edge[:, 1:] - edge[:, :-1]).clamp_min(0.0)
    middle = edge[:, :-1] + jitter[used].double()[:, None] * cut
    at = torch.searchsorted(before + length, middle.reshape(-1).contiguous(), right=True)
    at = at.reshape(middle.shape).clamp(samples.start[used][:, None], last[:, None])
    # An old sample lies somewhere in its interval; where that begins follows from the jitter it was made with.
    offset = jitter[samples.ray].double() * length
    t = (samples.t.double() - offset)[at] + (middle - before[at])
    ray = used.repeat_interleave(count)
    t, cut = t.reshape(-1).to(samples.t), cut.reshape(-1).to(samples.t)
    counts = torch.zeros_like(samples.start)
    counts[used + 1] = count
    points = origins[ray] + t[:, None] * directions[ray]
    return RaySamples(points, t, cut, ray, counts.cumsum(0))
