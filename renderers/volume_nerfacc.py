"""nerfacc's compositing (Li et al. 2023), on NVIDIA GPUs: compared with the reference on an H100."""

import nerfacc  # pyright: ignore[reportMissingImports]
import torch
from jaxtyping import Float, Int
from torch import Tensor


def composite(
    density: Float[Tensor, " N"],
    features: Float[Tensor, "N C"],
    length: Float[Tensor, " N"],
    start: Int[Tensor, " R1"],
) -> tuple[Float[Tensor, "R C"], Float[Tensor, " R"]]:
    """See `renderers.volume.composite`."""
    rays = len(start) - 1
    if len(density) == 0:
        return features.new_zeros(rays, features.shape[1]), density.new_zeros(rays)
    ray = torch.repeat_interleave(torch.arange(rays, device=start.device), start[1:] - start[:-1])
    # Only the difference of the two distances is used.
    weight, _, _ = nerfacc.render_weight_from_density(
        torch.zeros_like(length), length, density, ray_indices=ray, n_rays=rays
    )
    image = nerfacc.accumulate_along_rays(weight, features, ray_indices=ray, n_rays=rays)
    alpha = nerfacc.accumulate_along_rays(weight, None, ray_indices=ray, n_rays=rays)
    return image, alpha[:, 0]
