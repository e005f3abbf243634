"""Priors told the view: MVDream and ImageDream, for four views together; Zero123, for a picture seen from elsewhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch

from dream3d.errors import ConfigError
from dream3d.priors.base import PRIORS, Prior, PriorConfig
from dream3d.priors.model_list import alternatives, find_model
from dream3d.priors.pretrained import Precision


@dataclass(frozen=True)
class ViewModelConfig(PriorConfig):
    """What they share.

    Attributes:
        model: a directory or an id.
        revision: branch, tag or commit of an id; empty for the main branch.
        precision: of the weights: float32, bfloat16, float16; auto is float32 on a CPU and float16 on a GPU.
        chunk: samples per network call at most; 0 for all at once.
        low_vram: codec in slices and tiles, few samples at a time, layers from main memory (`--low-vram`).
    """

    model: str = ""
    revision: str = ""
    precision: Precision = "auto"
    chunk: int = 0
    low_vram: bool = False

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "float32", "bfloat16", "float16"):
            raise ConfigError(
                f"prior.precision is '{self.precision}'; choose one of auto, float32, bfloat16, float16"
            )
        if self.chunk < 0:
            raise ConfigError(f"prior.chunk is {self.chunk}; choose 0 or more")

    @property
    def license(self) -> str:
        """Of the weights, as `dream3d models list` has it; empty where it is not known."""
        entry = find_model(self.model)
        return "" if entry is None else entry.licence

    def _opened(self, prior: Prior, directory: Path) -> Prior:
        from dream3d.priors.pipelines.provenance import origin_of

        prior.origins = (origin_of(self.model, directory),)
        return prior


@PRIORS.register("mvdream")
@dataclass(frozen=True)
class MVDreamConfig(ViewModelConfig):
    """MVDream: four views of an object, denoised together; needs conditioning=multiview and views=4."""

    model: str = "ashawkey/mvdream-sd2.1-diffusers"
    smallest_chunk: ClassVar[int] = 4

    def load(self, device: torch.device) -> Prior:
        from dream3d.priors.pipelines.hub import model_directory
        from dream3d.priors.pipelines.mvdream import open_mvdream

        directory = model_directory(self.model, self.revision, None, alternatives(self.model))
        prior = open_mvdream(directory, device, self.precision, self.chunk, self.low_vram)
        return self._opened(prior, directory)


@PRIORS.register("imagedream")
@dataclass(frozen=True)
class ImageDreamConfig(ViewModelConfig):
    """ImageDream: as mvdream, and told a picture; needs --image, a prompt, conditioning=multiview and views=4.

    Attributes:
        controller: what the weights were trained with: pixel (the picture is a fifth view) or local (tokens only).
    """

    model: str = "ashawkey/imagedream-ipmv-diffusers"
    controller: Literal["pixel", "local"] = "pixel"
    smallest_chunk: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.controller not in ("pixel", "local"):
            raise ConfigError(
                f"prior.controller is '{self.controller}'; choose pixel or local, as the weights were trained"
            )

    def load(self, device: torch.device) -> Prior:
        from dream3d.priors.pipelines.hub import model_directory
        from dream3d.priors.pipelines.imagedream import open_imagedream

        directory = model_directory(self.model, self.revision, None, alternatives(self.model))
        how = (self.precision, self.controller, self.chunk, self.low_vram)
        prior = open_imagedream(directory, device, *how)
        return self._opened(prior, directory)


@PRIORS.register("zero123")
@dataclass(frozen=True)
class Zero123Config(ViewModelConfig):
    """Zero123-XL: a picture's object from other sides; needs --image and conditioning=camera, and no prompt."""

    model: str = "kxic/zero123-xl"
    stable: ClassVar[bool] = False

    def load(self, device: torch.device) -> Prior:
        from dream3d.priors.pipelines.hub import model_directory
        from dream3d.priors.pipelines.zero123 import open_zero123

        directory = model_directory(self.model, self.revision, None, alternatives(self.model))
        how = (self.precision, self.stable, self.chunk, self.low_vram)
        prior = open_zero123(directory, device, *how)
        return self._opened(prior, directory)


@PRIORS.register("stable-zero123")
@dataclass(frozen=True)
class StableZero123Config(Zero123Config):
    """Stable-Zero123: as zero123, trained further by Stability AI; its weights are for non-commercial use."""

    model: str = "ashawkey/stable-zero123-diffusers"
    stable: ClassVar[bool] = True
