"""The operations `dream3d bench kernels` times: data, and one forward and backward pass per backend."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from dream3d.bench.mesh_kernels import rasterize_interpolate
from dream3d.cameras import CameraBatch, orbit_cameras
from renderers.hash_grid import encode, geometric_layout
from renderers.splats import SplatData, render_splats
from renderers.volume import composite, march

Pass = Callable[[str], list[Tensor]]
"""Forward and, where there are gradients, backward on a backend; returns what it computed, for comparison."""


@dataclass(frozen=True)
class Contest:
    """One row: ours against a peer.

    Attributes:
        op: "splats", "hash_grid", "march", "composite" or "rasterize_interpolate".
        case: the size, such as "20k/256".
        peer: "torch" (our reference), "mitsuba" (another renderer, in its own process), or "one thread" (ourselves).
        bar: the ratio that is asked for.
        make: the operation on its data; None where `peer` runs by itself.
        threads: of ours.
        of: which time the ratio is about.
        peer_limit_ms: the peer itself may not be slower than this, or the ratio would flatter.
        size: splats and pixels, for a peer in another process.
    """

    op: str
    case: str
    peer: Literal["torch", "mitsuba", "one thread"]
    bar: float
    make: Callable[[], Pass]
    threads: int = 1
    of: Literal["core", "wall"] = "core"
    peer_limit_ms: float | None = None
    size: tuple[int, int] = (0, 0)


def shell(count: int) -> SplatData:
    """Splats on a thick shell, opacities 0.1 to 0.9; about 75 of them at a pixel."""
    g = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=-1)
    return SplatData(
        direction * (0.6 + 0.1 * torch.rand(count, 1, generator=g)),
        math.log(1.2 / math.sqrt(count)) + 0.3 * torch.randn(count, 3, generator=g),
        torch.randn(count, 4, generator=g),
        torch.logit(0.1 + 0.8 * torch.rand(count, generator=g)),
        torch.rand(count, 3, generator=g),
    )


def splat_camera(size: int) -> CameraBatch:
    """The one view of the splat rows."""
    return orbit_cameras([0.0], 10.0, size=size)


def splats(count: int, size: int, device: str = "cpu") -> Pass:
    """Render a shell of splats; gradients of all parameters."""
    tensors = shell(count).tensors()
    values = {name: value.to(device).requires_grad_() for name, value in tensors.items()}
    data, cameras = SplatData(**values), splat_camera(size).to(torch.device(device))

    def run(backend: str) -> list[Tensor]:
        out = render_splats(data, cameras, backend)
        images = [out.rgb, out.alpha]
        ones = [torch.ones_like(image) for image in images]
        return [*images, *torch.autograd.grad(images, list(values.values()), ones)]

    return run


def hash_grid(points: int, table_log2: int, device: str = "cpu") -> Pass:
    """Encode random points with 16 levels of two features; gradient of the table."""
    g = torch.Generator().manual_seed(0)
    layout = geometric_layout(16, 16, 512, table_log2, 2)
    table = torch.randn(layout.offsets[-1], 2, generator=g).to(device).requires_grad_()
    where = (2.0 * torch.rand(points, 3, generator=g) - 1.0).to(device)
    cotangent = torch.randn(points, layout.width, generator=g).to(device)

    def run(backend: str) -> list[Tensor]:
        out = encode(where, table, layout, backend)
        return [out, *torch.autograd.grad(out, table, cotangent)]

    return run


def march_rays(rays: int, samples: int, device: str = "cpu") -> Pass:
    """March rays with `samples` steps across the diagonal through a grid of which a ball is occupied."""
    g = torch.Generator().manual_seed(0)
    origins = 3.2 * torch.nn.functional.normalize(torch.randn(rays, 3, generator=g), dim=1)
    aim = torch.rand(rays, 3, generator=g) - 0.5
    directions = torch.nn.functional.normalize(aim - origins, dim=1)
    axis = (torch.arange(32) + 0.5) / 16.0 - 1.0
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    occupied = (x * x + y * y + z * z) < 0.36
    step, jitter = 2.0 * 3.0**0.5 / samples, torch.full((rays,), 0.5, device=device)
    origins, directions, occupied = (x.to(device) for x in (origins, directions, occupied))

    def run(backend: str) -> list[Tensor]:
        found = march(origins, directions, occupied, step, jitter, backend)
        return [found.points, found.t, found.length]

    return run


def composite_rays(rays: int, samples: int, device: str = "cpu") -> Pass:
    """Composite colour and depth of `samples` samples a ray; gradients of density and features."""
    g = torch.Generator().manual_seed(0)
    n = rays * samples
    density = (20.0 * torch.rand(n, generator=g)).to(device).requires_grad_()
    features = torch.rand(n, 4, generator=g).to(device).requires_grad_()
    length = torch.full((n,), 0.02, device=device)
    start = torch.arange(rays + 1, device=device) * samples
    drawn = torch.randn(rays, 4, generator=g), torch.randn(rays, generator=g)
    cotangents = [cotangent.to(device) for cotangent in drawn]

    def run(backend: str) -> list[Tensor]:
        outputs = composite(density, features, length, start, backend)
        return [*outputs, *torch.autograd.grad(outputs, [density, features], cotangents)]

    return run


CONTESTS: tuple[Contest, ...] = (
    Contest("splats", "20k/256", "torch", 20.0, partial(splats, 20_000, 256), peer_limit_ms=800.0),
    Contest("splats", "5k/128", "mitsuba", 60.0, partial(splats, 5_000, 128), size=(5_000, 128)),
    Contest("splats", "20k/256", "one thread", 1.7, partial(splats, 20_000, 256), 2, "wall"),
    Contest("hash_grid", "200k/2^15", "torch", 5.0, partial(hash_grid, 200_000, 15)),
    Contest("march", "4096x96", "torch", 2.0, partial(march_rays, 4096, 96)),
    Contest("composite", "4096x96", "torch", 5.0, partial(composite_rays, 4096, 96)),
    Contest(
        "rasterize_interpolate", "5k/512", "torch", 8.0, partial(rasterize_interpolate, 4, 512)
    ),
)
