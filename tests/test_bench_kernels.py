"""`dream3d bench kernels`: the schema, what is ranked and what is not, peers that are missing or wrong."""

import json
import sys
import time
from functools import partial

import pytest
import torch

from dream3d.bench import device_kernels, kernel_cases, kernels
from dream3d.bench.kernel_cases import CONTESTS, Contest
from dream3d.cli.main import main
from dream3d.errors import BackendError
from renderers.backends import BACKENDS

SMALL = {
    "splats": partial(kernel_cases.splats, 50, 16),
    "hash_grid": partial(kernel_cases.hash_grid, 100, 8),
    "march": partial(kernel_cases.march_rays, 10, 9),
    "composite": partial(kernel_cases.composite_rays, 10, 9),
    "rasterize_interpolate": partial(kernel_cases.rasterize_interpolate, 1, 16),
}


def small(op: str, peer="torch", **changes) -> Contest:
    return Contest(op, "tiny", peer, 2.0, SMALL[op], **changes)


class Foreign:
    """A load of which one knows how large it is."""

    cores = 0.0

    def foreign(self):
        return self.cores


@pytest.fixture
def idle(monkeypatch):
    monkeypatch.setattr(kernels, "Load", Foreign)
    monkeypatch.setattr(Foreign, "cores", 0.0)
    return partial(monkeypatch.setattr, Foreign, "cores")


@pytest.mark.parametrize("op", SMALL)
def test_a_row_has_the_fields_that_are_promised(op, idle):
    row = kernels.compete(small(op), 2, force=False)
    assert {"op", "case", "backend", "peer", "core_ms", "peer_core_ms", "ratio"} <= set(row)
    assert (row["op"], row["case"], row["backend"], row["peer"]) == (op, "tiny", "numba", "torch")
    assert row["ranked"] and row["ratio"] > 0 and row["met"] == (row["ratio"] >= 2.0)
    assert 0 < row["wall_ms"] <= row["wall_ms_median"]
    assert 0 <= row["core_ms"] <= row["core_ms_median"]
    json.dumps(row)


def test_a_loaded_machine_is_not_ranked(idle):
    idle(kernels.MOST_FOREIGN + 0.01)
    row = kernels.compete(small("march"), 2, force=False)
    assert row["ratio"] is None and row["met"] is None and not row["ranked"]
    assert row["wall_ms"] > 0
    row = kernels.compete(small("march"), 2, force=True)
    assert row["ratio"] is not None and row["met"] is None and not row["ranked"]
    idle(None)  # nothing is known of others: then nothing is ranked either
    assert kernels.compete(small("march"), 2, force=False)["ratio"] is None


def test_the_ratio_is_of_minima_and_of_the_clock_that_was_asked_for():
    S = kernels.Sample
    samples = [(S(0.002, 0.001), S(0.008, 0.009)), (S(0.001, 0.004), S(0.01, 0.003))]
    core = kernels.summarise(small("march"), samples, 0.0, False)
    assert core["ratio"] == pytest.approx(8.0) and core["core_ms"] == 1.0
    wall = kernels.summarise(small("march", of="wall"), samples, 0.0, False)
    assert wall["ratio"] == pytest.approx(3.0)
    # A slow peer flatters: the bar is not met, however large the ratio.
    slow = kernels.summarise(small("march", peer_limit_ms=7.0), samples, 0.0, False)
    assert slow["ratio"] == pytest.approx(8.0) and slow["met"] is False


def test_backends_that_disagree_are_not_ranked(idle):
    def make():
        return lambda backend: [torch.full((3,), 1.0 if backend == "numba" else 1.01)]

    row = kernels.compete(Contest("march", "tiny", "torch", 2.0, make), 2, force=True)
    assert row["ratio"] is None and "nothing to rank" in row["skipped"]


def test_missing_peers_are_skipped_with_the_reason(idle, monkeypatch):
    find = kernels.importlib.util.find_spec
    monkeypatch.setattr(
        kernels.importlib.util, "find_spec", lambda name: None if name == "mitsuba" else find(name)
    )
    row = kernels.compete(small("splats", peer="mitsuba", size=(50, 16)), 2, force=False)
    assert row["ratio"] is None and "pip install 'dream3d[bench]'" in row["skipped"]
    row = kernels.compete(small("splats", peer="one thread", threads=4096), 2, force=False)
    assert "needs 4096 cores" in row["skipped"]


def test_a_peer_that_dies_is_skipped_with_what_it_said(monkeypatch, tmp_path):
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda name: object())
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho ready\nread line\necho 'LLVM ERROR: Cannot select' >&2\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with (
        pytest.raises(BackendError, match=r"LLVM ERROR.*DRJIT_LIBLLVM_PATH"),
        kernels.mitsuba(1, 2),
    ):
        pass


def test_every_bar_has_its_row():
    bars = {(c.op, c.case, c.peer): c.bar for c in CONTESTS}
    assert bars["splats", "20k/256", "torch"] == 20.0
    assert bars["splats", "5k/128", "mitsuba"] == 60.0
    assert bars["splats", "20k/256", "one thread"] == 1.7
    assert bars["hash_grid", "200k/2^15", "torch"] == 5.0
    assert bars["march", "4096x96", "torch"] == 2.0
    assert bars["composite", "4096x96", "torch"] == 5.0


