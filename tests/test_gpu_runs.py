"""Whole runs on a GPU: generating with exports, resuming, training the embedded prior, and what the doctor says."""

import json
from pathlib import Path

import pytest
import torch
from gpu_support import CPU, DEVICE, ON_GPU, share_beyond

import dream3d
from dream3d.cameras import orbit_cameras
from dream3d.cli.main import main
from dream3d.config import load_config, preset_names
from dream3d.errors import Cancelled
from dream3d.export import pictures
from dream3d.prior_training import TrainingConfig, train
from dream3d.priors.embedded import EmbeddedConfig, read_manifest
from dream3d.train import StepReport

pytestmark = pytest.mark.gpu
PROMPT = "a red mug"
STEPS = 15
LOCAL = [
    name
    for name in preset_names()
    if type(load_config(name, {}, PROMPT).prior).registered_name in ("embedded", "gaussian")  # type: ignore[attr-defined]
]
"""The presets whose priors need no download."""


@pytest.fixture(autouse=True)
def short_films(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pictures, "FRAMES", 4)


def settings(preset: str, steps: int) -> dict[str, object]:
    """So many steps in every stage."""
    stages = len(load_config(preset, {}, PROMPT).stages)
    count = {"steps": steps} if stages == 1 else {f"stages.{i}.steps": steps for i in range(stages)}
    return {**count, "device": DEVICE.type, "preview_every": 5}


@pytest.mark.parametrize("preset", LOCAL)
def test_every_local_preset_generates(preset: str) -> None:
    result = dream3d.generate(PROMPT, preset=preset, seed=1, overrides=settings(preset, STEPS))
    assert result.status == "done" and result.scene is not None
    assert all(p.device.type == DEVICE.type for p in result.scene.parameters().values())
    assert {"asset.glb", "preview.png", "turntable.mp4"} <= set(result.files)
    assert all(path.stat().st_size > 100 for path in result.files.values())
    rows = (result.directory / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(row)["loss"] for row in rows]
    assert len(losses) % STEPS == 0 and all(loss is not None for loss in losses)


@pytest.mark.parametrize("preset", ["fast", "nerf", "mesh"])
def test_a_resumed_run_goes_on(preset: str, tmp_path: Path) -> None:
    """On a GPU gradients are summed in whatever order, so that runs agree only nearly."""

    def stop(report: StepReport) -> None:
        if report.step == 6:
            raise Cancelled("enough")

    how = settings(preset, 12)
    whole = dream3d.generate(PROMPT, preset, 1, tmp_path / "whole", overrides=how)
    part = dream3d.generate(PROMPT, preset, 1, tmp_path / "part", overrides=how, on_step=stop)
    assert part.status == "cancelled"
    rest = dream3d.resume(tmp_path / "part")
    assert rest.status == "done" and rest.record["steps"]["done"] == 12
    assert whole.scene is not None and rest.scene is not None
    cameras = orbit_cameras([0.0, 90.0], size=32).to(DEVICE)
    with torch.no_grad():
        one, two = (
            made.render(cameras).over(torch.ones(1, 1, 3, device=DEVICE))
            for made in (whole.scene, rest.scene)
        )
    assert share_beyond(one, two, 0.1) < 0.05
    text = [
        (tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "part")
    ]
    first, second = ([json.loads(row)["loss"] for row in rows] for rows in text)
    assert len(first) == len(second) == 12
    assert second[:3] == pytest.approx(first[:3], rel=0.05, abs=1e-4)


def test_a_run_of_the_gpu_goes_on_on_the_cpu(tmp_path: Path) -> None:
    """Checkpoints know no device."""

    def stop(report: StepReport) -> None:
        if report.step == 4:
            raise Cancelled("enough")

    out = tmp_path / "run"
    dream3d.generate(PROMPT, "gaussian", 1, out, overrides=settings("gaussian", 8), on_step=stop)
    config = out / "config.yaml"
    text = config.read_text()
    assert f"device: {DEVICE.type}" in text
    config.write_text(text.replace(f"device: {DEVICE.type}", "device: cpu"))
    rest = dream3d.resume(out)
    assert rest.status == "done" and rest.scene is not None
    assert all(p.device == CPU for p in rest.scene.parameters().values())


@pytest.mark.parametrize("workers", [0, 2])
def test_the_embedded_prior_trains(workers: int, tmp_path: Path) -> None:
    config = TrainingConfig(
        output=str(tmp_path),
        device=DEVICE.type,
        processes=1,
        workers=workers,
        objects=2,
        views=2,
        images=60,
        warmup_images=8,
        learning_rate=3e-3,
        log_seconds=0.0,
        probe_minutes=1000.0,
        channels=(16, 32),
    )
    train(config)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    losses = [r["loss"] for r in map(json.loads, lines) if r["event"] == "training"]
    assert len(losses) == 15 and losses[-1] < losses[0]
    assert read_manifest(tmp_path / "embedded")["images_seen"] == 60
    prior = EmbeddedConfig(path=str(tmp_path / "embedded")).load(DEVICE)
    assert prior.embed([PROMPT]).device.type == DEVICE.type


def test_the_doctor_sees_the_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cuda"]["usable"] == ON_GPU
    names = [device["name"] for device in found["devices"]]
    assert ("cuda:0" in names) == ON_GPU
    broken = {e["name"]: e["broken"] for e in found["optional"] if "broken" in e}
    assert not broken
