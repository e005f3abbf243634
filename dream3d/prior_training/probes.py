"""Does the network listen? The loss with the true camera or caption against that with another's.

At high noise the picture is nearly gone, and a network that follows its conditions is far worse when they are wrong.
Measured on objects with a front, because a snowman's back differs from its front by little.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.diffusion import TableSchedule
from dream3d.prior_training.batches import token_ids
from dream3d.prior_training.objective import latents_of, losses, noisy, predicted_x0
from dream3d.priors.latent.camera_encoder import camera_features
from dream3d.priors.latent.components import Components
from dream3d.world.dataset import Mix, sample_batch

LEVELS = (0.9, 0.95)
_SEED = 20_001


@dataclass(frozen=True)
class Probe:
    """A fixed set of held-in objects with fixed noise.

    Attributes:
        x0: clean latents of N * V images.
        token_ids: their captions, without view words.
        cameras: their cameras.
        views: V.
    """

    x0: Float[Tensor, "B C h w"]
    token_ids: Int[Tensor, "B L"]
    cameras: CameraBatch
    views: int

    @torch.no_grad()
    def measure(self, components: Components, schedule: TableSchedule) -> dict[str, float]:
        """Relative gaps (loss when told wrong / loss when told right - 1), by condition and noise level."""
        device = self.x0.device
        turned = torch.arange(len(self.x0)).reshape(-1, self.views).roll(1, dims=1).flatten()
        other = torch.arange(len(self.x0)).roll(self.views)
        result: dict[str, float] = {}
        for level in LEVELS:
            t = torch.full((len(self.x0),), level, device=device)
            generator = torch.Generator().manual_seed(_SEED)
            z_t = noisy(schedule, self.x0, t, generator)
            index = schedule.index(t)

            def error(
                ids: Tensor, cameras: CameraBatch, z_t: Tensor = z_t, index: Tensor = index
            ) -> float:
                told = camera_features(cameras)
                with torch.autocast(z_t.device.type, dtype=torch.bfloat16):
                    output = predicted_x0(components, z_t, index, ids, told)
                return losses(self.x0, output).mean().item()

            right = error(self.token_ids, self.cameras)
            name = f"{round(1000 * level)}"
            result[f"loss_{name}"] = right
            result[f"camera_gap_{name}"] = error(self.token_ids, self.cameras[turned]) / right - 1.0
            result[f"caption_gap_{name}"] = error(self.token_ids[other], self.cameras) / right - 1.0
        return result


def make_probe(components: Components, device: torch.device, objects: int = 32) -> Probe:
    """The same probe for every run: single objects with a front, four views evenly around each."""
    views = 4
    mix = Mix(pair_share=0.0, primitive_share=0.0, front_share=1.0)
    world = sample_batch(
        np.random.default_rng(_SEED), objects, views, size=64, mix=mix, spread_share=1.0
    )
    captions = [caption for caption in world.captions for _ in range(views)]
    return Probe(
        latents_of(components, world.images.flatten(0, 1).to(device)),
        token_ids(components.tokenizer, captions).to(device),
        world.cameras.to(device),
        views,
    )
