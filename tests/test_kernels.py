"""Compiled kernels: read back when nothing changed, compiled again when a file beside them did, and timed."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dream3d.kernels import _sources_digest, compilation_seconds

KERNEL = """
from dream3d.kernels import kernel
from {neighbour} import FACTOR

@kernel()
def scaled(x):
    return FACTOR * x
"""


def load(path: Path) -> ModuleType:
    """The module in `path`, executed anew."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_compilation_is_timed_and_happens_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    neighbour = "factor_of_test_kernels"
    (tmp_path / f"{neighbour}.py").write_text("FACTOR = 2.0\n")
    path = tmp_path / "scaled_of_test_kernels.py"
    path.write_text(KERNEL.format(neighbour=neighbour))
    before = compilation_seconds()
    assert load(path).scaled(3.0) == 6.0
    first = compilation_seconds()
    assert first > before
    assert load(path).scaled(3.0) == 6.0
    assert compilation_seconds() == first
    # Numba itself would not notice that a constant from another file changed.
    (tmp_path / f"{neighbour}.py").write_text("FACTOR = 5.0\n# longer\n")
    del sys.modules[neighbour]
    _sources_digest.cache_clear()
    assert load(path).scaled(3.0) == 15.0
    assert compilation_seconds() > first
