"""The page in headless Chromium, end to end: from a prompt to files, past a reload, a stop and a resume."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the web page is an extra: pip install 'dream3d[ui]'")

from ui_assets import finished_job, three_balls_as_splats
from ui_support import SECONDS, ask, serving, wait

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("browser")
    os.environ["GRADIO_TEMP_DIR"] = str(place / "cache")
    return place


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Any]:
    with serving(place / "app") as server:
        yield server


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=SECONDS * 1000)
    path = shutil.which("chromium") or shutil.which("chromium-browser") or "google-chrome"
    with sync_playwright() as playwright:
        swift = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=path, args=swift)
        yield browser
        browser.close()


SLOW = 3 * SECONDS * 1000
"""Milliseconds for what starts a process that imports much, or compiles kernels the first time."""


class Watched:
    """A tab that remembers errors of the page and requests to other machines."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(SECONDS * 1000)
        self.errors: list[str] = []
        self.elsewhere: list[str] = []
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("request", self._note)
        self.address = address

    def _note(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.elsewhere.append(request.url)


@pytest.fixture
def open_tab(chromium: Any, server: Any) -> Iterator[Callable[..., Any]]:
    opened: list[Watched] = []

    def open_one(path: str = "", **options: Any) -> Any:
        watched = Watched(chromium, server.url, **options)
        opened.append(watched)
        watched.tab.goto(server.url + path)
        watched.tab.locator("#dream-generate").wait_for()
        return watched.tab

    yield open_one
    for watched in opened:
        watched.context.close()
        assert watched.errors == [], "the page had an error"
        assert watched.elsewhere == [], "something was fetched from another machine"


def fill_form(tab: Any, prompt: str, steps: int) -> None:
    """The closed-form preset, which needs no weights and takes any words; as fast as keys can be sent."""
    tab.get_by_role("radio", name="Other").check()
    tab.get_by_label("All presets").select_option("gaussian")
    tab.get_by_label("Steps", exact=True).fill(str(steps))
    tab.get_by_label("Prompt", exact=True).fill(prompt)


def job_in(tab: Any) -> str:
    tab.wait_for_url(re.compile(r"job=[0-9a-f]{16}"))
    return str(re.search(r"job=([0-9a-f]{16})", tab.url)[1])  # type: ignore[index]


def test_from_a_prompt_to_files_past_reload_cancel_and_resume(
    open_tab: Callable[..., Any], server: Any
) -> None:
    from playwright.sync_api import expect

    tab = open_tab()
    fill_form(tab, "anything at all", 1500)
    tab.get_by_role("button", name="Generate").click()
    job = job_in(tab)
    status = tab.locator("#job-status")
    expect(status).to_contain_text("step", timeout=SLOW)
    preview = tab.locator("dream-job .d-preview:visible")
    preview.wait_for()
    first = preview.get_attribute("src")
    tab.wait_for_function(
        "first => document.querySelector('dream-job .d-preview').getAttribute('src') !== first",
        arg=first,
    )
    expect(tab.locator(".d-plot")).to_be_visible()
    expect(tab.locator(".d-split .bar")).to_be_visible()
    tab.reload()
    assert job_in(tab) == job
    expect(status).to_contain_text("step")
    tab.get_by_role("button", name="Cancel").click()
    expect(status).to_contain_text("Stopped")
    expect(tab.locator("canvas[data-state=drawn]")).to_be_visible()
    stopped = wait(server, job, "cancelled")
    assert 0 < stopped["step"] < 1500
    tab.get_by_role("button", name="Resume").click()
    expect(status).to_contain_text("Running")
    wait(server, job, "running")
    tab.get_by_role("button", name="Cancel").click()
    again = wait(server, job, "cancelled")
    assert again["step"] >= stopped["step"], "it went on where it was"


def test_gallery_search_compare_rerun_delete(open_tab: Callable[..., Any], server: Any) -> None:
    from playwright.sync_api import expect

    splats = three_balls_as_splats()
    kept = finished_job(server, "zebra in the gallery", splats)
    changed = {"seed": 7, "settings": {"views": 3, "guidance.cfg_scale": 4}}
    gone = finished_job(server, "zebra of tomorrow", splats, **changed)
    tab = open_tab()
    tab.get_by_role("tab", name="Gallery").click()
    tab.get_by_label("Search past runs").fill("zebra")
    items = tab.locator(".d-item")
    expect(items).to_have_count(2)
    for box in tab.locator(".d-item input[type=checkbox]").all():
        box.check()
    tab.get_by_role("button", name="Compare two").click()
    expect(tab.locator(".d-compare canvas[data-state=drawn]")).to_have_count(2)
    table = tab.locator(".d-compare .d-table")
    expect(table).to_contain_text("stages.views")
    expect(table).to_contain_text("seed")
    tab.get_by_label("Look at").select_option("Mesh")
    expect(tab.locator(".d-compare canvas[data-kind=mesh][data-state=drawn]")).to_have_count(2)
    tab.get_by_role("button", name="Back to the gallery").click()
    tab.get_by_role("link", name="Run zebra of tomorrow again with changes").click()
    tab.wait_for_function(
        "document.querySelector('#dream-prompt textarea')?.value === 'zebra of tomorrow'"
    )
    expect(tab.get_by_label("Seed", exact=True)).to_have_value("7")
    tab.locator("summary", has_text="Guidance: sds").click()
    expect(tab.get_by_label("Cfg scale")).to_have_value("4")
    tab.get_by_role("tab", name="Gallery").click()
    tab.get_by_label("Search past runs").fill("tomorrow")
    tab.get_by_role("button", name="Delete zebra of tomorrow").click()
    tab.get_by_role("button", name="Keep it").click()
    assert server.store.exists(gone)
    tab.get_by_role("button", name="Delete zebra of tomorrow").click()
    tab.get_by_role("button", name="Delete it").click()
    expect(items).to_have_count(0)
    assert not server.store.exists(gone) and server.store.exists(kept)


def test_a_changed_setting_reaches_the_run(open_tab: Callable[..., Any], server: Any) -> None:
    tab = open_tab()
    fill_form(tab, "changed", 12)
    tab.locator("summary", has_text="Guidance: sds").click()
    tab.get_by_label("Cfg scale").fill("5 -> 2")
    tab.get_by_label("Prompt", exact=True).press("Enter")
    job = job_in(tab)
    request = ask(server, "GET", f"/api/jobs/{job}").json["job"]["request"]
    schedule = {"initial": 5.0, "final": 2.0}
    assert request["overrides"] == {"steps": 12, "guidance.cfg_scale": schedule}
    config = ask(server, "GET", f"/api/jobs/{job}/details").json["config"]
    assert "steps: 12" in config and "initial: 5.0" in config
    server.store.cancel(job)


def test_mistakes_are_told(open_tab: Callable[..., Any], server: Any) -> None:
    from playwright.sync_api import expect

    tab = open_tab()
    tab.get_by_role("button", name="a red mug").click()
    expect(tab.get_by_label("Prompt", exact=True)).to_have_value("a red mug")
    tab.get_by_label("Prompt", exact=True).fill("a red mgu")
    note = tab.locator("dream-words .d-note")
    expect(note).to_contain_text("“mgu” is not a word this prior knows")
    before = len(server.store.ids())
    tab.get_by_role("button", name="Generate").click()
    expect(tab.get_by_role("alert")).to_contain_text("mgu")
    assert len(server.store.ids()) == before
    note.get_by_role("button", name="mug").click()
    expect(tab.get_by_label("Prompt", exact=True)).to_have_value("a red mug")
    expect(note).to_be_empty()


def test_a_prompt_is_no_markup(open_tab: Callable[..., Any], server: Any) -> None:
    prompt = "<img src=x onerror='window.owned=1'><script>owned=1</script> </textarea><svg onload='owned=1'>"
    job = finished_job(server, prompt, three_balls_as_splats())
    tab = open_tab(f"?job={job}")
    tab.locator("canvas[data-state=drawn]").wait_for()
    assert tab.locator("dream-job h2").inner_text() == prompt
    tab.get_by_role("tab", name="Gallery").click()
    tab.locator(f".d-item[data-job='{job}']").get_by_role("checkbox").check()
    assert tab.locator(f".d-item[data-job='{job}'] b").inner_text() == prompt
    tab.goto(f"{server.url}?from={job}")
    tab.wait_for_function(
        "document.querySelector('#dream-prompt textarea')?.value.startsWith('<img')"
    )
    assert tab.evaluate("window.owned") is None
    server.store.delete(job)
