"""Finished scenes as files other programs read.

from dream3d.export import export_run

export_run("outputs/a-red-mug-3f2a9c1e", "usdz").path
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dream3d.export.about import About
    from dream3d.export.asset import Asset
    from dream3d.export.formats.base import FORMATS, ExportOptions
    from dream3d.export.run import Export, export_asset, export_run, export_scene, load_asset

_WHERE = {
    "About": "about",
    "Asset": "asset",
    "FORMATS": "formats.base",
    "ExportOptions": "formats.base",
    "Export": "run",
    "export_asset": "run",
    "export_run": "run",
    "export_scene": "run",
    "load_asset": "run",
}
__all__ = [
    "FORMATS",
    "About",
    "Asset",
    "Export",
    "ExportOptions",
    "export_asset",
    "export_run",
    "export_scene",
    "load_asset",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        import importlib

        return getattr(importlib.import_module(f"dream3d.export.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'dream3d.export' has no attribute '{name}'")
