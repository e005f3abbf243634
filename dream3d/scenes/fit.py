"""Fit a scene directly to true views: what a representation can do at best, without any prior."""

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

    Returns:
        The loss of every step.

    Raises:
        ConfigError: images, alphas and cameras disagree.
    """
    expected = (len(cameras), cameras.height, cameras.width)
    if images.shape[:3] != expected or alphas.shape != (*expected, 1):
        raise ConfigError(
            f"images {list(images.shape)} and alphas {list(alphas.shape)} do not belong to the cameras; expected "
            f"[{', '.join(map(str, expected))}, C] and [{', '.join(map(str, expected))}, 1]"
        )
    groups = [{"params": [p], "name": name} for name, p in scene.parameters().items()]
    optimizer = torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.99), eps=1e-15)
    losses: list[float] = []
    for step in range(steps):
        progress = (step + 1) / steps
        chosen = torch.randperm(len(cameras), generator=generator)[:views]
        background = torch.rand(len(chosen), 1, 1, images.shape[-1], generator=generator).to(images)
        output = scene.render(cameras[chosen])
        target = images[chosen] + (1.0 - alphas[chosen]) * background
        error = output.over(background) - target
        loss = error.abs().mean() + error.square().mean()
        loss = loss + weight_alpha * (output.alpha - alphas[chosen]).square().mean()
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
