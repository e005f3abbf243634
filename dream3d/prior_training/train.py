"""Starting and stopping a training run, in one process or several."""

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from dream3d.errors import ModelError
from dream3d.prior_training.config import TrainingConfig
from dream3d.prior_training.loop import train_process


def train(config: TrainingConfig) -> Path:
    """Train the embedded prior until its images, its minutes or a SIGINT / SIGTERM end it; weights are saved then.

    Calling it again with the same `output` goes on from there.

    Returns:
        The directory of the trained prior, `output`/embedded.

    Raises:
        ModelError: the weights to start from are damaged or of another world, or there is no such device.
        OutputError: `output` cannot be written.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ModelError("device is 'cuda', but torch sees no GPU; choose device=cpu")
    if config.processes == 1:
        stop = threading.Event()
        with on_signal(stop.set):
            train_process(0, config, stop.is_set, group=False)
    else:
        context = multiprocessing.get_context("spawn")
        event = context.Event()
        with tempfile.TemporaryDirectory() as directory, on_signal(event.set):
            meeting = (Path(directory) / "meeting").as_uri()
            multiprocessing.spawn(
                _join_and_train, (config, event, meeting), nprocs=config.processes
            )
    return Path(config.output) / "embedded"


def _join_and_train(rank: int, config: TrainingConfig, stop: Event, meeting: str) -> None:
    """A child process: join the group, leave signals to the parent, train."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=config.processes)
    try:
        train_process(rank, config, stop.is_set, group=True)
    finally:
        dist.destroy_process_group()


@contextmanager
def on_signal(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` on SIGINT or SIGTERM for the length of a block; does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: act()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
