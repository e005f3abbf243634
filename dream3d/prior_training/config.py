"""Every setting of a training run, with the values the shipped weights were made with."""

import argparse
from dataclasses import asdict, dataclass, fields
from typing import Any

from dream3d.errors import ConfigError
from dream3d.priors.latent.build import Architecture


@dataclass(frozen=True)
class TrainingConfig:
    """One run of `dream3d prior train`.

    The learning rate is constant after a warm-up, so that a run can stop at any image and go on later from its averaged
    weights alone, without the optimiser's state. A run with `decay_images` ends it: the rate falls to zero.

    Attributes:
        output: directory for `embedded/` (the averaged weights, a complete prior), `log.jsonl` and nothing else.
        start: a prior directory to start from; empty continues from `output`/embedded, or begins anew.
        images: stop when this many images have been seen in all, earlier runs included.
        decay_images: if positive, train this many images more while the learning rate falls to zero, then stop;
            `images` is then ignored.
        decay_minutes: the same by the clock, for a machine lent for so long.
        minutes: stop after this long; 0 is no limit.
        save_minutes, probe_minutes, log_seconds: how often weights are written, probes measured, lines printed.
        seed: of weights, objects and noise.
        device: "cpu" or "cuda".
        processes: that share a step; their gradients are averaged. One thread each on the CPU.
        acceleration: "none"; on "cuda" also "graphs" (each kind of step is recorded once and replayed, which spares
            the launches) or "compile" (torch.compile fuses the network; the first steps take minutes).
        workers: further CPU processes per process that draw batches ahead; 0 draws between steps. A GPU wants about as
            many as there are cores.
        reuse: how often a drawn object is used on average, each time over fresh backgrounds, with fresh noise and
            words; above 1, drawn objects are kept on the device. For a GPU that learns faster than its CPU draws.
        pool_objects: how many are kept, 64 KB each; the oldest make room.
        objects: per process and step, each seen from `views` sides.
        views: per object.
        learning_rate: of AdamW.
        warmup_images: over which the rate rises at the start of every run.
        weight_decay, beta2, clip: AdamW's, and the gradient norm's bound.
        ema: per-step decay of the weight average at its longest.
        joint_share: steps that denoise the views of an object jointly (always with cameras).
        camera_share: of the other steps, those that are told the camera.
        caption_drop: captions replaced by the empty one.
        view_words_share: captions that name the view.
        time_power: noise levels are t = u^power for even u; below 1 favours noisy ones.
        max_weight: bound on the loss weight 1 / (1 - alpha_bar).
        pair_share, primitive_share, front_share, colorless_share: see `dream3d.world.dataset.Mix`.
        channels: of the U-Net; attention everywhere but on the finest level.
    """

    output: str = "training"
    start: str = ""
    images: int = 3_000_000
    decay_images: int = 0
    decay_minutes: float = 0.0
    minutes: float = 0.0
    save_minutes: float = 10.0
    probe_minutes: float = 10.0
    log_seconds: float = 30.0
    seed: int = 0
    device: str = "cpu"
    processes: int = 2
    acceleration: str = "none"
    workers: int = 0
    reuse: int = 1
    pool_objects: int = 65_536
    objects: int = 4
    views: int = 4
    learning_rate: float = 6e-4
    warmup_images: int = 3_000
    weight_decay: float = 0.01
    beta2: float = 0.99
    clip: float = 1.0
    ema: float = 0.9995
    joint_share: float = 0.35
    camera_share: float = 0.85
    caption_drop: float = 0.1
    view_words_share: float = 0.25
    time_power: float = 0.45
    max_weight: float = 20.0
    pair_share: float = 0.15
    primitive_share: float = 0.1
    front_share: float = 0.7
    colorless_share: float = 0.1
    channels: tuple[int, ...] = (64, 128, 128)

    def __post_init__(self) -> None:
        shares = [f.name for f in fields(self) if f.name.endswith(("_share", "_drop"))]
        for name in shares:
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; choose a share in [0, 1]")
        positive = ("images", "processes", "objects", "views", "learning_rate", "time_power")
        positive += ("reuse", "pool_objects")
        for name in positive:
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; choose a positive number")
        if self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; choose 0 or more")
        if self.decay_images > 0 and self.decay_minutes > 0.0:
            raise ConfigError(
                f"decay_images is {self.decay_images} and decay_minutes is {self.decay_minutes}; "
                "choose one of them, the other 0"
            )
        if self.objects % self.reuse:
            raise ConfigError(
                f"reuse is {self.reuse}; choose a divisor of objects ({self.objects}), "
                "so that every step draws the same number of new ones"
            )
        if self.device not in ("cpu", "cuda"):
            raise ConfigError(f"device is '{self.device}'; choose 'cpu' or 'cuda'")
        if self.acceleration not in ("none", "graphs", "compile"):
            raise ConfigError(
                f"acceleration is '{self.acceleration}'; choose none, graphs or compile"
            )
        if self.acceleration == "graphs" and self.device != "cuda":
            raise ConfigError(
                f"acceleration is 'graphs' and device is '{self.device}'; graphs need device cuda, "
                "else choose none"
            )
        if self.device == "cuda" and self.processes != 1:
            raise ConfigError(f"processes is {self.processes}; on 'cuda' choose 1")

    @property
    def architecture(self) -> Architecture:
        """Sizes of a network that begins anew."""
        return Architecture(channels=self.channels)

    @property
    def images_per_step(self) -> int:
        """Images that all processes see in one step."""
        return self.processes * self.objects * self.views

    def facts(self) -> dict[str, Any]:
        """The settings that shaped the weights, for the manifest; no paths."""
        return {name: value for name, value in asdict(self).items() if name not in _PATHS}


_PATHS = ("output", "start")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One `--option` per setting; defaults are TrainingConfig's."""
    for field in fields(TrainingConfig):
        flag = "--" + field.name.replace("_", "-")
        if field.name == "channels":
            parser.add_argument(flag, type=int, nargs="+", default=list(TrainingConfig.channels))
        else:
            parser.add_argument(flag, type=type(field.default), default=field.default)


def from_arguments(arguments: argparse.Namespace) -> TrainingConfig:
    """The configuration that parsed options describe.

    Raises:
        ConfigError: a value out of its range.
    """
    values = {field.name: getattr(arguments, field.name) for field in fields(TrainingConfig)}
    return TrainingConfig(**{**values, "channels": tuple(values["channels"])})
