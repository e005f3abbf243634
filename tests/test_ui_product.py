"""What a run is worth in the browser: every format saved, measured, one's own, and there after a restart."""

# The fixtures of ui_browser are arguments of the tests.
# ruff: noqa: F811

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the web page is an extra: pip install 'dream3d[ui]'")

from ui_browser import SLOW, Watched, chromium, job_in, open_tab, place, server  # noqa: F401
from ui_support import ENDLESS, ask, serving, submit, wait

from dream3d.ui.security import Access

pytestmark = [pytest.mark.browser, pytest.mark.slow]

BEGINNINGS = {
    "glb": b"glTF",
    "gltf-splat": b"glTF",
    "obj": b"PK\x03\x04",
    "usdz": b"PK\x03\x04",
    "views": b"PK\x03\x04",
    "sog": b"PK\x03\x04",
    "ply": b"ply\n",
    "mesh-ply": b"ply\n",
    "compressed-ply": b"ply\n",
    "gif": b"GIF89a",
    "webm": b"\x1a\x45\xdf\xa3",
    "spz": b"\x1f\x8b",
}


def saved(tab: Any, link: Any) -> bytes:
    """What the browser has when the link was pressed."""
    with tab.expect_download() as download:
        link.click()
    return Path(download.value.path()).read_bytes()


def test_every_format_is_made_and_saved_and_the_run_measured(
    open_tab: Callable[..., Any], server: Any
) -> None:
    small = {"steps": 2, "scene.count": 300, "scene.max_count": 400, "render_size": 32}
    job = submit(server, "a red mug", preset="fast", settings=small)
    done = wait(server, job, "done", "failed")
    assert done["state"] == "done", done["message"]
    tab = open_tab(f"?job={job}")
    tab.locator(".d-formats button").first.wait_for()
    for link in tab.locator(".d-formats a[data-file]").all():
        assert saved(tab, link)
    names = [e["name"] for e in ask(server, "GET", f"/api/jobs/{job}/exports").json["exports"]]
    assert set(BEGINNINGS) <= set(names)
    tab.get_by_role("button", name="Measure").click()
    for name in names:
        tab.locator(f".d-formats button[data-format='{name}']").click()
        row = tab.locator(".d-formats li", has=tab.locator(f"b:text-is('{name}')"))
        row.get_by_text("Making").or_(row.locator("a[data-format]")).wait_for()
    for name in names:
        link = tab.locator(f".d-formats a[data-format='{name}']")
        told = tab.locator(".d-formats .d-problem")
        link.or_(told.first).first.wait_for(timeout=SLOW)
        assert not told.count(), told.first.inner_text()
        content = saved(tab, link)
        assert len(content) > 100 and content.startswith(BEGINNINGS.get(name, b"")), name
    link = tab.locator(".d-formats a[data-format='glb']")
    before = len(saved(tab, link))
    tab.locator(".d-options summary").click()
    tab.get_by_label("Texture size").fill("64")
    again = tab.get_by_role("button", name="Make anew glb")
    again.click()
    again.wait_for(state="detached", timeout=SLOW)
    link.wait_for(timeout=SLOW)
    assert len(saved(tab, link)) < before, "a smaller texture"
    tab.locator(".d-details .d-table").wait_for(timeout=SLOW)
    assert ask(server, "GET", f"/api/jobs/{job}/details").json["evaluation"]


def test_two_users_at_once_see_their_own(chromium: Any, place: Path) -> None:
    from playwright.sync_api import expect

    users = {"ada": "correct horse", "bob": "battery staple"}
    access = Access(users, frozenset({"127.0.0.1"}))
    with serving(place / "users", access, start_jobs=False) as server:
        tabs, jobs = {}, {}
        for name, password in users.items():
            who = {"username": name, "password": password}
            tabs[name] = Watched(chromium, server.url, http_credentials=who).tab
            tabs[name].goto(server.url)
            tabs[name].get_by_label("Prompt", exact=True).fill("a mug")
        for tab in tabs.values():
            tab.get_by_role("button", name="Generate").click()
        for name, tab in tabs.items():
            jobs[name] = job_in(tab)
            assert server.store.status(jobs[name]).request.owner == name
            tab.get_by_role("tab", name="Gallery").click()
            expect(tab.locator(".d-item")).to_have_count(1)
            assert tab.locator(".d-item").get_attribute("data-job") == jobs[name]
        assert jobs["ada"] != jobs["bob"]
        tabs["bob"].goto(f"{server.url}?job={jobs['ada']}")
        expect(tabs["bob"].locator("dream-job h2")).to_have_text("This job is not there")
        tabs["bob"].goto(f"{server.url}?from={jobs['ada']}")
        expect(tabs["bob"].get_by_role("alert")).to_contain_text("there is no such job")
        for tab in tabs.values():
            tab.context.close()


