"""Drawing images from a prior by deterministic denoising (DDIM, Song et al. 2021)."""

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.diffusion import Prediction, per_sample
from dream3d.priors.base import Condition, Prior


def sample(
    prior: Prior,
    prompts: list[str],
    cameras: CameraBatch | None = None,
    views_per_object: int = 1,
    steps: int = 25,
    cfg_scale: float = 3.0,
    generator: torch.Generator | None = None,
    clip_pixels: bool = True,
) -> Float[Tensor, "B H W 3"]:
    """One image per prompt.

    Args:
        prior: any prior.
        prompts: B texts; with several views per object, one text per view.
        cameras: B poses for a prior that takes them, or None.
        views_per_object: consecutive samples that show one object and are denoised jointly; needs cameras.
        steps: network calls, from pure noise to the clean image in even steps of t.
        cfg_scale: classifier-free guidance, empty + scale (prompt - empty); the camera is given to both.
        generator: of the initial noise; on the CPU, so that a seed means the same image on every device.
        clip_pixels: bring each predicted clean image back to colours that exist by decoding, clamping and encoding.
            Cheap and exact for a linear codec; for a learnt autoencoder switch it off.
    """
    noise = torch.randn(len(prompts), *prior.latent_shape, generator=generator)
    z = noise.to(prior.device)
    if cameras is not None:
        cameras = cameras.to(prior.device)
    text = Condition(prior.embed(prompts), cameras, views_per_object)
    empty = Condition(prior.embed([""] * len(prompts)), cameras, views_per_object)
    times = torch.linspace(1.0, 0.0, steps + 1)
    x0 = z
    for now, following in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        t = torch.full((len(z),), now, device=z.device)
        prediction = _guided(prior, z, t, text, empty, cfg_scale)
        x0 = prediction.x0
        if clip_pixels:
            with torch.no_grad():
                x0 = prior.encode(prior.decode(x0))
        if following > 0.0:
            eps = Prediction(x0, "x0", z, prediction.alpha, prediction.sigma).eps
            t = torch.full((len(z),), following, device=z.device)
            alpha, sigma = prior.schedule.alpha(t), prior.schedule.sigma(t)
            z = per_sample(alpha, z) * x0 + per_sample(sigma, z) * eps
    with torch.no_grad():
        return prior.decode(x0)


def _guided(
    prior: Prior, z: Tensor, t: Tensor, text: Condition, empty: Condition, scale: float
) -> Prediction:
    """Both predictions in one call, mixed; a single one where the scale needs no other."""
    if scale in (0.0, 1.0):
        return prior.predict(z, t, text if scale else empty)
    both = prior.predict(torch.cat([z, z]), torch.cat([t, t]), Condition.concatenate([empty, text]))
    count = len(z)
    without, towards = both.value[:count], both.value[count:]
    mixed = without + scale * (towards - without)
    return Prediction(mixed, both.kind, z, both.alpha[:count], both.sigma[:count])
