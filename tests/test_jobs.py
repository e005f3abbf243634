"""Jobs: who owns one, what a client sees of it, and that nothing is lost when somebody dies."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dream3d.errors import ConfigError, PromptError
from dream3d.jobs import ENDED, Job, JobRequest, JobStore, LeaseTaken
from dream3d.jobs import lease as leases
from dream3d.jobs.process import is_alive, started
from dream3d.jobs.records import append_event, write_status

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and sessions are POSIX")

PATIENCE = 600.0
"""Seconds to wait for a state; the machine may be busy."""

QUICK = ("scene=canvas", "steps=6", "checkpoint_every=2")
ENDLESS = ("scene=canvas", "steps=1000000", "checkpoint_every=10")


def request(
    prompt: str = "a mug", overrides: tuple[str, ...] = QUICK, **more: object
) -> JobRequest:
    return JobRequest(prompt, "gaussian", 0, overrides=overrides, **more)  # type: ignore[arg-type]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen]:
    """A process that does nothing, to own leases and to die."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield child
    child.kill()
    child.wait()


def pause(store: JobStore, job: str, step: int) -> Job:
    """Wait until the job is running and `step` is done."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = store.status(job)
        if found.state != "running" and found.state != "queued":
            pytest.fail(f"the job is {found.state}: {found.message}")
        if found.step >= step:
            return found
        time.sleep(0.05)
    pytest.fail("the job makes no progress")


def ended(store: JobStore, job: str) -> Job:
    """Wait until the job has ended, without tending the queue."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = store.status(job)
        if found.state in ENDED and not found.live:
            return found
        time.sleep(0.05)
    pytest.fail("the job does not end")


