"""Render fields of density and features: march, evaluate, composite (Max 1995, Mildenhall et al. 2020).

Every operation exists twice with one definition: a readable torch reference (any device, any float type) and a numba
one (CPU, float32). On an NVIDIA GPU, Warp marches, composites and reads hash grids, or nerfacc composites.
`backend` chooses: "auto", "numba", "torch", "warp", "nerfacc" (compositing) or "tinycudann" (hash
grids; the rest is torch then).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.errors import ConfigError
from renderers.backends import choose_backend
from renderers.volume_data import (
    DEFAULT_STEP,
    MOST_FINE,
    RAYS_AT_ONCE,
    Light,
    Normals,
    RaySamples,
    SurfaceField,
    VolumeField,
    VolumeRenderOutput,
    check_composite,
    check_march,
    check_views,
    full_occupancy,
)
from renderers.volume_resample import absorption, resample

__all__ = ["VolumeField", "VolumeRenderOutput", "composite", "march", "render_volume"]

FASTEST = ("numba", "warp", "nerfacc", "torch")
DIFFERENCE = 0.01
"""Half the distance over which "finite" normals are taken, in world units."""
UNLIT = Light()
THINNEST = 1e-6
"""Depth is divided by at least this much coverage."""


def volume_backend(name: str, like: Tensor, preferred: tuple[str, ...] = FASTEST) -> str:
    """The backend for data such as `like`.

    Raises:
        ConfigError: it does not exist, is not installed, or does not run on this device or dtype.
    """
    single = like.dtype == torch.float32
    wanted = "torch" if name == "auto" and not single else name
    chosen = choose_backend("volume", wanted, like.device.type, preferred)
    if chosen != "torch" and not single:
        raise ConfigError(
            f"volume backend '{chosen}' needs float32, got {like.dtype}; use backend 'torch'"
        )
    return chosen


def march(
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    occupied: Bool[Tensor, "G G G"] | None,
    step: float,
    jitter: Float[Tensor, " R"],
    backend: str = "auto",
) -> RaySamples:
    """Sample points on rays through the cube [-1, 1]^3, only in occupied cells. Not differentiable.

    The part of a ray inside the cube is cut into intervals of length `step`, the last one shorter, so that lengths sum
    to the whole. Each interval has one sample, `jitter` of the way along it.

    Args:
        origins: of the rays, in the world.
        directions: unit length.
        occupied: cells [x, y, z] that may hold something; None is everywhere.
        step: world units.
        jitter: in [0, 1), one per ray: 0.5 is the middle, uniform random numbers are stratified sampling.
        backend: "auto", "numba", "warp" or "torch"; the others march with torch.

    Raises:
        ConfigError: shapes do not fit, an absurd step, or the backend cannot run.
    """
    check_march(origins, directions, occupied, step, jitter)
    name = volume_backend(backend, origins)
    if name == "numba":
        from renderers.volume_numba import march as run
    elif name == "warp":
        from renderers.volume_warp import march as run
    else:
        from renderers.volume_torch import march as run
    cells = full_occupancy(origins.device) if occupied is None else occupied
    return run(origins, directions, cells, step, jitter)


def composite(
    density: Float[Tensor, " N"],
    features: Float[Tensor, "N C"],
    length: Float[Tensor, " N"],
    start: Int[Tensor, " R1"],
    backend: str = "auto",
) -> tuple[Float[Tensor, "R C"], Float[Tensor, " R"]]:
    """Absorption and emission along rays, front to back (Max 1995): weights T_i (1 - exp(-density_i length_i)).

    Args:
        density: extinction per world unit, >= 0.
        features: of every sample.
        length: world units each sample stands for.
        start: ray r owns the samples start[r] to start[r + 1], nearest first.
        backend: "auto", "numba" (CPU, float32), "torch", or "warp" or "nerfacc" (NVIDIA).

    Returns:
        Weighted sums of the features (premultiplied, over black), and the sums of the weights: one minus the
        transmittance. Gradients reach density and features.

    Raises:
        ConfigError: shapes do not fit, or the backend cannot run.
        NumericsError: density or features are not finite.
    """
    check_composite(density, features, length, start)
    name = volume_backend(backend, density)
    if name == "numba":
        from renderers.volume_numba import composite as run
    elif name == "warp":
        from renderers.volume_warp import composite as run
    elif name == "nerfacc":
        from renderers.volume_nerfacc import composite as run
    else:
        from renderers.volume_torch import composite as run
    return run(density, features, length, start)


def field_normals(
    field: VolumeField, points: Float[Tensor, "N 3"], normals: Normals, backend: str = "auto"
) -> Float[Tensor, "N 3"]:
    """Unit vectors against the density's gradient; zero where the density is flat.

    Args:
        field: whose density.
        points: in the world.
        normals: "analytic" (detached) or "finite" (differentiable).
        backend: of the field.
    """
    if normals == "analytic":
        with torch.enable_grad():
            x = points.detach().requires_grad_()
            (slope,) = torch.autograd.grad(field.density(x, backend).sum(), x)
    else:
        offsets = DIFFERENCE * torch.eye(3).to(points)
        around = torch.cat([points + o for o in (*offsets, *-offsets)])
        ahead, behind = field.density(around, backend).reshape(2, 3, -1)
        slope = (ahead - behind).T / (2.0 * DIFFERENCE)
    return -torch.nn.functional.normalize(slope, dim=-1, eps=1e-6)


def render_volume(
    field: VolumeField,
    cameras: CameraBatch,
    occupied: Bool[Tensor, "G G G"] | None = None,
    step: float = DEFAULT_STEP,
    generator: torch.Generator | None = None,
    normals: Normals = "none",
    backend: str = "auto",
    fine: int = 0,
    light: Light = UNLIT,
) -> VolumeRenderOutput:
    """Differentiable images of `field` from every camera.

    Args:
        field: density and C features on [-1, 1]^3; it is empty outside.
        cameras: B views; they get no gradient.
        occupied: cells [x, y, z] of the cube that may hold something; None is everywhere.
        step: distance of samples along a ray, world units.
        generator: shifts each ray's samples at random; None puts them in the middle of their intervals.
        normals: "none", "analytic" or "finite".
        backend: "auto", "numba" (CPU, float32), "torch", or "warp" or "nerfacc" (NVIDIA).
        fine: 0 renders the samples a ray is cut into; more uses those only to find where something is, and renders
            this many samples a ray, put there.
        light: how colours are lit; all but "albedo" need normals.

    Returns:
        Premultiplied features, alpha, alpha-normalised z-depth, and normals where asked for.

    Raises:
        ConfigError: absurd sizes, shapes that do not fit, or the backend cannot run.
        NumericsError: the field is not finite.
    """
    check_views(cameras)
    if normals not in ("none", "analytic", "finite"):
        raise ConfigError(f"normals is '{normals}'; choose one of none, analytic, finite")
    if light.mode != "albedo" and normals == "none":
        raise ConfigError(f"light '{light.mode}' needs normals; choose normals analytic or finite")
    if not 0 <= fine <= MOST_FINE:
        raise ConfigError(f"fine is {fine}; choose 0 (off) to {MOST_FINE} samples a ray")
    cameras = cameras.to(field.like.device, field.like.dtype)
    origins, directions = (value.reshape(-1, 3) for value in cameras.rays())
    # z-depth grows along a ray by the cosine between it and the camera's forward axis.
    per_view = cameras.height * cameras.width
    cosine = (directions * cameras.c2w[:, :3, 2].repeat_interleave(per_view, dim=0)).sum(dim=-1)
    jitter = torch.full((len(origins),), 0.5)
    if generator is not None:
        jitter = torch.rand(len(origins), generator=generator)
    rays = torch.cat([origins, directions, cosine[:, None], jitter.to(origins)[:, None]], dim=1)
    parts = [
        _render_rays(field, some, occupied, step, normals, backend, fine, light)
        for some in rays.split(RAYS_AT_ONCE[rays.device.type])
    ]
    shape = (len(cameras), cameras.height, cameras.width)
    image, alpha = (torch.cat(values) for values in zip(*parts, strict=True))
    image, alpha = image.reshape(*shape, -1), alpha.reshape(*shape, 1)
    depth = image[..., -1:] / alpha.clamp_min(THINNEST)
    if normals == "none":
        return VolumeRenderOutput(image[..., :-1], alpha, depth)
    normal = torch.nn.functional.normalize(image[..., -5:-2], dim=-1, eps=1e-6)
    return VolumeRenderOutput(image[..., :-5], alpha, depth, normal, image[..., -2:-1])


def lit(
    features: Float[Tensor, "N C"],
    normal: Float[Tensor, "N 3"],
    points: Float[Tensor, "N 3"],
    eyes: Float[Tensor, "N 3"],
    light: Light,
) -> Float[Tensor, "N C"]:
    """Features times ambient + (1 - ambient) max(0, normal . toward the lamp) (Poole et al. 2022, section 3.2)."""
    if light.mode == "albedo":
        return features
    lamp = eyes if light.offset is None else eyes + torch.tensor(light.offset).to(eyes)
    toward = torch.nn.functional.normalize(lamp - points, dim=-1)
    cosine = (normal * toward).sum(dim=-1, keepdim=True).clamp_min(0.0)
    amount = light.ambient + (1.0 - light.ambient) * cosine
    return amount * features if light.mode == "lambert" else amount.expand_as(features)


def _render_rays(
    field: VolumeField,
    rays: Float[Tensor, "R 8"],
    occupied: Bool[Tensor, "G G G"] | None,
    step: float,
    normals: Normals,
    backend: str,
    fine: int,
    light: Light,
) -> tuple[Float[Tensor, "R C1"], Float[Tensor, " R"]]:
    """Composited features and alpha of rays (origin, direction, cosine, jitter).

    Behind the field's own features: with normals, the normal and how far it faces away; always, z-depth.
    """
    origins, directions, cosine, jitter = rays.split([3, 3, 1, 1], dim=1)
    samples = march(origins, directions, occupied, step, jitter[:, 0], backend)
    if fine > 0:
        with torch.no_grad():
            weight = absorption(field.density(samples.points, backend), samples)
        samples = resample(samples, weight, origins, directions, fine, jitter[:, 0])
    density, features = field(samples.points, backend)
    if isinstance(field, SurfaceField):
        along = directions[samples.ray]
        # A sample is `jitter` of the way along its interval; the field is asked about the interval.
        ahead = (0.5 - jitter[:, 0])[samples.ray] * samples.length
        centre = samples.points + ahead[:, None] * along
        density = field.interval_density(centre, along, samples.length, backend)
    columns = [features]
    if normals != "none":
        normal = field_normals(field, samples.points, normals, backend)
        away = (normal * directions[samples.ray]).sum(dim=-1, keepdim=True)
        columns = [lit(features, normal, samples.points, origins[samples.ray], light)]
        columns += [normal, away.clamp_min(0.0).square()]
    columns.append(samples.t[:, None] * cosine[samples.ray])
    return composite(density, torch.cat(columns, dim=1), samples.length, samples.start, backend)
