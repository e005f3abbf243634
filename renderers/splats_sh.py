"""Spherical-harmonic colours, degree 0 to 3, in the INRIA basis (Kerbl et al. 2023).

colour(d) = max(0, 0.5 + sum_k Y_k(d) c_k) for a unit direction d from the camera to the splat.
"""

import torch
from jaxtyping import Float
from torch import Tensor

C0 = 0.28209479177387814
C1 = 0.4886025119029199
C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
C3 = (
    0.5900435899266435,
    2.890611442640554,
    0.4570457994644658,
    0.3731763325901154,
    1.445305721320277,
)


def rgb_to_sh(rgb: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """The degree-0 coefficient that shows as `rgb` from everywhere."""
    return (rgb - 0.5) / C0


def sh_basis(direction: Float[Tensor, "*N 3"], count: int) -> Float[Tensor, "*N {count}"]:
    """The first `count` (1, 4, 9 or 16) basis functions at unit directions."""
    x, y, z = direction.unbind(dim=-1)
    basis = [torch.full_like(x, C0)]
    if count > 1:
        basis += [-C1 * y, C1 * z, -C1 * x]
    if count > 4:
        basis += [
            C2[0] * x * y,
            -C2[0] * y * z,
            C2[1] * (2 * z * z - x * x - y * y),
            -C2[0] * x * z,
            C2[2] * (x * x - y * y),
        ]
    if count > 9:
        basis += [
            -C3[0] * y * (3 * x * x - y * y),
            C3[1] * x * y * z,
            -C3[2] * y * (4 * z * z - x * x - y * y),
            C3[3] * z * (2 * z * z - 3 * x * x - 3 * y * y),
            -C3[2] * x * (4 * z * z - x * x - y * y),
            C3[4] * z * (x * x - y * y),
            -C3[0] * x * (x * x - 3 * y * y),
        ]
    return torch.stack(basis, dim=-1)


def sh_colors(
    sh: Float[Tensor, "N K 3"], means: Float[Tensor, "N 3"], positions: Float[Tensor, "B 3"]
) -> Float[Tensor, "V N 3"]:
    """Colours of N splats seen from B cameras; V = 1 where they do not depend on the view (degree 0), else B."""
    count = sh.shape[1]
    if count == 1:
        return (0.5 + C0 * sh.transpose(0, 1)).clamp_min(0.0)
    direction = torch.nn.functional.normalize(means[None] - positions[:, None], dim=-1)
    return (0.5 + torch.einsum("bnk,nkc->bnc", sh_basis(direction, count), sh)).clamp_min(0.0)
