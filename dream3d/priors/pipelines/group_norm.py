"""What a frozen convolutional network of diffusers does between its convolutions, in fewer passes on an NVIDIA GPU.

Group normalisation and SiLU become one function of channels-last tensors (`dream3d.triton_group_norm`), the residual
blocks' division by 1 goes, and attention with heads too wide for flash attention takes the plain way. Values change by
rounding only.
"""

from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

WIDEST_FLASH_HEAD = 256
"""Beyond it torch's fused attention takes a slow way: of the encoder's 99 ms the one such layer took 19."""


def can_fuse(device: torch.device) -> bool:
    """Whether the kernels can run: an NVIDIA GPU, and Triton, which torch brings on Linux."""
    return device.type == "cuda" and find_spec("triton") is not None


def fuse(network: nn.Module) -> None:
    """Let a frozen network's normalisations, residual blocks and wide heads take the fast way, in place.

    Its parameters keep their names. Modules of other kinds stay as they are.
    """
    from diffusers.models.attention_processor import Attention, AttnProcessor
    from diffusers.models.resnet import ResnetBlock2D

    for module in network.modules():
        forward: Any = None
        if isinstance(module, nn.GroupNorm) and module.affine:
            forward = partial(_norm, module)
        elif type(module) is ResnetBlock2D and _is_plain(module):
            forward = partial(_residual_block, module)
        elif isinstance(module, Attention) and module.inner_dim // module.heads > WIDEST_FLASH_HEAD:
            module.set_processor(AttnProcessor())
        if forward is not None:
            module.forward = forward


def _is_plain(block: Any) -> bool:
    """Whether a block is one that `_residual_block` computes."""
    return (
        isinstance(block.nonlinearity, nn.SiLU)
        and block.upsample is None
        and block.downsample is None
        and block.time_embedding_norm == "default"
        and block.output_scale_factor == 1.0
        and block.dropout.p == 0.0
    )


def _residual_block(block: Any, x: Tensor, temb: Tensor | None = None) -> Tensor:
    h = block.conv1(_norm(block.norm1, x, silu=True))
    if block.time_emb_proj is not None:
        assert temb is not None
        told = temb if block.skip_time_act else silu(temb)
        h = h + block.time_emb_proj(told)[:, :, None, None]
    elif temb is not None:
        h = h + temb
    h = block.conv2(_norm(block.norm2, h, silu=True))
    return h + (x if block.conv_shortcut is None else block.conv_shortcut(x))


def _norm(norm: nn.GroupNorm, x: Float[Tensor, "N C *rest"], silu: bool = False) -> Tensor:
    frozen = not (norm.weight.requires_grad or norm.bias.requires_grad)
    if not (x.is_cuda and frozen):
        y = torch.nn.functional.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
        return torch.nn.functional.silu(y) if silu else y
    pixels = x.movedim(1, -1)
    rows = pixels.reshape(len(x), -1, x.shape[1]).contiguous()
    y = _FusedNorm.apply(rows, norm.weight, norm.bias, norm.num_groups, norm.eps, silu)
    return y.reshape(pixels.shape).movedim(-1, 1)


class _FusedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, groups, eps, silu):
        from dream3d.triton_group_norm import normalize

        y, mean, scale = normalize(x, weight, bias, groups, eps, silu)
        ctx.save_for_backward(x, weight, bias, mean, scale)
        ctx.silu = silu
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        from dream3d.triton_group_norm import gradient

        x, weight, bias, mean, scale = ctx.saved_tensors
        found = gradient(x, grad.contiguous(), weight, bias, mean, scale, ctx.silu)
        return found, None, None, None, None, None
