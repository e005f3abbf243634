"""`dream3d doctor`: what is installed, what each missing package would enable, which devices there are."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dream3d
from dream3d.config.layers import preset_names
from renderers.backends import BACKENDS, import_failure

PROBES = {backend.needs[-1]: backend.module for backend in BACKENDS if backend.module}
"""GPU packages, and the module of ours that imports each; `examine` imports it, unlike the rest."""


@dataclass(frozen=True)
class Package:
    """Something dream3d uses.

    Attributes:
        module: its import name.
        distribution: its name for pip.
        enables: what it is for.
        remedy: how to get it.
    """

    module: str
    distribution: str
    enables: str
    remedy: str


REQUIRED = tuple(
    Package(module, distribution, enables, f"pip install {distribution}")
    for module, distribution, enables in (
        ("torch", "torch", "tensors, gradients and networks"),
        ("numpy", "numpy", "arrays"),
        ("numba", "numba", "the fast CPU renderers"),
        ("diffusers", "diffusers", "diffusion priors"),
        ("transformers", "transformers", "text encoders"),
        ("peft", "peft", "trainable companions (vsd, esd)"),
        ("safetensors", "safetensors", "weights and checkpoints"),
        ("omegaconf", "omegaconf", "configuration"),
        ("jaxtyping", "jaxtyping", "shapes in signatures"),
        ("trimesh", "trimesh", "meshes"),
        ("skimage", "scikit-image", "surface extraction"),
        ("scipy", "scipy", "nearest neighbours and surface measures"),
        ("fast_simplification", "fast-simplification", "smaller meshes"),
        ("PIL", "pillow", "pictures"),
        ("imageio", "imageio", "pictures and films"),
        ("imageio_ffmpeg", "imageio-ffmpeg", "turntable films"),
        ("tqdm", "tqdm", "progress bars"),
        ("xatlas", "xatlas", "texture charts"),
        ("psutil", "psutil", "processes of jobs"),
        ("huggingface_hub", "huggingface-hub", "downloaded models"),
    )
)

_FROM_SOURCE = "no wheels for current Python and torch; build it from its sources"
OPTIONAL = (
    Package(
        "gsplat",
        "gsplat",
        "splats on NVIDIA GPUs",
        "pip install 'dream3d[cuda]'",
    ),
    Package(
        "warp",
        "warp-lang",
        "splats, radiance fields and meshes on NVIDIA GPUs, without a compiler",
        "pip install 'dream3d[cuda]'",
    ),
    Package("nerfacc", "nerfacc", "compositing on NVIDIA GPUs without Warp", _FROM_SOURCE),
    Package("pytorch3d", "pytorch3d", "meshes on NVIDIA GPUs (not run on one yet)", _FROM_SOURCE),
    Package(
        "tinycudann", "tinycudann", "hash grids on NVIDIA GPUs (crashed on CUDA 13)", _FROM_SOURCE
    ),
    Package("nvdiffrast", "nvdiffrast", "meshes on NVIDIA GPUs", _FROM_SOURCE),
    Package("gradio", "gradio", "the web page, app.py", "pip install 'dream3d[ui]'"),
)


def _found(package: Package) -> dict[str, Any]:
    """Version and whether the package can be found; GPU packages are imported too, for they break easily."""
    installed = importlib.util.find_spec(package.module) is not None
    version = None
    if installed:
        try:
            version = importlib.metadata.version(package.distribution)
        except importlib.metadata.PackageNotFoundError:
            version = "unknown"
    entry = {
        "name": package.distribution,
        "installed": installed,
        "version": version,
        "enables": package.enables,
    }
    if not installed:
        return {**entry, "remedy": package.remedy}
    if package.module in PROBES and (failure := import_failure(PROBES[package.module])):
        remedy = (
            "build it for this torch and GPU, or remove it; without it the torch backend is used"
        )
        return {**entry, "broken": failure, "remedy": remedy}
    return entry


def _memory_megabytes() -> dict[str, int | None]:
    """Physical memory; None where the system does not tell."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        return {
            "total": os.sysconf("SC_PHYS_PAGES") * page // 2**20,
            "available": os.sysconf("SC_AVPHYS_PAGES") * page // 2**20,
        }
    except (AttributeError, OSError, ValueError):
        return {"total": None, "available": None}


