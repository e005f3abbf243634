"""From a model's directory to a prior: every part read strictly, placed and set to a precision."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dream3d.errors import ModelError
from dream3d.priors.base import SPARING_CHUNK
from dream3d.priors.latent.components import read_json
from dream3d.priors.pipelines.acceleration import Compile, acceleration_of
from dream3d.priors.pipelines.control import ControlSettings, open_control
from dream3d.priors.pipelines.distilled import cfg_trouble
from dream3d.priors.pipelines.image_prompt import ImagePrompt, add_image_prompt
from dream3d.priors.pipelines.lora import load_text_lora, merge_lora
from dream3d.priors.pipelines.parts import load_part, open_text_pipeline, part_class, pipeline_row
from dream3d.priors.pipelines.prior import PipelineParts, PipelinePrior
from dream3d.priors.pipelines.single_file import file_scheduler, load_single
from dream3d.priors.pipelines.table import PipelineRow
from dream3d.priors.pipelines.text import TextEmbedder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Opening:
    """How a directory is opened.

    Attributes:
        precision: "auto", "float32", "bfloat16" or "float16"; "auto" is float32 on a CPU and the row's advice on a GPU.
        resolution: side in pixels; 0 for what the network was trained at.
        guidance_embedding: for networks that take their guidance scale as an input.
        chunk: samples per network call at most; 0 for all at once.
        low_vram: keep as little on the GPU as possible, at the price of speed.
        keep_text: hold on to the text encoders.
        loras: files and their strengths, merged into the weights in this order.
        checkpoint: a single file with the networks' weights; the directory then gives configurations and tokenizers.
        control: a ControlNet and how it is used, or None.
        picture: what goes with the words of every prompt, or None.
        compile: what makes calls faster, see `acceleration_of`.
        vae: directory of another codec that takes the pipeline's place (one folder, or a model with a `vae` in it).
    """

    precision: str = "auto"
    resolution: int = 0
    guidance_embedding: float = 3.5
    chunk: int = 0
    low_vram: bool = False
    keep_text: bool = False
    checkpoint: Path | None = None
    control: ControlSettings | None = None
    picture: ImagePrompt | None = None
    vae: Path | None = None
    loras: tuple[tuple[Path, float], ...] = ()
    compile: Compile = "auto"


def weight_dtype(row: PipelineRow, precision: str, device: torch.device) -> torch.dtype:
    """The precision of the network's weights."""
    if precision == "auto":
        return torch.float32 if device.type == "cpu" else DTYPES[row.dtype]
    return DTYPES[precision]


def open_prior(directory: Path, device: torch.device, how: Opening | None = None) -> PipelinePrior:
    """A pipeline's directory as a prior.

    Raises:
        ModelError: a part is missing, damaged, pickled, of an unknown class, or its weights do not fit.
        ConfigError: what is to make calls faster does not go with the device or with `low_vram`.
    """
    how = Opening() if how is None else how
    acceleration = acceleration_of(how.compile, device, how.low_vram)
    row = pipeline_row(directory)
    index = read_json(directory / "model_index.json")
    dtype = weight_dtype(row, how.precision, device)
    load = _loader(how.checkpoint)
    network = load(required_class(index, row.network, directory), directory / row.network, dtype)
    for file, scale in how.loras:
        merge_lora(network, row, file, scale)
    image = None
    if how.picture is not None:
        image = add_image_prompt(network, row, how.picture, device, dtype)
    vae = None if row.norm == "none" else _open_vae(index, directory, dtype, how)
    scheduler = load(required_class(index, "scheduler", directory), directory / "scheduler", dtype)
    control = None if how.control is None else open_control(how.control, row, network, dtype)
    place = placement(how.low_vram, device)
    if control is not None:
        place(control.network)
        control.fixed = None if control.fixed is None else control.fixed.to(device)
    place(network)
    if how.low_vram:
        slice_codec(vae)
    if vae is not None:
        vae.to(device)
    settings = {name: value for name, value in index.items() if not isinstance(value, list)}

    def open_text() -> Any:
        pipeline = open_text_pipeline(directory, row, dtype, load)
        for file, scale in how.loras:
            load_text_lora(pipeline, row, file, scale, network)
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                place(part)
        return pipeline

    text = TextEmbedder(row, open_text, device, image, keep=how.keep_text)
    parts = PipelineParts(row, network, vae, scheduler, text, settings, control)
    chunk = how.chunk or usual_chunk(how.low_vram)
    prior = PipelinePrior(
        parts, device, how.resolution, how.guidance_embedding, chunk, acceleration
    )
    entries = {"index": index, "network": network.config, "scheduler": _entries(scheduler)}
    prior.cfg_trouble = cfg_trouble(
        row.pipeline, row.distilled, entries, how.checkpoint or directory
    )
    return prior


