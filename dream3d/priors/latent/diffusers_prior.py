"""A pretrained text-to-image model of the Stable Diffusion kind as a `Prior`.

One adapter reads the embedded model and the large ones: a U-Net with cross-attention on a tokenizer and a text
encoder, a latent codec, and a discrete noise schedule. What the network's output means is read from the scheduler's
configuration, never assumed. A directory that also holds a `camera_encoder` can be told the camera and can denoise the
views of one object together.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from dream3d.companion import Companion
from dream3d.diffusion import Prediction, PredictionKind, TableSchedule, per_sample
from dream3d.errors import ModelError
from dream3d.priors.base import Condition, Prior
from dream3d.priors.latent.camera_encoder import camera_features
from dream3d.priors.latent.components import Components

KINDS: dict[str, PredictionKind] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
"""diffusers' `prediction_type` in this package's words."""


class DiffusersPrior(Prior):
    """Adapter over the parts of a diffusers pipeline.

    Args:
        components: the parts; moved to `device` by the caller.
        device: where they are.
        autocast: compute the networks in this lower precision; None computes in the weights' own.

    Raises:
        ModelError: the scheduler has no `alphas_cumprod`, or a `prediction_type` that is not known.
    """

    def __init__(
        self,
        components: Components,
        device: torch.device,
        autocast: torch.dtype | None = None,
    ) -> None:
        scheduler = components.scheduler
        kind = KINDS.get(scheduler.config.prediction_type)
        if kind is None or not hasattr(scheduler, "alphas_cumprod"):
            raise ModelError(
                f"{type(scheduler).__name__} with prediction_type '{scheduler.config.prediction_type}' is not "
                f"supported; supported are discrete schedules that predict {', '.join(KINDS)}"
            )
        self.components = components
        self.network = components.unet
        self.device = device
        self.autocast = autocast
        self.kind: PredictionKind = kind
        self.table = TableSchedule(scheduler.alphas_cumprod.float().to(device))
        self.schedule = self.table
        unet, vae = components.unet, components.vae
        side = int(unet.config["sample_size"])
        self.latent_shape = (int(unet.config["in_channels"]), side, side)
        self.image_size = side * 2 ** (len(vae.config["block_out_channels"]) - 1)
        self.accepts_cameras = components.camera_encoder is not None
        self.scaling = float(vae.config["scaling_factor"])
        self.shift = float(vae.config.get("shift_factor", None) or 0.0)
        self.dtype = next(unet.parameters()).dtype

    def check_prompt(self, prompt: str) -> None:
        """An open vocabulary takes any prompt."""

    def embed(self, prompts: list[str]) -> Float[Tensor, "B L D"]:
        """The text encoder's last hidden states, float32."""
        tokenizer = self.components.tokenizer
        ids = tokenizer(
            prompts,
            padding="max_length",
            truncation=True,
            max_length=tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids
        with torch.no_grad():
            return self.components.text_encoder(ids.to(self.device))[0].float()

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """The mean of the codec's posterior, scaled; differentiable."""
        signal = images.permute(0, 3, 1, 2) * 2.0 - 1.0
        size = (self.image_size, self.image_size)
        if signal.shape[-2:] != size:
            signal = interpolate(signal, size, mode="bilinear", antialias=True, align_corners=False)
        mean = self.components.vae.encode(signal.to(self.dtype)).latent_dist.mean
        return (mean.float() - self.shift) * self.scaling

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B H W 3"]:
        """Images clamped to [0, 1]."""
        signal = self.components.vae.decode(
            (latents / self.scaling + self.shift).to(self.dtype), return_dict=False
        )[0]
        return (signal.float().permute(0, 2, 3, 1) * 0.5 + 0.5).clamp(0.0, 1.0)

    def predict(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Prediction:
        """One network call, without gradient.

        Raises:
            ValueError: the condition has cameras and the model has no camera encoder, or several views per object
                without cameras.
        """
        with torch.no_grad():
            return self.output(z_t, t, condition)

    def output(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Prediction:
        """As `predict`, with gradient to whatever in the network asks for it."""
        with torch.autocast(
            self.device.type, dtype=self.autocast, enabled=self.autocast is not None
        ):
            value = self.components.unet(
                z_t.to(self.dtype),
                self.table.index(t),
                encoder_hidden_states=self._context(condition).to(self.dtype),
                cross_attention_kwargs=(
                    {"views": condition.views_per_object}
                    if condition.views_per_object > 1
                    else None
                ),
                return_dict=False,
            )[0]
        alpha = per_sample(self.schedule.alpha(t), z_t)
        sigma = per_sample(self.schedule.sigma(t), z_t)
        return Prediction(value.to(z_t.dtype), self.kind, z_t, alpha, sigma)

    def companion(self, rank: int, seed: int, name: str = "companion") -> Companion:
        """Low-rank updates of the U-Net's attention; see `lora_companion`."""
        from dream3d.priors.latent.lora_companion import LoraCompanion

        return LoraCompanion(self, rank, seed, name)

    def _context(self, condition: Condition) -> Float[Tensor, "B K D"]:
        """Text tokens, and the camera's behind them where the condition has cameras."""
        if condition.cameras is None:
            if condition.views_per_object > 1:
                raise ValueError("several views per object need cameras")
            return condition.tokens
        encoder = self.components.camera_encoder
        if encoder is None:
            raise ValueError("this prior has no camera encoder; ask it without cameras")
        features = camera_features(condition.cameras).to(self.device, self.dtype)
        return torch.cat([condition.tokens, encoder(features).to(condition.tokens.dtype)], dim=1)
