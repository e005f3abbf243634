"""Resuming around density control: the number of elements changes, statistics carry over, randomness decides."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from dream3d.cameras import CameraBatch
from dream3d.priors.gaussian import GaussianConfig
from dream3d.rendering import RenderOutput
from dream3d.run import run_system
from dream3d.scenes.base import Scene, SceneConfig
from dream3d.schedules import constant
from guidance.sds import SDS
from systems.base import RunConfig, Stage

EVERY = 4


class Blobs(Scene):
    """Soft discs added up on black; every few steps a random one splits and the faintest vanishes."""

    def __init__(self, places: torch.Tensor, colors: torch.Tensor) -> None:
        self.places, self.colors = torch.nn.Parameter(places), torch.nn.Parameter(colors)
        self.seen = torch.zeros(len(places))

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        return {"places": self.places, "colors": self.colors}

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {"places": 0.02 * (1.0 - 0.5 * progress), "colors": 0.05}

    def render(self, cameras: CameraBatch) -> RenderOutput:
        size = cameras.height
        axis = torch.linspace(-1.0, 1.0, size)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        offset = torch.stack([x, y], -1)[None] - self.places[:, None, None]  # [N, H, W, 2]
        weight = torch.exp(-(offset**2).sum(-1) * 6.0)
        rgb = torch.einsum("nhw,nc->hwc", weight, self.colors).sigmoid()
        rgb = rgb[None].expand(len(cameras), -1, -1, -1)
        return RenderOutput(rgb, torch.ones_like(rgb[..., :1]), torch.ones_like(rgb[..., :1]))

    def regularisation(self, output: RenderOutput, progress: float) -> dict[str, torch.Tensor]:
        return {"small": 0.01 * self.colors.square().mean()}

    def density_control(
        self,
        optimizer: torch.optim.Optimizer,
        progress: float,
        step: int,
        generator: torch.Generator,
    ) -> None:
        assert self.places.grad is not None
        self.seen += self.places.grad.norm(dim=1)
        if (step + 1) % EVERY:
            return
        chosen = int(torch.randint(len(self.places), (1,), generator=generator))
        order = torch.cat([self.seen.argsort(descending=True), torch.tensor([chosen])])
        keep = order if step < 10 else order[torch.arange(len(order)) != len(order) - 2]
        self.seen = self.seen[keep] * 0.5
        for group in optimizer.param_groups:
            (old,) = group["params"]
            new = torch.nn.Parameter(old.detach()[keep])
            moments = optimizer.state.pop(old)
            optimizer.state[new] = {k: v[keep] if v.ndim else v for k, v in moments.items()}
            group["params"] = [new]
            setattr(self, group["name"], new)

    def state(self) -> dict[str, torch.Tensor]:
        return {"places": self.places, "colors": self.colors, "seen": self.seen}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.places = torch.nn.Parameter(state["places"])
        self.colors = torch.nn.Parameter(state["colors"])
        self.seen = state["seen"]


@dataclass(frozen=True)
class BlobsConfig(SceneConfig):
    count: int = 5

    def create(self, generator: torch.Generator, device: torch.device) -> Blobs:
        places = torch.rand(self.count, 2, generator=generator) - 0.5
        return Blobs(places, torch.randn(self.count, 3, generator=generator))


STAGE = Stage(
    SDS(constant(1.5)), BlobsConfig(), steps=22, views=2, render_size=8, checkpoint_every=3
)
CONFIG = RunConfig("a red mug", GaussianConfig(8), [STAGE], seed=1)


@pytest.mark.parametrize("cut", [2, EVERY - 1, EVERY, EVERY + 1, 2 * EVERY, 13, 4 * EVERY, 21])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, cut: int) -> None:
    losses: list[float] = []
    whole = run_system(CONFIG, tmp_path / "whole", lambda r: losses.append(r.loss))
    assert len(whole.scene.parameters()["places"]) == 7
    steps = iter(range(1, 100))
    run_system(CONFIG, tmp_path / "part", should_stop=lambda: next(steps) == cut)
    again: list[float] = []
    rest = run_system(CONFIG, tmp_path / "part", lambda r: again.append(r.loss), resume=True)
    assert again == losses[cut:]
    for name, value in whole.scene.state().items():
        assert torch.equal(value, rest.scene.state()[name]), name


def test_a_stage_can_go_on_with_a_scene_that_has_grown(tmp_path: Path) -> None:
    config = replace(CONFIG, stages=[STAGE, replace(STAGE, scene=None, steps=5)])
    whole = run_system(config, tmp_path / "whole")
    steps = iter(range(1, 100))
    run_system(config, tmp_path / "part", should_stop=lambda: next(steps) == 24)
    rest = run_system(config, tmp_path / "part", resume=True)
    for name, value in whole.scene.state().items():
        assert torch.equal(value, rest.scene.state()[name]), name
