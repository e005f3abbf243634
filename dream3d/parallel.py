"""Several GPUs on one asset: every process renders a share of a step's views, and their gradients are averaged.

    torchrun --nproc-per-node 2 -m dream3d.cli.main generate "a red mug" views=8 conditioning=camera

All processes draw the same random numbers and hold the same scene; each takes its share of the views, and after the
all-reduce all make the same update, so that nothing else has to be sent. The first process alone writes files.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor

from dream3d.errors import ConfigError
from dream3d.noise_sources import SurfaceNoise
from dream3d.scenes.splats import SplatsConfig
from systems.base import RunConfig

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others in one exchange; the first previews and exports while they wait."""


@dataclass(frozen=True)
class ViewShare:
    """Which views of a step are this process's.

    Attributes:
        rank: of this process, from 0.
        ranks: processes in all; 1 exchanges nothing.
    """

    rank: int = 0
    ranks: int = 1

    def mine(self, views: int) -> slice:
        """This process's part of `views` views, as many for each process."""
        each = views // self.ranks
        return slice(self.rank * each, (self.rank + 1) * each)

    def average(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes; the sum is the same, bit for bit, on all."""
        if self.ranks == 1:
            return
        used = [p for p in parameters if p.grad is not None]
        flat = torch.cat([_gradient(p).reshape(-1) for p in used])
        torch.distributed.all_reduce(flat)
        flat /= self.ranks
        for p, mean in zip(used, flat.split([p.numel() for p in used]), strict=True):
            _gradient(p).copy_(mean.view_as(p))

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a scalar over the processes."""
        if self.ranks == 1:
            return value
        total = value.detach().clone()
        torch.distributed.all_reduce(total)
        return total / self.ranks

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether any process says so; asked by all at the same moment."""
        if self.ranks == 1:
            return flag
        told = torch.tensor(float(flag), device=device)
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
        return bool(told.item())


ALONE = ViewShare()
"""One process with all views."""


def _gradient(parameter: torch.nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def check_share(config: RunConfig, share: ViewShare) -> None:
    """Refuse what cannot be split by views.

    Raises:
        ConfigError: views denoised jointly, a number of views that cannot be shared evenly, a companion or adaptive
            density, which learn from all views.
    """
    if share.ranks == 1:
        return
    for index, stage in enumerate(config.stages):
        where = f"stage {index} on {share.ranks} processes"
        if stage.conditioning == "multiview":
            raise ConfigError(
                f"{where}: views that are denoised jointly cannot be split; choose "
                "conditioning=camera, or run on one process"
            )
        if stage.views % share.ranks:
            raise ConfigError(
                f"{where}: views is {stage.views}; choose a multiple of {share.ranks}"
            )
        if stage.guidance.companion_settings() is not None:
            raise ConfigError(
                f"{where}: a guidance with a trainable companion learns from all views; choose "
                "another guidance, or run on one process"
            )
        if isinstance(stage.noise, SurfaceNoise):
            raise ConfigError(
                f"{where}: noise on the surface is laid out over all views; choose noise=fresh"
            )
        if isinstance(stage.scene, SplatsConfig) and stage.scene.density == "adaptive":
            raise ConfigError(
                f"{where}: scene.density=adaptive counts the gradients of all views; choose "
                "scene.density=relocate, or run on one process"
            )


@contextmanager
def joined() -> Iterator[ViewShare]:
    """The share of this process inside the block, by what torchrun left in the environment; alone without it.

    All but the first process fall silent. On GPUs each takes the one of its local rank.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks <= 1 or "MASTER_ADDR" not in os.environ:
        yield ALONE
        return
    rank = int(os.environ["RANK"])
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if rank:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        yield ViewShare(rank, ranks)
    finally:
        torch.distributed.destroy_process_group()
