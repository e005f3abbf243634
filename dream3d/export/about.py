"""Where an asset comes from, for the notes that files have room for."""

from dataclasses import dataclass
from typing import Any

import dream3d
from dream3d.origin import ModelOrigin


@dataclass(frozen=True)
class About:
    """Where an asset comes from; written into files that have a place for it.

    Attributes:
        prompt: as it was typed.
        prior: name of the prior that guided it.
        model: what weights the prior used; of two priors, both.
        license: of those weights, as an SPDX name where there is one.
        seed: of the run.
        revision: commit of those weights.
        models: every model that had a part, those beside a prior's own too.
    """

    prompt: str | None = None
    prior: str | None = None
    model: str | None = None
    license: str | None = None
    seed: int | None = None
    revision: str | None = None
    models: tuple[ModelOrigin, ...] = ()

    @property
    def generator(self) -> str:
        """The program and its version."""
        return f"dream3d {dream3d.__version__}"

    def known(self) -> dict[str, Any]:
        """What is known, by name, as JSON has it."""
        known = {n: v for n, v in vars(self).items() if n != "models" and v is not None}
        return {**known, **({"models": [one.told() for one in self.models]} if self.models else {})}

    def notes(self) -> list[str]:
        """The same as `name: text`, a line each and a model on each; whatever a prompt holds, it stays on its line."""
        told = [(name, value) for name, value in self.known().items() if name != "models"]
        if self.models:
            told = [pair for pair in told if pair[0] not in ("model", "revision", "license")]
            told += [(one.use, one) for one in self.models]
        return [f"{name}: {one_line(value)}" for name, value in told]

    def comment(self) -> str:
        """The generator and `notes`, none of them endless, as one text for formats with one comment."""
        return "\n".join([self.generator, *(note[:2000] for note in self.notes())])

    def ply_comments(self) -> list[str]:
        """Lines of a PLY's header: ASCII, short, and without the word by which many readers find its end."""
        lines = [f"comment {line}" for line in self.comment().split("\n")]
        safe = (line.replace("end_header", "end header") for line in lines)
        return [line.encode("ascii", "backslashreplace").decode()[:500] for line in safe]


def one_line(value: object) -> str:
    """Text that cannot end the line it stands in."""
    return "".join(c if c.isprintable() else " " for c in str(value))
