"""3D Gaussian splats as data, and the constants every backend shares."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.errors import ConfigError, NumericsError
from dream3d.rendering import RenderOutput

LOW_PASS = 0.3
"""Added to both screen-space variances, in px^2: no splat is narrower than about a pixel (Kerbl et al. 2023)."""
ALPHA_CUT = 1.0 / 255.0
"""A contribution with a smaller alpha is dropped; this also bounds a splat's extent exactly."""
ALPHA_MAX = 0.99
"""Alpha is clamped here, so that the transmittance never reaches zero and can be divided by."""
TRANSMITTANCE_CUT = 1e-4
"""A pixel stops accepting splats once less than this shines through."""
FRUSTUM_MARGIN = 0.15
"""The local affine approximation is taken no further outside the image than this share of its size (0.3 tan(fov/2))."""
LOG_SCALE_MIN, LOG_SCALE_MAX = -20.0, 10.0
"""Log-scales are clamped into this range at use: outside it the projected covariance is not representable."""


@dataclass(frozen=True)
class SplatData:
    """N anisotropic Gaussians with raw (unactivated) parameters, as in the INRIA PLY layout.

    Exactly one of `features` and `sh` is given.

    Attributes:
        means: centres in the world.
        log_scales: natural logarithm of the standard deviation along each own axis.
        quaternions: own axes to world, wxyz, normalised at use.
        opacity_logits: the opacity is their sigmoid.
        features: any C channels, already activated, the same from every direction.
        sh: spherical-harmonic colour coefficients, K = (degree + 1)^2 with degree 0..3; colour = clamp(0.5 + sum, 0).
    """

    means: Float[Tensor, "N 3"]
    log_scales: Float[Tensor, "N 3"]
    quaternions: Float[Tensor, "N 4"]
    opacity_logits: Float[Tensor, " N"]
    features: Float[Tensor, "N C"] | None = None
    sh: Float[Tensor, "N K 3"] | None = None

    def __len__(self) -> int:
        return self.means.shape[0]

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are present, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def select(self, index: Tensor) -> "SplatData":
        """The splats at `index` (positions or a boolean mask)."""
        return SplatData(**{name: value[index] for name, value in self.tensors().items()})

    def detach(self) -> "SplatData":
        """The same values without gradient history."""
        return SplatData(**{name: value.detach() for name, value in self.tensors().items()})


@dataclass(frozen=True)
class RasterSettings:
    """How splats are drawn.

    Attributes:
        near: smallest depth of a drawn splat's centre, > 0.
        antialias: lower a splat's opacity by as much as the low-pass filter spreads it, so that it covers the same
            area at every image size (Yu et al. 2024).
    """

    near: float
    antialias: bool


@dataclass(frozen=True)
class SplatRenderOutput(RenderOutput):
    """A render and what density control wants to know about it.

    Attributes:
        radii: half-extent in pixels of the region a splat can reach; 0 where a camera does not see it.
    """

    radii: Float[Tensor, "B N"] | None = None


def check_splats(splats: SplatData) -> None:
    """Refuse splats whose shapes disagree or whose values are not finite.

    Raises:
        ConfigError: wrong shape, dtype or device, or not exactly one kind of colour.
        NumericsError: NaN or infinity.
    """
    n = len(splats)
    if (splats.features is None) == (splats.sh is None):
        raise ConfigError(
            "splats need exactly one of `features` and `sh`; pass one and leave the other None"
        )
    tails = {"means": (3,), "log_scales": (3,), "quaternions": (4,), "opacity_logits": ()}
    for name, value in splats.tensors().items():
        tail = tails.get(name, tuple(value.shape[1:]))
        if tuple(value.shape) != (n, *tail):
            raise ConfigError(
                f"splat {name} has shape {list(value.shape)}; expected {[n, *tail]} for {n} means"
            )
        if value.dtype != splats.means.dtype or value.device != splats.means.device:
            raise ConfigError(
                f"splat {name} is {value.dtype} on {value.device}, means are {splats.means.dtype} "
                f"on {splats.means.device}; convert them to one dtype and device"
            )
    _check_finite(splats)
    if splats.features is not None and splats.features.ndim != 2:
        raise ConfigError(
            f"splat features have shape {list(splats.features.shape)}; expected [N, C]"
        )
    if splats.sh is not None and (
        splats.sh.ndim != 3 or splats.sh.shape[1:] not in {(k, 3) for k in (1, 4, 9, 16)}
    ):
        raise ConfigError(
            f"splat sh has shape {list(splats.sh.shape)}; expected [N, K, 3] with K = 1, 4, 9 or 16 (degree 0 to 3)"
        )


def _check_finite(splats: SplatData) -> None:
    """Refuse NaN and infinity; a GPU is waited for once."""
    # One pass instead of isfinite().all(): NaN and infinity survive a sum. An overflowing sum is looked at again.
    tensors = {name: value.detach() for name, value in splats.tensors().items()}
    sums = torch.stack([value.sum() for value in tensors.values()]).tolist()
    for (name, value), total in zip(tensors.items(), sums, strict=True):
        bad = 0
        if not math.isfinite(total):
            bad = int((~torch.isfinite(value.reshape(len(value), -1))).any(dim=1).sum())
        if bad:
            raise NumericsError(
                f"{bad} of {len(value)} splats have {name} that are not finite; lower the learning rate, or drop those "
                "splats before rendering"
            )
