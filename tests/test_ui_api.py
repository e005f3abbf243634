"""The HTTP API: a job's whole life over it, the documented client, and a command that means the same run."""

import dataclasses
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the web page is an extra: pip install 'dream3d[ui]'")

from ui_support import ask, serving, submit, wait

from dream3d.config import load_config
from dream3d.export.formats.base import CHANNELS, LIMITS, ExportOptions
from dream3d.jobs import JobRequest
from dream3d.ui.command import shell_command
from dream3d.ui.words import check_prompt

DOCS = Path(__file__).parent.parent / "docs" / "ui.md"


@pytest.mark.parametrize(
    "prompt", ["a mug", "--help", "it's $HOME `id`", "a=b", "zwei\nZeilen", "steps=3"]
)
def test_the_command_means_the_same_run(prompt: str) -> None:
    overrides = {
        "guidance": "ism",
        "guidance.cfg_scale": {"initial": 5.0, "final": 2.0},
        "guidance.weight": "sigma",
        "cameras.elevation_deg": [-5.0, 40.0],
        "scene.antialias": False,
        "steps": 7,
    }
    request = JobRequest(prompt, "fast", 3, "-no; rm", overrides)
    words = shlex.split(shell_command(request))
    assert words[:2] == ["dream3d", "generate"] and words[-2:] == ["--", prompt]
    settings = [word for word in words[2:-2] if re.match(r"[a-z][\w.]*=", word)]
    options = [word for word in words[2:-2] if word not in settings]
    assert options == ["--preset", "fast", "--seed", "3", "--negative=-no; rm"]
    theirs = load_config("fast", settings, prompt, "-no; rm", 3)
    assert theirs == load_config("fast", overrides, prompt, "-no; rm", 3)


def test_unknown_words_have_neighbours() -> None:
    note = check_prompt("a red mgu")
    assert not note.known and note.unknown == {"mgu": note.unknown["mgu"]}
    assert note.unknown["mgu"][0] == "mug"
    assert check_prompt("a red mug").known and check_prompt("").known
    assert check_prompt("whatever", "gaussian").known


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Any]:
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path / "cache")
    with serving(tmp_path / "app") as server:
        yield server


@pytest.mark.slow
def test_the_life_of_a_job(server: Any) -> None:
    job = submit(server, "a mug", settings={"scene": "canvas", "steps": 5})
    done = wait(server, job, "done", "failed")
    assert done["state"] == "done", done["message"]
    assert (done["step"], done["steps"], done["can_resume"]) == (5, 5, False)
    steps = ask(server, "GET", f"/api/jobs/{job}/steps").json
    assert [point["step"] for point in steps["points"]] == [1, 2, 3, 4, 5] and steps["phases"]
    events = ask(server, "GET", f"/api/jobs/{job}/events").json
    assert [event["event"] for event in events["events"]][:2] == ["queued", "started"]
    later = ask(server, "GET", f"/api/jobs/{job}/events?after={events['next']}").json
    assert later["events"] == []
    found = ask(server, "GET", "/api/jobs?search=mug+gaussian").json
    assert found["total"] == 1 and found["jobs"][0]["id"] == job
    assert ask(server, "GET", "/api/jobs?search=teapot").json["total"] == 0
    picture = ask(server, "GET", f"/api/jobs/{job}/files/preview.png?save=1")
    assert picture.body.startswith(b"\x89PNG")
    assert f"a-mug-{job[:6]}-preview.png" in picture.headers["content-disposition"]
    assert ask(server, "POST", f"/api/jobs/{job}/resume", {}).status == 422
    assert ask(server, "DELETE", f"/api/jobs/{job}").status == 200
    assert ask(server, "GET", f"/api/jobs/{job}").status == 404


@pytest.mark.slow
def test_the_documented_client(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of docs/ui.md, word for word but for the address and a preset that takes seconds."""
    code = DOCS.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    code = code.replace("http://127.0.0.1:7860", server.url.rstrip("/"))
    assert '"preset": "fast"' in code
    code = code.replace('"preset": "fast"', '"preset": "gaussian"')
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    exec(compile(code, "docs/ui.md", "exec"), namespace)
    assert namespace["job"]["state"] == "done", namespace["job"]["message"]
    assert (tmp_path / "mug.glb").read_bytes()[:4] == b"glTF"


def test_the_documented_routes_exist() -> None:
    """Every request of the table is one the server answers."""
    from dream3d.jobs import JobStore
    from dream3d.ui.api import build_api
    from dream3d.ui.jobs import UserJobs
    from dream3d.ui.tasks import Tasks

    store = JobStore(Path("nowhere"))
    ours = {
        (method, route.path)  # type: ignore[attr-defined]
        for route in build_api(UserJobs(store, Tasks(store))).routes
        for method in route.methods  # type: ignore[attr-defined]
    }
    documented = set()
    for method, path in re.findall(r"`(GET|POST|DELETE) (/api/[^`?]+)", DOCS.read_text("utf-8")):
        path = re.sub(r"\b(FORMAT|NAME)\b", "{name}", path).replace("ID", "{job}")
        path = path.replace("batches/{job}", "batches/{batch}")
        documented.add((method, path.replace("KIND", "{kind}")))
    assert len(documented) > 10
    assert documented <= ours, documented - ours


def test_a_preset_for_gpus_is_refused_where_there_is_none(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    form = ask(server, "GET", "/api/form?preset=gpu-fast").json["form"]
    assert "torch sees no such GPU here" in form["refused"]
    assert ask(server, "GET", "/api/form?preset=fast").json["form"]["refused"] == ""
    gpu = {preset["name"] for preset in form["presets"] if preset["gpu"]}
    assert gpu == {"gpu-fast", "gpu-balanced", "gpu-quality"}
    answer = ask(server, "POST", "/api/form", {"prompt": "a mug", "preset": "gpu-fast"})
    assert answer.status == 422 and answer.message.startswith("device is 'cuda'")


def test_the_options_of_exports_are_those_of_the_command(server: Any) -> None:
    job = submit(server, "a mug")
    options = ask(server, "GET", f"/api/jobs/{job}/exports").json["options"]
    found = {option["path"]: option for option in options}
    assert list(found) == [field.name for field in dataclasses.fields(ExportOptions)]
    assert (found["faces"]["low"], found["faces"]["high"]) == LIMITS["faces"]
    assert found["channel"]["choices"] == list(CHANNELS) and found["watertight"]["kind"] == "switch"
    assert all(option["help"] for option in options)
