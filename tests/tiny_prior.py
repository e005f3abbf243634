"""The embedded model's shape in small, with random weights."""

import torch

from dream3d.priors.latent.build import Architecture, build_components
from dream3d.priors.latent.codec import PatchCodec
from dream3d.priors.latent.components import Components
from dream3d.world.grammar import VOCABULARY

TINY = Architecture(image_size=32, channels=(16, 32), text_dim=32, latent_channels=6)


def tiny_components() -> Components:
    """Always the same weights; nothing asks for a gradient."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = PatchCodec(4, TINY.latent_channels, sample_size=TINY.image_size)
        components = build_components(VOCABULARY, codec, TINY)
    for module in components.modules().values():
        module.eval().requires_grad_(False)
    return components
