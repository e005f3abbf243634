"""Light from everywhere, and how surfaces answer it: the split-sum approximation (Karis 2013).

    reflected = prefiltered(r, roughness) (F0 A + B) + irradiance(n) base (1 - metallic) (1 - specular albedo)

`prefiltered` is the environment blurred as a rough mirror that one looks at head-on would; A and B integrate the GGX
reflectance over the hemisphere, by the angle of view and the roughness. What a rough surface loses because light
bounces on it only once is given back (Fdez-Aguera 2019), and what is not reflected is scattered: under a uniform white
environment a white surface is white, whatever its roughness (the furnace test).
"""

import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.errors import ConfigError
from renderers.mesh import sample_texture

LEVELS = (0.15, 0.3, 0.5, 0.75, 1.0)
"""Roughness of the blurred environments; 0 is the environment itself."""
TABLE = 32
SAMPLES = 1024
DIELECTRIC = 0.04
"""Reflectance of what is no metal, looked at head-on."""
LARGEST = 128


def srgb_to_linear(color: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Decode sRGB (IEC 61966-2-1)."""
    color = color.clamp_min(0.0)
    curve = ((color.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(color <= 0.04045, color / 12.92, curve)


def linear_to_srgb(color: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Encode linear light in [0, 1] as sRGB; brighter light is cut off at 1."""
    color = color.clamp(0.0, 1.0)
    curve = 1.055 * color.clamp_min(0.0031308) ** (1.0 / 2.4) - 0.055
    return torch.where(color <= 0.0031308, 12.92 * color, curve)


def map_directions(height: int, width: int) -> Float[Tensor, "H W 3"]:
    """The direction every texel of an environment shows: row 0 is up (+Y), the middle column is the front (+Z).

    Columns grow toward +X, as seen from above counter-clockwise: azimuth as in `orbit_cameras`.
    """
    polar = (torch.arange(height) + 0.5) / height * math.pi
    azimuth = ((torch.arange(width) + 0.5) / width - 0.5) * 2.0 * math.pi
    polar, azimuth = torch.meshgrid(polar, azimuth, indexing="ij")
    return torch.stack(
        [azimuth.sin() * polar.sin(), polar.cos(), azimuth.cos() * polar.sin()], dim=-1
    )


def look_up(
    environment: Float[Tensor, "H W C"], directions: Float[Tensor, "N 3"]
) -> Float[Tensor, "N C"]:
    """What an environment shows in unit directions, bilinear, around the seam at the back too."""
    azimuth = torch.atan2(directions[:, 0], directions[:, 2])
    polar = torch.acos(directions[:, 1].clamp(-1 + 1e-6, 1 - 1e-6))
    width = environment.shape[1]
    u = (azimuth / (2.0 * math.pi) + 0.5) * width / (width + 2) + 1.0 / (width + 2)
    wrapped = torch.cat([environment[:, -1:], environment, environment[:, :1]], dim=1)
    return sample_texture(wrapped, torch.stack([u, polar / math.pi], dim=1))


@dataclass(frozen=True)
class EnvironmentLight:
    """An environment and what the split sum needs of it; linear light.

    Attributes:
        radiance: what comes from every direction; see `map_directions`.
        blurred: the same for a mirror of each roughness in LEVELS.
        irradiance: mean over the hemisphere around every direction, weighted by the cosine: what a white diffuse
            surface shows.
    """

    radiance: Float[Tensor, "H W 3"]
    blurred: Float[Tensor, "L H W 3"]
    irradiance: Float[Tensor, "H W 3"]

    def to(self, device: torch.device | str) -> "EnvironmentLight":
        """The same light on another device."""
        return EnvironmentLight(**{name: value.to(device) for name, value in vars(self).items()})

    def specular(
        self, directions: Float[Tensor, "N 3"], roughness: Float[Tensor, "N 1"]
    ) -> Float[Tensor, "N 3"]:
        """What mirrors of that roughness show in unit directions."""
        maps = [self.radiance, *self.blurred]
        seen = torch.stack([look_up(one, directions) for one in maps])  # [L + 1, N, 3]
        knots = directions.new_tensor((0.0, *LEVELS))
        value = roughness[:, 0].clamp(0.0, 1.0)
        upper = torch.searchsorted(knots, value.detach()).clamp(1, len(knots) - 1)
        share = (value - knots[upper - 1]) / (knots[upper] - knots[upper - 1])
        row = torch.arange(len(value), device=value.device)
        return torch.lerp(seen[upper - 1, row], seen[upper, row], share[:, None])

    def diffuse(self, normals: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Cosine-weighted mean of the light around unit normals."""
        return look_up(self.irradiance, normals)


def environment_light(radiance: Float[Tensor, "H W 3"]) -> EnvironmentLight:
    """Blur an environment for every roughness and for diffuse surfaces.

    Args:
        radiance: linear light, >= 0; see `map_directions`. At most 128 rows: each texel is weighed against all.

    Raises:
        ConfigError: too large, negative or not finite.
    """
    height, width = radiance.shape[:2]
    if not 2 <= height <= LARGEST or not 2 <= width <= 2 * LARGEST:
        raise ConfigError(
            f"the environment has {height} x {width} texels; choose 2 to {LARGEST} rows and up to {2 * LARGEST} columns"
        )
    if not torch.isfinite(radiance).all() or radiance.min() < 0:
        raise ConfigError("the environment's light must be finite and not negative")
    directions = map_directions(height, width).to(radiance).reshape(-1, 3)
    area = directions[:, 1].square().neg().add(1).clamp_min(1e-6).sqrt()
    cosine = (directions @ directions.T).clamp(-1, 1)
    light = radiance.reshape(-1, 3)
    front = cosine.clamp_min(0.0) * area

    def weighted(weight: Tensor) -> Tensor:
        return ((weight @ light) / weight.sum(dim=1, keepdim=True)).reshape(height, width, 3)

    blurred = []
    for roughness in LEVELS:
        # Seen head-on, n = v = r: the half vector's angle is half the light's. GGX with alpha = roughness^2.
        half = 0.5 * (1.0 + cosine)
        alpha2 = roughness**4
        blurred.append(weighted(front * (alpha2 / (half * (alpha2 - 1.0) + 1.0).square())))
    return EnvironmentLight(radiance, torch.stack(blurred), weighted(front))


def studio(height: int = 32) -> Float[Tensor, "H W 3"]:
    """A soft studio: bright above, a large key light in front on the right, a fill on the left, a darker floor."""
    d = map_directions(height, 2 * height)
    sky = 0.55 + 0.35 * d[..., 1:2]
    total = sky.expand(-1, -1, 3).clone()
    for direction, strength, width in (
        ((0.45, 0.6, 0.65), 4.0, 0.12),
        ((-0.8, 0.2, 0.5), 1.0, 0.25),
        ((0.0, 0.3, -1.0), 1.2, 0.2),
    ):
        toward = torch.nn.functional.normalize(torch.tensor(direction), dim=0)
        total += strength * torch.exp(((d @ toward) - 1.0) / width)[..., None]
    return total


def _hammersley(count: int) -> tuple[Tensor, Tensor]:
    """Evenly spread points of the unit square: i / n and the mirrored binary digits of i."""
    index = torch.arange(count, dtype=torch.int64)
    mirrored = torch.zeros(count, dtype=torch.float64)
    digit, value = 0.5, index.clone()
    while value.any():
        mirrored += digit * (value % 2)
        value, digit = value // 2, digit / 2
    return (index.double() + 0.5) / count, mirrored


def integrate_reflectance(
    facing: Float[Tensor, " N"], roughness: Float[Tensor, " N"], samples: int = SAMPLES
) -> Float[Tensor, "N 2"]:
    """A and B of the split sum: the hemisphere's integral of GGX reflectance is F0 A + B.

    Args:
        facing: cosine between normal and view, in (0, 1].
        roughness: perceptual, in (0, 1]; alpha is its square.
        samples: half vectors drawn from the distribution of normals (Karis 2013, eq. 4 and on).
    """
    n_v, a = facing.double()[:, None], roughness.double()[:, None].square()
    first, second = _hammersley(samples)
    cos_h = ((1 - second) / (1 + (a * a - 1) * second)).sqrt()
    sin_h = (1 - cos_h.square()).clamp_min(0).sqrt()
    view_x, view_z = (1 - n_v.square()).clamp_min(0).sqrt(), n_v
    v_h = view_x * sin_h * torch.cos(2 * math.pi * first) + view_z * cos_h
    n_l = 2 * v_h * cos_h - view_z
    up = (n_l > 0) & (v_h > 0)
    n_l, v_h = n_l.clamp_min(1e-9), v_h.clamp_min(1e-9)

    # Smith's shadowing, height-correlated, as 4 n_l n_v times what remains of G.
    def smith(x: Tensor, y: Tensor) -> Tensor:
        return x * (a * a + (1 - a * a) * y.square()).sqrt()

    visible = 2 * n_l * n_v / (smith(n_l, n_v) + smith(n_v, n_l))
    weight = torch.where(up, visible * v_h / (cos_h * n_v), torch.zeros_like(v_h))
    fresnel = (1 - v_h).clamp(0, 1) ** 5
    both = torch.stack([((1 - fresnel) * weight).mean(1), (fresnel * weight).mean(1)], dim=1)
    return both.to(facing.dtype)


@functools.cache
def reflectance_table() -> Float[Tensor, "T T 2"]:
    """`integrate_reflectance` on a grid: rows roughness, columns the cosine of the view, both at texel centres."""
    centre = (torch.arange(TABLE) + 0.5) / TABLE
    roughness, facing = torch.meshgrid(centre, centre, indexing="ij")
    found = integrate_reflectance(facing.reshape(-1), roughness.reshape(-1))
    return found.reshape(TABLE, TABLE, 2)


def shade_pbr(
    base: Float[Tensor, "N 3"],
    roughness: Float[Tensor, "N 1"],
    metallic: Float[Tensor, "N 1"],
    normal: Float[Tensor, "N 3"],
    to_camera: Float[Tensor, "N 3"],
    light: EnvironmentLight,
) -> Float[Tensor, "N 3"]:
    """Linear light that surface points send to the camera. Gradients reach material and geometry.

    Args:
        base: base colour, linear, in [0, 1].
        roughness: perceptual, in [0, 1].
        metallic: in [0, 1].
        normal: unit, on the visible side.
        to_camera: unit.
        light: the environment.
    """
    facing = (normal * to_camera).sum(dim=-1, keepdim=True)
    mirrored = 2.0 * facing * normal - to_camera
    facing = facing.clamp(0.0, 1.0)
    table = reflectance_table().to(base)
    ab = sample_texture(table, torch.cat([facing, roughness], dim=1))
    f0 = DIELECTRIC + (base - DIELECTRIC) * metallic
    once, all_of_it = f0 * ab[:, :1] + ab[:, 1:], ab.sum(dim=1, keepdim=True)
    albedo = once * (1.0 + f0 * (1.0 / all_of_it.clamp_min(1e-3) - 1.0))
    scattered = base * (1.0 - metallic) * (1.0 - albedo)
    mirrored = torch.nn.functional.normalize(mirrored, dim=-1)
    return light.specular(mirrored, roughness) * albedo + light.diffuse(normal) * scattered


def shade_lambert(
    color: Float[Tensor, "N 3"],
    normal: Float[Tensor, "N 3"],
    toward: Float[Tensor, " 3"],
    ambient: float,
) -> Float[Tensor, "N 3"]:
    """sRGB colours under the shipped world's soft light: color (ambient + (1 - ambient) (1 + n . l) / 2)."""
    cosine = normal @ torch.nn.functional.normalize(toward, dim=0)
    return color * (ambient + (1.0 - ambient) * 0.5 * (1.0 + cosine))[:, None]
