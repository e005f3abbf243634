"""When memory does not suffice: what an out-of-memory error looks like, and what to halve so that the run goes on.

What was halved is written beside the run (`reductions.json`), so that a resumed run does the same. A reduction changes
what the run computes from the last checkpoint on; it is reported, never silent.
"""

import dataclasses
import gc
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dream3d.errors import ConfigError, Dream3DError
from dream3d.files import write_json
from dream3d.scenes.splats import SplatsConfig
from systems.base import RunConfig, Stage

FORMAT_VERSION = 1
FEWEST_SPLATS = 256
SMALLEST_CHUNK = 1024


class MemoryShort(Dream3DError):
    """Memory does not suffice, and there is nothing left to halve."""


@dataclass(frozen=True)
class Reduction:
    """One setting of one stage, lowered.

    Attributes:
        stage: its index.
        setting: "scene.chunk", "views" or "scene.max_count".
        before, after: values.
    """

    stage: int
    setting: str
    before: int
    after: int

    def __str__(self) -> str:
        return f"stage {self.stage}: {self.setting} from {self.before} to {self.after}"


def sparing(config: RunConfig) -> RunConfig:
    """`config` with its prior asked to keep as little on the GPU as it can: what `--low-vram` means.

    Raises:
        ConfigError: this prior has nothing to spare.
    """
    prior: Any = config.prior
    if not hasattr(prior, "low_vram"):
        raise ConfigError(
            f"prior '{type(prior).registered_name}' has nothing that could be kept off the GPU; leave --low-vram out "
            "(lower render_size or the scene's size instead), or choose a prior of diffusers"
        )
    return replace(config, prior=replace(prior, low_vram=True))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    )


def free() -> None:
    """Give back what nobody uses any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def next_reductions(config: RunConfig) -> list[Reduction]:
    """What to halve next in every stage: rendering in chunks, then views a step, then the splat budget; empty: nothing.

    Chunks change no result. Views that are denoised jointly are kept, because a prior may want their number.
    """
    for pick in (_chunk, _views, _budget):
        found = [
            reduction
            for index, stage in enumerate(config.stages)
            if (reduction := pick(index, stage)) is not None
        ]
        if found:
            return found
    return []


def _chunk(index: int, stage: Stage) -> Reduction | None:
    chunk = getattr(stage.scene, "chunk", None)
    if not isinstance(chunk, int) or isinstance(chunk, bool) or chunk <= SMALLEST_CHUNK:
        return None
    return Reduction(index, "scene.chunk", chunk, max(SMALLEST_CHUNK, chunk // 2))


def _views(index: int, stage: Stage) -> Reduction | None:
    if stage.conditioning == "multiview" or stage.views == 1:
        return None
    return Reduction(index, "views", stage.views, stage.views // 2)


def _budget(index: int, stage: Stage) -> Reduction | None:
    scene = stage.scene
    if not isinstance(scene, SplatsConfig) or scene.max_count <= FEWEST_SPLATS:
        return None
    after = max(FEWEST_SPLATS, scene.max_count // 2)
    return Reduction(index, "scene.max_count", scene.max_count, after)


def reduced(config: RunConfig, reductions: list[Reduction]) -> RunConfig:
    """`config` with every reduction applied."""
    stages = list(config.stages)
    for reduction in reductions:
        stage = stages[reduction.stage]
        part, _, name = reduction.setting.rpartition(".")
        if not part:
            stages[reduction.stage] = replace(stage, **{name: reduction.after})
            continue
        scene: Any = stage.scene
        changes = {name: reduction.after}
        if name == "max_count":
            changes["count"] = min(scene.count, reduction.after)
        stages[reduction.stage] = replace(stage, scene=dataclasses.replace(scene, **changes))
    return replace(config, stages=stages)


class Reductions:
    """The reductions of one run, kept in a file.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "reductions.json"
        self.all: list[Reduction] = []
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            if data["format_version"] != FORMAT_VERSION:
                raise ConfigError(
                    f"{self.path} has format_version {data['format_version']!r}; this dream3d reads "
                    f"{FORMAT_VERSION}"
                )
            self.all = [Reduction(**entry) for entry in data["reductions"]]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.path} is damaged ({error}); start a new run") from error

    def apply(self, config: RunConfig) -> RunConfig:
        """`config` as it is to be run."""
        return reduced(config, self.all)

    def step_down(self, config: RunConfig, error: BaseException) -> list[Reduction]:
        """Halve something, write it down and return it.

        Raises:
            MemoryShort: nothing is left to halve.
            OutputError: it cannot be written down.
        """
        found = next_reductions(self.apply(config))
        if not found:
            done = "; ".join(map(str, self.all)) or "nothing could be halved"
            raise MemoryShort(
                f"memory does not suffice ({str(error)[:200]}), after reductions: {done}. Lower "
                "render_size or the scene's size, or use a machine with more memory; the last "
                "checkpoint is intact"
            ) from error
        self.all += found
        entries = [dataclasses.asdict(reduction) for reduction in self.all]
        write_json(self.path, {"format_version": FORMAT_VERSION, "reductions": entries})
        free()
        return found
