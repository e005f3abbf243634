"""Both viewers in a browser: not blank, the right way up, and splats the same picture as our own renderer's."""

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("gradio", reason="the web page is an extra: pip install 'dream3d[ui]'")

from ui_assets import finished_job, random_splats, three_balls_as_splats
from ui_support import SECONDS, serving

from dream3d.cameras import orbit_cameras
from renderers.splats import render_splats

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    place = tmp_path_factory.mktemp("viewers")
    os.environ["GRADIO_TEMP_DIR"] = str(place / "cache")
    with serving(place / "app", start_jobs=False) as server:
        yield server


@pytest.fixture(scope="module")
def tab(server: Any) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or "google-chrome"
    with sync_playwright() as playwright:
        swift = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=chromium, args=swift)
        tab = browser.new_page(viewport={"width": 1200, "height": 900})
        tab.set_default_timeout(SECONDS * 1000)
        yield tab
        browser.close()


def picture(tab: Any, kind: str) -> np.ndarray:
    """What the viewer shows over black, [H, W, 3] in [0, 1]."""
    canvas = tab.locator(f"canvas[data-kind={kind}][data-state=drawn]")
    canvas.wait_for()
    tab.add_style_tag(
        content=".d-viewer{background:#000!important} .d-viewer-status,.d-viewer-tools{display:none!important}"
    )
    tab.evaluate(
        "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    return np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")) / 255.0


def centre(shown: np.ndarray, channel: int) -> tuple[float, float]:
    """Row and column of what is mostly of one colour, as fractions."""
    others = np.delete(shown, channel, axis=2).max(axis=2)
    rows, columns = np.nonzero(shown[..., channel] > others + 0.25)
    assert len(rows) > 200, "the colour is not there"
    return rows.mean() / shown.shape[0], columns.mean() / shown.shape[1]


@pytest.mark.parametrize("kind", ["splats", "mesh"])
def test_red_is_above_blue_and_green_to_the_right(server: Any, tab: Any, kind: str) -> None:
    job = finished_job(server, "three balls", three_balls_as_splats())
    tab.goto(f"{server.url}?job={job}")
    tab.get_by_role("tab", name=kind.capitalize()).click()
    shown = picture(tab, kind)
    assert shown.std() > 0.05, "blank"
    red, green, blue = (centre(shown, channel) for channel in range(3))
    assert red[0] < 0.45 < 0.55 < blue[0]
    assert green[1] > 0.55
    assert abs(red[1] - 0.5) < 0.05 and abs(blue[1] - 0.5) < 0.05
    canvas = tab.locator(f"canvas[data-kind={kind}]")
    canvas.focus()
    for _ in range(18):
        tab.keyboard.press("ArrowRight")
    turned = picture(tab, kind)
    assert centre(turned, 1)[1] < 0.45, "the other side: +X is now on the left"
    assert centre(turned, 0)[0] < centre(turned, 2)[0]
    tab.keyboard.press("Home")
    assert np.abs(picture(tab, kind) - shown).mean() < 0.01, "Home is where it began"


def test_splats_look_as_our_renderer_draws_them(server: Any, tab: Any, tmp_path: Path) -> None:
    splats = random_splats()
    job = finished_job(server, "all shapes", splats)
    tab.goto(f"{server.url}?job={job}")
    shown = picture(tab, "splats")
    height, width = shown.shape[:2]
    # The viewer's field of view is that of the shorter side.
    side = min(height, width)
    fovy = float(2 * np.rad2deg(np.arctan(np.tan(np.deg2rad(20)) * height / side)))
    angles = [float(np.rad2deg(angle)) for angle in (0.5, 0.25)]
    cameras = orbit_cameras([angles[0]], angles[1], 3.4, fovy, (height, width))
    with torch.no_grad():
        ours = render_splats(splats, cameras, antialias=True).rgb[0].clamp(0, 1).numpy()
    # The window's corners are round.
    difference = np.abs(shown - ours)[24:-24, 24:-24]
    assert ours.std() > 0.1
    # An 8-bit canvas clips every splat brighter than white, our renderer only their sum: measured 0.0094 and 0.114.
    assert difference.mean() < 0.012
    assert np.quantile(difference, 0.99) < 0.15


def test_a_damaged_file_is_told(server: Any, tab: Any) -> None:
    job = finished_job(server, "damaged", three_balls_as_splats())
    run = server.store.root / job / "run"
    (run / "asset.ply").write_bytes((run / "asset.ply").read_bytes()[:5000])
    (run / "asset.glb").write_bytes(b"PK\x03\x04 not a GLB at all, whatever it says")
    tab.goto(f"{server.url}?job={job}")
    status = tab.locator(".d-viewer-status")
    status.get_by_text("the file is cut short").wait_for()
    tab.get_by_role("tab", name="Mesh").click()
    tab.locator(".d-viewer-status").get_by_text("this is no GLB file").wait_for()
