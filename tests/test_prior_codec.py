"""The codec: a linear projection and its inverse, with the gradient a linear map must have."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dream3d.priors.latent.codec import PatchCodec, fit_patch_codec
from dream3d.world.dataset import sample_batch


def world_images(seed: int, count: int) -> Tensor:
    return sample_batch(np.random.default_rng(seed), count, 1).images.flatten(0, 1)


def signal(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2) * 2.0 - 1.0


@pytest.fixture(scope="module")
def codec() -> PatchCodec:
    return fit_patch_codec(world_images(0, 96)).requires_grad_(False)


def encode(codec: PatchCodec, x: Tensor) -> Tensor:
    return codec.encode(x).latent_dist.mean


def test_pictures_of_the_world_survive(codec: PatchCodec) -> None:
    x = signal(world_images(1, 24))
    error = ((codec.decode(encode(codec, x)).sample.clamp(-1, 1) - x) / 2).square().mean((1, 2, 3))
    psnr = -10 * error.log10()
    assert psnr.mean() > 34.0 and psnr.min() > 27.0


def test_latents_have_about_unit_spread(codec: PatchCodec) -> None:
    z = encode(codec, signal(world_images(2, 48)))
    assert z.shape[1:] == (24, 16, 16)
    assert 0.8 < z.std() < 1.25
    spread = z.std((0, 2, 3))
    assert spread.max() < 4.0 and spread.min() > 0.25


def test_encoding_inverts_decoding(codec: PatchCodec) -> None:
    z = torch.randn(2, 24, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(encode(codec, codec.decode(z).sample), z, atol=1e-4)


def test_encoder_is_affine_and_its_gradient_is_its_transpose(codec: PatchCodec) -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(1, 3, 64, 64, generator=generator) for _ in range(2))
    zero = encode(codec, torch.zeros_like(x))
    mixed = encode(codec, 2.0 * x - 0.5 * y) - zero
    assert torch.allclose(
        mixed, 2.0 * (encode(codec, x) - zero) - 0.5 * (encode(codec, y) - zero), atol=1e-4
    )
    # <A y, u> = <y, A^T u>: autograd's pull-back of u against a probe direction y.
    u = torch.randn(zero.shape, generator=generator)
    x.requires_grad_(True)
    (pulled,) = torch.autograd.grad((encode(codec, x) * u).sum(), x)
    assert torch.allclose((pulled * y).sum(), ((encode(codec, y) - zero) * u).sum(), rtol=1e-3)


def test_fitting_twice_gives_the_same_filters(codec: PatchCodec) -> None:
    again = fit_patch_codec(world_images(0, 96))
    assert torch.equal(again.encoder.weight, codec.encoder.weight)


def test_latent_directions_are_orthogonal_patches(codec: PatchCodec) -> None:
    rows = codec.encoder.weight.flatten(1)
    rows = rows / rows.norm(dim=1, keepdim=True)
    assert torch.allclose(rows @ rows.T, torch.eye(24), atol=1e-4)
