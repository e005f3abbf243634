"""Whole runs on the smallest scenes: repeatable, resumable, cancellable."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dream3d.checkpoint import CheckpointStore
from dream3d.errors import Cancelled, CheckpointError, ConfigError, PromptError
from dream3d.noise_sources import FixedNoise
from dream3d.priors.gaussian import ClosedFormPrior, GaussianConfig, MixtureConfig
from dream3d.run import RunResult, repeatable, resolve_device, run_system
from dream3d.scenes.canvas import CanvasConfig
from dream3d.schedules import constant
from dream3d.train import StepReport
from guidance.ism import ISM
from guidance.sds import SDS
from systems.base import RunConfig, Stage, fingerprint

FIRST = Stage(
    SDS(constant(2.0)), CanvasConfig(8), steps=12, views=2, render_size=8, checkpoint_every=5
)
SECOND = replace(
    FIRST, guidance=ISM(constant(1.5)), scene=None, steps=6, noise=FixedNoise(constant(0.5))
)
CONFIG = RunConfig("a red mug", GaussianConfig(8), [FIRST, SECOND], negative_prompt="dull", seed=3)
TOTAL = 18


def tensors(result: RunResult) -> dict[str, torch.Tensor]:
    return result.scene.state()


def same(first: RunResult, second: RunResult) -> bool:
    a, b = tensors(first), tensors(second)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class Stopper:
    """Counts steps over all stages and asks to stop after `after` of them."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def test_a_seeded_run_repeats_and_another_seed_differs(tmp_path: Path) -> None:
    losses: list[list[float]] = [[], []]
    runs = [
        run_system(CONFIG, tmp_path / str(i), lambda r, i=i: losses[i].append(r.loss))
        for i in range(2)
    ]
    assert same(*runs) and losses[0] == losses[1] and len(losses[0]) == TOTAL
    assert not same(runs[0], run_system(replace(CONFIG, seed=4), tmp_path / "other"))
    assert runs[0].status == "finished" and runs[0].steps == TOTAL


def test_the_callers_random_state_is_neither_read_nor_changed(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = run_system(CONFIG, tmp_path / "1")
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert same(first, run_system(CONFIG, tmp_path / "2"))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("cut", [1, 5, 11, 12, 13, 17, 18])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, cut: int) -> None:
    whole = run_system(CONFIG, tmp_path / "whole")
    part = run_system(CONFIG, tmp_path / "part", should_stop=Stopper(cut))
    assert part.status == ("cancelled" if cut < TOTAL else "finished") and part.steps == cut
    stored = CheckpointStore(tmp_path / "part" / "checkpoints", fingerprint(CONFIG)).load_newest()
    rest = run_system(CONFIG, tmp_path / "part", resume=True)
    assert rest.status == "finished" and rest.resumed_from == cut
    assert same(rest, whole)
    assert stored is not None and rest.seconds > stored.seconds > 0.0  # time adds up


def test_a_killed_run_resumes_from_its_last_checkpoint(tmp_path: Path) -> None:
    """Without the checkpoint that a polite stop writes: the steps since the last one are done again."""

    class Killed(BaseException):
        pass

    def kill(report: StepReport) -> None:
        if report.stage == 0 and report.step == 8:
            raise Killed

    with pytest.raises(Killed):
        run_system(CONFIG, tmp_path / "part", kill)
    rest = run_system(CONFIG, tmp_path / "part", resume=True)
    assert rest.resumed_from == 5
    assert same(rest, run_system(CONFIG, tmp_path / "whole"))


def test_resuming_before_the_first_checkpoint_starts_over(tmp_path: Path) -> None:
    run = run_system(CONFIG, tmp_path, resume=True)
    assert run.resumed_from == 0 and run.steps == TOTAL


def test_resuming_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    reports: list[StepReport] = []
    run_system(CONFIG, tmp_path)
    again = run_system(CONFIG, tmp_path, reports.append, resume=True)
    assert again.status == "finished" and again.steps == TOTAL and not reports


