"""Checkpoints: everything a run needs to go on bit for bit, in one safetensors file each.

The file's metadata holds a JSON document (format version, position, the run's fingerprint) and a digest of the tensors,
so that a damaged file is recognised. A file appears under its name only when it is complete and on the disk.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dream3d.errors import CheckpointError
from dream3d.files import make_directory, write_bytes

FORMAT_VERSION = 1
KEEP = 2
PARTS = ("scene", "optimizer", "companion", "companion_optimizer")
_NAME = re.compile(r"stage-(\d{2})-step-(\d{7})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A moment between two steps.

    Attributes:
        stage: index of the stage.
        step: steps done in it.
        skipped: see `TrainState.skipped`.
        seconds: wall time of the run so far, over all its resumptions.
        fingerprint: of the configuration (`systems.base.fingerprint`).
        generator: the random generator's state.
        scene: the scene's tensors.
        optimizer: Adam's tensors by "parameter/quantity".
        companion, companion_optimizer: the same of the prior's trainable twin; empty without one.
    """

    stage: int
    step: int
    skipped: int
    seconds: float
    fingerprint: str
    generator: Tensor
    scene: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    companion: dict[str, Tensor] = field(default_factory=dict)
    companion_optimizer: dict[str, Tensor] = field(default_factory=dict)


def _named_parameters(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's parameters by name: a group has several `names`, or one `name` for its one parameter."""
    return {
        name: parameter
        for group in optimizer.param_groups
        for name, parameter in zip(
            group.get("names") or [group["name"]], group["params"], strict=True
        )
    }


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state by "parameter's name/quantity"; hyper-parameters come from the configuration."""
    return {
        f"{name}/{quantity}": value
        for name, parameter in _named_parameters(optimizer).items()
        for quantity, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` returned, onto a fused optimiser of parameters with the same names."""
    named = _named_parameters(optimizer)
    for key, value in tensors.items():
        name, _, quantity = key.rpartition("/")
        if name in named:
            # A fused optimiser keeps its step counter where the parameter is.
            optimizer.state[named[name]][quantity] = value.to(named[name].device)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class CheckpointStore:
    """The checkpoints of one run, newest last; older ones than the newest `KEEP` are removed.

    Args:
        directory: created with the first checkpoint.
        fingerprint: of the run's configuration; other runs' checkpoints are refused.
    """

    def __init__(self, directory: Path, fingerprint: str) -> None:
        self.directory = directory
        self.fingerprint = fingerprint

    def files(self) -> list[Path]:
        """Complete checkpoint files, oldest first."""
        if not self.directory.is_dir():
            return []
        return sorted(p for p in self.directory.iterdir() if _NAME.fullmatch(p.name))

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint and remove the ones no longer kept.

        Raises:
            OutputError: it cannot be written; the older ones stay.
        """
        tensors = {"generator": checkpoint.generator}
        for part in PARTS:
            held: dict[str, Tensor] = getattr(checkpoint, part)
            tensors |= {f"{part}/{name}": value for name, value in held.items()}
        tensors = {name: _copied(value) for name, value in tensors.items()}
        document = {
            "format_version": FORMAT_VERSION,
            "stage": checkpoint.stage,
            "step": checkpoint.step,
            "skipped": checkpoint.skipped,
            "seconds": checkpoint.seconds,
            "fingerprint": checkpoint.fingerprint,
            "digest": _digest(tensors),
        }
        name = f"stage-{checkpoint.stage:02d}-step-{checkpoint.step:07d}.safetensors"
        path = self.directory / name
        make_directory(self.directory)
        write_bytes(path, save(tensors, {"dream3d": json.dumps(document)}))
        for old in self.files()[:-KEEP]:
            old.unlink(missing_ok=True)
        return path

    def load_newest(self) -> Checkpoint | None:
        """The newest readable checkpoint, or None when there are no files at all.

        Raises:
            CheckpointError: there are files and none can be used; the message says what is wrong with each.
        """
        problems = []
        for path in reversed(self.files()):
            try:
                return self._load(path)
            except CheckpointError as error:
                problems.append(str(error))
        if not problems:
            return None
        raise CheckpointError("; ".join(problems) + ". Start the run again without --resume.")

    def _load(self, path: Path) -> Checkpoint:
        try:
            with safe_open(path, framework="pt") as file:
                document: dict[str, Any] = json.loads((file.metadata() or {})["dream3d"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{path.name} is damaged or not a checkpoint ({error})"
            ) from error
        version = document.get("format_version")
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{path.name} has format version {version}; this program reads {FORMAT_VERSION}"
            )
        if document.get("digest") != _digest(tensors):
            raise CheckpointError(f"{path.name} is damaged (its digest does not match)")
        if document["fingerprint"] != self.fingerprint:
            raise CheckpointError(f"{path.name} belongs to a run with another configuration")
        return Checkpoint(
            stage=document["stage"],
            step=document["step"],
            skipped=document["skipped"],
            seconds=document["seconds"],
            fingerprint=document["fingerprint"],
            generator=tensors["generator"],
            **{part: _under(f"{part}/", tensors) for part in PARTS},
        )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def _copied(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU; the format refuses tensors that share memory."""
    return tensor.detach().to("cpu", copy=True).contiguous()
