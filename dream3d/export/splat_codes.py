"""Steps the compact splat containers share: activations, an order that keeps neighbours together, coded rotations."""

import numpy as np
from jaxtyping import Float, Int

from dream3d.export.splat_ply import SplatArrays
from renderers.splats_sh import C0


def opacities(splats: SplatArrays) -> Float[np.ndarray, " N"]:
    """In [0, 1]."""
    return 1.0 / (1.0 + np.exp(-splats.opacity_logits.astype(np.float64)))


def base_colors(splats: SplatArrays) -> Float[np.ndarray, "N 3"]:
    """What degree 0 alone shows, sRGB; outside [0, 1] where higher degrees correct it."""
    return 0.5 + C0 * splats.sh[:, 0].astype(np.float64)


def unit_quaternions(splats: SplatArrays) -> Float[np.ndarray, "N 4"]:
    """Of length one, w first."""
    q = splats.quaternions.astype(np.float64)
    return q / np.linalg.norm(q, axis=1, keepdims=True)


def degree(splats: SplatArrays) -> int:
    """Of the spherical harmonics, 0 to 3."""
    return {1: 0, 4: 1, 9: 2, 16: 3}[splats.sh.shape[1]]


def smallest_three(
    q: Float[np.ndarray, "N 4"],
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, "N 3"]]:
    """Which component is largest in size, and the three others of the equal rotation in which that one is positive."""
    largest = np.abs(q).argmax(axis=1)
    rows = np.arange(len(q))
    signed = q * np.where(q[rows, largest] < 0.0, -1.0, 1.0)[:, None]
    others = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])[largest]
    return largest, signed[rows[:, None], others]


def reordered(splats: SplatArrays, order: Int[np.ndarray, " N"]) -> SplatArrays:
    """The splats in another order."""
    return SplatArrays(**{name: value[order] for name, value in vars(splats).items()})


def along_a_curve(splats: SplatArrays) -> SplatArrays:
    """Ordered along a Morton curve, so that splats near each other in the file are near each other in space."""
    low, high = splats.means.min(axis=0), splats.means.max(axis=0)
    cell = (splats.means - low) / np.maximum(high - low, 1e-12) * 1023.0
    code = np.zeros(len(cell), np.int64)
    for axis, bits in enumerate(cell.astype(np.int64).T):
        spread = bits
        for shift, mask in ((16, 0x030000FF), (8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)):
            spread = (spread | (spread << shift)) & mask
        code |= spread << axis
    return reordered(splats, np.argsort(code, kind="stable"))


def quantised(values: np.ndarray, steps: int) -> Int[np.ndarray, "..."]:
    """[0, 1] to the integers 0 to `steps`, rounded, clipped."""
    return np.floor(np.clip(values, 0.0, 1.0) * steps + 0.5).astype(np.int64)
