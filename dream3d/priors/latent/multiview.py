"""Several views of one object denoised together: self-attention that sees all of them (Shi et al. 2023, MVDream)."""

from typing import Any, cast

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def attend(
    query: Float[Tensor, "B N L D"], key: Float[Tensor, "B N S D"], value: Float[Tensor, "B N S D"]
) -> Float[Tensor, "B N L D"]:
    """Scaled dot-product attention by the fastest route for the job."""
    if query.device.type == "cpu" and torch.is_grad_enabled() and query.requires_grad:
        # The fused CPU kernel's backward takes several times as long as two plain products at these sizes.
        weights = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        return weights.softmax(dim=-1).to(value.dtype) @ value
    return scaled_dot_product_attention(query, key, value)


class JointViewAttention:
    """Attention processor without weights of its own that joins the views of one object.

    With `views` = V > 1 the self-attention of samples i*V .. i*V+V-1 runs over all their tokens; cross-attention and
    every other layer treat samples alone. With `views` = 1 it is plain attention.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        views: int = 1,
    ) -> Tensor:
        """Tokens [B, L, C] in and out; `attention_mask` is accepted for the interface and must be None."""
        if attention_mask is not None:
            raise ValueError("JointViewAttention takes no attention mask")
        batch, length, _ = hidden_states.shape
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        # diffusers declares these as optional; in a text-to-image U-Net they are all there.
        to_out, to_k, to_v = cast(Any, attn.to_out), cast(Any, attn.to_k), cast(Any, attn.to_v)
        query, key, value = attn.to_q(hidden_states), to_k(source), to_v(source)
        if views > 1 and encoder_hidden_states is None:
            query, key, value = (
                x.reshape(batch // views, views * length, -1) for x in (query, key, value)
            )
        query, key, value = (
            x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (query, key, value)
        )
        joined = attend(query, key, value).transpose(1, 2).reshape(batch, length, -1)
        return to_out[1](to_out[0](joined.to(hidden_states.dtype)))


def enable_joint_views(unet: UNet2DConditionModel) -> None:
    """Make `cross_attention_kwargs={"views": V}` join the views of an object in every self-attention of `unet`."""
    unet.set_attn_processor(JointViewAttention())  # type: ignore[arg-type]
