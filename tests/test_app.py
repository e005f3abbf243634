"""The web page: jobs outlive their server, the page only watches, and nothing but the jobs' files is served."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the web page is an extra: pip install 'dream3d[ui]'")

from dream3d.jobs import Job, JobRequest, JobStore
from dream3d.ui.page import Page, Shown, build_page, launch_options, progress_html

REQUEST = JobRequest("x", "gaussian")


def test_messages_are_escaped() -> None:
    view = Job("0" * 16, "failed", REQUEST, 0.0, 0.0, message="<script>alert(1)</script>")
    assert "<script>" not in progress_html(view)
    job = Job("0" * 16, "running", REQUEST, 0.0, 0.0, True, steps=300, step=40, seconds_left=12.3)
    running = progress_html(job)
    assert "step 40 of 300, about 12 s left" in running
    assert 'value="40" max="300"' in running


class Told(JobStore):
    """Jobs that only report what a test sets."""

    def __init__(self, root: Path, told: Job) -> None:
        super().__init__(root)
        self.told = told

    def status(self, job: str) -> Job:
        return self.told

    def run_path(self, job: str) -> Path:
        return self.root


def test_a_look_sends_only_what_changed(tmp_path: Path) -> None:
    preview = str(tmp_path / "preview.png")
    job = Job("0" * 16, "running", REQUEST, 0.0, 0.0, True, steps=9, step=1, preview=5)
    page = Page(Told(tmp_path, replace(job, files={"preview.png": 3})))
    shown, status, picture, *rest = page.look("0" * 16, Shown("0" * 16))
    assert picture == preview and "step 1 of 9" in status
    assert all(isinstance(item, dict) and item["__type__"] == "update" for item in rest)
    assert page.look("0" * 16, shown)[2] != preview, "the same picture is not sent again"
    files = {"preview.png": 3, "asset.glb": 4}
    page.jobs = Told(tmp_path, replace(job, state="done", live=False, step=9, files=files))
    shown, status, _, mesh, glb, ply, generate, cancel = page.look("0" * 16, shown)
    assert shown.ended and mesh == glb["value"] == str(tmp_path / "asset.glb")
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
    page = build_page(JobStore(root))
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
