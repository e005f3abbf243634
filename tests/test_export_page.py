"""The self-contained page, opened in Chromium: something is drawn, upright, and nothing leaves the machine."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from axes_asset import MeshAsset
from PIL import Image

from dream3d.export import About, Asset, ExportOptions, export_asset

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def places(picture: np.ndarray) -> dict[str, tuple[float, float]]:
    """Mean (row, column) of the pixels in which one colour rules."""
    r, g, b = picture[..., :3].astype(float).transpose(2, 0, 1)
    masks = {
        "red": (r > 90) & (r > 2 * g) & (r > 2 * b),
        "blue": (b > 90) & (b > 2 * r) & (b > 2 * g),
        "green": (g > 90) & (g > 2 * r) & (g > 2 * b),
        "yellow": (r > 90) & (g > 90) & (b < 80),
    }
    assert all(mask.sum() > 30 for mask in masks.values()), {k: m.sum() for k, m in masks.items()}
    return {name: tuple(np.argwhere(mask).mean(axis=0)) for name, mask in masks.items()}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "asset ünï.html"
    asset = Asset(MeshAsset(), About(prompt="<img src=x onerror=alert(1)>"))
    export_asset(asset, "html", path, ExportOptions(texture_size=256))
    return path


@pytest.mark.parametrize("kind", ["splats", "mesh"])
def test_the_page_shows_the_asset_upright_and_asks_nobody(file: Path, kind: str) -> None:
    from playwright.sync_api import sync_playwright

    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    arguments = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=next(filter(None, found)), args=arguments)
        page = browser.new_page(viewport={"width": 480, "height": 400})
        errors: list[str] = []
        requests: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{file.as_uri()}#{kind},still")
        page.wait_for_selector(f"html[data-drawn={kind}]", state="attached", timeout=120_000)
        page.wait_for_timeout(1000)
        shown = places(np.asarray(Image.open(io.BytesIO(page.screenshot()))))
        title = page.locator("h1").inner_text()
        page.keyboard.press("Tab")
        browser.close()
    assert shown["red"][0] < shown["blue"][0], "red is above blue"
    assert shown["green"][1] > shown["blue"][1], (
        "the arm at +X is on the right, seen from the front"
    )
    assert title == "<img src=x onerror=alert(1)>"
    assert errors == [] and {url.split("#")[0] for url in requests} == {file.as_uri()}
