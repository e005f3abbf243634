"""What one step costs and where: prior, renderer, everything else; and networks of Stable Diffusion's shape.

Times are medians of `rounds` after a warm-up. The overhead is what is left of a step when the prior's own calls
(`encode`, `predict`), the companion's answers (`companion_predict`) and its training (`companion`: forward, backward,
optimiser), the scene's `render`, its density control and the backward pass are taken away: cameras, words, noise, the
rule's arithmetic, the optimiser's bookkeeping, the read-out.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from dream3d.companion import CompanionPair, CompanionTrainer
from dream3d.phases import Phases
from dream3d.priors.base import Condition, Prior
from dream3d.priors.embedded import EmbeddedConfig
from dream3d.prompts import Prompts
from dream3d.run import make_companion
from dream3d.scenes.splats import SplatsConfig
from dream3d.train import StepReport, TrainState, make_optimizer, train_stage
from guidance.base import GUIDANCE
from systems.base import Stage

PROMPT = "a red mug"
FULL = {"channels": (320, 640, 1280, 1280), "heads": (5, 10, 20, 20), "text": 1024, "latent": 64}
"""Stable Diffusion 2.1's U-Net: 865 million parameters, 512-pixel pictures."""
REDUCED = {"channels": (64, 128, 256, 256), "heads": (1, 2, 4, 4), "text": 256, "latent": 32}
"""The same layout at a fifth of the width and half the side, for a CPU."""


class Stopwatch:
    """Seconds spent in wrapped calls, each without those it makes; waits for a GPU's queue on both sides of each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._inside = 0.0  # of the wrapped calls that the one in progress has made
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}

    def now(self) -> float:
        """The time when everything asked for so far is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, timed under `name`."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            outside, self._inside = self._inside, 0.0
            began = self.now()
            result = function(*args, **kwargs)
            spent = self.now() - began
            self.seconds[name] = self.seconds.get(name, 0.0) + spent - self._inside
            self.calls[name] = self.calls.get(name, 0) + 1
            self._inside = outside + spent
            return result

        return timed


def step_cost(
    name: str, prior: Prior | None = None, steps: int = 12, views: int = 4, device: str = "cpu"
) -> dict[str, Any]:
    """Milliseconds of one step of a guidance on splats: total, by part, and the share of overhead.

    Args:
        name: of the guidance.
        prior: an already loaded one in place of the embedded; its methods are wrapped for the time being.
        steps: timed after three that are not.
        views: per step, denoised jointly.
        device: of the scene.
    """
    place = torch.device(device)
    prior = EmbeddedConfig().load(place) if prior is None else prior
    watch, warm = Stopwatch(place), 3
    stage = Stage(
        GUIDANCE[name](),
        SplatsConfig(),
        time=_time_for(name),
        steps=steps + warm,
        views=views,
        conditioning="multiview" if prior.accepts_cameras else "text",
    )
    generator = torch.Generator().manual_seed(0)
    assert stage.scene is not None
    scene = stage.scene.create(generator, place)
    companion = make_companion(stage, prior, 0)
    state = TrainState(0, make_optimizer(scene, stage.betas), generator, 0, companion)
    wrapped = [
        *((prior, name, name) for name in ("predict", "encode")),
        *((scene, name, name) for name in ("render", "density_control")),
        *_companion_calls(companion),
    ]
    marks: list[tuple[float, dict[str, float]]] = []
    phases = Phases()

    def mark(report: StepReport) -> None:
        parts = watch.seconds | {"backward": phases.seconds.get("backward", 0.0)}
        marks.append((watch.now(), parts))

    for owner, method, part in wrapped:
        setattr(owner, method, watch.around(part, getattr(owner, method)))
    try:
        train_stage(stage, scene, prior, Prompts(prior, PROMPT), state, mark, phases)
    finally:
        for owner, method, _ in wrapped:
            delattr(owner, method)
    rows = [
        {"total": b[0] - a[0], **{k: v - a[1].get(k, 0.0) for k, v in b[1].items()}}
        for a, b in zip(marks[warm - 1 :], marks[warm:], strict=False)
    ]
    milliseconds = {k: 1e3 * statistics.median(row[k] for row in rows) for k in rows[0]}
    rest = [row["total"] - sum(v for k, v in row.items() if k != "total") for row in rows]
    milliseconds["overhead"] = 1e3 * statistics.median(rest)
    return {
        "guidance": name,
        "views": views,
        "milliseconds": {k: round(v, 2) for k, v in milliseconds.items()},
        "overhead_share": round(milliseconds["overhead"] / milliseconds["total"], 4),
        "network_calls": watch.calls["predict"] / stage.steps,
        "evaluations": stage.guidance.evaluations(),
    }


