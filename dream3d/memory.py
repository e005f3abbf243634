"""When memory does not suffice: what an out-of-memory error looks like, and what to halve so that the run goes on.

What was halved is written beside the run (`reductions.json`), so that a resumed run does the same. A reduction changes
what the run computes from the last checkpoint on; it is reported, never silent.
"""

import dataclasses
import gc
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dream3d.errors import ConfigError, Dream3DError
from dream3d.files import write_json
from dream3d.priors.base import SPARING_CHUNK, PriorConfig
from dream3d.scenes.splats import SplatsConfig
from systems.base import RunConfig, Stage

FORMAT_VERSION = 1
FEWEST_SPLATS = 256
SMALLEST_CHUNK = 1024


class MemoryShort(Dream3DError):
    """Memory does not suffice, and there is nothing left to halve."""


@dataclass(frozen=True)
class Reduction:
    """One setting, lowered.

    Attributes:
        stage: its index; None for a setting of the whole run.
        setting: "scene.chunk", "views" or "scene.max_count"; of a run "prior.chunk" or "second.prior.chunk".
        before, after: values.
    """

    stage: int | None
    setting: str
    before: int
    after: int

    def __str__(self) -> str:
        where = "" if self.stage is None else f"stage {self.stage}: "
        return f"{where}{self.setting} from {self.before} to {self.after}"


def sparing(config: RunConfig) -> RunConfig:
    """`config` with its priors asked to keep as little on the GPU as they can: what `--low-vram` means.

    Raises:
        ConfigError: there is no prior that has something to spare.
    """
    found = priors(config)
    spared = {key: prior for key, prior in found.items() if hasattr(prior, "low_vram")}
    if not spared:
        names = " and ".join(
            f"{key} '{type(prior).registered_name}'" for key, prior in found.items()
        )
        raise ConfigError(
            f"{names} has nothing that could be kept off the GPU; leave --low-vram out "
            "(lower render_size or the scene's size instead), or choose a prior of diffusers"
        )
    for key, prior in spared.items():
        config = with_prior(config, key, replace(prior, low_vram=True))
    return config


def priors(config: RunConfig) -> dict[str, Any]:
    """The settings of a run's one or two priors by the key they have in the configuration."""
    second = {} if config.second is None else {"second.prior": config.second.prior}
    return {"prior": config.prior, **second}


def with_prior(config: RunConfig, key: str, prior: PriorConfig) -> RunConfig:
    """`config` with other settings for the prior at one of the keys of `priors`."""
    if key == "prior":
        return replace(config, prior=prior)
    assert config.second is not None
    return replace(config, second=replace(config.second, prior=prior))


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
    """What to halve next; empty: nothing is left.

    Rendering in chunks, then the samples each prior is asked about at once, neither of which changes a result; then
    views a step, then the splat budget. Views that are denoised jointly are kept: a prior may want their number.
    """

    def of_stages(pick: Callable[[int, Stage], Reduction | None]) -> list[Reduction]:
        picked = (pick(index, stage) for index, stage in enumerate(config.stages))
        return [reduction for reduction in picked if reduction is not None]

    rounds = (of_stages(_chunk), _samples(config), of_stages(_views), of_stages(_budget))
    return next(filter(None, rounds), [])


def _chunk(index: int, stage: Stage) -> Reduction | None:
    chunk = getattr(stage.scene, "chunk", None)
    if not isinstance(chunk, int) or isinstance(chunk, bool) or chunk <= SMALLEST_CHUNK:
        return None
    return Reduction(index, "scene.chunk", chunk, max(SMALLEST_CHUNK, chunk // 2))


def _samples(config: RunConfig) -> list[Reduction]:
    """Of both priors; usually all views are asked about at once, each with the prompt and without."""
    most = 2 * max(stage.views for stage in config.stages)
    found = []
    for key, prior in priors(config).items():
        if not hasattr(prior, "chunk"):
            continue
        usual = SPARING_CHUNK if getattr(prior, "low_vram", False) else most
        now = min(prior.chunk or usual, most)
        if now > prior.smallest_chunk:
            after = max(prior.smallest_chunk, now // 2)
            found.append(Reduction(None, f"{key}.chunk", now, after))
    return found


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
        if reduction.stage is None:
            key = reduction.setting.removesuffix(".chunk")
            prior: Any = priors(config)[key]
            config = with_prior(config, key, replace(prior, chunk=reduction.after))
            continue
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
