"""Which models had a part in an asset: their ids, commits and licences, for the record of a run and its files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelOrigin:
    """One model's weights.

    Attributes:
        model: its id on the hub, never the role it was chosen by; a path where it is a directory or file.
        revision: commit on the hub, or `sha256:` and the first digits of a file's digest; empty where neither is known.
        licence: of the weights, or where to read it; empty where nothing is known.
        use: "model", or what it is beside one: "codec", "controlnet", "ip-adapter", "image encoder", "lora".
    """

    model: str
    revision: str = ""
    licence: str = ""
    use: str = "model"

    def told(self) -> dict[str, str]:
        """By name, without what is not known."""
        fields = {name: getattr(self, name) for name in ("use", "model", "revision", "licence")}
        return {name: value for name, value in fields.items() if value}

    def __str__(self) -> str:
        revision = f"revision {self.revision}" if self.revision else ""
        return ", ".join(part for part in (self.model, revision, self.licence) if part)


def as_record(origins: Sequence[ModelOrigin]) -> dict[str, Any]:
    """What `result.json` holds of one prior: the model's own entries, and those of the others in a list."""
    if not origins:
        return {}
    main, *others = origins
    known = {"model": main.model, "revision": main.revision, "licence": main.licence}
    return {**known, **({"others": [one.told() for one in others]} if others else {})}


def from_record(record: Mapping[str, Any]) -> tuple[ModelOrigin, ...]:
    """What `as_record` wrote; nothing of a record without a model."""
    if not record.get("model"):
        return ()
    main = ModelOrigin(
        str(record["model"]), str(record.get("revision", "")), str(record.get("licence", ""))
    )
    others = record.get("others", ())
    return (main, *(ModelOrigin(**{str(k): str(v) for k, v in one.items()}) for one in others))
