"""Colours of scenes that are made of a prior's latents (Latent-NeRF, Metzer et al. 2023): a linear approximation."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from renderers.volume_data import VolumeField


@dataclass(frozen=True)
class LatentColors:
    """Affine maps between C latent channels and colours, each with its offset as the last row.

    They are fitted to one prior (`dream3d.latent_scenes.fit_latent_colors`) and belong to the scene's state.
    """

    to_rgb: Float[Tensor, "C1 3"]
    to_latent: Float[Tensor, "4 C"]

    @classmethod
    def unknown(cls, channels: int, device: torch.device) -> "LatentColors":
        """All colours grey, before any prior has been asked."""
        to_rgb = torch.zeros(channels + 1, 3, device=device)
        to_rgb[-1] = 0.5
        return cls(to_rgb, torch.zeros(4, channels, device=device))

    def rgb(
        self, latents: Float[Tensor, "*#B C"], cover: Float[Tensor, "*#B 1"] | float = 1.0
    ) -> Float[Tensor, "*B 3"]:
        """Colours, not clamped; for latents premultiplied by `cover`, colours premultiplied likewise."""
        return latents @ self.to_rgb[:-1] + cover * self.to_rgb[-1]

    def latents(self, rgb: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B C"]:
        """Latents that stand for colours."""
        return rgb @ self.to_latent[:-1] + self.to_latent[-1]


@dataclass(frozen=True)
class PaintedField:
    """A field of latents seen in colours."""

    field: VolumeField
    colors: LatentColors

    @property
    def like(self) -> Tensor:
        return self.field.like

    def density(self, points: Float[Tensor, "N 3"], backend: str = "auto") -> Float[Tensor, " N"]:
        """The field's own."""
        return self.field.density(points, backend)

    def __call__(
        self, points: Float[Tensor, "N 3"], backend: str = "auto"
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 3"]]:
        density, latents = self.field(points, backend)
        return density, self.colors.rgb(latents).clamp(0.0, 1.0)
