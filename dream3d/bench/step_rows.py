"""Whole steps at 512 pixels over networks of Stable Diffusion 2.1's shape: rows, most important first.

A row is `train_stage` on splats with the adapter a user gets. Its total is timed without anything in between; what the
parts cost is timed in later steps of the same run, which wait for the GPU at every part and are slower for it. A row
that fails says how and the next one runs.
"""

import statistics
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from dream3d.bench.card import card_rates, median_ms, versions
from dream3d.bench.host_waits import listen, waits_heard
from dream3d.bench.networks import (
    FULL,
    REDUCED,
    PlainStep,
    Shape,
    floor_tera_flops,
    random_prior,
    tera_flops,
)
from dream3d.bench.step import Stopwatch, WaitingPhases, companion_calls
from dream3d.cameras import orbit_cameras
from dream3d.errors import BackendError
from dream3d.files import write_json
from dream3d.memory import free
from dream3d.priors.pipelines.acceleration import PLAIN, Acceleration
from dream3d.priors.pipelines.prior import PipelinePrior
from dream3d.prompts import Prompts
from dream3d.run import make_companion
from dream3d.scenes.base import SceneConfig
from dream3d.scenes.canvas import CanvasConfig
from dream3d.scenes.splats import SplatsConfig
from dream3d.train import StepReport, TrainState, make_optimizer, train_stage
from guidance.base import GUIDANCE
from systems.base import Stage

PROMPT = "a red mug"
SPLATS = 20_000
WARM = 5
"""Steps before the timed ones: as written, recorded, replayed."""
PART_STEPS = 5
FAILED_LINES = 15
SLOW_RENDER = 0.2
"""Seconds: a renderer slower than this would hide what the networks cost."""

VARIANTS = {
    "none": PLAIN,
    "graphs": Acceleration(graphs=True, channels_last=True, fused=True),
    "inductor": Acceleration(True, "inductor", "inductor", True, fused=True),
    "codec-inductor": Acceleration(True, "", "inductor", True),
    "graphs-tuned": Acceleration(graphs=True, channels_last=True, fused=True, tune=True),
    "graphs-last": Acceleration(graphs=True, channels_last=True),
    "graphs-rows": Acceleration(graphs=True),
    "inductor-alone": Acceleration(False, "inductor", "inductor", True),
    "last": Acceleration(channels_last=True),
}
"""What can be timed. `graphs` and `inductor` are what `prior.compile` of that name means on a GPU."""
CASES = (("sds", 4), ("sds", 1), ("vsd", 4), ("vsd", 1))


@dataclass
class Bench:
    """What all rows share.

    Attributes:
        device: of everything.
        shape: of the networks.
        dtype: of their weights.
        rounds: timed steps of a row.
        scene: what is optimised.
        file: rows are written to it as they finish, or None.
        report: is told of every row.
        result: so far.
    """

    device: torch.device
    shape: Shape
    dtype: torch.dtype
    rounds: int
    scene: SceneConfig
    file: Path | None = None
    report: Callable[[str], None] = print
    result: dict[str, Any] = field(default_factory=dict)

    def keep(self, row: dict[str, Any]) -> None:
        """Write a finished row."""
        self.result.setdefault("rows", []).append(row)
        brief = {
            k: row[k] for k in ("variant", "guidance", "views", "total_ms", "ratio") if k in row
        }
        self.report(f"{brief}{' failed: ' + row['error'][-1] if 'error' in row else ''}")
        self.save()

    def save(self) -> None:
        """Write everything so far."""
        if self.file is not None:
            write_json(self.file, self.result)


def run_rows(bench: Bench, variants: list[str], until: float) -> dict[str, Any]:
    """All rows of `variants`, the plain way after the first; none is begun after `until` (of time.monotonic).

    Returns:
        versions, the card's rates, counted operations and the rows; also in `bench.file`.
    """
    bench.result |= {"shape": bench.shape.name, **versions(bench.device)}
    bench.result["precision"] = str(bench.dtype).removeprefix("torch.")
    _attempt(bench, {"variant": "scene"}, lambda: _settle_scene(bench))
    small = bench.device.type != "cuda"
    rates = (
        (lambda: card_rates(bench.device, 256, 2**20))
        if small
        else lambda: card_rates(bench.device)
    )
    bench.result["rates"] = _attempt(bench, {"variant": "card"}, rates) or {}
    bench.result["tera_flops"] = (
        _attempt(bench, {"variant": "flops"}, lambda: tera_flops(bench.shape)) or {}
    )
    bench.save()
    for place, variant in enumerate(variants):
        if time.monotonic() > until:
            bench.keep({"variant": variant, "skipped": "no time left"})
            continue
        prior = _attempt(
            bench,
            {"variant": variant, "guidance": "loading"},
            lambda name=variant: random_prior(
                bench.shape, bench.device, bench.dtype, VARIANTS[name]
            ),
        )
        if prior is None:
            continue
        for guidance, views in CASES:
            if time.monotonic() > until:
                late = {"variant": variant, "guidance": guidance, "views": views}
                bench.keep({**late, "skipped": "no time left"})
            else:
                _row(bench, {"variant": variant, "guidance": guidance, "views": views}, prior)
            if place == 0 and guidance == "sds" and time.monotonic() < until:
                _plain_row(bench, views)
        del prior
        free()  # a prior and its recordings refer to each other
    _ratios(bench.result)
    bench.save()
    return bench.result


