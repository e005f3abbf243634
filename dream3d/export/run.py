"""A run's scene, or any scene, as one file of a chosen format: what the command line, batches and the web page call."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dream3d.errors import AssetError, OutputError
from dream3d.export.about import About
from dream3d.export.asset import Asset
from dream3d.export.formats.base import FORMATS, ExportOptions
from dream3d.files import make_directory, write_bytes
from dream3d.origin import ModelOrigin, from_record
from dream3d.priors.model_list import model_id
from dream3d.run_directory import RunDirectory
from systems.base import RunConfig


@dataclass(frozen=True)
class Export:
    """A written file.

    Attributes:
        path: where it is.
        format: its format's name.
        media_type: of the file.
        bytes: its size.
        seconds: what making it took.
        details: what is in it (`faces`, `splats`, ...), JSON types only.
    """

    path: Path
    format: str
    media_type: str
    bytes: int
    seconds: float
    details: dict[str, Any]


def export_asset(asset: Asset, format: str, path: Path, options: ExportOptions) -> Export:
    """Write one file; several formats of one `asset` share the work.

    Raises:
        ConfigError: no such format.
        AssetError: the scene cannot give what the format holds, or a tool is missing.
        OutputError: the file cannot be written. Whatever goes wrong, a file that was there stays as it was.
    """
    chosen = FORMATS[format]
    if (remedy := chosen.missing()) is not None:
        raise AssetError(f"cannot write {format}: {remedy}")
    if path.is_dir():
        raise OutputError(f"{path} is a directory; give the name of a file (--out)")
    began = time.perf_counter()
    encoded = chosen().encode(asset, options)
    make_directory(path.parent)
    write_bytes(path, encoded.data)
    seconds = round(time.perf_counter() - began, 3)
    return Export(path, format, chosen.media_type, len(encoded.data), seconds, encoded.details)


def export_scene(
    scene: Any,
    format: str,
    path: Path | str,
    options: ExportOptions | None = None,
    about: About | None = None,
) -> Export:
    """Write a scene that is in memory; see `export_asset`.

    Args:
        scene: a `dream3d.scenes.base.Scene`.
        format: a name `dream3d list formats` shows.
        path: of the file.
        options: what can be chosen; None takes the defaults.
        about: where the scene comes from.
    """
    return export_asset(Asset(scene, about), format, Path(path), options or ExportOptions())


def load_asset(directory: Path | str) -> Asset:
    """The scene of a run's newest checkpoint and where it comes from.

    Raises:
        ConfigError, CheckpointError: not a run directory, or it has no usable checkpoint.
    """
    from dream3d.evaluation.run import load_scene, read_config

    config = read_config(Path(directory))
    record = RunDirectory.open(Path(directory)).read_record()
    return Asset(load_scene(Path(directory), config), about_run(config, record))


def about_run(config: RunConfig, record: Mapping[str, Any] | None = None) -> About:
    """Where a run's asset comes from; of two priors, both.

    Args:
        config: of the run.
        record: its `result.json`, which knows what was loaded: ids instead of roles, commits, adapters. Without it,
            what the configuration tells.
    """
    priors = [config.prior] if config.second is None else [config.prior, config.second.prior]
    names = "; ".join(str(getattr(prior, "registered_name", "")) for prior in priors)
    record = {} if record is None else record
    models = [
        replace(one, model=_public(one.model))
        for key in ("prior", "second")
        for one in from_record(record.get(key) or {})
    ]
    if not models:
        named = [(_public(model_id(getattr(prior, "model", ""))), prior) for prior in priors]
        models = [
            ModelOrigin(name, licence=getattr(prior, "license", ""))
            for name, prior in named
            if name
        ]
    main = [one for one in models if one.use == "model"]

    def told(name: str) -> str | None:
        values = [getattr(one, name) for one in main]
        return "; ".join(value or "unknown" for value in values) if any(values) else None

    return About(
        config.prompt,
        names,
        told("model"),
        told("licence"),
        config.seed,
        told("revision"),
        tuple(models),
    )


def _public(model: str) -> str:
    """An id as it is; of a place on this machine only its name, for files are given away."""
    place = Path(model)
    local = place.is_absolute() or model.startswith((".", "~", "\\"))
    return place.name if local else model


def export_run(
    directory: Path | str,
    format: str,
    out: Path | str | None = None,
    options: ExportOptions | None = None,
) -> Export:
    """Write what a run made as `format`.

    Args:
        directory: the run's.
        format: a name `dream3d list formats` shows.
        out: the file; None puts it into the run directory under the format's own name.
        options: what can be chosen; None takes the defaults.

    Raises:
        ConfigError, CheckpointError: see `load_asset`, or no such format.
        AssetError, OutputError: see `export_asset`.
    """
    name = FORMATS[format].file_name
    path = Path(directory) / name if out is None else Path(out)
    return export_asset(load_asset(directory), format, path, options or ExportOptions())