def test_resuming_with_other_settings_is_refused(tmp_path: Path) -> None:
    run_system(CONFIG, tmp_path)
    with pytest.raises(CheckpointError, match="another configuration"):
        run_system(replace(CONFIG, prompt="a blue mug"), tmp_path, resume=True)
    harmless = [replace(stage, checkpoint_every=7, preview_every=1) for stage in CONFIG.stages]
    run_system(replace(CONFIG, stages=harmless), tmp_path, resume=True)


def test_the_callback_can_cancel(tmp_path: Path) -> None:
    def cancel(report: StepReport) -> None:
        if report.step == 3:
            raise Cancelled("enough")

    run = run_system(CONFIG, tmp_path, cancel)
    assert run.status == "cancelled" and run.steps == 3
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == [
        "stage-00-step-0000003.safetensors"
    ]


def test_reports_tell_the_stage_and_phases_add_up(tmp_path: Path) -> None:
    reports: list[StepReport] = []
    run = run_system(CONFIG, tmp_path, reports.append)
    assert [(r.stage, r.stages) for r in reports] == [(0, 2)] * 12 + [(1, 2)] * 6
    assert set(run.phases) == {
        "load",
        "render",
        "prior",
        "backward",
        "optimise",
        "density",
        "checkpoint",
        "convert",
    }
    assert sum(run.phases.values()) <= run.seconds


@pytest.mark.parametrize(
    "prior", [GaussianConfig(8), MixtureConfig(8), GaussianConfig(8, 0.5, "flow")]
)
def test_every_closed_form_prior_runs(tmp_path: Path, prior: GaussianConfig) -> None:
    assert run_system(replace(CONFIG, prior=prior), tmp_path).status == "finished"


@pytest.mark.parametrize(
    "prompt", ["", "x" * 10_000, "\x00\x07", "茶碗", "${oc.env:HOME}", "../../x", "{a: 1}", "a\nb"]
)
def test_odd_prompts_run_and_write_only_checkpoints(tmp_path: Path, prompt: str) -> None:
    config = replace(CONFIG, prompt=prompt, stages=[replace(FIRST, steps=2)])
    assert run_system(config, tmp_path / "run").status == "finished"
    written = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*"))
    assert written == [
        "run",
        "run/checkpoints",
        "run/checkpoints/stage-00-step-0000002.safetensors",
    ]


def test_a_prompt_the_prior_refuses_stops_before_anything_is_written(tmp_path: Path) -> None:
    class Strict(ClosedFormPrior):
        def check_prompt(self, prompt: str) -> None:
            if "dull" in prompt:
                raise PromptError("unknown word 'dull'")

    with pytest.raises(PromptError, match="dull"):
        run_system(CONFIG, tmp_path / "run", prior=Strict(8))  # in the negative prompt
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "gpu", "meta"])
def test_an_impossible_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device is '{name}'"):
        resolve_device(name)


def test_determinism_is_switched_on_only_inside() -> None:
    before = torch.get_deterministic_debug_mode()
    with repeatable(torch.device("cpu")):
        assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_deterministic_debug_mode() == before


def test_the_fingerprint_sees_what_matters_and_nothing_else() -> None:
    def first(**changes: object) -> RunConfig:
        return replace(CONFIG, stages=[replace(FIRST, **changes), SECOND])  # type: ignore[arg-type]

    plain = fingerprint(CONFIG)
    assert (
        fingerprint(first(preview_every=3)) == fingerprint(replace(CONFIG, device="cpu")) == plain
    )
    changed = [
        replace(CONFIG, seed=4),
        replace(CONFIG, negative_prompt=""),
        replace(CONFIG, prior=MixtureConfig(8)),
        first(guidance=SDS(constant(2.5))),
        first(views=3),
        first(scene=CanvasConfig(9)),
    ]
    assert len({plain, *map(fingerprint, changed)}) == 7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(CONFIG, stages=[]), "at least one stage"),
        (lambda: replace(CONFIG, stages=[SECOND]), r"stages\[0\].scene is missing"),
        (lambda: replace(CONFIG, seed=-1), "seed is -1"),
        (lambda: replace(FIRST, steps=0), "steps is 0; it must be at least 1"),
        (lambda: replace(FIRST, views=0), "views is 0"),
    ],
)
def test_impossible_configurations_are_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        make()