def _attempt(bench: Bench, what: dict[str, Any], work: Callable[[], Any]) -> Any:
    """`work`'s answer; None and a row with the error where it fails."""
    try:
        return work()
    except Exception as error:
        bench.keep({**what, "error": _lines(error)})
        return None


def _lines(error: BaseException) -> list[str]:
    text = "".join(traceback.format_exception(error)).strip().splitlines()
    return [_short(line) for line in text[-FAILED_LINES:]]


def _short(line: str) -> str:
    """Without the folders a file lies in."""
    head, quote, rest = line.partition('File "')
    return head + quote + "/".join(rest.split("/")[-3:]) if quote else line[:300]


def _settle_scene(bench: Bench) -> None:
    """Splats where their renderer works on the device, else a canvas."""
    from renderers.backends import choose_backend
    from renderers.splats import FASTEST

    try:
        scene = bench.scene.create(torch.Generator().manual_seed(0), bench.device)
        cameras = orbit_cameras([0.0, 90.0], size=bench.shape.pixels).to(bench.device)
        scene.render(cameras).rgb.sum().backward()
        watch = Stopwatch(bench.device)
        watch.around("render", lambda: scene.render(cameras).rgb.sum().backward())()
        if bench.device.type == "cuda" and watch.seconds["render"] > SLOW_RENDER:
            raise BackendError(f"two views take {watch.seconds['render']:.2f} s to render")
        if isinstance(bench.scene, SplatsConfig):
            backend = choose_backend("splats", "auto", bench.device.type, FASTEST)
            bench.result["scene"] = f"{bench.scene.count} splats, {backend}"
        else:
            bench.result["scene"] = "canvas"
    except Exception:
        bench.scene = CanvasConfig(size=bench.shape.pixels)
        bench.result["scene"] = "canvas: the splats' renderer failed or was too slow"
        raise


def _peak(device: torch.device) -> float | None:
    return (
        None if device.type != "cuda" else round(torch.cuda.max_memory_reserved(device) / 2**30, 2)
    )


def _row(bench: Bench, row: dict[str, Any], prior: PipelinePrior) -> None:
    """Time one case and keep it."""
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    try:
        row |= stage_cost(bench, prior, row["guidance"], row["views"])
        counts = bench.result.get("tera_flops") or {}
        rate = (bench.result.get("rates") or {}).get("matmul_bf16_tflops")
        if counts and rate:
            needed = floor_tera_flops(counts, row["guidance"], row["views"])
            row |= {"tera_flops": round(needed, 6), "floor_ms": round(1e3 * needed / rate, 2)}
            row["share_of_floor_rate"] = round(row["floor_ms"] / row["total_ms"], 3)
        if row["guidance"] == "sds":
            row["alone_ms"] = alone(bench, prior, row["views"])
    except Exception as error:
        row["error"] = _lines(error)
    refused = {
        name: [call.refused, *map(_short, call.failure.strip().splitlines()[-FAILED_LINES:])]
        for name, call in prior.accelerator.recorded.items()
        if call.refused
    }
    if refused:
        row["not_recorded"] = refused
    row["peak_gb"] = _peak(bench.device)
    bench.keep(row)


def _plain_row(bench: Bench, views: int) -> None:
    row: dict[str, Any] = {"variant": "eager diffusers", "guidance": "sds", "views": views}
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    try:
        scene = bench.scene.create(torch.Generator().manual_seed(0), bench.device)
        step = PlainStep(bench.shape, bench.device, bench.dtype, scene, views)
        watch, times = Stopwatch(bench.device), []
        for turn in range(WARM + bench.rounds):
            began = watch.now()
            step()
            if turn >= WARM:
                times.append(1e3 * (watch.now() - began))
        row["total_ms"] = round(statistics.median(times), 2)
        row["spread_ms"] = [round(min(times), 2), round(max(times), 2)]
    except Exception as error:
        row["error"] = _lines(error)
    row["peak_gb"] = _peak(bench.device)
    bench.keep(row)
    _ratios(bench.result)


def _ratios(result: dict[str, Any]) -> None:
    """How often faster than the plain way a row is, and VSD's price in SDS steps."""
    rows = [row for row in result.get("rows", []) if "total_ms" in row]
    found = {(r["variant"], r["guidance"], r["views"]): r["total_ms"] for r in rows}
    for row in rows:
        variant, guidance, views = row["variant"], row["guidance"], row["views"]
        plain = found.get(("eager diffusers", "sds", views))
        if guidance == "sds" and plain and variant != "eager diffusers":
            row["ratio"] = round(plain / row["total_ms"], 2)
        sds = found.get((variant, "sds", views))
        if guidance == "vsd" and sds:
            row["times_sds"] = round(row["total_ms"] / sds, 2)


