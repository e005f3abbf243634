"""The training loss: the error of the predicted clean latent, weighed by the noise it was hidden in."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import mse_loss

from dream3d.diffusion import TableSchedule, per_sample
from dream3d.priors.latent.components import Components


@dataclass(frozen=True)
class Exam:
    """What one step asks of the network.

    Attributes:
        x0: clean latents, the answer.
        z_t: the same with noise.
        index: integer timesteps.
        weights: of each sample's error.
        token_ids: of the captions.
        features: of the cameras; None where the network is told none.
        views: how many consecutive samples are one object seen jointly.
    """

    x0: Float[Tensor, "B C h w"]
    z_t: Float[Tensor, "B C h w"]
    index: Int[Tensor, " B"]
    weights: Float[Tensor, " B"]
    token_ids: Int[Tensor, "B L"]
    features: Float[Tensor, "B F"] | None
    views: int


def exam_loss(components: Components, exam: Exam) -> Float[Tensor, ""]:
    """The weighted error of the network's answers, in bfloat16 where that is enough."""
    with torch.autocast(exam.z_t.device.type, dtype=torch.bfloat16):
        output = predicted_x0(
            components, exam.z_t, exam.index, exam.token_ids, exam.features, exam.views
        )
    return (losses(exam.x0, output) * exam.weights).mean()


def latents_of(
    components: Components, images: Float[Tensor, "B S S 3"]
) -> Float[Tensor, "B C h w"]:
    """Clean latents of images in [0, 1], without gradient."""
    with torch.no_grad():
        signal = images.permute(0, 3, 1, 2) * 2.0 - 1.0
        return components.vae.encode(signal).latent_dist.mean


def predicted_x0(
    components: Components,
    z_t: Float[Tensor, "B C h w"],
    index: Int[Tensor, " B"],
    token_ids: Int[Tensor, "B L"],
    features: Float[Tensor, "B F"] | None,
    views: int = 1,
) -> Float[Tensor, "B C h w"]:
    """The network's output, with gradient to every part; a network that predicts the clean latent.

    Args:
        components: the model.
        z_t: noisy latents.
        index: integer timesteps.
        token_ids: of the captions.
        features: of the cameras (`camera_features`), or None where the network is told none.
        views: how many consecutive samples are one object seen jointly.
    """
    context = components.text_encoder(token_ids)[0]
    if features is not None and components.camera_encoder is not None:
        tokens = components.camera_encoder(features)
        context = torch.cat([context, tokens.to(context.dtype)], dim=1)
    kwargs = {"views": views} if views > 1 else None
    output = components.unet(
        z_t, index, encoder_hidden_states=context, cross_attention_kwargs=kwargs, return_dict=False
    )[0]
    return output.float()


def noisy(
    schedule: TableSchedule,
    x0: Float[Tensor, "B C h w"],
    t: Float[Tensor, " B"],
    generator: torch.Generator,
) -> Float[Tensor, "B C h w"]:
    """x0 at noise levels t, with noise drawn where `generator` is."""
    noise = torch.randn(x0.shape, generator=generator, device=generator.device).to(x0.device)
    return per_sample(schedule.alpha(t), x0) * x0 + per_sample(schedule.sigma(t), x0) * noise


def losses(
    x0: Float[Tensor, "B C h w"], prediction: Float[Tensor, "B C h w"]
) -> Float[Tensor, " B"]:
    """Mean squared error of each sample."""
    return mse_loss(prediction, x0, reduction="none").mean(dim=(1, 2, 3))


def loss_weights(
    schedule: TableSchedule, t: Float[Tensor, " B"], bound: float
) -> Float[Tensor, " B"]:
    """1 / (1 - alpha_bar), at most `bound`: the error is judged against the noise it hid in, but for the faintest."""
    return schedule.sigma(t).square().reciprocal().clamp(max=bound)
