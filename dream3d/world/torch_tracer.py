"""Ray tracing of many solids at once in torch, on any device.

The same images as `tracer`, from other formulas: rays start near each part's centre so that float32 suffices, rounded
edges and normals come from the nearest point of the part's core, every pixel is supersampled. For GPUs, and as the
CPU tracer's cross-check.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.rendering import RenderOutput
from dream3d.world.render import WORLD_LIGHT, Light
from dream3d.world.solid import BOX, CAPSULE, ELLIPSOID, FRUSTUM, PRISM, TORUS, Solid, part_core

FAR = 1e9
_MARCH_STEPS = 48
_HIT = 1e-4
_GRAZE = 1e-3
_SOFTENED = 2e-3  # normals are those of edges rounded at least this much
_PAIRS_AT_ONCE = 2**24  # part-ray pairs in memory at a time


@dataclass(frozen=True)
class SolidBatch:
    """N solids of up to P parts as tensors on one device; rows past a solid's last part have kind -1.

    Attributes are those of `Solid`; `soft_core` is the core for a rounding of at least 0.002.
    """

    kind: Int[Tensor, "N P"]
    size: Float[Tensor, "N P 3"]
    core: Float[Tensor, "N P 4"]
    soft_core: Float[Tensor, "N P 4"]
    rounding: Float[Tensor, "N P"]
    carve: Bool[Tensor, "N P"]
    rotation: Float[Tensor, "N P 3 3"]
    translation: Float[Tensor, "N P 3"]
    color: Float[Tensor, "N P 3"]

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, index: slice) -> "SolidBatch":
        return SolidBatch(**{name: value[index] for name, value in vars(self).items()})


def pack_batch(solids: Sequence[Solid], device: torch.device | str = "cpu") -> SolidBatch:
    """Pads solids to the same number of parts and moves them to a device."""
    longest = max(len(solid) for solid in solids)

    def padded(arrays: list[np.ndarray], fill: float = 0.0) -> Tensor:
        result = np.full((len(arrays), longest, *arrays[0].shape[1:]), fill, arrays[0].dtype)
        for row, values in zip(result, arrays, strict=True):
            row[: len(values)] = values
        tensor = torch.from_numpy(result).to(device)
        return tensor.float() if tensor.is_floating_point() else tensor

    soft = [
        np.array(
            [
                part_core(int(k), size, max(float(rounding), _SOFTENED))[0]
                for k, size, rounding in zip(solid.kind, solid.size, solid.rounding, strict=True)
            ]
        )
        for solid in solids
    ]
    names = ("size", "core", "rounding", "carve", "rotation", "translation", "color")
    fields = {name: padded([getattr(solid, name) for solid in solids]) for name in names}
    kind = padded([solid.kind for solid in solids], fill=-1)
    return SolidBatch(kind=kind, soft_core=padded(soft), **fields)


@torch.no_grad()
def trace_batch(
    solids: SolidBatch, cameras: CameraBatch, light: Light = WORLD_LIGHT, samples: int = 2
) -> tuple[RenderOutput, Int[Tensor, "B H W"]]:
    """Renders every solid through its own cameras.

    Args:
        solids: N of them; their device is where the work is done and the result lies.
        cameras: B = N * V, those of the first solid first; outside the solids, without skew.
        light: shading.
        samples: every pixel gets samples x samples rays.

    Returns:
        The images, and the part that each pixel's middle ray sees (-1 for none).
    """
    device, views = solids.kind.device, len(cameras) // len(solids)
    fine = cameras.to(device).resized(cameras.height * samples, cameras.width * samples)
    rays_per_solid = views * fine.height * fine.width
    step = max(1, _PAIRS_AT_ONCE // (rays_per_solid * solids.kind.shape[1]))
    pieces = []
    for start in range(0, len(solids), step):
        some = solids[start : start + step]
        looking = fine[start * views : (start + len(some)) * views]
        pieces.append(_pooled(_trace(some, looking, light), looking, samples))
    rgb, alpha, depth, normal, part = (torch.cat(piece) for piece in zip(*pieces, strict=True))
    return RenderOutput(rgb, alpha, depth, normal), part


def _pooled(
    sums: tuple[Tensor, ...], cameras: CameraBatch, samples: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Averages blocks of rays [B * H s * W s, C] into pixels [B, H, W, C]."""
    shape = (len(cameras), cameras.height // samples, samples, cameras.width // samples, samples)
    rgb, hit, depth, normal = (value.reshape(*shape, -1).mean(dim=(2, 4)) for value in sums[:4])
    middle = samples // 2
    part = sums[4].reshape(shape)[:, :, middle, :, middle]
    return rgb, hit, depth / hit.clamp_min(1e-9), _unit(normal), part


def _trace(solids: SolidBatch, cameras: CameraBatch, light: Light) -> tuple[Tensor, ...]:
    """(rgb, hit, depth, normal, part) of every ray, zero where it misses; rays flattened."""
    count, views = len(solids), len(cameras) // len(solids)
    rotation = cameras.c2w[:, :3, :3]
    eye = cameras.position.reshape(count, views, 1, 3)
    _, unit = cameras.rays()
    ray = unit / (unit * rotation[:, None, None, :, 2]).sum(-1, keepdim=True)  # unit depth
    ray = ray.reshape(count, views, -1, 3)  # [N, V, X, 3]
    eye = eye.expand_as(ray).reshape(count, -1, 3)  # [N, R, 3]
    ray = ray.reshape(count, -1, 3)

    exits = bool(solids.carve.any())
    spans = torch.full((*solids.kind.shape, ray.shape[1], 4), FAR, device=ray.device)
    spans[..., 1::2] = -FAR
    for kind in (BOX, ELLIPSOID, FRUSTUM, TORUS, CAPSULE, PRISM):
        owners, places = (solids.kind == kind).nonzero(as_tuple=True)  # M pairs of solid and part
        chosen = (owners, places)
        if len(owners):
            spans[chosen] = _crossings(solids, kind, chosen, eye, ray, exits)
    t, part = _first_surface(solids, spans)

    hit = part >= 0
    owner = torch.arange(count, device=part.device)[:, None].expand_as(part)
    where = (owner[hit], part[hit])
    normal = torch.zeros_like(ray)
    normal[hit] = _normals(solids, where, eye[hit] + t[hit][:, None] * ray[hit])
    toward = torch.tensor(light.direction, device=ray.device)
    facing = 0.5 + 0.5 * (normal @ (toward / toward.norm()))
    rgb = torch.zeros_like(ray)
    rgb[hit] = solids.color[where] * (light.ambient + light.key * facing[hit])[:, None]
    depth = torch.where(hit, t, 0.0)
    flat = (rgb, hit.float()[..., None], depth[..., None], normal, part)
    return tuple(value.flatten(0, 1) for value in flat)


def _first_surface(solids: SolidBatch, spans: Float[Tensor, "N P R 4"]) -> tuple[Tensor, Tensor]:
    """Depth and part of each ray's nearest visible surface; FAR and -1 where there is none."""
    enters = torch.where(solids.carve[..., None], FAR, spans[..., 0])
    best, part = torch.where(enters > 0.0, enters, FAR).min(dim=1)
    cut = solids.carve.any(dim=1)
    if cut.any():
        best[cut], part[cut] = _first_cut_surface(solids.carve[cut], spans[cut])
    return best, torch.where(best < FAR, part, -1)


def _first_cut_surface(
    carve: Bool[Tensor, "N P"], spans: Float[Tensor, "N P R 4"]
) -> tuple[Tensor, Tensor]:
    """The ordered union with cuts: at any depth, the last part that contains the point decides."""
    count = carve.shape[1]
    order = torch.arange(1, count + 1, device=carve.device)[None, :, None, None]
    removing = carve[:, :, None, None]
    best = torch.full_like(spans[:, 0, :, 0], FAR)
    winner = torch.zeros_like(best, dtype=torch.long)
    for index in range(count):
        carving = carve[:, index, None, None]
        start, stop = spans[:, index, :, 0::2], spans[:, index, :, 1::2]  # [N, R, 2]
        t = torch.where(carving, stop, start)
        inside = (
            (spans[..., None, 0::2] <= t[:, None, ..., None])
            & (t[:, None, ..., None] <= spans[..., None, 1::2])
        ).any(-1)  # [N, P, R, 2]
        later = (inside & removing)[:, index + 1 :].any(dim=1)
        last = (inside * order)[:, :index].amax(dim=1) if index else torch.zeros_like(t).long()
        covered = torch.cat([torch.ones_like(carve[:, :1]), carve], dim=1)  # 0: nothing there
        emptied = covered.gather(1, last.flatten(1)).view_as(last)
        shows = (start < FAR) & (t > 0.0) & ~later & (~carving | ~emptied)
        t = torch.where(shows, t, FAR).amin(dim=-1)
        winner = torch.where(t < best, index, winner)
        best = torch.minimum(best, t)
    return best, winner


def _crossings(
    solids: SolidBatch,
    kind: int,
    chosen: tuple[Tensor, Tensor],
    eye: Float[Tensor, "N R 3"],
    ray: Float[Tensor, "N R 3"],
    exits: bool,
) -> Float[Tensor, "M R 4"]:
    """Intervals of all rays of each solid inside its parts of one kind."""
    rotation = solids.rotation[chosen]
    d = ray[chosen[0]] @ rotation  # rows times R = R^T times columns
    o = (eye[chosen[0]] - solids.translation[chosen][:, None]) @ rotation
    nearest = -(o * d).sum(-1) / (d * d).sum(-1)
    o = o + nearest[..., None] * d  # now the ray's point nearest to the part's centre
    low, high = _sharp_interval(kind, solids.size[chosen][:, None], o, d)
    met = (low <= high) & (high + nearest > 0.0)
    result = torch.full((*low.shape, 4), FAR, device=ray.device)
    result[..., 1::2] = -FAR
    rounding = solids.rounding[chosen][:, None].expand_as(low)[met]
    low, high, o, d = low[met], high[met], o[met], d[met]
    core = solids.core[chosen][:, None].expand(*met.shape, 4)[met]
    spans = torch.stack([low, high, torch.full_like(low, FAR), torch.full_like(low, -FAR)], -1)
    marched = torch.full_like(low, kind == TORUS, dtype=torch.bool) | (rounding > 0.0)
    if marched.any():
        m = marched
        spans[m] = _marched(kind, core[m], rounding[m], o[m], d[m], low[m], high[m], exits)
    absent = spans.abs() >= FAR
    result[met] = torch.where(absent, spans, spans + nearest[met][:, None])
    return result


def _sharp_interval(kind: int, size: Tensor, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays o + t d are inside sharp parts; for a torus, inside the cylinder that holds it."""
    x, y, z = size.unbind(-1)
    if kind == ELLIPSOID:
        o, d = o / size, d / size
        return _quadratic((d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1.0)
    if kind == BOX:
        slabs = [_slab(size[..., k], o[..., k], d[..., k]) for k in range(3)]
        return _intersection(slabs)
    if kind == CAPSULE:
        return _capsule_interval(x, y, o, d)
    caps = _slab(y, o[..., 1], d[..., 1])
    if kind == PRISM:
        slope = x / (2.0 * y)
        down, change = slope * (o[..., 1] - y), slope * d[..., 1]
        sides = [_half_space(s * o[..., 0] + down, s * d[..., 0] + change) for s in (1.0, -1.0)]
        return _intersection([caps, _slab(z, o[..., 2], d[..., 2]), *sides])
    bottom, top = (x + y, x + y) if kind == TORUS else (x, z)
    return _frustum_interval(bottom, y, top, o, d, caps)


def _slab(extent: Tensor, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    d = torch.where(d.abs() < 1e-9, 1e-9, d)
    a, b = (-extent - o) / d, (extent - o) / d
    return torch.minimum(a, b), torch.maximum(a, b)


def _half_space(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Where o + t d <= 0."""
    d = torch.where(d.abs() < 1e-9, 1e-9, d)
    t = -o / d
    return torch.where(d > 0.0, -FAR, t), torch.where(d > 0.0, t, FAR)


def _quadratic(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Where a t^2 + 2 b t + c <= 0 for a > 0."""
    square = b * b - a * c
    root = square.clamp_min(0.0).sqrt()
    a = a.clamp_min(1e-12)
    misses = square < 0.0
    return torch.where(misses, FAR, (-b - root) / a), torch.where(misses, -FAR, (-b + root) / a)


def _intersection(spans: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    low, high = (torch.stack(torch.broadcast_tensors(*ends)) for ends in zip(*spans, strict=True))
    return low.amax(0), high.amin(0)


def _frustum_interval(
    bottom: Tensor, half: Tensor, top: Tensor, o: Tensor, d: Tensor, caps: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    slope = (top - bottom) / (2.0 * half)
    radius, change = 0.5 * (bottom + top) + slope * o[..., 1], slope * d[..., 1]
    a = d[..., 0] ** 2 + d[..., 2] ** 2 - change**2
    b = o[..., 0] * d[..., 0] + o[..., 2] * d[..., 2] - radius * change
    c = o[..., 0] ** 2 + o[..., 2] ** 2 - radius**2
    a = torch.where(a.abs() < 1e-7, 1e-7, a)
    between = _intersection([caps, _quadratic(a, b, c)])
    # Steeper than the cone: inside before the first root and after the second; only one nappe lies between the caps.
    root = (b * b - a * c).clamp_min(0.0).sqrt()
    first = _intersection([caps, (torch.full_like(a, -FAR), (-b + root) / a)])
    second = _intersection([caps, ((-b - root) / a, torch.full_like(a, FAR))])
    earlier = first[1] - first[0] > second[1] - second[0]
    outside = tuple(torch.where(earlier, f, s) for f, s in zip(first, second, strict=True))
    everywhere = (a < 0.0) & (b * b - a * c <= 0.0)
    outside = tuple(torch.where(everywhere, e, s) for e, s in zip(caps, outside, strict=True))
    low, high = (torch.where(a > 0.0, i, s) for i, s in zip(between, outside, strict=True))
    return low, high


def _capsule_interval(radius: Tensor, half: Tensor, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """The hull of the intervals of the cylinder and the two balls."""
    plane = d[..., 0] ** 2 + d[..., 2] ** 2
    along = o[..., 0] * d[..., 0] + o[..., 2] * d[..., 2]
    gap = o[..., 0] ** 2 + o[..., 2] ** 2 - radius**2
    spans = [_intersection([_quadratic(plane, along, gap), _slab(half, o[..., 1], d[..., 1])])]
    for end in (-half, half):
        y = o[..., 1] - end
        spans.append(_quadratic(plane + d[..., 1] ** 2, along + y * d[..., 1], gap + y * y))
    present = [(low <= high, low, high) for low, high in spans]
    lows = torch.stack([torch.where(there, low, FAR) for there, low, _ in present])
    highs = torch.stack([torch.where(there, high, -FAR) for there, _, high in present])
    return lows.amin(0), highs.amax(0)


def _marched(
    kind: int,
    core: Float[Tensor, "K 4"],
    rounding: Float[Tensor, " K"],
    o: Float[Tensor, "K 3"],
    d: Float[Tensor, "K 3"],
    low: Float[Tensor, " K"],
    high: Float[Tensor, " K"],
    exits: bool,
) -> Float[Tensor, "K 4"]:
    """Intervals of K rays inside rounded parts or tori, found along their distance between low and high."""
    pace = 1.0 / d.norm(dim=-1)

    def march(t: Tensor, end: Tensor, sign: float) -> Tensor:
        heading = torch.where(end >= t, 1.0, -1.0)
        for _ in range(_MARCH_STEPS):
            left = sign * _distance(kind, core, rounding, o + t[:, None] * d)
            # Rays that arrived, or ran past the end, stand still.
            going = (left >= _HIT) & ((end - t) * heading >= 0.0)
            if not going.any():
                break
            t = torch.where(going, t + left * pace * heading, t)
        left = sign * _distance(kind, core, rounding, o + t[:, None] * d)
        return torch.where((left < _GRAZE) & ((end - t) * heading >= 0.0), t, FAR)

    nowhere = torch.full_like(low, FAR)
    first = march(low, high, 1.0)
    missed = first >= FAR
    spans = torch.stack([first, torch.where(missed, -FAR, high), nowhere, -nowhere], dim=-1)
    if not exits:
        return spans
    start = torch.where(missed, high, first)
    if kind != TORUS:
        last = march(high, start, 1.0)
        spans[:, 1] = torch.where(missed, -FAR, torch.where(last < FAR, last, start))
        return spans
    leave = march(start + 4.0 * _GRAZE, high, -1.0)
    left = ~missed & (leave < FAR)
    again = march(torch.where(left, leave + 4.0 * _GRAZE, high), high, 1.0)
    returned = left & (again < FAR)
    spans[:, 1] = torch.where(left, leave, spans[:, 1])
    spans[:, 2] = torch.where(returned, again, FAR)
    spans[:, 3] = torch.where(returned, high, -FAR)
    return spans


def _distance(
    kind: int, core: Float[Tensor, "K 4"], rounding: Float[Tensor, " K"], p: Float[Tensor, "K 3"]
) -> Float[Tensor, " K"]:
    """Distance to a torus, or to a rounded part (exact outside its core)."""
    if kind == TORUS:
        around = torch.hypot(p[:, 0], p[:, 2])
        return torch.hypot(around - core[:, 0], p[:, 1]) - core[:, 1]
    return _from_core(kind, core, p).norm(dim=-1) - rounding


def _from_core(
    kind: int, core: Float[Tensor, "K 4"], p: Float[Tensor, "K 3"]
) -> Float[Tensor, "K 3"]:
    """From the nearest point of a box, frustum or prism core to p; zero inside the core."""
    if kind == BOX:
        return p.sign() * (p.abs() - core[:, :3]).clamp_min(0.0)
    y = p[:, 1] - core[:, 3]
    if kind == FRUSTUM:
        around = torch.hypot(p[:, 0], p[:, 2])
        out, up = _from_profile(around, y, core[:, 0], core[:, 1], core[:, 2])
        turn = out / around.clamp_min(1e-9)
        return torch.stack([p[:, 0] * turn, up, p[:, 2] * turn], dim=-1)
    out, up = _from_profile(p[:, 0].abs(), y, core[:, 0], core[:, 1], torch.zeros_like(y))
    deep = (p[:, 2].abs() - core[:, 2]).clamp_min(0.0)
    return torch.stack([p[:, 0].sign() * out, up, p[:, 2].sign() * deep], dim=-1)


def _from_profile(
    x: Tensor, y: Tensor, bottom: Tensor, half: Tensor, top: Tensor
) -> tuple[Tensor, Tensor]:
    """From the nearest point of a trapezoid to (x, y), x >= 0; zero inside."""
    cap_x = (x - torch.where(y < 0.0, bottom, top)).clamp_min(0.0)
    cap_y = y - y.clamp(-half, half)
    cap_y = torch.where(cap_y == 0.0, y - half * torch.where(y < 0.0, -1.0, 1.0), cap_y)
    edge_x, edge_y = bottom - top, -2.0 * half
    square = (edge_x**2 + edge_y**2).clamp_min(1e-20)
    along = (((x - top) * edge_x + (y - half) * edge_y) / square).clamp(0.0, 1.0)
    side_x, side_y = x - top - along * edge_x, y - half - along * edge_y
    inside = (side_x < 0.0) & (y.abs() < half)
    on_cap = cap_x**2 + cap_y**2 < side_x**2 + side_y**2
    out = torch.where(on_cap, cap_x, side_x)
    up = torch.where(on_cap, cap_y, side_y)
    return torch.where(inside, 0.0, out), torch.where(inside, 0.0, up)


def _normals(
    solids: SolidBatch, where: tuple[Tensor, Tensor], points: Float[Tensor, "K 3"]
) -> Float[Tensor, "K 3"]:
    """Unit outward normals at surface points of the parts `where`, in the object's frame."""
    rotation, size, core = solids.rotation[where], solids.size[where], solids.soft_core[where]
    p = (points - solids.translation[where])[:, None] @ rotation
    p, kinds = p[:, 0], solids.kind[where]
    local = torch.zeros_like(p)
    for kind in (BOX, ELLIPSOID, FRUSTUM, TORUS, CAPSULE, PRISM):
        m = kinds == kind
        if kind == ELLIPSOID:
            local[m] = p[m] / size[m] ** 2
        elif kind in (TORUS, CAPSULE):
            q = p[m].clone()
            if kind == CAPSULE:
                q[:, 1] -= q[:, 1].clamp(-size[m, 1], size[m, 1])
            else:
                keep = 1.0 - size[m, 0] / torch.hypot(q[:, 0], q[:, 2]).clamp_min(1e-9)
                q[:, 0], q[:, 2] = q[:, 0] * keep, q[:, 2] * keep
            local[m] = q
        else:
            local[m] = _from_core(kind, core[m], p[m])
    outward = _unit((rotation @ local[..., None])[..., 0])
    return torch.where(solids.carve[where][:, None], -outward, outward)


def _unit(vectors: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    return torch.nn.functional.normalize(vectors, dim=-1, eps=1e-9)
