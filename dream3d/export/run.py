"""A run's scene, or any scene, as one file of a chosen format: what the command line, batches and the web page call."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dream3d.errors import AssetError, OutputError
from dream3d.export.asset import About, Asset
from dream3d.export.formats.base import FORMATS, ExportOptions
from dream3d.files import make_directory, write_bytes
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
    return Asset(load_scene(Path(directory), config), about_run(config))


def about_run(config: RunConfig) -> About:
    """Where a run's asset comes from, as far as its configuration tells; of two priors, both."""
    priors = [config.prior] if config.second is None else [config.prior, config.second.prior]

    def told(name: str) -> str | None:
        values = [getattr(prior, name, None) for prior in priors]
        return "; ".join(v for v in values if isinstance(v, str) and v) or None

    return About(
        config.prompt, told("registered_name"), told("model"), told("license"), config.seed
    )


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
