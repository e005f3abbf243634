"""3D Gaussian splats as a PLY file in the layout of the original 3DGS code: 62 float properties, little endian.

Scenes here are +Y up with the front at +Z. 3DGS files are +Y down by convention (captures come from camera frames), and
viewers expect that, so everything is turned by 180 degrees about the X axis on the way out: positions, orientations and
spherical harmonics alike, by the one function `turned_about_x`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from dream3d.errors import AssetError
from renderers.splats_data import SplatData
from renderers.splats_sh import rgb_to_sh

_REST = 45
PROPERTIES = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
    *(f"f_rest_{i}" for i in range(_REST)),
    *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)

# Sign of each real spherical harmonic of degree 1-3 (order m = -l .. l) under (x, y, z) -> (x, -y, -z): each is a
# polynomial, odd or even in y and z together.
_SH_SIGNS = np.array(
    [
        *(-1, -1, +1),  # y, z, x
        *(-1, +1, +1, -1, +1),  # xy, yz, 2zz-xx-yy, xz, xx-yy
        *(
            -1,
            +1,
            -1,
            -1,
            +1,
            -1,
            +1,
        ),  # y(3xx-yy), xyz, y(4zz-..), z(2zz-..), x(4zz-..), z(xx-yy), x(xx-3yy)
    ],
    dtype=np.float32,
)


@dataclass(frozen=True)
class SplatArrays:
    """N splats as stored, before any activation.

    Attributes:
        means: centres in the world.
        log_scales: natural logarithm of the standard deviations along the splat's own axes.
        quaternions: orientation, w first; any length but 0.
        opacity_logits: opacity = sigmoid(logit).
        sh: spherical harmonics per colour channel, K = 1, 4, 9 or 16 (degree 0 to 3); colour = 0.5 + sum of sh Y.
    """

    means: Float[np.ndarray, "N 3"]
    log_scales: Float[np.ndarray, "N 3"]
    quaternions: Float[np.ndarray, "N 4"]
    opacity_logits: Float[np.ndarray, " N"]
    sh: Float[np.ndarray, "N K 3"]


def splat_arrays(splats: SplatData) -> SplatArrays:
    """What the renderer draws, as arrays; colours that are the same from everywhere become degree 0."""
    sh = splats.sh if splats.features is None else rgb_to_sh(splats.features)[:, None]
    if sh is None or sh.shape[2] != 3:
        raise AssetError("only splats with three colour channels can be exported")

    def array(tensor: torch.Tensor) -> np.ndarray:
        return tensor.detach().cpu().float().numpy()

    return SplatArrays(
        array(splats.means),
        array(splats.log_scales),
        array(splats.quaternions),
        array(splats.opacity_logits),
        array(sh),
    )


def turned_about_x(splats: SplatArrays) -> SplatArrays:
    """The same splats after a rotation of the world by 180 degrees about X; its own inverse (up to quaternion sign)."""
    flip = np.array([1.0, -1.0, -1.0], dtype=np.float32)
    w, x, y, z = splats.quaternions.T
    # (0, 1, 0, 0) * q: the turn applied after the splat's own orientation.
    turned = np.stack([-x, w, -z, y], axis=1)
    signs = np.concatenate([np.ones(1, dtype=np.float32), _SH_SIGNS])[: splats.sh.shape[1]]
    return SplatArrays(
        splats.means * flip,
        splats.log_scales,
        turned,
        splats.opacity_logits,
        splats.sh * signs[None, :, None],
    )


def check_splats(splats: SplatArrays) -> None:
    """Refuse splats no viewer can show.

    Raises:
        AssetError: there are none, some number is not finite, or a quaternion is zero.
    """
    if len(splats.means) == 0:
        raise AssetError(
            "the scene has no splats left, so there is nothing to export; lower the pruning "
            "threshold of the scene or start from another seed"
        )
    for name in ("means", "log_scales", "quaternions", "opacity_logits", "sh"):
        array = getattr(splats, name)
        broken = int((~np.isfinite(array.reshape(len(array), -1))).any(axis=1).sum())
        if broken:
            raise AssetError(
                f"{broken} of {len(array)} splats have {name} that are not finite, so the asset is not "
                "exported; resume from the last checkpoint with lower learning rates"
            )
    zero = int((np.abs(splats.quaternions).max(axis=1) == 0.0).sum())
    if zero:
        raise AssetError(f"{zero} splats have the orientation 0, which is none; not exported")


def splat_ply_bytes(splats: SplatArrays, comments: Sequence[str] = ()) -> bytes:
    """The PLY file of `splats` (given in the world's frame, written +Y down).

    Args:
        splats: what to write.
        comments: further lines of the header, ASCII.

    Raises:
        AssetError: see `check_splats`.
    """
    check_splats(splats)
    turned = turned_about_x(splats)
    count = len(turned.means)
    rest = np.zeros((count, 15, 3), dtype=np.float32)
    rest[:, : turned.sh.shape[1] - 1] = turned.sh[:, 1:]
    norm = np.linalg.norm(turned.quaternions, axis=1, keepdims=True)
    columns = [
        turned.means,
        np.zeros((count, 3)),
        turned.sh[:, 0],
        # Channel-major: all of red, then green, then blue.
        rest.transpose(0, 2, 1).reshape(count, _REST),
        turned.opacity_logits[:, None],
        turned.log_scales,
        turned.quaternions / norm,
    ]
    table = np.concatenate(columns, axis=1).astype("<f4")
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment dream3d: 3D Gaussian splats, +Y down, front +Z turned to -Z",
        *comments,
        f"element vertex {count}",
        *(f"property float {name}" for name in PROPERTIES),
        "end_header",
    ]
    return "\n".join(header).encode("ascii") + b"\n" + table.tobytes()
