"""The page for everybody: axe-core finds nothing serious, the keyboard reaches everything, a phone is wide enough."""

# The fixtures of ui_browser are arguments of the tests.
# ruff: noqa: F811

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the web page is an extra: pip install 'dream3d[ui]'")

from ui_assets import finished_job, three_balls_as_splats
from ui_browser import chromium, job_in, open_tab, place, server  # noqa: F401
from ui_support import ask

pytestmark = [pytest.mark.browser, pytest.mark.slow]

AXE = Path(__file__).parent / "node" / "node_modules" / "axe-core" / "axe.min.js"
TABS = {
    "Create": "dream-job",
    "Batch": "dream-batch textarea",
    "Gallery": ".d-item",
    "API": "dream-api table",
}
# What has the focus, and whether one can see it: by a ring, its own or its label's.
FOCUS = """() => {
    const ring = (element) => {
        const style = getComputedStyle(element);
        return (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none";
    };
    const focused = document.activeElement;
    const label = focused.closest("label");
    const name = focused.id || focused.getAttribute("aria-label") || focused.textContent.trim().slice(0, 30);
    return [name, focused === document.body || ring(focused) || (label !== null && ring(label))];
}"""


@pytest.mark.node
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_tab: Callable[..., Any], server: Any, scheme: str) -> None:
    job = finished_job(server, f"for {scheme} axes", three_balls_as_splats())
    tab = open_tab(f"?job={job}", color_scheme=scheme)
    tab.locator("canvas[data-state=drawn]").wait_for()
    tab.locator(".d-formats a").first.wait_for()
    tab.locator("dream-settings summary").first.click()
    assert tab.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    tab.evaluate(AXE.read_text(encoding="utf-8"))
    for name, there in TABS.items():
        tab.get_by_role("tab", name=name, exact=True).click()
        tab.locator(there).first.wait_for()
        found = tab.evaluate("axe.run()")["violations"]
        serious = [
            (rule["id"], [(node["html"][:200], node["failureSummary"]) for node in rule["nodes"]])
            for rule in found
            if rule["impact"] in ("serious", "critical")
        ]
        assert serious == [], f"{name}, {scheme}"


def test_without_a_mouse(open_tab: Callable[..., Any], server: Any) -> None:
    tab = open_tab()
    tab.locator("#setting-guidance-cfg_scale").wait_for(state="attached")
    reached: dict[str, bool] = {}

    def tab_to(wanted: str) -> None:
        for _ in range(60):
            tab.keyboard.press("Tab")
            name, visible = tab.evaluate(FOCUS)
            reached[name] = visible
            if name.startswith(wanted):
                return
        raise AssertionError(f"the keyboard does not reach {wanted}: {list(reached)}")

    tab_to("Dark colours")
    tab_to("Create")
    tab.locator("#dream-prompt :is(textarea, input)").evaluate("e => (e.id = 'the-prompt')")
    tab_to("the-prompt")
    tab.keyboard.type("a blue car")
    tab_to("dream-generate")
    tab_to("dream-speed-default")
    tab.keyboard.press("ArrowLeft")
    tab_to("dream-steps")
    tab.keyboard.press("Control+A")
    tab.keyboard.type("3")
    tab_to("dream-guidance")
    tab_to("Guidance: sds")
    tab.keyboard.press("Enter")
    tab_to("setting-guidance-cfg_scale")
    tab.keyboard.press("Control+A")
    tab.keyboard.type("5")
    unseen = [name for name, visible in reached.items() if not visible]
    assert unseen == [], "one cannot see that these have the focus"
    tab.locator("#the-prompt").focus()
    tab.keyboard.press("Enter")
    job = job_in(tab)
    server.store.cancel(job)
    request = ask(server, "GET", f"/api/jobs/{job}").json["job"]["request"]
    assert (request["prompt"], request["preset"]) == ("a blue car", "fast")
    assert request["overrides"] == {"steps": 3, "guidance.cfg_scale": 5.0}


@pytest.mark.parametrize("width", [390, 320])
def test_a_phone_is_wide_enough(open_tab: Callable[..., Any], server: Any, width: int) -> None:
    from playwright.sync_api import expect

    job = finished_job(server, "on a phone", three_balls_as_splats())
    tab = open_tab(f"?job={job}")
    tab.set_viewport_size({"width": width, "height": 740})
    tab.locator("canvas[data-state=drawn]").wait_for()
    tab.locator("dream-settings summary").first.click()
    # Gradio puts tabs that it takes for too many into a menu, where they are no tabs any more.
    expect(tab.locator("#dream-tabs > .tab-wrapper [role=tab]")).to_have_count(len(TABS))
    for name, there in TABS.items():
        tab.get_by_role("tab", name=name, exact=True).click()
        tab.locator(there).first.wait_for()
        wide = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{name} is wider than a phone by {wide}"