def stage_cost(bench: Bench, prior: PipelinePrior, guidance: str, views: int) -> dict[str, Any]:
    """Milliseconds of one step: in all, by part, and where the host waits."""
    device, rounds = bench.device, bench.rounds
    stage = Stage(
        GUIDANCE[guidance](),
        bench.scene,
        steps=WARM + rounds + 1 + PART_STEPS,
        views=views,
        render_size=bench.shape.pixels,
        conditioning="text",
    )
    generator = torch.Generator().manual_seed(0)
    scene = bench.scene.create(generator, device)
    companion = make_companion(stage, prior, 0)
    state = TrainState(0, make_optimizer(scene, stage.betas), generator, 0, companion)
    watch = Stopwatch(device)
    phases = WaitingPhases(watch)
    owners = [
        *((prior, name, name) for name in ("predict", "encode")),
        *((scene, name, name) for name in ("render", "density_control")),
        *companion_calls(companion),
    ]
    marks: list[tuple[float, dict[str, float]]] = []
    waits: Counter[str] = Counter()
    heard: list[Any] = []

    def mark(report: StepReport) -> None:
        backward = phases.seconds.get("backward", 0.0)
        marks.append((watch.now(), {**watch.seconds, "backward": backward}))
        if device.type == "cuda" and report.step == WARM + rounds:
            heard.append(listen())
        if report.step == WARM + rounds + 1:
            if heard:
                waits.update(waits_heard(*heard.pop()))
            phases.waits = True
            for owner, method, part in owners:
                setattr(owner, method, watch.around(part, getattr(owner, method)))
        marks[-1] = (watch.now(), marks[-1][1])

    began = watch.now()
    try:
        train_stage(stage, scene, prior, Prompts(prior, PROMPT), state, mark, phases)
    finally:
        if heard:
            waits_heard(*heard.pop())
        for owner, method, _ in owners:
            vars(owner).pop(method, None)
    times = [1e3 * (b[0] - a[0]) for a, b in pairwise(marks)]
    timed = times[WARM - 1 : WARM - 1 + rounds]
    parts = _parts(marks[WARM + rounds :])
    return {
        "total_ms": round(statistics.median(timed), 2),
        "spread_ms": [round(min(timed), 2), round(max(timed), 2)],
        "warm_up_s": round(marks[WARM - 1][0] - began, 2),
        "parts_ms": parts,
        "host_waits": dict(waits.most_common(12)),
    }


def _parts(marks: list[tuple[float, dict[str, float]]]) -> dict[str, float]:
    """Medians of what passed between marks, by part; what no part owns is overhead."""
    rows = []
    for before, after in pairwise(marks):
        row = {k: v - before[1].get(k, 0.0) for k, v in after[1].items()}
        rows.append({"total": after[0] - before[0], **row})
        rows[-1]["overhead"] = rows[-1]["total"] - sum(row.values())
    names = rows[-1]
    return {k: round(1e3 * statistics.median(row.get(k, 0.0) for row in rows), 2) for k in names}


def alone(bench: Bench, prior: PipelinePrior, views: int) -> dict[str, float]:
    """Milliseconds of the parts by themselves, one after the other without a pause."""
    device, size = bench.device, bench.shape.pixels
    images = torch.rand(views, size, size, 3, device=device).requires_grad_()
    slope = torch.randn(views, *prior.latent_shape, device=device)
    z = torch.randn(2 * views, *prior.latent_shape, device=device)
    t = torch.full((2 * views,), 0.5, device=device)
    condition, *_ = Prompts(prior, PROMPT).conditions(
        orbit_cameras([0.0] * 2 * views, size=size), "text", False
    )

    def encode() -> None:
        images.grad = None
        prior.encode(images).backward(slope)

    scene = bench.scene.create(torch.Generator().manual_seed(0), device)
    cameras = orbit_cameras([90.0 * i for i in range(views)], size=size).to(device)

    def render() -> None:
        scene.render(cameras).rgb.sum().backward()

    parts: dict[str, Callable[[], object]] = {
        "predict": lambda: prior.predict(z, t, condition),
        "encode_and_backward": encode,
        "render_and_backward": render,
    }
    return {name: round(median_ms(work, device, bench.rounds), 2) for name, work in parts.items()}


def bench_networks(
    device: str,
    rounds: int,
    variants: list[str],
    seconds: float,
    file: Path | None,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Rows at full size in bfloat16 on a GPU; reduced, in float32 and with few rounds on a CPU.

    Args:
        device: where.
        rounds: timed steps of a row on a GPU.
        variants: names in VARIANTS, in order.
        seconds: after which no row is begun.
        file: that rows are written to as they finish, or None.
        report: is told of every row.
    """
    place = torch.device(device)
    gpu = place.type == "cuda"
    count = SPLATS if gpu else 500
    scene = SplatsConfig(count=count, max_count=count)
    bench = Bench(
        place,
        FULL if gpu else REDUCED,
        torch.bfloat16 if gpu else torch.float32,
        rounds if gpu else min(rounds, 3),
        scene,
        file,
        report,
    )
    return run_rows(bench, variants, time.monotonic() + seconds)
