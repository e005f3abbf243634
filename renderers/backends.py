"""Which renderer backends this machine can run, without importing them."""

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
    """

    name: str
    renderer: str
    needs: tuple[str, ...]
    devices: tuple[str, ...]

    @property
    def missing(self) -> list[str]:
        """The packages it needs that are not installed."""
        return [package for package in self.needs if importlib.util.find_spec(package) is None]

    @property
    def available(self) -> bool:
        """Whether everything it needs is installed."""
        return not self.missing


BACKENDS = (
    Backend("torch", "splats", ("torch",), ("cpu", "cuda", "mps")),
    Backend("numba", "splats", ("torch", "numba"), ("cpu",)),
    Backend("torch", "volume", ("torch",), ("cpu", "cuda", "mps")),
    Backend("numba", "volume", ("torch", "numba"), ("cpu",)),
    Backend("torch", "mesh", ("torch",), ("cpu", "cuda", "mps")),
    Backend("numba", "mesh", ("torch", "numba"), ("cpu",)),
    Backend("nvdiffrast", "mesh", ("torch", "nvdiffrast"), ("cuda",)),
    Backend("pytorch3d", "mesh", ("torch", "pytorch3d"), ("cuda",)),
)


def choose_backend(renderer: str, name: str, device: str, preferred: tuple[str, ...]) -> str:
    """The backend to use: `name`, or for "auto" the first of `preferred` that is installed and runs on `device`.

    Raises:
        ConfigError: unknown, not installed, or not for this device.
    """
    known = {backend.name: backend for backend in BACKENDS if backend.renderer == renderer}
    if name == "auto":
        return next(n for n in preferred if known[n].available and device in known[n].devices)
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
    return name