def _devices() -> list[dict[str, Any]]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices: list[dict[str, Any]] = [
        {
            "name": "cpu",
            "description": platform.processor() or platform.machine(),
            "cores": cores,
            "memory_megabytes": _memory_megabytes(),
        }
    ]
    if importlib.util.find_spec("torch") is None:
        return devices
    import torch

    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        devices.append(
            {
                "name": f"cuda:{index}",
                "description": properties.name,
                "compute_capability": f"{properties.major}.{properties.minor}",
                "memory_megabytes": {"total": properties.total_memory // 2**20},
            }
        )
    return devices


def _cuda() -> dict[str, Any]:
    """Whether torch was built for CUDA, whether a driver is there, and what to do when the two disagree."""
    if importlib.util.find_spec("torch") is None:
        return {"usable": False, "remedy": "pip install torch"}
    import torch

    built = torch.version.cuda
    driver = shutil.which("nvidia-smi") is not None
    usable = torch.cuda.is_available()
    remedy = None
    if driver and not built:
        remedy = "there is an NVIDIA driver, but this torch is built for CPUs; install a CUDA build of torch"
    elif driver and not usable:
        remedy = f"this torch is built for CUDA {built}, which the driver does not run; update the driver"
    return {"usable": usable, "torch_built_for": built, "driver": driver, "remedy": remedy}


def _ffmpeg() -> dict[str, Any]:
    try:
        import imageio_ffmpeg

        return {
            "installed": True,
            "version": imageio_ffmpeg.get_ffmpeg_version(),
            "path": imageio_ffmpeg.get_ffmpeg_exe(),
        }
    except (ImportError, RuntimeError, OSError) as error:
        return {
            "installed": False,
            "error": str(error),
            "remedy": "pip install --force-reinstall imageio-ffmpeg",
        }


def embedded_prior() -> dict[str, Any]:
    """Whether the prior that ships with dream3d loads, and the world it and this program speak of."""
    from dream3d.errors import Dream3DError
    from dream3d.world.freeze import FROZEN_HASH

    entry: dict[str, Any] = {"usable": True, "world_hash": FROZEN_HASH, "error": None}
    try:
        import torch

        from dream3d.priors.base import PRIORS

        PRIORS["embedded"]().load(torch.device("cpu"))
    except (Dream3DError, ImportError) as error:
        return {**entry, "usable": False, "error": str(error), "summary": f"unusable: {error}"}
    return {**entry, "summary": f"loads; made for the world {FROZEN_HASH}"}


def examine() -> dict[str, Any]:
    """Everything `dream3d doctor --json` prints. `healthy` says whether generating can work."""
    required = [_found(package) for package in REQUIRED]
    embedded = embedded_prior()
    ffmpeg = _ffmpeg()
    complete = all(entry["installed"] for entry in required)
    return {
        "healthy": complete and embedded["usable"] and ffmpeg["installed"],
        "dream3d": {
            "version": dream3d.__version__,
            "path": str(Path(dream3d.__file__).parent),
            "presets": preset_names(),
        },
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "platform": platform.platform(),
        "required": required,
        "optional": [_found(package) for package in OPTIONAL],
        "devices": _devices(),
        "cuda": _cuda(),
        "ffmpeg": ffmpeg,
        "embedded_prior": embedded,
    }


def report(findings: dict[str, Any]) -> str:
    """The findings for a person to read."""
    lines = [
        f"dream3d {findings['dream3d']['version']}, Python {findings['python']['version']}, "
        f"{findings['platform']}",
        "",
    ]
    for title in ("required", "optional"):
        lines.append(title)
        for entry in findings[title]:
            state = entry["version"] if entry["installed"] else "missing"
            line = f"  {entry['name']:20} {state:12} {entry['enables']}"
            if "broken" in entry:
                line = f"{line}; BROKEN: {entry['broken']}"
            lines.append(f"{line} ({entry['remedy']})" if "remedy" in entry else line)
        lines.append("")
    lines.append("devices")
    for device in findings["devices"]:
        memory = device["memory_megabytes"]["total"]
        cores = f", {device['cores']} cores" if "cores" in device else ""
        lines.append(f"  {device['name']:8} {device['description']}{cores}, {memory} MB")
    if findings["cuda"].get("remedy"):
        lines.append(f"  {findings['cuda']['remedy']}")
    ffmpeg, embedded = findings["ffmpeg"], findings["embedded_prior"]
    lines += [
        "",
        f"ffmpeg          {ffmpeg['version'] if ffmpeg['installed'] else ffmpeg['remedy']}",
        f"embedded prior  {embedded['summary']}",
        "",
        "ready to generate" if findings["healthy"] else "not ready: see what is missing above",
    ]
    return "\n".join(lines)
