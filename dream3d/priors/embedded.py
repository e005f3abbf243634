"""The small text-to-image model that ships with the package, trained on the procedural world.

Needs no download and no GPU. It knows the world's words and nothing else, says so about any other word, can be told the
camera, and can denoise several views of one object together. `dream3d prior train` makes it; docs/prior.md is its
model card.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dream3d.errors import ConfigError, ModelError
from dream3d.files import write_json
from dream3d.origin import ModelOrigin
from dream3d.priors.base import PRIORS, Prior, PriorConfig

FORMAT_VERSION = 1
MANIFEST = "dream3d.json"
PACKAGED = Path(__file__).parent / "weights" / "embedded"
REMEDY = "reinstall dream3d, or train the model anew with `dream3d prior train`"
PRECISIONS: dict[str, torch.dtype | None] = {
    "float32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def file_digests(directory: Path) -> dict[str, str]:
    """SHA-256 of every file below `directory` but the manifest, by relative path."""
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def write_manifest(directory: Path, world: str, facts: dict[str, Any]) -> None:
    """Describe a finished model directory: what it is, what it was trained on, and the digest of each file.

    Args:
        directory: complete but for the manifest.
        world: content hash of the world it was trained on.
        facts: of the training, such as "images_seen"; JSON values.
    """
    manifest = {
        "format_version": FORMAT_VERSION,
        "kind": "embedded prior",
        "world": world,
        **facts,
        "files": file_digests(directory),
    }
    write_json(directory / MANIFEST, manifest)


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a model directory, after checking every file against it.

    Raises:
        ModelError: no model there, another format, or files missing, changed or cut short.
    """
    from dream3d.priors.latent.components import read_json

    if not directory.is_dir():
        raise ModelError(f"no embedded prior at {directory}; {REMEDY}")
    manifest = read_json(directory / MANIFEST)
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"the embedded prior at {directory} has format version {manifest.get('format_version')!r}, "
            f"this dream3d reads {FORMAT_VERSION}; {REMEDY}"
        )
    expected = manifest.get("files")
    if not isinstance(expected, dict) or not expected:
        raise ModelError(f"{directory / MANIFEST} lists no files; {REMEDY}")
    try:
        found = file_digests(directory)
    except OSError as error:
        raise ModelError(
            f"cannot read the embedded prior at {directory}: {error}; {REMEDY}"
        ) from error
    damaged = [name for name, digest in expected.items() if found.get(name) != digest]
    if damaged:
        state = "missing" if damaged[0] not in found else "damaged or cut short"
        raise ModelError(f"{directory / damaged[0]} is {state}; {REMEDY}")
    return manifest


@PRIORS.register("embedded")
@dataclass(frozen=True)
class EmbeddedConfig(PriorConfig):
    """The embedded prior.

    Attributes:
        path: a directory written by `dream3d prior train`; empty for the one in the package.
        precision: of the networks' arithmetic: float32, bfloat16 or float16 (the latter on a GPU).
    """

    path: str = ""
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"prior.precision is '{self.precision}'; choose one of {', '.join(PRECISIONS)}"
            )

    def load(self, device: torch.device) -> Prior:
        # Imported here because listing the priors should not take the seconds diffusers needs.
        from dream3d.priors.latent.components import load_components
        from dream3d.priors.latent.embedded_prior import EmbeddedPrior
        from dream3d.world.freeze import FROZEN_HASH

        directory = Path(self.path) if self.path else PACKAGED
        manifest = read_manifest(directory)
        if manifest.get("world") != FROZEN_HASH:
            raise ModelError(
                f"the embedded prior at {directory} was trained on another version of the world "
                f"({manifest.get('world')}, this one is {FROZEN_HASH}); {REMEDY}"
            )
        components = load_components(directory, device)
        prior = EmbeddedPrior(components, device, PRECISIONS[self.precision])
        prior.origins = (_origin(directory, manifest),)
        return prior


def _origin(directory: Path, manifest: dict[str, Any]) -> ModelOrigin:
    """Of weights that are told apart by all their files' digests; the package's own have its licence."""
    digests = json.dumps(manifest["files"], sort_keys=True).encode()
    revision = f"sha256:{hashlib.sha256(digests).hexdigest()[:16]}"
    if directory == PACKAGED:
        return ModelOrigin("dream3d embedded prior", revision, "Apache-2.0")
    return ModelOrigin(str(directory), revision)
