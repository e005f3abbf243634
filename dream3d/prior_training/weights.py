"""All trainable weights as one vector, and the directory that training reads them from and writes them to."""

import functools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.errors import ModelError
from dream3d.files import make_directory, writing
from dream3d.prior_training.config import TrainingConfig
from dream3d.priors.embedded import MANIFEST, read_manifest, write_manifest
from dream3d.priors.latent.build import build_components
from dream3d.priors.latent.codec import fit_patch_codec
from dream3d.priors.latent.components import Components, load_components, save_components
from dream3d.world.dataset import sample_batch
from dream3d.world.freeze import content_hash
from dream3d.world.grammar import VOCABULARY

_CODEC_OBJECTS = 256
world_hash = functools.cache(
    content_hash
)  # takes seconds, and the world does not change while a process runs


class FlatWeights:
    """Parameters and gradients of all trainable parts as two contiguous vectors the modules' tensors are views of.

    One vector makes the gradient average one message, the norm one reduction, the optimiser one fused kernel and the
    weight average one line. The codec is fixed and left out.

    Attributes:
        values: every weight; an `nn.Parameter` whose gradient is `gradients`.
        gradients: filled by backward; zero it before each step.
    """

    def __init__(self, components: Components) -> None:
        modules = {name: m for name, m in components.modules().items() if name != "vae"}
        parameters = [p for module in modules.values() for p in module.parameters()]
        for module in modules.values():
            module.train().requires_grad_(True)
        self.values = torch.nn.Parameter(
            torch.cat([p.detach().reshape(-1).float() for p in parameters])
        )
        self.gradients = torch.zeros_like(self.values.data)
        self.values.grad = self.gradients
        place = 0
        for parameter in parameters:
            span = slice(place, place + parameter.numel())
            parameter.data = self.values.data[span].view_as(parameter)
            parameter.grad = self.gradients[span].view_as(parameter)
            place = span.stop

    def swap(self, other: Float[Tensor, " P"]) -> None:
        """Exchange the weights with those of a vector of the same length, in place on both sides."""
        held = self.values.data.clone()
        self.values.data.copy_(other)
        other.copy_(held)


def open_components(config: TrainingConfig) -> tuple[Components, dict[str, Any]]:
    """The model a run starts from, and its manifest (empty for a new model).

    Raises:
        ModelError: the directory to start from is damaged, or of another world.
    """
    device = torch.device(config.device)
    source = Path(config.start) if config.start else starting_directory(Path(config.output))
    if source is not None:
        manifest = read_manifest(source)
        if manifest["world"] != world_hash():
            raise ModelError(
                f"{source} was trained on world {manifest['world']}, this world is {world_hash()}; "
                "start anew with another --output"
            )
        return load_components(source, device), manifest
    sizes = config.architecture
    world = sample_batch(np.random.default_rng(0), _CODEC_OBJECTS, 1, sizes.image_size)
    codec = fit_patch_codec(world.images.flatten(0, 1), sizes.patch_size, sizes.latent_channels)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        components = build_components(VOCABULARY, codec, sizes)
    return components.to(device), {}


def starting_directory(output: Path) -> Path | None:
    """Where an earlier run of the same output left its weights; None if there was none."""
    for name in ("embedded", "embedded.old"):
        if (output / name / MANIFEST).is_file():
            return output / name
    return None


def save_prior(components: Components, output: Path, facts: dict[str, Any]) -> Path:
    """Write `output`/embedded, a complete prior directory; the one before stays until the new one is whole.

    A crash between the two renames leaves the one before as embedded.old, which `starting_directory` finds.

    Raises:
        OutputError: not writable, or the disk is full.
    """
    make_directory(output)
    fresh, target, retired = (
        output / name for name in ("embedded.new", "embedded", "embedded.old")
    )
    with writing(fresh):
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        save_components(components, fresh)
        write_manifest(fresh, world_hash(), facts)
        if target.exists():
            shutil.rmtree(retired, ignore_errors=True)
            target.rename(retired)
        fresh.rename(target)
        shutil.rmtree(retired, ignore_errors=True)
    return target
