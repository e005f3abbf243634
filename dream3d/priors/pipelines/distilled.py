"""Models that classifier-free guidance means nothing to: how their files give them away, and what to say of it.

A network distilled to few steps was never asked under the empty prompt, and one with its guidance scale as an input has
been guided already: for both, `eps_empty + s (eps_text - eps_empty)` at s other than 1 is no published direction.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dream3d.priors.model_list import model_list

Way = Literal["few steps", "embedded"]


@dataclass(frozen=True)
class Mark:
    """An entry of a model's own files that only distilled ones have.

    Attributes:
        part: whose entry: model_index.json, the network's configuration or the scheduler's.
        key: its name.
        values: which of its values; () for any but nothing and false.
        way: how the model was distilled.
    """

    part: Literal["index", "network", "scheduler"]
    key: str
    values: tuple[Any, ...] = ()
    way: Way = "few steps"

    def on(self, parts: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether a model has it."""
        found = parts[self.part].get(self.key)
        return found in self.values if self.values else bool(found)


FEW_STEP_NAMES = re.compile(
    r"(?<![a-z])(?<!de-)(?<!de_)(turbo|lightning|schnell|lcm|hyper-?sd|dmd2?|sdxs)(?![a-z])"
)
"""In the name of a model, where its files say nothing: published few-step models are called so."""


def cfg_trouble(
    pipeline: str,
    marks: Iterable[Mark],
    parts: Mapping[str, Mapping[str, Any]],
    directory: Path,
) -> str:
    """Why guidance by two prompts means nothing to a model, and what to do; empty where it does mean something.

    Args:
        pipeline: its class.
        marks: of distilled models of that class.
        parts: entries by part, see `Mark.part`.
        directory: of the model; its name, or in the hub's cache the repository's, may tell.
    """
    for mark in marks:
        if mark.on(parts):
            where = f"{mark.key} of its {mark.part} is {parts[mark.part][mark.key]}"
            return _told(pipeline, mark.way, where)
    cached = directory.parent.name == "snapshots"
    name = directory.parents[1].name.rpartition("--")[2] if cached else directory.name
    if (found := FEW_STEP_NAMES.search(name.lower())) is not None:
        return _told(pipeline, "few steps", f"its name has '{found[0]}' in it")
    return ""


def _told(pipeline: str, way: Way, where: str) -> str:
    if way == "embedded":
        return (
            f"takes its guidance scale as an input ({where}) and would be guided twice; choose cfg_scale 1 and set "
            "prior.guidance_embedding instead"
        )
    others = (one.id for one in model_list() if (one.pipeline, one.kind) == (pipeline, "pipeline"))
    whole = f", or an undistilled model such as {found}" if (found := next(others, "")) else ""
    return (
        f"was distilled to few steps ({where}), and what it says under the empty prompt is no reference to guide away "
        f"from; choose cfg_scale 1{whole}"
    )
