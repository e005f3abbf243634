"""Batches over HTTP: lines that can be made are queued, the others told; nobody sees another's."""

import base64
import csv
import html
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the web page is an extra: pip install 'dream3d[ui]'")

from ui_support import ask, serving

from dream3d.batch.summary import TEXT, TILE
from dream3d.errors import ConfigError
from dream3d.jobs import JobStore
from dream3d.ui.batches import FILES, MOST_ASSETS, Batches
from dream3d.ui.jobs import UserJobs
from dream3d.ui.tasks import Tasks

LIST = """prompt,seed,preset,steps
a mug,1,gaussian,5
a qwertz,2,,
a car,3,gaussian,none
"=cmd|' /C calc'!A0",4,gaussian,5
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    place = tmp_path_factory.mktemp("batches")
    os.environ["GRADIO_TEMP_DIR"] = str(place / "cache")
    with serving(place / "app", start_jobs=False) as server:
        yield server


def test_a_list_becomes_jobs_and_a_table(server: Any) -> None:
    sent = {"name": "../../list.csv", "text": LIST}
    answer = ask(server, "POST", "/api/batches", sent)
    assert answer.status == 201, answer.body
    batch = answer.json["batch"]
    assert [item["state"] for item in batch["items"]] == ["queued", "failed", "failed", "queued"]
    assert "qwertz" in batch["items"][1]["problem"] and "steps" in batch["items"][2]["problem"]
    job = ask(server, "GET", f"/api/jobs/{batch['items'][0]['job']}").json["job"]
    assert (job["request"]["prompt"], job["request"]["seed"], job["steps"]) == ("a mug", 1, 5)
    assert job["tags"] == {"batch": batch["id"], "line": 2}
    places = {path.parent.parent for path in server.store.root.rglob("batch.json")}
    assert places == {server.store.root / "batches"}, "the list's name is no path"
    answer = ask(server, "POST", f"/api/batches/{batch['id']}/cancel", {})
    assert answer.json["batch"]["states"] == {"cancelled": 2, "failed": 2}
    assert answer.json["batch"]["ended"]
    answer = ask(server, "GET", f"/api/batches/{batch['id']}/results.csv")
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert [row["state"] for row in rows] == ["cancelled", "failed", "failed", "cancelled"]
    assert rows[3]["prompt"].startswith("'="), "no formula for a spreadsheet"
    assert batch["id"] in [b["id"] for b in ask(server, "GET", "/api/batches").json["batches"]]


def test_the_contact_sheet_is_one_file(server: Any) -> None:
    """In HTML with the pictures in it, so that it shows wherever it is saved, and nothing that runs or is fetched."""
    evil = "<img src=x onerror=alert(1)> & a mug"
    text = json.dumps(evil) + '\n"a car"\n{"prompt": "none", "steps": 0}'
    sent = {"name": "two.jsonl", "text": text, "preset": "gaussian"}
    batch = ask(server, "POST", "/api/batches", sent).json["batch"]
    first = server.store.root / batch["items"][0]["job"] / "run"
    first.mkdir()
    Image.new("RGB", (128, 64), (250, 0, 0)).save(first / "preview.png")
    answer = ask(server, "GET", f"/api/batches/{batch['id']}/contact.html")
    page = answer.body.decode()
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-security-policy"].startswith("sandbox")
    assert html.escape(evil) in page and evil not in page and "2 queued, 1 failed" in page
    picture = base64.b64encode((first / "preview.png").read_bytes()).decode()
    assert [*re.findall(r'(?:src|href)="([^"]*)"', page)] == [f"data:image/png;base64,{picture}"]
    answer = ask(server, "GET", f"/api/batches/{batch['id']}/contact.png")
    with Image.open(io.BytesIO(answer.body)) as sheet:
        assert sheet.size == (3 * TILE, TILE + TEXT)
        assert sheet.getpixel((80, 80)) == (250, 0, 0) != sheet.getpixel((240, 80))
    assert ask(server, "GET", f"/api/batches/{batch['id']}/batch.json").status == 404


@pytest.mark.parametrize(
    ("sent", "what"),
    [
        ({"text": "a mug", "out": "/tmp"}, "a batch is an object of"),
        ({"text": ["a mug"]}, "text must be text"),
        ({"text": ""}, "prompts.txt holds no prompts"),
        ({"text": "x", "name": "list.exe"}, "list.exe is neither .txt"),
        ({"text": "name\nx", "name": "a.csv"}, "it must name the columns"),
        ({"text": "a mug", "seeds": "one"}, "choose integers"),
        ({"text": "\n".join(map(str, range(MOST_ASSETS + 1))), "preset": "gaussian"}, "at most 100"),
    ],
)  # fmt: skip
def test_lists_that_cannot_be_meant(server: Any, sent: Any, what: str) -> None:
    before = len(server.store.ids())
    answer = ask(server, "POST", "/api/batches", sent)
    assert answer.status == 422 and what in answer.message, answer.body
    assert str(server.store.root) not in answer.message
    assert len(server.store.ids()) == before


@pytest.mark.parametrize("batch", ["..", "%2e%2e", "0" * 16, "batch.json"])
def test_batches_that_are_none(server: Any, batch: str) -> None:
    for path in ("", *(f"/{name}" for name in FILES), "/batch.json", "/..%2fbatch.json"):
        path = f"/api/batches/{batch}{path}"
        assert ask(server, "GET", path).status in (404, 405)


def test_nobody_sees_anothers(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    store.tend = list  # type: ignore[method-assign]
    batches = Batches(UserJobs(store, Tasks(store)))
    batch = batches.submit({"text": "a mug", "preset": "gaussian"}, "ada")
    assert batches.listed("bob") == [] and len(batches.listed("ada")) == 1
    files = [lambda *own, name=name: batches.file(*own, name) for name in FILES]
    for act in (batches.get, batches.cancel, *files):
        with pytest.raises(ConfigError, match="there is no such batch"):
            act(batch, "bob")
    assert store.status(batches.get(batch, "ada")["items"][0]["job"]).request.owner == "ada"
