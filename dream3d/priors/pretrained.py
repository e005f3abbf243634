"""Text-to-image models in diffusers' format as priors: from a local directory, or by their id on the hub."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from dream3d.errors import ConfigError, ModelError
from dream3d.origin import ModelOrigin
from dream3d.priors.base import PRIORS, Prior, PriorConfig
from dream3d.priors.model_list import adapter_id, alternatives, find_model, roles

if TYPE_CHECKING:
    from dream3d.priors.pipelines.control import ControlSettings
    from dream3d.priors.pipelines.image_prompt import ImagePrompt
    from dream3d.priors.pipelines.opening import Opening
    from dream3d.priors.pipelines.table import PipelineRow

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
        compile: what makes the network and the codec faster: none; graphs (CUDA graphs, NVIDIA alone); inductor
            (torch.compile, whose first steps take minutes, and graphs); auto is graphs on a GPU and none elsewhere
            and with low_vram.
        vae: another codec, an id or a directory: TAESD (madebyollin/taesd) or one that fits float16.
        controlnet: a ControlNet for this kind of model: a directory, an id, or a role such as controlnet-depth.
        control: what the picture shows that it is given of each view: depth or normal, of the scene itself.
        control_image: a picture file that it is given of every view instead.
        control_scale: strength of its corrections.
        control_start: share of the way from noise to picture after which it begins.
        control_end: share of the way at which it stops.
        image_prompt: a picture file that says, beside the words, what things look like; needs ip_adapter.
        ip_adapter: an IP-Adapter for this kind of model: a .safetensors file, owner/name/folder/file, or the role
            ip-adapter.
        image_encoder: directory or id of the encoder it was trained with; empty for the folder image_encoder beside it.
        image_prompt_scale: strength of the picture; 0 is words alone.
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
    compile: Literal["auto", "none", "graphs", "inductor"] = "auto"
    vae: str = ""
    controlnet: str = ""
    control: Literal["depth", "normal"] = "depth"
    control_image: str = ""
    control_scale: float = 1.0
    control_start: float = 0.0
    control_end: float = 1.0
    image_prompt: str = ""
    ip_adapter: str = ""
    image_encoder: str = ""
    image_prompt_scale: float = 0.6
    loras: list[str] = field(default_factory=list)
    lora_scales: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "float32", "bfloat16", "float16"):
            raise ConfigError(
                f"prior.precision is '{self.precision}'; choose one of auto, float32, bfloat16, float16"
            )
        if self.compile not in ("auto", "none", "graphs", "inductor"):
            raise ConfigError(
                f"prior.compile is '{self.compile}'; choose one of auto, none, graphs, inductor"
            )
        for name in ("resolution", "chunk"):
            if getattr(self, name) < 0:
                raise ConfigError(f"prior.{name} is {getattr(self, name)}; choose 0 or more")
        if self.lora_scales and len(self.lora_scales) != len(self.loras):
            raise ConfigError(
                f"prior.lora_scales has {len(self.lora_scales)} numbers for {len(self.loras)} LoRAs; "
                "give one each, or none"
            )

        self._check_adapters()

    def _check_adapters(self) -> None:
        if self.control not in ("depth", "normal"):
            raise ConfigError(f"prior.control is '{self.control}'; choose depth or normal")
        if self.control_image and not self.controlnet:
            raise ConfigError(
                f"prior.control_image is '{self.control_image}', but there is no prior.controlnet to show it to"
            )
        if bool(self.image_prompt) != bool(self.ip_adapter):
            raise ConfigError(
                f"prior.image_prompt is '{self.image_prompt}' and prior.ip_adapter '{self.ip_adapter}'; "
                "give both or neither"
            )
        if not 0.0 <= self.image_prompt_scale < math.inf:
            raise ConfigError(
                f"prior.image_prompt_scale is {self.image_prompt_scale}; choose 0 or a positive number"
            )
        if not 0.0 <= self.control_scale < math.inf:
            raise ConfigError(
                f"prior.control_scale is {self.control_scale}; choose 0 or a positive number"
            )
        if not 0.0 <= self.control_start <= self.control_end <= 1.0:
            raise ConfigError(
                f"prior.control_start is {self.control_start} and prior.control_end {self.control_end}; choose "
                "0 <= start <= end <= 1"
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
        from dream3d.priors.pipelines.provenance import origin_of

        if not self.model:
            raise ConfigError(
                "prior.model is missing; give a directory, an id, or a role (`dream3d models list`)"
            )
        self._check_ahead()
        source, directory, checkpoint = self._source()
        vae = model_directory(self.vae, whole=True, setting="prior.vae") if self.vae else None
        scales = self.lora_scales or [1.0] * len(self.loras)
        control = self._control(directory) if self.controlnet else None
        picture = self._picture(directory) if self.image_prompt else None
        how = Opening(
            precision=self.precision,
            resolution=self.resolution,
            guidance_embedding=self.guidance_embedding,
            chunk=self.chunk,
            low_vram=self.low_vram,
            compile=self.compile,
            checkpoint=checkpoint,
            control=control,
            picture=picture,
            vae=vae,
            loras=tuple(
                (Path(file).expanduser(), scale)
                for file, scale in zip(self.loras, scales, strict=True)
            ),
        )
        prior = open_prior(directory, device, how)
        prior.origins = self._origins(origin_of(source, checkpoint or directory), how, prior.row)
        return prior

    def _check_ahead(self) -> None:
        """Refuse what goes beside the model and cannot be used, before gigabytes of the model are fetched.

        Raises:
            ModelError: names the setting.
        """
        from dream3d.priors.pipelines.hub import check_source, local_adapter
        from dream3d.priors.pipelines.parts import check_file
        from dream3d.priors.pipelines.pictures import read_image

        for name in ("config", "vae", "controlnet", "image_encoder"):
            source = getattr(self, name)
            if source and not (name == "controlnet" and source in roles()):
                check_source(source, f"prior.{name}")
        named = self.ip_adapter in ("", *roles())
        if not named and (adapter := local_adapter(self.ip_adapter)) is not None:
            check_file(adapter, "IP-Adapter", "prior.ip_adapter")
        for file in self.loras:
            check_file(Path(file).expanduser(), "LoRA", "prior.loras")
        for name in ("control_image", "image_prompt"):
            if picture := getattr(self, name):
                read_image(Path(picture).expanduser(), f"prior.{name}")

    def _origins(
        self, main: ModelOrigin, how: "Opening", row: "PipelineRow"
    ) -> tuple[ModelOrigin, ...]:
        """Of everything that was opened, the pipeline itself first."""
        from dream3d.priors.pipelines.provenance import origin_of

        beside = [main]
        if how.vae is not None:
            beside.append(origin_of(self.vae, how.vae, "codec"))
        if how.control is not None:
            name = adapter_id(self.controlnet, row.pipeline)
            beside.append(origin_of(name, how.control.directory, "controlnet"))
        if how.picture is not None:
            name = adapter_id(self.ip_adapter, row.pipeline)
            beside.append(origin_of(name, how.picture.weights, "ip-adapter"))
            if self.image_encoder:
                beside.append(origin_of(self.image_encoder, how.picture.encoder, "image encoder"))
        files = zip(self.loras, how.loras, strict=True)
        return (*beside, *(origin_of(name, file, "lora") for name, (file, _) in files))

    def _control(self, directory: Path) -> "ControlSettings":
        """The ControlNet for the pipeline in `directory`, downloaded if need be."""
        from dream3d.priors.pipelines.control import ControlSettings
        from dream3d.priors.pipelines.hub import model_directory
        from dream3d.priors.pipelines.parts import pipeline_row

        name = adapter_id(self.controlnet, pipeline_row(directory).pipeline)
        return ControlSettings(
            model_directory(name, whole=True, setting="prior.controlnet"),
            self.control,
            Path(self.control_image).expanduser() if self.control_image else None,
            self.control_scale,
            self.control_start,
            self.control_end,
        )

    def _picture(self, directory: Path) -> "ImagePrompt":
        """The image prompt for the pipeline in `directory`, its adapter downloaded if need be."""
        from dream3d.priors.pipelines.hub import adapter_file, model_directory
        from dream3d.priors.pipelines.image_prompt import ImagePrompt
        from dream3d.priors.pipelines.parts import pipeline_row

        file = adapter_file(adapter_id(self.ip_adapter, pipeline_row(directory).pipeline))
        encoder = file.parent / "image_encoder"
        if self.image_encoder:
            encoder = model_directory(self.image_encoder, whole=True, setting="prior.image_encoder")
        image = Path(self.image_prompt).expanduser()
        return ImagePrompt(image, file, encoder, self.image_prompt_scale)

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
            if entry is not None and entry.kind != "pipeline":
                raise ConfigError(
                    f"prior.model is '{self.model}', which is a {entry.kind}: no model of its own, but one for a "
                    f"{entry.pipeline} (`dream3d models list`)"
                )
            named = entry is not None and self.model in entry.roles and not is_directory(self.model)
            source = entry.id if entry is not None and named else self.model
            directory = model_directory(source, self.revision, None, alternatives(source))
            return source, directory, None
        file = Path(self.model).expanduser()
        family = checkpoint_family(file)
        entry = find_model(family.role)
        assert entry is not None, "every family has a role in models.toml"
        try:
            directory = model_directory(
                self.config or entry.id, weights=False, setting="prior.config"
            )
        except ModelError as error:
            raise ModelError(
                f"{file} is a {family.name} file, and its configuration and tokenizer come from elsewhere: {error} "
                "Or give prior.config: any diffusers directory of that kind, its weights are not read"
            ) from error
        check_configuration(directory, family)
        return str(file), directory, file


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
