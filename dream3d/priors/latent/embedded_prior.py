"""The embedded model as a `Prior`: the pipelines' adapter, told cameras, in the procedural world's language."""

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.diffusion import Prediction
from dream3d.priors.base import Condition
from dream3d.priors.latent.camera_encoder import camera_features
from dream3d.priors.latent.components import Components
from dream3d.priors.pipelines.packing import Text
from dream3d.priors.pipelines.prior import PipelineParts, PipelinePrior
from dream3d.priors.pipelines.recording import Function
from dream3d.priors.pipelines.table import STABLE_DIFFUSION
from dream3d.world.grammar import caption_text, parse


def canonical_prompt(prompt: str) -> str:
    """The sentence the model was trained on that means the same; the empty prompt stays empty.

    Raises:
        PromptError: unknown words.
    """
    return caption_text(parse(prompt)) if prompt.strip() else ""


class WorldWords:
    """Embeds prompts in their canonical form by a text encoder that is small enough to stay in memory.

    Args:
        components: its tokenizer and text encoder are used.
        device: where the encoder is.
    """

    def __init__(self, components: Components, device: torch.device) -> None:
        self.tokenizer, self.encoder = components.tokenizer, components.text_encoder
        self.device = device

    def embed(self, prompts: list[str]) -> Float[Tensor, "B L D"]:
        """The text encoder's last hidden states, float32.

        Raises:
            PromptError: unknown words.
        """
        ids = self.tokenizer(
            [canonical_prompt(prompt) for prompt in prompts],
            padding="max_length",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids
        with torch.no_grad():
            return self.encoder(ids.to(self.device))[0].float()

    def read(self, packed: Float[Tensor, "B L D"]) -> Text:
        """Tokens are all there is."""
        return Text(packed)

    def without_image(self, packed: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """There is no picture."""
        return packed


class EmbeddedPrior(PipelinePrior):
    """A `PipelinePrior` that refuses words it was never taught, and sees an object's views together where asked to.

    Args:
        components: the parts; moved to `device` by the caller. Without a camera encoder it takes no cameras.
        device: where they are.
        autocast: compute the networks in this lower precision; None computes in the weights' own.

    Raises:
        ModelError: the scheduler has no `alphas_cumprod`, or a `prediction_type` that is not known.
    """

    joint_views = 4
    embeds_ahead = False

    def __init__(
        self, components: Components, device: torch.device, autocast: torch.dtype | None = None
    ) -> None:
        words = WorldWords(components, device)
        parts = (components.unet, components.vae, components.scheduler, words)
        super().__init__(PipelineParts(STABLE_DIFFUSION, *parts), device)
        self.camera_encoder = components.camera_encoder
        self.accepts_cameras = components.camera_encoder is not None
        self.autocast = autocast

    def check_prompt(self, prompt: str) -> None:
        """Refuse what the world cannot show; see `dream3d.world.grammar.parse`."""
        parse(prompt)

    def output_of(
        self,
        ask: Function,
        z_t: Float[Tensor, "B C h w"],
        t: Float[Tensor, " B"],
        condition: Condition,
    ) -> Prediction:
        with torch.autocast(
            self.device.type, dtype=self.autocast, enabled=self.autocast is not None
        ):
            return super().output_of(ask, z_t, t, condition)

    def of_views(self, words: Float[Tensor, "B L D"], condition: Condition) -> dict[str, object]:
        """The camera's tokens behind the words, where the condition has cameras, and how many views are joined.

        Raises:
            ValueError: the condition has cameras and the model has no camera encoder, or several views per object
                without cameras.
        """
        views = condition.views_per_object
        if condition.cameras is None:
            if views > 1:
                raise ValueError("several views per object need cameras")
            return {}
        if self.camera_encoder is None:
            raise ValueError("this prior has no camera encoder; ask it without cameras")
        features = camera_features(condition.cameras).to(self.device, self.dtype)
        cameras = self.camera_encoder(features).to(words.dtype)
        joined = {"cross_attention_kwargs": {"views": views}} if views > 1 else {}
        return {"encoder_hidden_states": torch.cat([words, cameras], dim=1), **joined}
