"""What the server must refuse: each attack is made on a running server, by plain sockets where clients are polite."""

import gzip
import io
import json
import os
import socket
import struct
import urllib.parse
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the web page is an extra: pip install 'dream3d[ui]'")

from ui_support import Answer, ask, basic, serving, submit

from dream3d.config import load_config
from dream3d.errors import ConfigError, Dream3DError
from dream3d.generation import generate_run
from dream3d.priors.base import PRIORS
from dream3d.ui import security
from dream3d.ui.jobs import file_settings
from dream3d.ui.security import MAX_BODY, MAX_UPLOAD, UPLOADS, Access, read_users

SECRET = "a secret that nobody may read"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a secret beside the jobs' root."""
    place = tmp_path_factory.mktemp("ui")
    (place / "secret.txt").write_text(SECRET)
    return place


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Any]:
    os.environ["GRADIO_TEMP_DIR"] = str(place / "cache")
    with serving(place / "app", start_jobs=False) as server:
        yield server


@pytest.fixture(scope="module")
def job(server: Any) -> str:
    """A queued job with a run directory that holds a file to serve and one not to."""
    job = submit(server, "a mug")
    run = server.store.root / job / "run"
    run.mkdir()
    (run / "config.yaml").write_text("harmless")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "step.safetensors").write_text(SECRET)
    (server.store.root / job / "exports").mkdir()
    (server.store.root / job / "exports" / "export-html.html").write_text("<script>1</script>")
    (server.store.root / job / "exports" / ".hidden").write_text(SECRET)
    (server.store.root / job / "exports" / "link.txt").symlink_to(
        run.parent.parent.parent / "secret.txt"
    )
    return job


def raw(server: Any, request: bytes) -> bytes:
    """Whatever the server answers to these bytes."""
    host, port = server.url.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(request)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except (ConnectionResetError, TimeoutError):
            pass
    return answer


TRAVERSALS = [
    "..", "../job.json", "../../secret.txt", "..%2f..%2fsecret.txt", "%2e%2e/%2e%2e/secret.txt",
    "....//secret.txt", "%252e%252e%252fsecret.txt", "..\\..\\secret.txt", "config.yaml%00.png",
    "checkpoints/step.safetensors", "checkpoints%2fstep.safetensors", ".hidden", "/etc/hostname",
    "%2fetc%2fhostname", "config.yaml/../../../secret.txt", "CONFIG.YAML", "link.txt",
]  # fmt: skip


@pytest.mark.parametrize("name", TRAVERSALS)
def test_no_file_but_the_jobs_own(server: Any, job: str, name: str) -> None:
    for path in (f"/api/jobs/{job}/files/{name}", f"/static/{name}", f"/gradio_api/file={name}"):
        answer = ask(server, "GET", urllib.parse.quote(path, safe="/%=\\."))
        assert answer.status in (403, 404, 405, 421, 422), (path, answer.status)
        assert SECRET.encode() not in answer.body
    assert ask(server, "GET", f"/api/jobs/{job}/files/config.yaml").body == b"harmless"


@pytest.mark.parametrize("path", ["secret.txt", "app/*/job.json", "app/*/run/config.yaml"])
def test_gradio_serves_no_file_of_the_machine(
    server: Any, job: str, place: Path, path: str
) -> None:
    found = next(place.glob(path))
    for target in (found, Path(__file__), Path("/etc/hostname")):
        assert ask(server, "GET", f"/gradio_api/file={target}").status in (403, 404)


@pytest.mark.parametrize(
    "job_id", ["..", "%2e%2e", "0" * 16, "G" * 16, "0123456789abcdef%0a", "../.."]
)
def test_ids_that_are_none(server: Any, job_id: str) -> None:
    for method, rest in (
        ("GET", ""),
        ("GET", "/files/config.yaml"),
        ("DELETE", ""),
        ("POST", "/cancel"),
    ):
        answer = ask(server, method, f"/api/jobs/{job_id}{rest}", {} if method == "POST" else None)
        assert answer.status in (404, 405), answer.body
    assert (server.store.root).is_dir()


