"""Text-to-image models in diffusers' format as priors: from a local directory, or by their id on the hub."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from dream3d.errors import ConfigError, ModelError
from dream3d.priors.base import PRIORS, Prior, PriorConfig
from dream3d.priors.model_list import alternatives, find_model

Precision = Literal["auto", "float32", "bfloat16", "float16"]


@PRIORS.register("diffusers")
@dataclass(frozen=True)
class DiffusersConfig(PriorConfig):
    """Any supported text-to-image pipeline (docs/models.md).

    Attributes:
        model: a directory, an id such as stable-diffusion-v1-5/stable-diffusion-v1-5, or a role that
            `dream3d models list` names; or one .safetensors file of Stable Diffusion 1.x, 2.x or XL.
        config: for one file: a directory or id whose configuration and tokenizers fit it; empty for the published
            model of its kind, of which a few small files are then fetched.
        revision: branch, tag or commit of an id; empty for the main branch.
        resolution: side in pixels the prior looks at; 0 for what the model was trained at.
        precision: of the weights: float32, bfloat16, float16; auto is float32 on a CPU and the model's own on a GPU.
        guidance_embedding: for models that take their guidance as an input (FLUX.1); use guidance.cfg_scale 1 there.
        low_vram: codec in slices and tiles, two samples at a time, layers from main memory: slower, and smaller
            (`dream3d generate --low-vram`).
        chunk: samples per network call at most; 0 for all at once.
        vae: another codec, an id or a directory: TAESD (madebyollin/taesd) or one that fits float16.
        loras: .safetensors files, merged into the weights.
        lora_scales: their strengths, one each; empty for 1.
    """

    model: str = ""
    config: str = ""
    revision: str = ""
    resolution: int = 0
    precision: Precision = "auto"
    guidance_embedding: float = 3.5
    low_vram: bool = False
    chunk: int = 0
    vae: str = ""
    loras: list[str] = field(default_factory=list)
    lora_scales: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "float32", "bfloat16", "float16"):
            raise ConfigError(
                f"prior.precision is '{self.precision}'; choose one of auto, float32, bfloat16, float16"
            )
        for name in ("resolution", "chunk"):
            if getattr(self, name) < 0:
                raise ConfigError(f"prior.{name} is {getattr(self, name)}; choose 0 or more")
        if self.lora_scales and len(self.lora_scales) != len(self.loras):
            raise ConfigError(
                f"prior.lora_scales has {len(self.lora_scales)} numbers for {len(self.loras)} LoRAs; "
                "give one each, or none"
            )

    @property
    def license(self) -> str:
        """Of the weights, as `dream3d models list` has it; empty where it is not known."""
        entry = None if Path(self.model).is_dir() else find_model(self.model)
        return "" if entry is None else entry.licence

    def load(self, device: torch.device) -> Prior:
        # Imported here because listing the priors should not take the seconds diffusers needs.
        from dream3d.priors.pipelines.hub import model_directory
        from dream3d.priors.pipelines.opening import Opening, open_prior

        if not self.model:
            raise ConfigError(
                "prior.model is missing; give a directory, an id, or a role (`dream3d models list`)"
            )
        source, directory, checkpoint = self._source()
        vae = model_directory(self.vae, whole=True) if self.vae else None
        scales = self.lora_scales or [1.0] * len(self.loras)
        how = Opening(
            precision=self.precision,
            resolution=self.resolution,
            guidance_embedding=self.guidance_embedding,
            chunk=self.chunk,
            low_vram=self.low_vram,
            checkpoint=checkpoint,
            vae=vae,
            loras=tuple(
                (Path(file).expanduser(), scale)
                for file, scale in zip(self.loras, scales, strict=True)
            ),
        )
        prior = open_prior(directory, device, how)
        prior.origin = {
            "model": source,
            "revision": "" if checkpoint else self.revision or _commit(directory),
            "licence": self.license or "see the model's card",
            **({"vae": self.vae} if self.vae else {}),
            **({"loras": ", ".join(Path(file).name for file in self.loras)} if self.loras else {}),
        }
        return prior

    def _source(self) -> tuple[str, Path, Path | None]:
        """The model's name for the record, its directory, and its one file where it is that."""
        from dream3d.priors.pipelines.hub import is_directory, model_directory
        from dream3d.priors.pipelines.single_file import (
            check_configuration,
            checkpoint_family,
            is_single_file,
        )

        # `or`: a directory may be called anything.
        if not is_single_file(self.model) or Path(self.model).is_dir():
            if self.config:
                raise ConfigError(
                    f"prior.config is '{self.config}', but prior.model is no single file; leave prior.config empty"
                )
            entry = find_model(self.model)
            named = entry is not None and self.model in entry.roles and not is_directory(self.model)
            source = entry.id if entry is not None and named else self.model
            directory = model_directory(source, self.revision, None, alternatives(source))
            return source, directory, None
        file = Path(self.model).expanduser()
        family = checkpoint_family(file)
        entry = find_model(family.role)
        assert entry is not None, "every family has a role in models.toml"
        try:
            directory = model_directory(self.config or entry.id, weights=False)
        except ModelError as error:
            raise ModelError(
                f"{file} is a {family.name} file, and its configuration and tokenizer come from elsewhere: {error} "
                "Or give prior.config: any diffusers directory of that kind, its weights are not read"
            ) from error
        check_configuration(directory, family)
        return str(file), directory, file


def _commit(directory: Path) -> str:
    """The commit in the hub's cache a directory belongs to, or nothing."""
    return directory.name if directory.parent.name == "snapshots" else ""


@PRIORS.register("stable-diffusion")
@dataclass(frozen=True)
class StableDiffusionConfig(DiffusersConfig):
    """Stable Diffusion 1.5: the fastest, for drafts, and at home with every published setting."""

    model: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"


@PRIORS.register("sdxl")
@dataclass(frozen=True)
class StableDiffusionXLConfig(DiffusersConfig):
    """Stable Diffusion XL with a codec that fits float16, at 768 pixels."""

    model: str = "stabilityai/stable-diffusion-xl-base-1.0"
    resolution: int = 768
    vae: str = "madebyollin/sdxl-vae-fp16-fix"


@PRIORS.register("flux2-klein")
@dataclass(frozen=True)
class Flux2KleinConfig(DiffusersConfig):
    """FLUX.2 klein base 4B: straight paths, undistilled, Apache; at 512 pixels."""

    model: str = "black-forest-labs/FLUX.2-klein-base-4B"
    resolution: int = 512
