"""The Python interface: light to import, one call to an asset."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dream3d
from dream3d.export import pictures
from dream3d.scenes.splats import Splats
from dream3d.train import StepReport

ROOT = Path(__file__).parent.parent


def test_names() -> None:
    assert set(dream3d.__all__) == {"__version__", "generate", "resume"}
    assert all(getattr(dream3d, name) for name in dream3d.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dream3d.nothing  # type: ignore[attr-defined]


def test_the_installed_version_is_the_package_s() -> None:
    assert importlib.metadata.version("dream3d") == dream3d.__version__


def test_import_loads_nothing_heavy() -> None:
    code = "import dream3d, sys; print(sorted({'torch', 'numpy', 'omegaconf', 'yaml'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("given", "found"), [({}, "5000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_importing_lets_threads_wait_awake_unless_told_otherwise(
    given: dict[str, str], found: str
) -> None:
    rest = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    done = subprocess.run(
        [sys.executable, "-c", "import dream3d, os; print(os.environ['GOMP_SPINCOUNT'])"],
        cwd=ROOT,
        env=rest | given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == found


def test_generate_returns_paths_scene_and_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole path once, with a true mesh and film."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pictures, "FRAMES", 4)
    seen: list[int] = []

    def on_step(report: StepReport) -> None:
        seen.append(report.step)

    result = dream3d.generate(
        "a red mug", preset="gaussian", seed=4, overrides={"steps": 12}, on_step=on_step
    )
    assert seen == list(range(1, 13))
    assert (result.status, result.prompt, result.seed) == ("done", "a red mug", 4)
    assert result.directory.parent == Path("outputs")
    assert result.directory.name.startswith("a-red-mug-")
    assert {"asset.glb", "asset.ply", "preview.png", "turntable.mp4"} <= set(result.files)
    assert all(path.stat().st_size > 100 for path in result.files.values())
    assert isinstance(result.scene, Splats)
    assert result.seconds > 0
    assert result.record["phases"]["export asset.glb"] > 0
    assert result.record["compilation_seconds"] >= 0
