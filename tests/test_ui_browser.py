"""The page in headless Chromium, end to end: from a prompt to files, past a reload, a stop and a resume."""

# The fixtures of ui_browser are arguments of the tests.
# ruff: noqa: F811

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the web page is an extra: pip install 'dream3d[ui]'")

from ui_assets import finished_job, three_balls_as_splats
from ui_browser import (  # noqa: F401
    SLOW,
    chromium,
    fill_form,
    job_in,
    open_tab,
    place,
    server,
)
from ui_support import ask, wait

pytestmark = [pytest.mark.browser, pytest.mark.slow]


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


def test_what_is_typed_outlives_answers_that_come_late(
    open_tab: Callable[..., Any], server: Any
) -> None:
    """The server's description of the form is held back until all is typed and pressed."""
    tab = open_tab()
    # The first answer brings the names of the presets; on a fast machine it may not be there yet.
    tab.locator("#dream-preset option").first.wait_for(state="attached")
    tab.get_by_label("Steps", exact=True).fill("7")
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    tab.route("**/api/form?*", hold)
    fill_form(tab, "typed ahead", 12)
    tab.get_by_label("Noise levels", exact=True).select_option("flow")
    tab.locator("summary", has_text="Views").click()
    tab.get_by_label("Preview every").fill("5")
    tab.get_by_role("button", name="Generate").click()
    tab.wait_for_timeout(300)
    assert "job=" not in tab.url and len(held) >= 2
    for route in held:
        route.continue_()
    tab.unroute("**/api/form?*")
    request = ask(server, "GET", f"/api/jobs/{job_in(tab)}").json["job"]["request"]
    assert request["preset"] == "gaussian" and request["prompt"] == "typed ahead"
    assert request["overrides"] == {"time": "flow", "steps": 12, "preview_every": 5}
    server.store.cancel(job_in(tab))


def test_a_setting_outlives_another_choice_of_part(
    open_tab: Callable[..., Any], server: Any
) -> None:
    from playwright.sync_api import expect

    tab = open_tab()
    tab.locator("summary", has_text="Guidance: sds").click()
    tab.get_by_label("Cfg scale").fill("42")
    tab.locator("#setting-guidance-rescale").fill("0.25")  # the guider has a rescale too
    expect(tab.locator("[data-group=guidance] summary")).to_contain_text("2 changed")
    tab.get_by_label("Guidance", exact=True).select_option("ism")
    expect(tab.locator("[data-group=guidance] summary")).to_contain_text("Guidance: ism")
    expect(tab.get_by_label("Cfg scale")).to_have_value("42")
    tab.get_by_label("Fast", exact=True).check()
    expect(tab.locator("[data-group=guidance] summary")).to_have_text("Guidance: sds")
    expect(tab.get_by_label("Cfg scale")).not_to_have_value("42")


def test_a_press_the_moment_the_button_is_there(chromium: Any, server: Any) -> None:
    context = chromium.new_context()
    context.add_init_script(
        """const early = setInterval(() => {
            const button = document.querySelector("#dream-generate");
            const prompt = document.querySelector("#dream-prompt textarea, #dream-prompt input");
            if (!button || !prompt) return;
            clearInterval(early);
            prompt.value = "a red mug";
            prompt.dispatchEvent(new Event("input", { bubbles: true }));
            button.click();
            button.click();
        }, 0);"""
    )
    before = len(server.store.ids())
    tab = context.new_page()
    tab.goto(server.url)
    server.store.cancel(job_in(tab))
    assert len(server.store.ids()) == before + 1, "a double press is one job"
    context.close()


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


def test_a_refusal_outlives_what_the_form_asks(
    open_tab: Callable[..., Any], server: Any, tmp_path: Path
) -> None:
    """The form asks about steps a moment after they are typed; its answer wiped the refusal of a press before it."""
    from playwright.sync_api import expect

    tab = open_tab()
    place = tab.locator("#dream-generate").bounding_box()
    fill_form(tab, "anything at all", 0)
    tab.get_by_role("button", name="Generate").click()
    expect(tab.get_by_role("alert")).to_contain_text("steps is 0; give a whole number from 1 to")
    tab.wait_for_timeout(1500)
    expect(tab.get_by_role("alert")).to_contain_text("steps is 0")
    assert tab.locator("#dream-generate").bounding_box() == place, "the button moved while typing"
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(50 * 2**20 + 1)
    tab.locator("#dream-image").set_input_files(large)
    expect(tab.locator("#dream-image-status")).to_contain_text("at most 52.4 MB are taken")


def test_two_tabs_of_one_job_agree(open_tab: Callable[..., Any], server: Any) -> None:
    """Where one stopped it, the other may go on; the first one said Stopped for ever."""
    from playwright.sync_api import expect

    one = open_tab()
    fill_form(one, "in two tabs", 100_000)
    one.get_by_role("button", name="Generate").click()
    job = job_in(one)
    other = open_tab(f"?job={job}")
    other.get_by_role("button", name="Cancel").click()
    for tab in (one, other):
        expect(tab.locator("#job-status")).to_contain_text("Stopped")
    other.locator("#job-resume").hover()
    other.wait_for_timeout(400)
    accent = "getComputedStyle(document.querySelector('#job-resume')).borderTopColor"
    assert other.evaluate(f"{accent} === {accent.replace('borderTopColor', 'backgroundColor')}"), (
        "white letters on a light ground"
    )
    other.locator("#job-resume").click()
    expect(one.locator("#job-status")).not_to_contain_text("Stopped")
    server.store.cancel(job)


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