def dead(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while started(pid) is not None and time.monotonic() < deadline:
        time.sleep(0.01)


# Processes and leases.


def test_a_process_is_its_number_and_its_start(sleeper: subprocess.Popen) -> None:
    began = started(sleeper.pid)
    assert began is not None
    assert is_alive(sleeper.pid, began)
    assert not is_alive(sleeper.pid, began + "0"), "the number alone proves nothing"
    sleeper.send_signal(signal.SIGKILL)
    dead(sleeper.pid)
    assert not is_alive(sleeper.pid, began), "a zombie does not live"
    assert started(0) is None and started(-1) is None


def test_a_live_lease_is_not_taken_a_dead_one_is(tmp_path: Path, sleeper: subprocess.Popen) -> None:
    first = leases.take(tmp_path, "worker", sleeper.pid)
    assert leases.owner(tmp_path) == first
    with pytest.raises(LeaseTaken):
        leases.take(tmp_path, "worker")
    sleeper.kill()
    sleeper.wait()
    assert leases.owner(tmp_path) is None
    second = leases.take(tmp_path, "worker")
    assert second.number == first.number + 1
    assert not leases.beat(tmp_path, first), "the first owner learns that it was superseded"
    leases.release(tmp_path, first)
    assert leases.owner(tmp_path) == second, "and cannot give away what is not its own"
    leases.release(tmp_path, second)
    assert leases.owner(tmp_path) is None


def test_a_reused_process_number_does_not_own(tmp_path: Path) -> None:
    lease = leases.take(tmp_path, "worker")
    path = tmp_path / "lease-000001.json"
    path.write_text(path.read_text().replace(f'"began": "{lease.began}"', '"began": "1"'))
    assert leases.owner(tmp_path) is None


def test_another_machines_lease_lives_by_its_heartbeat(tmp_path: Path) -> None:
    lease = leases.take(tmp_path, "worker")
    path = tmp_path / "lease-000001.json"
    path.write_text(path.read_text().replace(json.dumps(lease.machine), '"elsewhere"'))
    assert leases.owner(tmp_path) is not None
    old = time.time() - 31.0
    os.utime(path, (old, old))
    assert leases.owner(tmp_path) is None
    assert leases.beat(tmp_path, lease)
    assert leases.owner(tmp_path) is not None


def test_of_many_takers_one_wins(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dream3d.jobs import lease\n"
        "sys.stdin.readline()\n"
        "try: lease.take(Path(sys.argv[1]), 'worker'); print('won', flush=True)\n"
        "except lease.LeaseTaken: print('lost', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipe = subprocess.PIPE
    takers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(6)]
    for taker in takers:
        assert taker.stdin is not None
        taker.stdin.write("go\n")
        taker.stdin.flush()
    answers = [taker.stdout.readline().strip() for taker in takers if taker.stdout is not None]
    for taker in takers:
        taker.communicate("end\n")
    assert sorted(answers) == ["lost"] * 5 + ["won"]
    assert leases.numbers(tmp_path) == [1]


def test_half_a_lease_is_somebodys_until_it_is_old(tmp_path: Path) -> None:
    path = tmp_path / "lease-000001.json"
    path.write_text('{"format_ver')
    with pytest.raises(LeaseTaken):
        leases.take(tmp_path, "client")
    os.utime(path, (0, 0))
    assert leases.take(tmp_path, "client").number == 2


def test_fruitless_attempts_are_counted_from_the_files(tmp_path: Path) -> None:
    assert leases.fruitless(tmp_path) == 0
    for at in ("", "stage-00-step-0000010", "stage-00-step-0000010"):
        leases.release(tmp_path, leases.take(tmp_path, "worker", checkpoint=at))
    assert leases.fruitless(tmp_path) == 2
    leases.release(tmp_path, leases.take(tmp_path, "client"))
    assert leases.fruitless(tmp_path) == 0


# What a client sees.


def test_a_queued_job_and_its_files(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs")
    assert store.list_jobs() == [] and store.tend() == []
    prompt = '${oc.env:HOME} $(touch x)\n"quoted" <script>'
    asked = JobRequest(prompt, "gaussian", 7, "bad", {"scene": "canvas", "steps": 6}, "me")
    job = store.submit(asked, {"line": 3}, start=False)
    second = store.submit(request(), start=False)
    found = JobStore(tmp_path / "jobs").status(job)
    assert (found.state, found.request, found.tags) == ("queued", asked, {"line": 3})
    assert (found.steps, found.step, found.position, store.status(second).position) == (6, 0, 0, 1)
    assert [j.id for j in store.list_jobs()] == [second, job]
    assert [j.id for j in store.list_jobs(owner="me")] == [job]
    assert [event["event"] for event in store.events(job)[0]] == ["queued"]
    assert sorted(p.name for p in (tmp_path / "jobs").iterdir()) == sorted([job, second])
    json.dumps(found.as_data())


def test_waiting_jobs_are_cancelled_resumed_and_deleted(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    job = store.submit(request(), start=False)
    with pytest.raises(ConfigError, match="is queued"):
        store.resume(job)
    store.cancel(job)
    store.cancel(job)
    assert store.state(job) == "cancelled"
    store.resume(job, start=False)
    assert store.state(job) == "queued" and not (tmp_path / job / "cancel").exists()
    store.delete(job)
    assert not store.exists(job) and store.list_jobs() == []
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_died_shows_as_lost(tmp_path: Path, sleeper: subprocess.Popen) -> None:
    store = JobStore(tmp_path)
    job = store.submit(request(), start=False)
    leases.take(tmp_path / job, "worker", sleeper.pid)
    assert store.state(job) == "running", "loading"
    write_status(tmp_path / job / "status.json", "running")
    with pytest.raises(ConfigError, match="another process is working on job"):
        store.delete(job)
    with pytest.raises(ConfigError, match="is running"):
        store.resume(job)
    sleeper.send_signal(signal.SIGKILL)
    dead(sleeper.pid)
    found = store.status(job)
    assert (found.state, found.attempts) == ("lost", 1) and "resume" in found.message
    store.resume(job, start=False)
    assert store.state(job) == "queued"
    assert [event["event"] for event in store.events(job)[0]] == ["queued", "lost", "resumed"]


def test_the_queue_has_an_end(tmp_path: Path) -> None:
    store = JobStore(tmp_path, queue_limit=2)
    for _ in range(2):
        store.submit(request(), start=False)
    with pytest.raises(ConfigError, match="2 jobs are waiting already"):
        store.submit(request(), start=False)


def test_the_same_content_is_one_job(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    assert store.submit(request(), job="0" * 16, start=False) == "0" * 16
    assert store.submit(request(), job="0" * 16, start=False) == "0" * 16
    assert len(store.list_jobs()) == 1


@pytest.mark.parametrize(
    "job",
    ["", ".", "..", "../../etc", "0" * 15, "G" * 16, "0123456789abcdef\n", "/etc", "a\0b", "é"],
)
def test_no_text_but_an_id_reaches_the_disk(job: str, tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs")
    assert not store.exists(job)
    for action in (
        store.status,
        store.cancel,
        store.resume,
        store.delete,
        store.events,
        store.kill,
    ):
        with pytest.raises(ConfigError, match="no such job"):
            action(job)
    with pytest.raises(ConfigError):
        store.submit(request(), job=job + "/", start=False)
    assert list(tmp_path.iterdir()) == []


def test_requests_that_cannot_be_carried_out_leave_nothing(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    with pytest.raises(PromptError, match=r"U\+0000"):
        JobRequest("a\0b")
    with pytest.raises(PromptError, match="has 1001 characters; at most 1000"):
        JobRequest("a" * 1001)
    with pytest.raises(PromptError, match="half a character"):
        JobRequest("\ud800")
    with pytest.raises(PromptError, match="empty"):
        JobRequest(" \n")
    with pytest.raises(ConfigError, match=r"preset is '\.\./x'"):
        store.submit(JobRequest("a mug", "../x"))
    with pytest.raises(ConfigError):
        store.submit(JobRequest("a mug", overrides=("no_such=1",)))
    assert list(tmp_path.iterdir()) == []


def test_events_survive_a_line_cut_short(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    job = store.submit(request(), start=False)
    _, place = store.events(job)
    path = tmp_path / job / "events.jsonl"
    with path.open("ab") as file:
        file.write(b'{"time": 1, "event": "cut sho')
    assert store.events(job, place) == ([], place), "half a line is not read yet"
    append_event(path, "next")
    later, place = store.events(job, place)
    assert [event["event"] for event in later] == ["next"]
    assert store.events(job, place) == ([], place)


# With workers.


def test_a_job_from_submission_to_resumption(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    job = store.submit(request(overrides=ENDLESS))
    waiting = store.submit(request("next"))
    running = pause(store, job, 1)
    assert running.live and running.steps == 1000000
    assert store.state(waiting) == "queued", "one at a time"
    JobStore(tmp_path).cancel(job)
    stopped = ended(store, job)
    assert stopped.state == "cancelled" and stopped.step >= running.step
    assert {"preview.png", "turntable.mp4"} <= set(stopped.files)
    assert os.listdir(tmp_path / job / "run" / "checkpoints")
    kinds = [event["event"] for event in store.events(job)[0]]
    assert kinds[:2] == ["queued", "started"] and kinds[-1] == "cancelled" and "stopping" in kinds
    # The worker that ended started the next one; nobody else had to.
    done = ended(store, waiting)
    assert (done.state, done.step, done.message) == ("done", 6, "")


@pytest.mark.slow
def test_killed_and_resumed_it_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    quick = ("scene.count=60", "steps=40", "checkpoint_every=3")
    whole = JobStore(tmp_path / "whole")
    undisturbed = whole.submit(request(overrides=quick))
    store = JobStore(tmp_path / "killed")
    job = store.submit(request(overrides=quick))
    for step in (4, 20):
        pause(store, job, step)
        store.kill(job)
        assert ended(store, job).state == "lost"
        store.resume(job)
    assert ended(store, job).state == "done"
    assert ended(whole, undisturbed).state == "done"
    for name in ("asset.ply", "asset.glb", "preview.png"):
        one = whole.run_path(undisturbed) / name
        assert one.read_bytes() == (store.run_path(job) / name).read_bytes(), name


@pytest.mark.slow
def test_sigterm_leaves_checkpoint_preview_and_status(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    job = store.submit(request(overrides=ENDLESS))
    pause(store, job, 1)
    worker = store.worker(job)
    assert worker is not None and os.getsid(worker.pid) == worker.pid, "a session of its own"
    os.kill(worker.pid, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while store.state(job) == "running" and time.monotonic() < deadline:
        time.sleep(0.02)
    # The moment the status is there, so are the others; the exports may still be on their way.
    found = store.status(job)
    assert (found.state, found.message) == ("cancelled", "stopped by SIGTERM")
    assert "preview.png" in found.files
    assert os.listdir(store.run_path(job) / "checkpoints")
    assert ended(store, job).state == "cancelled"


@pytest.mark.slow
def test_a_refusal_is_the_jobs_message(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    job = store.submit(request(overrides=("device=cuda:77",)))
    failed = ended(store, job)
    assert (failed.state, failed.error) == ("failed", "ConfigError")
    assert failed.message.startswith("device is 'cuda:77', but torch sees no such GPU")