def test_the_command_prints_one_object(idle, monkeypatch, capsys):
    idle(9.0)
    monkeypatch.setattr(kernels, "CONTESTS", (small("march"), small("composite")))
    assert main(["bench", "kernels", "march", "--rounds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["format_version"] == 1 and {"load", "machine", "rows"} <= set(found)
    assert [row["op"] for row in found["rows"]] == ["march"]
    assert not found["ranked"] and "idle machine" in found["warning"]
    assert main(["bench", "kernels", "--rounds", "1", "composite", "--force"]) == 0
    assert "rank nothing" in capsys.readouterr().out
    assert main(["bench", "kernels", "cooking"]) == 2
    assert "choose from march, composite" in capsys.readouterr().err
    assert main(["bench", "kernels", "--rounds", "0"]) == 2


def test_other_processes_are_seen():
    load = kernels.Load()
    assert load.foreign() is None  # too short a while to tell


@pytest.mark.parametrize("task", device_kernels.TASKS, ids=lambda task: f"{task.op}-{task.case}")
def test_tasks_of_a_gpu_name_backends_and_compute(task):
    names = [b.name for b in BACKENDS if b.renderer == task.renderer]
    assert set(task.only) <= set(names)
    assert device_kernels._taking_part(task, torch.device("cuda"))[0].name == "torch"


def time_task(task, rounds):
    made, cpu = device_kernels.Bout(task, task.make("cpu")), torch.device("cpu")
    return [
        device_kernels.time_backend(made, backend, rounds, cpu)
        for backend in device_kernels._taking_part(task, cpu)
    ]


@pytest.mark.parametrize("op", SMALL)
def test_backends_are_timed_beside_the_reference_on_one_device(op):
    only = {"march": ("torch", "warp"), "composite": ("torch", "warp")}.get(op, ())
    renderer = {"splats": "splats", "rasterize_interpolate": "mesh"}.get(op, "volume")
    if op == "hash_grid":
        only = ("torch", "warp")
    task = device_kernels.Task(op, "tiny", renderer, lambda device: SMALL[op](device=device), only)
    rows = time_task(task, 2)
    assert rows[0]["backend"] == "torch" and rows[0]["ratio"] == 1.0 and rows[0]["difference"] == 0
    assert [row["backend"] for row in rows] == ["torch", "warp"]
    for row in rows[1:]:
        assert "skipped" in row or (row["ratio"] > 0 and row["difference"] < 1e-3)


def test_a_backend_that_fails_or_differs_gets_no_ratio():
    def make(device):
        def run(backend):
            if backend == "warp":
                raise RuntimeError("no kernel image is available\nmore words")
            return [torch.ones(2)]

        return run

    task = device_kernels.Task("march", "tiny", "volume", make, ("torch", "warp"))
    rows = time_task(task, 1)
    assert "no kernel image" in rows[1]["skipped"] or "not installed" in rows[1]["skipped"]
    other = device_kernels.Task(
        "march",
        "tiny",
        "volume",
        lambda device: lambda backend: [torch.full((2,), 1.0 if backend == "torch" else 1.1)],
        ("torch", "warp"),
    )
    rows = time_task(other, 1)
    assert "skipped" in rows[1] or rows[1]["ratio"] is None


def bout(run):
    task = device_kernels.Task("march", "tiny", "volume", lambda device: run, ("torch", "warp"))
    return device_kernels.Bout(task, run)


def test_a_first_pass_that_hangs_is_given_up():
    torch_backend = BACKENDS[0]
    row = device_kernels.time_backend(
        bout(lambda backend: time.sleep(20.0) or []), torch_backend, 3, torch.device("cpu"), 0.05
    )
    assert "over 0.05 s" in row["skipped"]
    with device_kernels.at_most(0.05):  # in time, and nothing is left behind
        pass
    time.sleep(0.06)


def test_a_long_reference_runs_once_and_long_passes_are_fewer(monkeypatch):
    found, passes = torch.ones(2), []

    def run(backend):
        passes.append(backend)
        time.sleep(0.02)
        return [found]

    one, cpu = bout(run), torch.device("cpu")
    monkeypatch.setattr(device_kernels, "LONG_SECONDS", 0.01)
    row = device_kernels.time_backend(one, BACKENDS[0], 50, cpu)
    assert passes == ["torch"] and row["passes"] == 1 and row["ratio"] == 1.0
    assert len(device_kernels.milliseconds(lambda: run("x"), 50, cpu, 0.05)) <= 3


def test_rows_are_written_as_they_finish(monkeypatch, tmp_path):
    seen = []
    tasks = [
        device_kernels.Task("march", "tiny", "volume", lambda device: lambda b: [torch.ones(1)])
    ]
    monkeypatch.setattr(device_kernels, "TASKS", tuple(tasks))
    monkeypatch.setattr(
        device_kernels, "write_json", lambda path, result: seen.append(len(result["rows"]))
    )
    found = device_kernels.bench_device_kernels([], 1, "cpu", lambda _: None, file=tmp_path / "x")
    assert seen == list(range(1, len(found["rows"]) + 1)) and found["rows"][0]["backend"] == "torch"
    for row in found["rows"]:
        assert "skipped" in row or row["difference"] == 0.0


def test_without_a_gpu_the_command_says_so(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert main(["bench", "kernels", "--device", "cuda"]) == 2
    assert "torch sees no such GPU here" in capsys.readouterr().err
