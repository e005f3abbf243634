"""Which models there are for which purpose: `models.toml` as data, and the hub's word on each."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from dream3d.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

FILE = Path(__file__).parent / "models.toml"
FORMAT_VERSION = 1

Access = Literal["open", "gated", "missing", "no network", "error"]


@dataclass(frozen=True)
class ModelEntry:
    """One published model.

    Attributes:
        id: on the Hugging Face hub.
        roles: what it is good for, names that `prior.model` takes too.
        pipeline: its diffusers class; of an adapter, the class it goes with.
        prediction: what its network returns.
        licence: as documented.
        gated: whether a licence must be accepted on the hub, as documented.
        memory: gigabytes of the denoising network in 16 bits.
        native: side in pixels it was trained at.
        mirrors: other copies, named in errors and never taken silently.
        note: one line.
        file: of an adapter's weights, where the id holds many.
        kind: a whole pipeline, or what one is given beside it: `prior.controlnet`, `prior.ip_adapter`.
    """

    id: str
    roles: tuple[str, ...]
    pipeline: str
    prediction: str
    licence: str
    gated: bool
    memory: float
    native: int
    mirrors: tuple[str, ...] = ()
    note: str = ""
    file: str = ""
    kind: Literal["pipeline", "controlnet", "ip-adapter"] = "pipeline"

    @property
    def address(self) -> str:
        """What a setting calls it: the id, and the file in it where it holds many."""
        return f"{self.id}/{self.file}" if self.file else self.id


@cache
def model_list() -> tuple[ModelEntry, ...]:
    """Every entry of `models.toml`, in its order.

    Raises:
        ConfigError: written by another format version.
    """
    content = tomllib.loads(FILE.read_text(encoding="utf-8"))
    if content.get("format_version") != FORMAT_VERSION:
        raise ConfigError(f"{FILE} has format_version {content.get('format_version')!r}; reinstall")
    return tuple(
        ModelEntry(**{**entry, "roles": tuple(entry["roles"]), "mirrors": tuple(entry["mirrors"])})
        for entry in content["model"]
    )


def roles() -> dict[str, list[ModelEntry]]:
    """Entries by role, the preferred first."""
    found: dict[str, list[ModelEntry]] = {}
    for entry in model_list():
        for role in entry.roles:
            found.setdefault(role, []).append(entry)
    return found


def find_model(name: str) -> ModelEntry | None:
    """The entry of an id, address or mirror's id, or the preferred one of a role; None for anything else."""
    for entry in model_list():
        if name in (entry.id, entry.address, *entry.mirrors):
            return entry
    found = roles().get(name)
    return found[0] if found else None


def model_id(name: str) -> str:
    """The id a role stands for; any other name as it is."""
    found = roles().get(name)
    return found[0].id if found else name


def adapter_id(name: str, pipeline: str) -> str:
    """The address of an adapter: of a role, the preferred one that goes with `pipeline`; any other name as it is.

    Raises:
        ConfigError: the role has none for this pipeline.
    """
    entries = roles().get(name)
    if not entries:
        return name
    for entry in entries:
        if entry.kind != "pipeline" and entry.pipeline == pipeline:
            return entry.address
    raise ConfigError(f"'{name}' names nothing for a {pipeline}; give a directory or an id")


def alternatives(name: str) -> tuple[str, ...]:
    """Other ids for the same purpose: mirrors first, then the role's next."""
    entry = find_model(name)
    if entry is None:
        return ()
    same = [other.id for role in entry.roles for other in roles()[role]]
    every = (*entry.mirrors, *same)
    return tuple(i for i in dict.fromkeys(every) if i not in (name, entry.id))


@dataclass(frozen=True)
class ModelState:
    """What the hub says of one id.

    Attributes:
        id: asked for.
        access: "open", "gated", "missing", "no network" or "error".
        revision: commit of the main branch, where known.
        licence: as the hub has it, where known.
        fix: what to do, empty when nothing is needed.
    """

    id: str
    access: Access
    revision: str = ""
    licence: str = ""
    fix: str = ""


ModelInfo = Callable[[str], Any]
"""Asks the hub about an id: `huggingface_hub.model_info`, or a test's stand-in."""


def check_model(name: str, ask: ModelInfo | None = None) -> ModelState:
    """Ask the hub whether a model can be had; nothing is downloaded."""
    from huggingface_hub import auth_check, errors, model_info

    def hub(name: str) -> Any:
        info = model_info(name, timeout=10)
        if info.gated:
            auth_check(name)  # raises unless this user has been let in
        return info

    try:
        info = (ask or hub)(name)
    except errors.GatedRepoError:
        fix = f"accept the licence at https://huggingface.co/{name}, then `hf auth login`"
        return ModelState(name, "gated", fix=fix)
    except errors.RepositoryNotFoundError:
        others = alternatives(name)
        fix = f"take {' or '.join(others)}" if others else "take another model of the same role"
        return ModelState(name, "missing", fix=fix)
    except errors.HfHubHTTPError as error:
        reason = (str(error).strip().splitlines() or ["no answer"])[0]
        return ModelState(name, "error", fix=f"{reason}; try again later")
    except Exception as error:  # the transport's own: no route, no name, time out, offline mode
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return ModelState(
            name, "no network", fix=f"connect, or use a local directory ({reason[:120]})"
        )
    card = getattr(info, "card_data", None)
    licence = str(card.get("license") or "") if card is not None else ""
    return ModelState(name, "open", str(getattr(info, "sha", "") or ""), licence)
