"""The mesh files a configuration names, kept beside it: a run or a job then needs nothing that lies elsewhere."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dream3d.errors import ConfigError
from dream3d.files import write_bytes
from dream3d.scenes.mesh_file import SUFFIXES
from systems.base import RunConfig

WHOLE = tuple(suffix for suffix in SUFFIXES if suffix != ".gltf")
"""Kinds that are one file each; a .gltf refers to others and stays where it is."""


def named_meshes(config: RunConfig) -> dict[int, Path]:
    """The mesh file of every stage's scene that begins with one, by the stage's number."""
    found = {}
    for index, stage in enumerate(config.stages):
        name = getattr(stage.scene, "mesh", "sphere")
        if name != "sphere" and Path(name).suffix.lower() in WHOLE:
            found[index] = Path(name)
    return found


def _copy_name(index: int, mesh: Path) -> str:
    return f"mesh-{index}{mesh.suffix.lower()}"


def with_own_meshes(config: RunConfig) -> RunConfig:
    """The configuration as a directory's own config.yaml has it: meshes by the names of their copies there."""
    stages = list(config.stages)
    for index, mesh in named_meshes(config).items():
        scene: Any = stages[index].scene
        copied = replace(scene, mesh=_copy_name(index, mesh))
        stages[index] = replace(stages[index], scene=copied)
    return replace(config, stages=stages)


def read_meshes(config: RunConfig) -> dict[str, bytes]:
    """The files by the names of the copies that `with_own_meshes` speaks of.

    Raises:
        ConfigError: one cannot be read.
    """
    found = {}
    for index, mesh in named_meshes(config).items():
        try:
            found[_copy_name(index, mesh)] = mesh.read_bytes()
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(f"scene.mesh is '{mesh}', which cannot be read: {reason}") from error
    return found


def keep_meshes(meshes: Mapping[str, bytes], directory: Path) -> None:
    """Write what `read_meshes` has read.

    Raises:
        OutputError: a copy cannot be written.
    """
    for name, data in meshes.items():
        write_bytes(directory / name, data)
