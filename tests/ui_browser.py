"""Headless Chromium for the tests of the page: tabs that remember errors and requests to other machines."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ui_support import SECONDS, serving


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
