"""Networks whose normalisations were fused compute what they computed; the kernels agree with torch in float64."""

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from torch.nn.functional import group_norm, silu

from dream3d.priors.pipelines.group_norm import can_fuse, fuse

SIZES = [
    # pictures, pixels, channels, groups: one part and many, a last one that is shorter, groups of 1, 2, 10 and 30
    (2, 33, 32, 32),
    (1, 20_000, 64, 32),
    (2, 4096, 320, 32),
    (1, 257, 30, 3),
    (3, 64, 960, 32),
]


def tiny_unet(device: str = "cpu") -> UNet2DConditionModel:
    with torch.device(device):
        return UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(32, 64),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=4,
        ).requires_grad_(False)


def tiny_encoder(device: str = "cpu", top: int = 64) -> nn.Module:
    with torch.device(device):
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(32, top),
        )
    return vae.encoder.requires_grad_(False)


@pytest.mark.parametrize("top", [64, 320])
def test_a_fused_encoder_computes_and_differentiates_alike(top: int) -> None:
    torch.manual_seed(0)
    encoder, x = tiny_encoder(top=top), torch.randn(2, 3, 32, 32, requires_grad=True)
    plain = encoder(x)
    (before,) = torch.autograd.grad(plain.square().sum(), x)
    names = list(encoder.state_dict())
    fuse(encoder)
    fused = encoder(x)
    (after,) = torch.autograd.grad(fused.square().sum(), x)
    assert torch.allclose(fused, plain, atol=1e-5)
    assert (after - before).norm() < 1e-5 * before.norm()
    assert list(encoder.state_dict()) == names


def test_a_fused_unet_computes_alike() -> None:
    torch.manual_seed(0)
    unet = tiny_unet()
    z, t, words = torch.randn(2, 4, 16, 16), torch.tensor([10, 900]), torch.randn(2, 7, 32)
    plain = unet(z, t, words, return_dict=False)[0]
    fuse(unet)
    fused = unet(z, t, words, return_dict=False)[0]
    assert torch.allclose(fused, plain, atol=1e-5)
    assert (fused - unet(z, t.flip(0), words, return_dict=False)[0]).abs().max() > 1e-3


def test_a_cpu_is_left_alone() -> None:
    assert not can_fuse(torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("activated", [True, False])
def test_kernels_agree_with_torch_in_float64(
    size: tuple[int, int, int, int], activated: bool
) -> None:
    from dream3d.triton_group_norm import gradient, normalize

    count, rows, channels, groups = size
    torch.manual_seed(0)
    with torch.device("cuda"):
        x = 2.0 * torch.randn(count, rows, channels) + 30.0 * torch.randn(count, 1, channels)
        weight, bias, grad = torch.randn(channels), torch.randn(channels), torch.randn_like(x)
    y, mean, scale = normalize(x, weight, bias, groups, 1e-6, activated)
    found = gradient(x, grad, weight, bias, mean, scale, activated)
    exact = x.double().requires_grad_()
    true = group_norm(exact.transpose(1, 2), groups, weight.double(), bias.double(), 1e-6)
    true = silu(true).transpose(1, 2) if activated else true.transpose(1, 2)
    (wanted,) = torch.autograd.grad(true, exact, grad.double())
    assert (y - true).abs().max() < 1e-4
    assert (found - wanted).norm() < 1e-4 * wanted.norm()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_networks_compute_alike_on_a_gpu(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    encoder = tiny_encoder("cuda", top=320).to(dtype, memory_format=torch.channels_last)  # pyright: ignore
    x = torch.randn(2, 3, 64, 64, device="cuda", dtype=dtype, requires_grad=True)
    plain = encoder(x)
    (before,) = torch.autograd.grad(plain.float().square().sum(), x)
    fuse(encoder)
    fused = encoder(x)
    (after,) = torch.autograd.grad(fused.float().square().sum(), x)
    near = 2e-3 if dtype == torch.float32 else 6e-2  # TF32 convolutions
    assert (fused - plain).norm() < near * plain.norm()
    assert (after - before).norm() < 2 * near * before.norm()