def test_headers_cannot_be_injected(server: Any) -> None:
    prompt = 'a mug"\r\nSet-Cookie: owned=1\r\n\r\n<script>alert(1)</script>'
    job = submit(server, prompt)
    run = server.store.root / job / "run"
    run.mkdir()
    (run / "config.yaml").write_text("x")
    answer = ask(server, "GET", f"/api/jobs/{job}/files/config.yaml?save=1")
    assert "set-cookie" not in answer.headers
    disposition = answer.headers["content-disposition"]
    assert (
        disposition.startswith("attachment") and "\n" not in disposition and "<" not in disposition
    )
    sent = raw(
        server,
        b"GET /api/server%0d%0aX-Owned:%201 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    )
    assert b"x-owned" not in sent.lower().split(b"\r\n\r\n")[0]


def test_a_prompt_is_text_wherever_it_goes(server: Any) -> None:
    prompt = "--out=/tmp/owned $(touch owned) `id` ${oc.env:HOME} {a: b} \"'; rm -rf / <img src=x onerror=alert(1)>"
    job = submit(server, prompt)
    answer = ask(server, "GET", f"/api/jobs/{job}")
    assert answer.json["job"]["request"]["prompt"] == prompt
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["x-content-type-options"] == "nosniff"
    command = ask(server, "GET", f"/api/jobs/{job}/details").json["command"]
    import shlex

    assert shlex.split(command)[-2:] == ["--", prompt]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({"prompt": "x", "out": "/tmp/owned"}, "'out' is not known"),
        ({"prompt": "x", "settings": ["steps=1"]}, "settings must be an object"),
        ({"prompt": "x", "settings": {"prompt": "y"}}, "prompt cannot be set"),
        ({"prompt": "x", "preset": "../../etc/passwd"}, "preset is '../../etc/passwd'"),
        ({"prompt": "x", "preset": "gaussian", "settings": {"prior.sizee": 1}}, "prior.sizee is not a setting"),
        ({"prompt": "x" * 1001}, "has 1001 characters; at most 1000"),
        ({"prompt": "a\0b"}, r"U\+0000"),
        ({"prompt": 7}, "prompt is 7; it must be text"),
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": "x", "preset": "gaussian", "seed": -1}, "seed is -1"),
        ({"prompt": "x", "seed": "1; drop"}, "seed is '1; drop'"),
        (["prompt"], "must be one JSON object"),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_meant(server: Any, body: Any, what: str) -> None:
    import re

    before = sorted(os.listdir(server.store.root)) if server.store.root.is_dir() else []
    answer = ask(server, "POST", "/api/jobs", body)
    assert answer.status == 422 and re.search(what, answer.message), answer.body
    after = sorted(os.listdir(server.store.root)) if server.store.root.is_dir() else []
    assert after == before, "nothing is left of a refused request"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_other_sites_change_nothing(server: Any, job: str, headers: dict[str, str]) -> None:
    for method, path in (
        ("POST", "/api/jobs"),
        ("POST", f"/api/jobs/{job}/cancel"),
        ("DELETE", f"/api/jobs/{job}"),
        ("POST", "/gradio_api/queue/join"),
    ):
        assert ask(server, method, path, {}, headers).status == 403
    assert server.store.exists(job)


def test_forms_of_other_sites_are_no_json(server: Any) -> None:
    body = json.dumps({"prompt": "x", "preset": "gaussian"}).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = ask(server, "POST", "/api/jobs", body, {"Content-Type": kind})
        assert answer.status == 422 and "application/json" in answer.message


def test_a_name_pointed_at_this_machine_is_refused(server: Any) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "[", ""):
        sent = raw(
            server,
            f"GET /api/server HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode(),
        )
        assert sent.split(b"\r\n")[0].split()[1] in (b"421", b"400"), host
    assert ask(server, "GET", "/api/server", headers={"Host": "localhost"}).status == 200


def test_bodies_are_limited_whatever_they_claim(server: Any) -> None:
    assert ask(server, "POST", "/api/jobs", b"x" * (MAX_BODY + 1)).status == 413
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    head = b"POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    sent = raw(server, head + chunk * (2 + MAX_BODY // 0x10000) + b"0\r\n\r\n")
    assert sent.split(b"\r\n")[0].split()[1] == b"413"


def test_uploads_are_limited(server: Any) -> None:
    claimed = {
        "Content-Type": "multipart/form-data; boundary=x",
        "Content-Length": str(MAX_UPLOAD + 1),
    }
    head = "".join(f"{k}: {v}\r\n" for k, v in claimed.items())
    sent = raw(
        server,
        f"POST {UPLOADS} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{head}\r\n".encode(),
    )
    assert sent.split(b"\r\n")[0].split()[1] == b"413"


def test_json_bombs(server: Any) -> None:
    deep = b"[" * 100_000
    answer = ask(server, "POST", "/api/jobs", deep, {"Content-Type": "application/json"})
    assert answer.status == 422
    bomb = gzip.compress(b" " * 10_000_000)
    packed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert ask(server, "POST", "/api/jobs", bomb, packed).status == 422, "nothing is unpacked"