def _companion_calls(trainer: CompanionTrainer | None) -> list[tuple[Any, str, str]]:
    """What to time of a companion: owner, method, and the part of a step it is."""
    if trainer is None:
        return []
    twins = [trainer.companion]
    if isinstance(trainer.companion, CompanionPair):
        twins += [trainer.companion.own, trainer.companion.dreamer]
    return [(trainer, "step", "companion"), *((t, "predict", "companion_predict") for t in twins)]


def _time_for(name: str) -> Any:
    from dream3d.time_samplers import AnnealedTime, UniformTime

    return AnnealedTime() if GUIDANCE[name]().needs_falling_time else UniformTime()


def unet_of(shape: dict[str, Any]) -> torch.nn.Module:
    """A U-Net of Stable Diffusion 2.1's layout with random weights."""
    from diffusers import UNet2DConditionModel

    return (
        UNet2DConditionModel(
            sample_size=shape["latent"],
            in_channels=4,
            out_channels=4,
            block_out_channels=shape["channels"],
            attention_head_dim=shape["heads"],
            cross_attention_dim=shape["text"],
            use_linear_projection=True,
        )
        .eval()
        .requires_grad_(False)
    )


def network_cost(views: int = 1, rounds: int = 5, device: str = "cpu") -> dict[str, Any]:
    """Guided prediction of `views` pictures by a network of Stable Diffusion 2.1's shape, random weights: ours, theirs.

    Ours is one batched call of both prompts; on a GPU in bfloat16, channels last, compiled with CUDA graphs. Theirs is
    the plain eager way, one call per prompt. On a CPU both are eager float32 at a reduced size, and the result says so.
    The GPU's path has not been run.
    """
    place = torch.device(device)
    gpu = place.type == "cuda"
    shape, dtype = (FULL, torch.bfloat16) if gpu else (REDUCED, torch.float32)
    torch.manual_seed(0)
    theirs = unet_of(shape).to(place, dtype)
    ours: Callable[..., Any] = theirs
    if gpu:
        fast = unet_of(shape).to(place, dtype, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        ours = torch.compile(fast, mode="reduce-overhead", fullgraph=True)
    z = torch.randn(views, 4, shape["latent"], shape["latent"], device=place, dtype=dtype)
    t = torch.full((views,), 500, device=place)
    prompts = Condition(torch.randn(2 * views, 77, shape["text"], device=place, dtype=dtype))
    empty, text = prompts.tokens.chunk(2)

    def fused() -> torch.Tensor:
        both = ours(z.repeat(2, 1, 1, 1), t.repeat(2), prompts.tokens, return_dict=False)[0]
        without, toward = both.chunk(2)
        return torch.lerp(without, toward, 7.5)

    def apart() -> torch.Tensor:
        without, toward = (theirs(z, t, words, return_dict=False)[0] for words in (empty, text))
        return torch.lerp(without, toward, 7.5)

    watch = Stopwatch(place)
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    with torch.no_grad():
        for turn in range(rounds + 2):
            for name, call in (("ours", fused), ("theirs", apart)):
                began = watch.now()
                call()
                if turn >= 2:
                    times[name].append(watch.now() - began)
    milliseconds = {name: round(1e3 * statistics.median(x), 2) for name, x in times.items()}
    return {
        "network": "Stable Diffusion 2.1's U-Net, random weights",
        "size": "full"
        if gpu
        else "reduced: width / 5, 32 x 32 latents (a CPU); the full size was not run",
        "parameters": sum(p.numel() for p in theirs.parameters()),
        "views": views,
        "precision": str(dtype).removeprefix("torch."),
        "milliseconds": milliseconds,
        "ratio": round(milliseconds["theirs"] / milliseconds["ours"], 3),
    }


def bench_step(
    names: list[str], device: str, steps: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """All rows as JSON data, with what they were measured on."""
    rows = []
    run = partial(step_cost, steps=steps, device=device)
    for name in names:
        report(name)
        rows.append(run(name))
    report("network")
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "gpu": "not run on a GPU" if device == "cpu" else torch.cuda.get_device_name(device),
        "steps": rows,
        "network": network_cost(device=device),
    }
