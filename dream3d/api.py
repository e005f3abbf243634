"""The Python interface: one call, one asset."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dream3d.generation import GenerationResult
    from dream3d.train import StepReport


def generate(
    prompt: str,
    preset: str = "default",
    seed: int | None = None,
    out: Path | str | None = None,
    negative_prompt: str = "",
    overrides: Mapping[str, Any] | None = None,
    on_step: "Callable[[StepReport], None] | None" = None,
    image: Path | str | None = None,
) -> "GenerationResult":
    """Make a 3D asset from text, or text and a picture, and leave it, with all that belongs to it, in a run directory.

    Example:
        >>> result = dream3d.generate("a red mug", preset="fast")  # doctest: +SKIP
        >>> result.files["asset.glb"]  # doctest: +SKIP

    Args:
        prompt: what to make; taken as it is.
        preset: name of a preset (`dream3d list presets`).
        seed: of all randomness, in [0, 2^63); None keeps the preset's.
        out: the run directory, new or empty; None makes one below `outputs`.
        negative_prompt: what to avoid.
        overrides: settings by dotted key, e.g. {"steps": 200, "guidance.cfg_scale": 10}.
        on_step: told after every step; raise `dream3d.errors.Cancelled` in it to stop with what there is.
        image: a picture the object must look like from one side, on a transparent or plain background; where it was
            taken from is said by the overrides "reference.azimuth_deg", "reference.elevation_deg", ...

    Raises:
        dream3d.errors.Dream3DError: anything you can cure; the message says how.
    """
    from dream3d.config import load_config
    from dream3d.generation import generate_run
    from systems.reference import with_picture

    config = load_config(preset, overrides or {}, prompt, negative_prompt, seed)
    config = replace(config, reference=with_picture(config.reference, image))
    return generate_run(config, None if out is None else Path(out), on_step)


def resume(
    directory: Path | str, on_step: "Callable[[StepReport], None] | None" = None
) -> "GenerationResult":
    """Go on with an earlier run until it is done.

    Args:
        directory: of the run.
        on_step: as for `generate`.

    Raises:
        dream3d.errors.Dream3DError: there is no run, or its checkpoints cannot be used.
    """
    from dream3d.generation import resume_run

    return resume_run(Path(directory), on_step)
