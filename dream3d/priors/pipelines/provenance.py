"""Where a model on this machine comes from: its commit or digest, and its licence."""

import hashlib
import json
from pathlib import Path
from typing import Any

from dream3d.origin import ModelOrigin
from dream3d.priors.model_list import find_model
from dream3d.priors.pipelines.hub import CARD, is_directory

LARGEST_DIGESTED = 2**30
"""Bytes of a file up to which its digest stands for a commit: adapters have one, whole checkpoints would take long."""
UNKNOWN = "licence not known, see the model's card"


def origin_of(name: str, path: Path, use: str = "model") -> ModelOrigin:
    """Of the weights in `path`.

    Args:
        name: the id or address they were asked for by, or a directory or file.
        path: where they are: a directory, or one .safetensors file.
        use: see `ModelOrigin`.
    """
    entry = None if is_directory(name) else find_model(name)
    licence = licence_of(path) if entry is None else entry.licence
    return ModelOrigin(name, commit_of(path) or _digest(path), licence or UNKNOWN, use)


def commit_of(path: Path) -> str:
    """The commit in the hub's cache a directory or file belongs to, or nothing."""
    place = _snapshot(path)
    return "" if place is None else place.name


def _snapshot(path: Path) -> Path | None:
    """The copy of a whole repository in the hub's cache that `path` is or lies in."""
    places = (place for place in (path, *path.parents) if place.parent.name == "snapshots")
    return next(places, None)


def licence_of(path: Path) -> str:
    """What a file's metadata or the card beside it say; empty where they say nothing."""
    if path.is_file() and (told := metadata_of(path).get("modelspec.license")):
        return str(told).strip()
    card = (_snapshot(path) or path) / CARD
    if not card.is_file():
        return ""
    head = _head(card.read_text(encoding="utf-8", errors="replace"))
    licence = head.get("license", "")
    return head.get("license_name", licence) if licence in ("", "other") else licence


def metadata_of(file: Path) -> dict[str, Any]:
    """The texts in a safetensors file's header."""
    with file.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    found = header.get("__metadata__")
    return found if isinstance(found, dict) else {}


def _head(card: str) -> dict[str, str]:
    """The plain `name: text` lines between the two `---` a card begins with."""
    parts = card.split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return {}
    pairs = (line.partition(":") for line in parts[1].splitlines() if line[:1].isalpha())
    return {name: value.strip().strip("\"'") for name, _, value in pairs if value.strip()}


def _digest(path: Path) -> str:
    """Of a small enough file; of a directory or a large one nothing."""
    if not path.is_file() or path.stat().st_size > LARGEST_DIGESTED:
        return ""
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return f"sha256:{digest.hexdigest()[:16]}"
