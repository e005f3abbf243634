"""The finished assets of a batch in further formats, kept with each job: what `dream3d batch --export` adds."""

from collections.abc import Callable, Sequence

from dream3d.batch.run import Row
from dream3d.errors import AssetError, ConfigError, Dream3DError
from dream3d.export.formats.base import FORMATS, ExportOptions, export_name
from dream3d.export.run import export_asset, load_asset
from dream3d.jobs import JobStore


def read_formats(text: str) -> tuple[str, ...]:
    """Formats from `glb,usdz`.

    Raises:
        ConfigError: one is not known.
        AssetError: what one needs is not installed; better told before the batch than after.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in FORMATS.names():
            known = ", ".join(FORMATS.names())
            raise ConfigError(f"--export names '{name}'; choose from {known}")
        if (remedy := FORMATS[name].missing()) is not None:
            raise AssetError(f"cannot write {name}: {remedy}")
    return names


def make_exports(
    rows: Sequence[Row],
    store: JobStore,
    formats: Sequence[str],
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Write every done row's asset in every format that is not there yet; a row notes what failed.

    Args:
        rows: of this process.
        store: of their jobs.
        formats: names, see `read_formats`.
        should_stop: asked before every file.
    """
    for row in rows:
        if row.job is None or row.state != "done":
            continue
        directory = store.directory(row.item.job) / "exports"
        wanted = {name: directory / export_name(name) for name in formats}
        missing = [name for name, path in wanted.items() if not path.is_file()]
        asset = None
        for name in missing:
            if should_stop():
                return
            try:
                asset = asset or load_asset(store.run_path(row.item.job))
                export_asset(asset, name, wanted[name], ExportOptions())
            except Dream3DError as error:
                row.export_problem = f"{name}: {error}"
        row.exports = tuple(path.name for path in wanted.values() if path.is_file())
