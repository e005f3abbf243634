"""A fixed linear image codec: patch principal components, partly whitened.

A latent diffusion model needs a small grid with roughly unit variance, and distillation needs gradients through the
encoder at every step. A learnt autoencoder gives the first at the price of the second; one strided convolution gives
both. The codec projects each p x p patch of an image on its leading principal components, scaled by std^-0.5 so that
coarse components still lead, and decodes with the transposed convolution that inverts it on their span.
It has the interface of diffusers' `AutoencoderKL`, so that pipelines and adapters read it as any other `vae/`.
"""

from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class PointDistribution:
    """A distribution with all its mass on one latent; what `AutoencoderKL` callers expect of `encode`."""

    mean: Float[Tensor, "B C h w"]

    def mode(self) -> Float[Tensor, "B C h w"]:
        """The latent."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Float[Tensor, "B C h w"]:
        """The latent; nothing is drawn."""
        return self.mean


@dataclass(frozen=True)
class Encoded:
    """What `encode` returns, after diffusers' `AutoencoderKLOutput`."""

    latent_dist: PointDistribution


@dataclass(frozen=True)
class Decoded:
    """What `decode` returns, after diffusers' `DecoderOutput`."""

    sample: Float[Tensor, "B 3 H W"]


class PatchCodec(ModelMixin, ConfigMixin):
    """Linear encoder and decoder on p x p patches of RGB images in [-1, 1].

    Args:
        patch_size: p; a latent grid is the image's divided by p. A power of two.
        latent_channels: how many components are kept, at most 3 p^2.
        scaling_factor: multiplies latents by convention of `AutoencoderKL`; 1, the filters carry the scale.
        sample_size: side of the images it was fitted on, in pixels.
        block_out_channels: only its length is read, by pipelines that compute p as 2^(length - 1); leave it None.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        patch_size: int = 4,
        latent_channels: int = 24,
        scaling_factor: float = 1.0,
        sample_size: int = 64,
        block_out_channels: list[int] | None = None,
    ) -> None:
        super().__init__()
        if block_out_channels is None:
            levels = patch_size.bit_length()
            self.register_to_config(block_out_channels=[latent_channels] * levels)
        self.encoder = nn.Conv2d(3, latent_channels, patch_size, stride=patch_size)
        self.decoder = nn.ConvTranspose2d(latent_channels, 3, patch_size, stride=patch_size)

    def encode(self, x: Float[Tensor, "B 3 H W"], return_dict: bool = True) -> Encoded | tuple:
        """Images in [-1, 1] to latents of about unit standard deviation."""
        distribution = PointDistribution(self.encoder(x))
        return Encoded(distribution) if return_dict else (distribution,)

    def decode(
        self,
        z: Float[Tensor, "B C h w"],
        return_dict: bool = True,
        generator: torch.Generator | None = None,
    ) -> Decoded | tuple:
        """Latents to images, not clamped."""
        image = self.decoder(z)
        return Decoded(image) if return_dict else (image,)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """The image as the latent space can express it."""
        return self.decoder(self.encoder(x))


def fit_patch_codec(
    images: Float[Tensor, "N H W 3"], patch_size: int = 4, latent_channels: int = 24
) -> PatchCodec:
    """The principal components of the images' patches, as a codec.

    Component k of a patch is scaled by std_k^-0.5, which halves the range of scales in log terms without drowning the
    coarse components in the fine ones' noise; a common factor then makes the mean variance of a latent 1.

    Args:
        images: sRGB in [0, 1]; a few hundred are enough. H and W are multiples of `patch_size`.
        patch_size: p.
        latent_channels: components to keep.
    """
    size = images.shape[1]
    signal = (images.permute(0, 3, 1, 2) * 2.0 - 1.0).double()
    patches = nn.functional.unfold(signal, patch_size, stride=patch_size)  # [N, 3 p p, L]
    patches = patches.transpose(1, 2).reshape(-1, 3 * patch_size**2)
    mean = patches.mean(dim=0)
    _, spread, components = torch.linalg.svd(
        torch.cov((patches - mean).T), full_matrices=False
    )  # symmetric: rows of `components` are eigenvectors, `spread` their variances
    std = spread[:latent_channels].clamp_min(1e-8).sqrt()
    components = components[:latent_channels]
    # A principal direction has no sign of its own; fix it, so that fitting twice gives the same codec.
    largest = components.abs().argmax(dim=1, keepdim=True)
    components = components * components.gather(1, largest).sign()
    gain = (
        std.rsqrt() / std.mean().sqrt()
    )  # the scaled variances are std / mean(std): they average 1
    # One constant per colour channel, so that a transposed convolution's bias can restore it exactly.
    offset = mean.reshape(3, -1).mean(dim=1)
    codec = PatchCodec(patch_size, latent_channels, sample_size=size)
    shape = (latent_channels, 3, patch_size, patch_size)
    analysis = (gain[:, None] * components).reshape(shape)
    assert codec.encoder.bias is not None and codec.decoder.bias is not None
    with torch.no_grad():
        codec.encoder.weight.copy_(analysis)
        codec.encoder.bias.copy_(-torch.einsum("ocij,c->o", analysis, offset))
        codec.decoder.weight.copy_((components / gain[:, None]).reshape(shape))
        codec.decoder.bias.copy_(offset)
    return codec
