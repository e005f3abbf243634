"""Between images and the latents a pipeline's network was trained on."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.errors import ModelError
from dream3d.priors.pipelines.table import LatentNorm


def patchify(z: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
    """2 x 2 neighbours as channels, the channel slowest (FLUX.2)."""
    count, channels, height, width = z.shape
    z = z.reshape(count, channels, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4)
    return z.reshape(count, 4 * channels, height // 2, width // 2)


def unpatchify(z: Float[Tensor, "B D h w"]) -> Float[Tensor, "B C H W"]:
    """The inverse of `patchify`."""
    count, channels, height, width = z.shape
    z = z.reshape(count, channels // 4, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
    return z.reshape(count, channels // 4, 2 * height, 2 * width)


def codec_downscale(vae: Any) -> int:
    """Pixels per side of a latent cell of an autoencoder of diffusers."""
    config = vae.config
    for name in ("block_out_channels", "encoder_block_out_channels"):
        if name in config:
            return 2 ** (len(config[name]) - 1)
    if "temperal_downsample" in config:  # their spelling
        return 2 ** len(config["temperal_downsample"])
    raise ModelError(f"the codec {type(vae).__name__} is of an unknown kind")


class LatentCodec:
    """Images in [-1, 1] to normalised latents and back.

    Args:
        vae: an autoencoder of diffusers, or None for a pipeline that works on pixels.
        norm: see `PipelineRow`.
    """

    def __init__(self, vae: Any, norm: LatentNorm) -> None:
        self.vae = vae
        self.norm = norm
        self.downscale = 1
        if vae is None:
            if norm != "none":
                raise ModelError("the model's directory has no vae; restore it")
            return
        self.dtype = next(vae.parameters()).dtype
        device = next(vae.parameters()).device
        config = vae.config
        self.downscale = codec_downscale(vae) * (2 if norm == "batch-norm" else 1)
        self.shift: Any = 0.0
        self.factor: Any = 1.0
        if norm in ("scale", "shift-scale"):
            self.factor = float(config["scaling_factor"])
            if norm == "shift-scale":
                self.shift = float(config.get("shift_factor") or 0.0)
        elif norm == "mean-std":
            if "latents_mean" not in config:
                raise ModelError(f"{type(vae).__name__} lacks latents_mean; it is not this model's")
            shape = (1, -1, 1, 1)
            self.shift = torch.tensor(config["latents_mean"], device=device).reshape(shape)
            self.factor = 1.0 / torch.tensor(config["latents_std"], device=device).reshape(shape)
        elif norm == "batch-norm":
            if not hasattr(vae, "bn"):
                raise ModelError(
                    f"{type(vae).__name__} lacks batch-norm statistics; it is not this model's: leave prior.vae empty"
                )
            self.shift = vae.bn.running_mean.float().reshape(1, -1, 1, 1)
            variance = vae.bn.running_var.float().reshape(1, -1, 1, 1)
            self.factor = (variance + config["batch_norm_eps"]).rsqrt()

    @property
    def channels(self) -> int | None:
        """Of a latent; None where the codec does not say."""
        if self.vae is None:
            return None
        found = self.vae.config.get("latent_channels") or self.vae.config.get("z_dim")
        return found and int(found) * (4 if self.norm == "batch-norm" else 1)

    def encode(self, signal: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """The posterior's mean, normalised; differentiable."""
        if self.vae is None:
            return signal
        image = signal.to(self.dtype)
        encoded = self.vae.encode(image[:, :, None] if self.norm == "mean-std" else image)
        if hasattr(encoded, "latent_dist"):
            z = encoded.latent_dist.mode()
        else:  # AutoencoderTiny says latents, AutoencoderDC latent
            z = encoded.latents if hasattr(encoded, "latents") else encoded.latent
        z = (z[:, :, 0] if self.norm == "mean-std" else z).float()
        if self.norm == "batch-norm":
            z = patchify(z)
        return (z - self.shift) * self.factor

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Images, not clamped, float32."""
        if self.vae is None:
            return latents.float()
        z = latents.float() / self.factor + self.shift
        if self.norm == "batch-norm":
            z = unpatchify(z)
        z = z.to(self.dtype)
        image = self.vae.decode(z[:, :, None] if self.norm == "mean-std" else z, return_dict=False)[
            0
        ]
        return (image[:, :, 0] if self.norm == "mean-std" else image).float()
