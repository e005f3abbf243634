"""Which renderer backends this machine can run, without importing them."""

import functools
import importlib
import importlib.util
from dataclasses import dataclass

from dream3d.errors import ConfigError


@dataclass(frozen=True)
class Backend:
    """One way to run a renderer.

    Attributes:
        name: what `backend=` accepts.
        renderer: "splats", "volume" or "mesh".
        needs: importable packages it requires.
        devices: torch device types it runs on.
        module: ours that imports those packages; importing it is the probe. Empty for what dream3d itself needs.
    """

    name: str
    renderer: str
    needs: tuple[str, ...]
    devices: tuple[str, ...]
    module: str = ""

    @property
    def missing(self) -> list[str]:
        """The packages it needs that are not installed."""
        return [package for package in self.needs if importlib.util.find_spec(package) is None]

    @property
    def available(self) -> bool:
        """Whether everything it needs is installed."""
        return not self.missing

    @property
    def broken(self) -> str | None:
        """Why it cannot be used although its packages are installed; None where it can."""
        if not self.module or (failure := import_failure(self.module)) is None:
            return None
        return f"{self.needs[-1]} is installed but does not work here ({failure})"


@functools.cache
def import_failure(module: str) -> str | None:
    """What importing a module raises, in one line; None where it works.

    GPU packages fail in many ways on machines they were not built for (no compiler, another torch, no driver), and none
    of them may take dream3d down.
    """
    try:
        importlib.import_module(module)
    except Exception as error:
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return None


BACKENDS = (
    Backend("torch", "splats", ("torch",), ("cpu", "cuda", "mps")),
    Backend("numba", "splats", ("torch", "numba"), ("cpu",)),
    Backend("warp", "splats", ("torch", "warp"), ("cpu", "cuda"), "renderers.splats_warp"),
    Backend("gsplat", "splats", ("torch", "gsplat"), ("cuda",), "renderers.splats_gsplat"),
    Backend("torch", "volume", ("torch",), ("cpu", "cuda", "mps")),
    Backend("numba", "volume", ("torch", "numba"), ("cpu",)),
    Backend("warp", "volume", ("torch", "warp"), ("cpu", "cuda"), "renderers.volume_warp"),
    Backend("nerfacc", "volume", ("torch", "nerfacc"), ("cuda",), "renderers.volume_nerfacc"),
    Backend(
        "tinycudann", "volume", ("torch", "tinycudann"), ("cuda",), "renderers.hash_grid_tinycudann"
    ),
    Backend("torch", "mesh", ("torch",), ("cpu", "cuda", "mps")),
    Backend("numba", "mesh", ("torch", "numba"), ("cpu",)),
    Backend("warp", "mesh", ("torch", "warp"), ("cpu", "cuda"), "renderers.mesh_warp"),
    Backend("nvdiffrast", "mesh", ("torch", "nvdiffrast"), ("cuda",), "renderers.mesh_nvdiffrast"),
    Backend("pytorch3d", "mesh", ("torch", "pytorch3d"), ("cuda",), "renderers.mesh_pytorch3d"),
)


def choose_backend(renderer: str, name: str, device: str, preferred: tuple[str, ...]) -> str:
    """The backend to use: `name`, or for "auto" the first of `preferred` that works and runs on `device`.

    Raises:
        ConfigError: unknown, not installed, broken, or not for this device.
    """
    known = {backend.name: backend for backend in BACKENDS if backend.renderer == renderer}
    if name == "auto":
        return next(
            n
            for n in preferred
            if known[n].available and device in known[n].devices and not known[n].broken
        )
    if name not in known:
        raise ConfigError(
            f"{renderer} backend is '{name}'; choose one of auto, {', '.join(sorted(known))}"
        )
    backend = known[name]
    if backend.missing:
        raise ConfigError(
            f"{renderer} backend '{name}' needs {', '.join(backend.missing)}, which is not installed; "
            f"install it or use backend 'torch'"
        )
    if device not in backend.devices:
        raise ConfigError(
            f"{renderer} backend '{name}' runs on {', '.join(backend.devices)}, the data is on {device}; "
            "move them or use backend 'auto'"
        )
    if failure := backend.broken:
        raise ConfigError(
            f"{renderer} backend '{name}': {failure}; build it for this torch and GPU, remove it, or use backend 'auto'"
        )
    return name