def test_every_answer_forbids_what_is_not_needed(server: Any, job: str) -> None:
    for path in (
        "/",
        "/api/server",
        "/static/main.js",
        "/nothing",
        f"/api/jobs/{job}",
        "/gradio_api/info",
    ):
        headers = ask(server, "GET", path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'self'" in policy, path
        assert "http:" not in policy and "https:" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers


def test_a_page_among_the_exports_is_nobody(server: Any, job: str) -> None:
    headers = ask(server, "GET", f"/api/jobs/{job}/files/export-html.html").headers
    assert headers["content-security-policy"].startswith("sandbox allow-scripts;")
    assert "allow-same-origin" not in headers["content-security-policy"]


def test_no_route_asks_other_machines(server: Any) -> None:
    """There is no field for an address; the framework's own proxy fetches nothing either."""
    for path in (
        "/gradio_api/proxy=http://127.0.0.1:9/secret",
        "/gradio_api/file=http://127.0.0.1:9/secret",
        "/proxy=http://169.254.169.254/latest/meta-data",
        "/docs",
        "/openapi.json",
    ):
        answer = ask(server, "GET", path)
        assert answer.status in (400, 401, 403, 404, 405), (path, answer.status)


def test_addresses_in_the_forms_data_are_not_fetched(server: Any) -> None:
    """A listener of our own hears whether anything follows an address that was sent in place of a file."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(1.5)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/secret"
        file = {"path": url, "url": url, "orig_name": "x", "meta": {"_type": "gradio.FileData"}}
        config = ask(server, "GET", "/config").json
        for dependency in config["dependencies"]:
            data = {"data": [file] * len(dependency["inputs"]), "fn_index": dependency["id"]}
            answer = ask(server, "POST", "/gradio_api/queue/join", {**data, "session_hash": "x"})
            assert answer.status in (200, 400, 422, 500, 503)
            ask(
                server, "POST", f"/gradio_api/call/{dependency['api_name']}", {"data": data["data"]}
            )
            ask(server, "POST", "/gradio_api/run/predict", data)
        with pytest.raises(TimeoutError):
            listener.accept()


NAMES = [
    *(("gaussian", name) for name in ("reference.image", "scene.mesh", "debiasing.model")),
    *((name, f"prior.{field}") for name in PRIORS.names() for field in file_settings(PRIORS[name])),
]


@pytest.mark.slow
@pytest.mark.parametrize(("prior", "setting"), NAMES)
def test_an_address_as_a_setting_is_not_fetched(
    prior: str, setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading what a job names ends in an error that says so, and a listener of our own has heard nothing."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kind = "glb" if setting == "scene.mesh" else "safetensors"
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x.{kind}"
        # Whatever a library asks for by name goes to the hub, which is not there; only an address would come here.
        monkeypatch.setattr(
            "huggingface_hub.snapshot_download", lambda name, **_: asked.append(name) or _gone()
        )
        settings: dict[str, Any] = {"prior": prior, setting: url}
        if setting == "prior.loras":
            settings[setting] = [url]
        if setting == "scene.mesh":
            settings |= {"scene": "mesh"}
        if setting in ("prior.image_prompt", "prior.ip_adapter"):
            settings = {
                "prior.image_prompt": "a.png",
                "prior.ip_adapter": "a/b/c.safetensors",
            } | settings
        if setting == "prior.control_image":
            settings |= {"prior.controlnet": "controlnet-depth"}
        with pytest.raises(Dream3DError):
            config = load_config("gaussian", settings, "a mug")
            generate_run(config, tmp_path / "run")
        assert all(name == url or "://" not in name for name in asked)
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()
    assert not (tmp_path / "run").exists()


def _gone() -> Any:
    from huggingface_hub.errors import LocalEntryNotFoundError

    raise LocalEntryNotFoundError("no network")


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x", "file:///etc", "../../etc", "a/b/c"])
def test_the_hub_is_asked_for_names_only(address: str) -> None:
    """What the client of the hub makes of an address: nothing, before it opens any connection."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    with pytest.raises(HFValidationError):
        snapshot_download(address)


def test_the_frameworks_own_endpoints_are_private(server: Any) -> None:
    info = ask(server, "GET", "/gradio_api/info").json
    assert info["named_endpoints"] == {} and info["unnamed_endpoints"] == {}


def test_only_so_many_jobs_wait(tmp_path: Path) -> None:
    from dream3d.jobs import JobRequest, JobStore

    store = JobStore(tmp_path, queue_limit=2)
    for number in range(2):
        store.submit(JobRequest(f"{number}", "gaussian"), start=False)
    with pytest.raises(ConfigError, match="2 jobs are waiting already"):
        store.submit(JobRequest("x", "gaussian"), start=False)


def test_users_see_their_own_jobs_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "SECONDS_AFTER_A_WRONG_PASSWORD", 0.01)
    ada, bob = basic("ada", "correct horse"), basic("bob", "battery staple")
    access = Access({"ada": "correct horse", "bob": "battery staple"}, frozenset())
    with serving(tmp_path / "app", access, start_jobs=False) as server:
        strangers = (
            {},
            basic("ada", "wrong"),
            basic("eve", "correct horse"),
            {"Authorization": "Basic %%"},
            {"Authorization": "Bearer x"},
        )
        for wrong in strangers:
            for path in ("/", "/api/jobs", "/static/main.js", "/gradio_api/info", "/config"):
                answer = ask(server, "GET", path, headers=wrong)
                assert answer.status == 401 and "www-authenticate" in answer.headers
        body = {"prompt": "hers", "preset": "gaussian"}
        job = ask(server, "POST", "/api/jobs", body, ada).json["job"]["id"]
        theirs = ask(server, "GET", "/api/jobs", headers=ada).json["jobs"]
        assert [found["id"] for found in theirs] == [job]
        assert ask(server, "GET", "/api/jobs", headers=bob).json["jobs"] == []
        for method, rest in (
            ("GET", ""), ("GET", "/events"), ("GET", "/steps"), ("GET", "/details"), ("GET", "/files"),
            ("GET", "/files/config.yaml"), ("GET", "/exports"), ("POST", "/cancel"), ("POST", "/resume"),
            ("POST", "/evaluation"), ("POST", "/exports/glb"), ("DELETE", ""),
        ):  # fmt: skip
            answer = ask(
                server, method, f"/api/jobs/{job}{rest}", {} if method == "POST" else None, bob
            )
            assert answer.status == 404 and "no such" in answer.message, (method, rest)
        assert ask(server, "GET", f"/api/jobs/{job}", headers=ada).json["job"]["state"] == "queued"


