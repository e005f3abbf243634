"""Fit a scene directly to true views: what a representation can do at best, without any prior."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.errors import ConfigError
from dream3d.scenes.base import Scene


def fit_to_views(
    scene: Scene,
    cameras: CameraBatch,
    images: Float[Tensor, "B H W C"],
    alphas: Float[Tensor, "B H W 1"],
    steps: int,
    generator: torch.Generator,
    views: int = 4,
    weight_alpha: float = 1.0,
    stride: int = 1,
) -> list[float]:
    """Optimise `scene` in place toward known views, over random background colours.

    Args:
        scene: optimised in place with its own learning rates, regularisers and density control.
        cameras: of the true views.
        images: premultiplied true colours (over black).
        alphas: true coverage.
        steps: optimiser steps.
        generator: chooses views and backgrounds.
        views: views per step.
        weight_alpha: weight of the squared error of the coverage.
        stride: render only every stride-th pixel of a view, from a random one on; for scenes whose pixels are points
            on rays (fields), where it costs stride^2 less. Splats and meshes cover areas: leave it at 1 there.

    Returns:
        The loss of every step.

    Raises:
        ConfigError: images, alphas and cameras disagree; the stride does not divide the size.
    """
    expected = (len(cameras), cameras.height, cameras.width)
    if images.shape[:3] != expected or alphas.shape != (*expected, 1):
        raise ConfigError(
            f"images {list(images.shape)} and alphas {list(alphas.shape)} do not belong to the cameras; expected "
            f"[{', '.join(map(str, expected))}, C] and [{', '.join(map(str, expected))}, 1]"
        )
    if stride < 1 or cameras.height % stride or cameras.width % stride:
        raise ConfigError(
            f"stride is {stride}; choose a divisor of the views' size {cameras.height} x {cameras.width}"
        )
    groups = [{"params": [p], "name": name} for name, p in scene.parameters().items()]
    optimizer = torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.99), eps=1e-15, fused=True)
    losses: list[float] = []
    for step in range(steps):
        progress = (step + 1) / steps
        chosen = torch.randperm(len(cameras), generator=generator)[:views]
        background = torch.rand(len(chosen), 1, 1, images.shape[-1], generator=generator).to(images)
        seen, color, alpha = cameras[chosen], images[chosen], alphas[chosen]
        if stride > 1:
            row, column = torch.randint(stride, (2,), generator=generator).tolist()
            seen = every(seen, stride, row, column)
            color, alpha = (x[:, row::stride, column::stride] for x in (color, alpha))
        output = scene.render(seen)
        error = output.over(background) - (color + (1.0 - alpha) * background)
        loss = error.abs().mean() + error.square().mean()
        loss = loss + weight_alpha * (output.alpha - alpha).square().mean()
        total = loss + sum(scene.regularisation(output, progress).values())
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        rates = scene.learning_rates(progress)
        for group in optimizer.param_groups:
            group["lr"] = rates[group["name"]]
        optimizer.step()
        scene.density_control(optimizer, progress, step, generator)
        losses.append(loss.item())
    return losses


def every(cameras: CameraBatch, stride: int, row: int, column: int) -> CameraBatch:
    """Cameras whose pixel centres are every stride-th of the given ones', from pixel (row, column) on."""
    K = cameras.K.clone()
    K[:, 0, 0], K[:, 1, 1] = K[:, 0, 0] / stride, K[:, 1, 1] / stride
    K[:, 0, 2] = (cameras.K[:, 0, 2] - column - 0.5) / stride + 0.5
    K[:, 1, 2] = (cameras.K[:, 1, 2] - row - 0.5) / stride + 0.5
    return replace(cameras, K=K, height=cameras.height // stride, width=cameras.width // stride)
