"""Memory that does not suffice, a full disk, poisoned checkpoints: told, survived, never silent."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dream3d.checkpoint import CheckpointStore
from dream3d.config import load_config
from dream3d.errors import CheckpointError
from dream3d.generation import generate_run, resume_run
from dream3d.jobs import JobRequest, JobStore
from dream3d.jobs import lease as leases
from dream3d.jobs.worker import Worker
from dream3d.memory import MemoryShort, Reductions, is_out_of_memory, next_reductions, reduced
from dream3d.run import run_system
from dream3d.scenes.canvas import Canvas
from dream3d.scenes.splats import Splats

CANVAS = {"scene": "canvas", "steps": 8, "views": 4, "checkpoint_every": 2}


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Rendering more than `views` at once fails from the `after`-th render of a step on."""
    limit = {"views": 1, "after": 5, "renders": 0}
    render = Canvas.render

    def fake(self: Canvas, cameras: Any) -> Any:
        if torch.is_grad_enabled():
            limit["renders"] += 1
            if limit["renders"] >= limit["after"] and len(cameras) > limit["views"]:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return render(self, cameras)

    monkeypatch.setattr(Canvas, "render", fake)
    return limit


def test_out_of_memory_halves_and_tells(tmp_path: Path, small_memory: dict[str, int]) -> None:
    told: list[tuple[str, str]] = []
    result = generate_run(
        load_config("gaussian", CANVAS, "a mug"),
        tmp_path / "run",
        on_event=lambda kind, data: told.append((kind, data["message"])),
    )
    assert result.status == "done"
    assert [kind for kind, _ in told] == ["out-of-memory"] * 2
    assert "views from 4 to 2" in told[0][1] and "views from 2 to 1" in told[1][1]
    assert result.record["warnings"] == [message for _, message in told]
    # Step 5 failed; the last checkpoint was of step 4; no step is missing or counted twice.
    from dream3d.run_directory import RunDirectory

    assert [row["step"] for row in RunDirectory(tmp_path / "run").metrics()] == list(range(1, 9))
    assert [r.after for r in Reductions(tmp_path / "run").all] == [2, 1]


def test_a_reduced_run_resumes_reduced(tmp_path: Path, small_memory: dict[str, int]) -> None:
    config = load_config("gaussian", CANVAS, "a mug")
    steps: list[int] = []

    def stop() -> bool:
        return len(steps) >= 6

    run = tmp_path / "run"
    stopped = generate_run(config, run, on_step=lambda r: steps.append(r.step), should_stop=stop)
    assert stopped.status == "cancelled"
    images: list[int] = []
    resume_run(run, on_step=lambda report: images.append(len(report.images)))
    assert set(images) == {1}, "memory would not have sufficed for more"


def test_when_nothing_is_left_to_halve(tmp_path: Path, small_memory: dict[str, int]) -> None:
    small_memory["views"] = 0
    with pytest.raises(MemoryShort, match=r"memory does not suffice.*views from 2 to 1"):
        generate_run(load_config("gaussian", CANVAS, "a mug"), tmp_path / "run")
    assert os.listdir(tmp_path / "run" / "checkpoints")


def test_other_errors_are_no_shortage_of_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("x")) and is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_the_splat_budget_is_halved_and_kept(tmp_path: Path) -> None:
    settings = {"scene.count": 500, "scene.max_count": 600, "views": 1, "steps": 2}
    config = load_config("gaussian", settings, "a mug")
    (reduction,) = next_reductions(config)
    assert (reduction.setting, reduction.before, reduction.after) == ("scene.max_count", 600, 300)
    lower = reduced(config, [reduction])
    from systems.base import fingerprint

    generator = torch.Generator().manual_seed(0)
    scene = config.stages[0].scene
    assert scene is not None
    whole = scene.create(generator, torch.device("cpu"))
    assert isinstance(whole, Splats)
    from dream3d.train import make_optimizer

    smaller = lower.stages[0].scene
    assert smaller is not None
    few = smaller.create(generator, torch.device("cpu"))
    assert isinstance(few, Splats)
    state = whole.state()
    state["opacities"] = torch.randn(500, generator=generator)
    few.load_state(state)
    optimizer = make_optimizer(few, (0.9, 0.99))
    few.keep_within_budget(optimizer)
    assert len(few) == 300
    kept = few.parameters()["opacities"].detach()
    assert kept.min() >= state["opacities"].sort(descending=True).values[299]
    assert {len(group["params"][0]) for group in optimizer.param_groups} == {300}
    assert fingerprint(lower) != fingerprint(config), "so a run keeps the identity it began with"


def owned(store: JobStore, job: str) -> Worker:
    directory = store.directory(job)
    return Worker(directory, leases.take(directory, "worker"))


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = JobStore(tmp_path)
    job = store.submit(JobRequest("a mug", "gaussian", 0, overrides=CANVAS), start=False)
    worker = owned(store, job)
    write, reserve = os.write, tmp_path / job / "reserve"
    left = [20_000]

    def full(handle: int, data: Any) -> int:
        """A disk with some room, and what the reserve held once that is gone."""
        left[0] -= len(data)
        if left[0] < 0 and reserve.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data)

    monkeypatch.setattr("dream3d.files.os.write", full)
    worker.own()
    found = store.status(job)
    assert (found.state, found.error, found.live) == ("failed", "OutputError", False)
    assert "the disk is full" in found.message
    monkeypatch.setattr("dream3d.files.os.write", write)
    store.resume(job, start=False)
    owned(store, job).own()
    assert store.state(job) == "done"


GADGET = """
import os, pickle, sys
class Gadget:
    def __reduce__(self):
        return (os.system, ("touch " + sys.argv[2],))
with open(sys.argv[1], "wb") as file:
    pickle.dump(Gadget(), file)
"""


def test_a_pickle_is_no_checkpoint(tmp_path: Path) -> None:
    config = load_config("gaussian", CANVAS, "a mug")
    run_system(config, tmp_path)
    (newest, *_) = sorted((tmp_path / "checkpoints").iterdir(), reverse=True)
    trap = tmp_path / "sprung"
    arguments = [sys.executable, "-c", GADGET, str(newest), str(trap)]
    subprocess.run(arguments, check=True)
    for other in (tmp_path / "checkpoints").iterdir():
        other.write_bytes(newest.read_bytes())
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        CheckpointStore(tmp_path / "checkpoints", "x").load_newest()
    with pytest.raises(CheckpointError):
        run_system(config, tmp_path, resume=True)
    assert not trap.exists()
