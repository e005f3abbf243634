import errno
import json
import os
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dream3d.checkpoint import (
    KEEP,
    Checkpoint,
    CheckpointStore,
    optimizer_tensors,
    restore_optimizer,
)
from dream3d.errors import CheckpointError, OutputError


def checkpoint(step: int = 10) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    values = torch.rand(50, 3, generator=generator)
    return Checkpoint(
        stage=0,
        step=step,
        skipped=1,
        seconds=1.5,
        fingerprint="abc",
        generator=generator.get_state(),
        scene={"means": values, "view": values[:7], "count": torch.tensor(7)},
        optimizer={"means/exp_avg": -values.T, "means/step": torch.tensor(3.0)},
    )


def same(first: Checkpoint, second: Checkpoint) -> bool:
    def equal(a: object, b: object) -> bool:
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            return a.dtype == b.dtype and torch.equal(a, b)
        if isinstance(a, dict) and isinstance(b, dict):
            return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
        return a == b

    return all(equal(getattr(first, f.name), getattr(second, f.name)) for f in fields(first))


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", "abc")
    assert store.load_newest() is None
    store.save(checkpoint())
    loaded = store.load_newest()
    assert loaded is not None and same(loaded, checkpoint())


def test_only_the_newest_are_kept_also_across_stages(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "abc")
    for stage, step in ((0, 90), (0, 100), (1, 5), (1, 10)):
        store.save(replace(checkpoint(step), stage=stage))
        assert len(store.files()) <= KEEP
    newest = store.load_newest()
    assert newest is not None and (newest.stage, newest.step) == (1, 10)
    assert [p.name for p in tmp_path.iterdir()] != [] and len(list(tmp_path.iterdir())) == KEEP


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble_the_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8:60] = os.urandom(52)
    path.write_bytes(data)


def forget_the_document(path: Path) -> None:
    save_file(load_file(path), path)


def raise_the_version(path: Path) -> None:
    document = json.dumps({"format_version": 99, "digest": ""})
    save_file(load_file(path), path, {"dream3d": document})


DAMAGE = [truncate, flip_a_bit, empty, garble_the_header, forget_the_document, raise_the_version]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    store = CheckpointStore(tmp_path, "abc")
    store.save(checkpoint(10))
    damage(store.save(checkpoint(20)))
    loaded = store.load_newest()
    assert loaded is not None and same(loaded, checkpoint(10))
    damage(store.files()[0])
    with pytest.raises(CheckpointError, match=r"step-0000020.*step-0000010.*without --resume"):
        store.load_newest()


def test_a_file_of_another_run_is_refused(tmp_path: Path) -> None:
    CheckpointStore(tmp_path, "abc").save(checkpoint())
    with pytest.raises(CheckpointError, match="another configuration"):
        CheckpointStore(tmp_path, "def").load_newest()


@pytest.mark.parametrize("when", ["write", "replace"])
def test_a_full_disk_leaves_the_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    store = CheckpointStore(tmp_path, "abc")
    store.save(checkpoint(10))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, when, full)
    with pytest.raises(OutputError, match="full"):
        store.save(checkpoint(20))
    monkeypatch.undo()
    loaded = store.load_newest()
    assert loaded is not None and loaded.step == 10
    assert [p.name for p in tmp_path.iterdir()] == ["stage-00-step-0000010.safetensors"]


def test_a_restored_optimiser_goes_on_as_the_original() -> None:
    def make() -> tuple[torch.nn.Parameter, torch.nn.Parameter, torch.optim.Adam]:
        a = torch.nn.Parameter(torch.linspace(0.0, 1.0, 6))
        b = torch.nn.Parameter(torch.linspace(1.0, 2.0, 4))
        groups = [{"params": [a], "name": "a/b"}, {"params": [b], "name": "b"}]
        return a, b, torch.optim.Adam(groups, lr=0.1, betas=(0.9, 0.99), eps=1e-15)

    def step(a: torch.nn.Parameter, b: torch.nn.Parameter, optimizer: torch.optim.Adam) -> None:
        optimizer.zero_grad()
        (a.sin().sum() + (b**3).sum()).backward()
        optimizer.step()

    one, two = make(), make()
    for _ in range(3):
        step(*one)
    with torch.no_grad():
        two[0].copy_(one[0])
        two[1].copy_(one[1])
    restore_optimizer(two[2], {k: v.clone() for k, v in optimizer_tensors(one[2]).items()})
    for _ in range(3):
        step(*one)
        step(*two)
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
