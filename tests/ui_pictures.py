"""Takes the pictures of docs/ui.md in headless Chromium: `python tests/ui_pictures.py`, some minutes on two cores.

Every picture is of a real server with real runs of the embedded prior at the default preset: what a visitor gets.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright
from ui_support import serving, submit, wait

IMAGES = Path(__file__).parent.parent / "docs" / "images"
PROMPTS = ("a red penguin", "a green snowman", "a blue car", "a yellow duck")
MOST_BYTES = 200_000


def keep(tab: Any, name: str) -> None:
    """A picture of what the window shows, with as few colours as make it small."""
    path = IMAGES / f"ui-{name}.png"
    tab.wait_for_timeout(800)
    tab.screenshot(path=path)
    for colors in (256, 128, 64):
        with Image.open(path) as picture:
            picture.convert("RGB").quantize(colors).save(path, optimize=True)
        if path.stat().st_size < MOST_BYTES:
            break
    print(path, path.stat().st_size)


def take(server: Any, browser: Any) -> None:
    """All of them."""

    def window(width: int = 1280, height: int = 860, scheme: str = "light") -> Any:
        size = {"width": width, "height": height}
        return browser.new_context(viewport=size, color_scheme=scheme).new_page()

    tab = window()
    tab.goto(server.url)
    tab.locator("dream-settings .d-group").first.wait_for()
    keep(tab, "empty")
    tab.get_by_label("Prompt", exact=True).fill(PROMPTS[0])
    tab.get_by_role("button", name="Generate").click()
    tab.locator("dream-job .d-plot").wait_for(timeout=600_000)
    tab.wait_for_function(
        "+document.querySelector('.d-progress').getAttribute('aria-valuenow') > 120",
        timeout=600_000,
    )
    keep(tab, "running")
    tab.locator("canvas[data-state=drawn]").wait_for(timeout=900_000)
    keep(tab, "done")
    done = tab.url.partition("?")[2]
    for prompt in PROMPTS[1:]:
        job = submit(server, prompt, preset="default", settings={})
        wait(server, job, "done", "failed", seconds=1800)
    tab.get_by_role("tab", name="Gallery").click()
    tab.locator(".d-item").nth(3).wait_for()
    keep(tab, "gallery")
    for box in tab.locator(".d-item input[type=checkbox]").all()[:2]:
        box.check()
    tab.get_by_role("button", name="Compare two").click()
    tab.locator(".d-compare canvas[data-state=drawn]").nth(1).wait_for(timeout=60_000)
    keep(tab, "compare")
    tab.get_by_role("tab", name="Batch").click()
    lines = (
        '{"prompt": "a purple castle"}\n{"prompt": "an orange cat"}\n{"prompt": "a red zeppelin"}\n'
    )
    file = {"name": "three.jsonl", "mimeType": "text/plain", "buffer": lines.encode()}
    tab.get_by_label("Or a file").set_input_files(file)
    tab.wait_for_function("document.querySelector('#batch-text').value !== ''")
    tab.get_by_role("button", name="Make them all").click()
    tab.locator("dream-batch .d-item img").first.wait_for(timeout=600_000)
    keep(tab, "batch")
    tab.get_by_role("button", name="Cancel all").click()
    for name, width, height, scheme in (
        ("dark", 1280, 860, "dark"),
        ("phone", 390, 844, "light"),
    ):
        tab = window(width, height, scheme)
        tab.goto(f"{server.url}?{done}")
        tab.locator("canvas[data-state=drawn]").wait_for(timeout=60_000)
        if name == "phone":
            tab.locator("dream-job").scroll_into_view_if_needed()
            tab.evaluate("document.querySelector('dream-job').scrollIntoView()")
        keep(tab, name)


def main() -> None:
    """Serve, look, stop."""
    with tempfile.TemporaryDirectory() as place:
        os.environ["GRADIO_TEMP_DIR"] = f"{place}/cache"
        with serving(Path(place) / "app") as server, sync_playwright() as playwright:
            swift = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
            path = shutil.which("chromium") or "google-chrome"
            browser = playwright.chromium.launch(executable_path=path, args=swift)
            take(server, browser)
            browser.close()


if __name__ == "__main__":
    main()