def _entries(scheduler: Any) -> dict[str, Any]:
    return {**scheduler.config, "_class_name": type(scheduler).__name__}


def _loader(checkpoint: Path | None) -> Callable[[Any, Path, torch.dtype], Any]:
    """What reads a part from its folder: with a single file, that file for networks and the folder for the rest."""
    if checkpoint is None:
        return load_part

    def load(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
        if issubclass(cls, torch.nn.Module):
            return load_single(cls, folder, dtype, checkpoint)
        part = load_part(cls, folder, dtype)
        return file_scheduler(part, checkpoint) if folder.name == "scheduler" else part

    return load


def model_index(directory: Path) -> dict[str, Any]:
    """The model_index.json of a directory.

    Raises:
        ModelError: there is none.
    """
    if not (directory / "model_index.json").is_file():
        raise ModelError(
            f"{directory} holds no model: it has no model_index.json; give a model's directory or its id"
        )
    return read_json(directory / "model_index.json")


def required_class(index: dict[str, Any], name: str, directory: Path) -> type:
    """The class of a part that cannot be missing.

    Raises:
        ModelError: it is, or its class comes from elsewhere.
    """
    found = part_class(index, name, directory)
    if found is None:
        raise ModelError(f"model_index.json of {directory} lacks {name}; restore the directory")
    return found


def _open_vae(index: dict[str, Any], directory: Path, dtype: torch.dtype, how: Opening) -> Any:
    """The pipeline's codec, or the one that takes its place."""
    load = load_part
    if how.vae is None:
        folder, cls = directory / "vae", required_class(index, "vae", directory)
        load = _loader(how.checkpoint)
    else:
        folder, cls = other_codec(how.vae)
    config = read_json(folder / "config.json")
    if dtype == torch.float16 and config.get("force_upcast", False):
        dtype = torch.float32  # overflows in float16 (SDXL's own)
    return load(cls, folder, dtype)


def other_codec(path: Path) -> tuple[Path, type]:
    """Folder and class of a codec given on its own.

    Raises:
        ModelError: there is none, or of an unknown class.
    """
    folder = path / "vae" if (path / "vae" / "config.json").is_file() else path
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{path} holds no codec: it has no config.json. Give an AutoencoderKL's or AutoencoderTiny's directory"
        )
    name = str(read_json(folder / "config.json").get("_class_name"))
    if not name.startswith("Autoencoder"):
        raise ModelError(
            f"{path} holds a {name}; prior.vae takes an AutoencoderKL or AutoencoderTiny"
        )
    found = part_class({"vae": ["diffusers", name]}, "vae", folder)
    assert found is not None
    return folder, found


def slice_codec(vae: Any) -> None:
    """Let a codec work on one image, and one tile of it, at a time."""
    for name in ("enable_slicing", "enable_tiling"):
        if hasattr(vae, name):
            getattr(vae, name)()


def usual_chunk(low_vram: bool) -> int:
    """Samples per network call where nothing else is asked for; 0 for all at once."""
    return SPARING_CHUNK if low_vram else 0


def placement(low_vram: bool, device: torch.device) -> Callable[[torch.nn.Module], object]:
    """What brings a large module to the device: at once, or layer by layer as it is used."""
    if not low_vram or device.type == "cpu":
        return lambda module: module.to(device)
    return lambda module: from_main_memory(module, device)


def from_main_memory(module: torch.nn.Module, device: torch.device) -> None:
    """Keep the weights of `module` in main memory; each layer visits the device while it computes."""
    from diffusers.hooks import apply_group_offloading

    apply_group_offloading(
        module,
        onload_device=device,
        offload_device=torch.device("cpu"),
        offload_type="leaf_level",
        use_stream=device.type == "cuda",
    )
