"""The web page: jobs outlive their server, the page only watches, and nothing but the jobs' files is served."""

import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the web page is an extra: pip install 'dream3d[ui]'")

from dream3d.errors import ConfigError, PromptError
from dream3d.ui.jobs import Jobs, JobView
from dream3d.ui.page import Page, Shown, build_page, launch_options, progress_html

QUICK = ("scene=canvas", "steps=5")
ENDLESS = ("scene=canvas", "steps=1000000")


def wait(jobs: Jobs, job: str, *states: str, seconds: float = 60.0) -> JobView:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        view = jobs.view(job)
        if view.state in states:
            return view
        time.sleep(0.1)
    pytest.fail(f"the job is still {view.state} after {seconds} s")


def test_a_job_runs_to_its_end_and_treats_its_prompt_as_data(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    prompt = '--json $(touch x) "quoted" ${oc.env:HOME}\n; rm -rf /'
    job = jobs.start(prompt, "gaussian", 3, *QUICK)
    with pytest.raises(ConfigError, match="another asset is being made"):
        jobs.start("x", "gaussian", 0, *QUICK)
    view = wait(jobs, job, "done", "failed")
    assert (view.state, view.prompt, view.step, view.steps) == ("done", prompt, 5, 5), view.message
    assert set(view.files or {}) >= {"preview.png", "turntable.mp4"}
    assert sorted(os.listdir(tmp_path)) == [job]


def test_cancelling_after_a_restart_of_the_server(tmp_path: Path) -> None:
    first = Jobs(tmp_path)
    job = first.start("a mug", "gaussian", 0, *ENDLESS)
    running = wait(first, job, "running", "failed")
    assert running.state == "running", running.message
    second = Jobs(tmp_path)
    view = second.view(job)
    assert view.state == "running" and view.step >= running.step
    second.cancel(job)
    view = wait(first, job, "cancelled", "failed")
    assert view.state == "cancelled"
    assert "preview.png" in (view.files or {})
    assert second.view(job).state == "cancelled"
    second.cancel(job)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_a_killed_worker_is_told(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job = jobs.start("a mug", "gaussian", 0, *ENDLESS)
    wait(jobs, job, "running")
    jobs._children[job].send_signal(signal.SIGKILL)
    view = wait(jobs, job, "failed")
    assert view.message == "the process that made it was lost"
    assert Jobs(tmp_path).view(job).state == "failed"


@pytest.mark.slow
def test_a_refusal_reaches_the_page(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job = jobs.start("x", "gaussian", 0, "device=cuda:77")
    view = wait(jobs, job, "failed")
    assert view.message.startswith("device is 'cuda:77', but torch sees no such GPU")


@pytest.mark.parametrize(
    "job", ["", "..", "../../etc", "0" * 16, "G" * 16, "0123456789abcdef\n", "/etc"]
)
def test_ids_that_are_none(job: str, tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / "app")
    assert not jobs.exists(job)
    jobs.cancel(job)
    with pytest.raises(ConfigError, match="no such job"):
        jobs.view(job)


def test_prompts_no_process_can_be_given(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"U\+0000"):
        Jobs(tmp_path).start("a\0b", "gaussian", 0)
    with pytest.raises(PromptError, match="has 1001 characters; at most 1000"):
        Jobs(tmp_path).start("a" * 1001, "gaussian", 0)
    assert list(tmp_path.iterdir()) == []


def test_messages_are_escaped() -> None:
    view = JobView("failed", "x", message="<script>alert(1)</script>")
    assert "<script>" not in progress_html(view)
    running = progress_html(JobView("running", "x", 40, 300, 12.3))
    assert "step 40 of 300, about 12 s left" in running
    assert 'value="40" max="300"' in running


class Told(Jobs):
    """Jobs that only report what a test sets."""

    def __init__(self, view: JobView) -> None:
        super().__init__(Path("nowhere"))
        self.told = view

    def view(self, job: str) -> JobView:
        return self.told


def test_a_look_sends_only_what_changed(tmp_path: Path) -> None:
    preview = tmp_path / "preview.png"
    preview.write_bytes(b"one")
    page = Page(Told(JobView("running", "x", 1, 9, files={"preview.png": preview})))
    shown, status, picture, *rest = page.look("0" * 16, Shown("0" * 16))
    assert picture == str(preview) and "step 1 of 9" in status
    assert all(isinstance(item, dict) and item["__type__"] == "update" for item in rest)
    assert page.look("0" * 16, shown)[2] != str(preview), "the same picture is not sent again"
    page.jobs = Told(
        JobView("done", "x", 9, 9, files={"preview.png": preview, "asset.glb": tmp_path / "a.glb"})
    )
    shown, status, _, mesh, glb, ply, generate, cancel = page.look("0" * 16, shown)
    assert shown.ended and mesh == glb["value"] == str(tmp_path / "a.glb")
    assert (ply["interactive"], generate["interactive"], cancel["interactive"]) == (
        False,
        True,
        False,
    )
    assert all(isinstance(item, dict) for item in page.look("0" * 16, shown))


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    root = tmp_path / "app"
    root.mkdir()
    page = build_page(Jobs(root))
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options(root))
    yield url
    page.close()


def test_the_page_is_served_to_this_machine_only(address: str, tmp_path: Path) -> None:
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(address) as answer:
        assert b"dream3d" in answer.read()
    (tmp_path / "secret.txt").write_text("secret")
    for path in (tmp_path / "secret.txt", Path("/etc/hostname"), Path(__file__)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{address}gradio_api/file={path}")
        assert caught.value.code in (403, 404)


@pytest.mark.browser
def test_in_a_browser(address: str, tmp_path: Path) -> None:
    """Type a prompt, press, see progress, reload, see it again, and get a mesh to look at."""
    import shutil

    from playwright.sync_api import expect, sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        errors: list[str] = []
        elsewhere: list[str] = []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on(
            "request",
            lambda r: (
                None if r.url.startswith((address, "data:", "blob:")) else elsewhere.append(r.url)
            ),
        )
        tab.goto(address)
        tab.get_by_label("Prompt").fill("a zebra")
        tab.get_by_role("button", name="Generate").click()
        status = tab.locator("#job-status")
        expect(status).to_contain_text("Loading", timeout=10_000)
        tab.reload()
        expect(tab.locator("#job-status")).to_contain_text("Failed", timeout=60_000)
        expect(tab.get_by_role("button", name="Generate")).to_be_enabled()
        browser.close()
    assert errors == []
    assert elsewhere == [], "nothing is fetched from other machines"