@pytest.mark.parametrize(
    ("text", "mode", "what"),
    [
        ("ada:correct horse\n", 0o644, "others can read"),
        ("ada correct horse\n", 0o600, "line 1: write name:password"),
        ("ada:short\n", 0o600, "at least eight characters"),
        ("# nobody\n", 0o600, "names no user"),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_files_of_users_that_are_refused(tmp_path: Path, text: str, mode: int, what: str) -> None:
    path = tmp_path / "users"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=what):
        read_users(path)


def test_a_file_of_users(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("# us\n\nada: with: colons and spaces\n")
    path.chmod(0o600)
    assert read_users(path) == {"ada": " with: colons and spaces"}
    with pytest.raises(ConfigError, match="cannot be read"):
        read_users(tmp_path / "missing")


def zip_bomb() -> bytes:
    """A ZIP that calls itself a GLB and unpacks to a gigabyte."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(16):
            archive.writestr(f"{number}.bin", bytes(2**20))
    return packed.getvalue()


def huge_glb() -> bytes:
    """A GLB of a few bytes whose header and accessors claim gigabytes."""
    claim = {
        "asset": {"version": "2.0"},
        "accessors": [{"count": 2**31, "componentType": 5126, "type": "VEC3"}],
    }
    text = json.dumps(claim).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sIIII", b"glTF", 2, 2**32 - 1, len(text), 0x4E4F534A) + text


@pytest.mark.parametrize("bomb", [zip_bomb(), huge_glb(), b"\x80\x04cos\nsystem\n(S'id'\ntR."])
def test_what_is_uploaded_is_never_opened_by_the_server(
    server: Any, bomb: bytes, place: Path
) -> None:
    """The framework keeps the bytes in its own cache under a name of its own; nothing unpacks or parses them."""
    boundary = "x" * 20
    body = (
        (
            f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="../../../owned.glb"\r\n'
            f"Content-Type: model/gltf-binary\r\n\r\n"
        ).encode()
        + bomb
        + f"\r\n--{boundary}--\r\n".encode()
    )
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    answer: Answer = ask(server, "POST", UPLOADS, body, kind)
    if answer.status == 200:
        kept = Path(answer.json[0]).resolve()
        assert kept.is_relative_to((place / "cache").resolve()) and kept.read_bytes() == bomb
    assert not list(place.parent.glob("owned.glb")) and not list(place.glob("owned.glb"))