def test_a_list_of_prompts_is_made(
    open_tab: Callable[..., Any], server: Any, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    file = tmp_path / "list.csv"
    file.write_text(
        "prompt,scene,steps\none,canvas,5\ntwo,canvas,5\nthree,cube,5\nlong,canvas,1000000\n"
    )
    tab = open_tab()
    tab.get_by_role("tab", name="Batch").click()
    tab.get_by_label("Or a file").set_input_files(file)
    expect(tab.get_by_label("Prompts", exact=True)).to_have_value(file.read_text())
    tab.get_by_label("Preset of lines that do not say").select_option("gaussian")
    tab.get_by_role("button", name="Make them all").click()
    rows = tab.locator("dream-batch tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.nth(2)).to_contain_text("cube")
    expect(tab.locator("dream-batch tr[data-state=done]")).to_have_count(2, timeout=SLOW)
    expect(rows.nth(3)).to_contain_text("running", timeout=SLOW)
    expect(tab.locator("dream-batch .d-item img")).not_to_have_count(0)
    tab.get_by_role("button", name="Cancel all").click()
    expect(rows.nth(3)).to_contain_text("cancelled", timeout=SLOW)
    expect(tab.get_by_role("button", name="Cancel all")).to_have_count(0, timeout=SLOW)
    table = saved(tab, tab.get_by_role("link", name="results.csv")).decode()
    assert saved(tab, tab.get_by_role("link", name="contact.png")).startswith(b"\x89PNG")
    sheet = saved(tab, tab.get_by_role("link", name="contact.html"))
    assert sheet.count(b"data:image/png;base64,") >= 2
    assert [line.split(",")[7] for line in table.splitlines()[1:]].count("done") == 2


def test_a_mesh_and_a_picture_are_sent_with_the_form(
    open_tab: Callable[..., Any], server: Any, tmp_path: Path
) -> None:
    import trimesh
    from PIL import Image

    box, red = tmp_path / "box.glb", tmp_path / "red.png"
    trimesh.creation.box().export(box)
    Image.new("RGB", (32, 32), "white").save(red)
    with Image.open(red) as picture:
        picture.paste((255, 0, 0), (8, 8, 24, 24))
        picture.save(red)
    tab = open_tab()
    tab.get_by_label("Prompt", exact=True).fill("a mug")
    tab.get_by_role("radio", name="Other").check()
    tab.get_by_label("All presets").select_option("texture")
    tab.locator("summary", has_text="Representation: mesh").click()
    tab.get_by_label("Mesh: a file of yours").set_input_files(box)
    tab.get_by_label("Picture to follow").set_input_files(red)
    tab.get_by_role("button", name="Generate").click()
    job = job_in(tab)
    server.store.cancel(job)
    overrides = ask(server, "GET", f"/api/jobs/{job}").json["job"]["request"]["overrides"]
    assert Path(overrides["scene.mesh"]).read_bytes() == box.read_bytes()
    assert Path(overrides["reference.image"]).read_bytes() == red.read_bytes()


def test_a_restarted_server_is_found_again(chromium: Any, place: Path) -> None:
    from playwright.sync_api import expect

    root = place / "restarted"
    with serving(root, end_jobs=False) as first:
        job = submit(first, "it lives on", settings=ENDLESS)
        wait(first, job, "running")
        port = int(first.url.rstrip("/").rpartition(":")[2])
        tab = Watched(chromium, first.url).tab
        tab.goto(f"{first.url}?job={job}")
        expect(tab.locator("#job-status")).to_contain_text("step", timeout=SLOW)
        tab.get_by_label("Prompt", exact=True).fill("typed before")
    expect(tab.locator(".d-lost")).to_contain_text("does not answer")
    with serving(root, port=port) as second:
        expect(tab.locator(".d-lost")).to_be_empty()
        expect(tab.locator("#job-status")).to_contain_text("step")
        tab.get_by_role("button", name="Cancel").click()
        wait(second, job, "cancelled")
        expect(tab.locator("#job-status")).to_contain_text("Stopped")
        tab.get_by_role("button", name="Generate").click()
        expect(tab.get_by_role("alert")).to_contain_text("'typed'")
        tab.context.close()
