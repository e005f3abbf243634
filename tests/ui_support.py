"""A real server on a free port for the tests of the web page, and requests as plain as they come."""

import base64
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dream3d.ui.server import Server

SECONDS = 180.0
"""How long a test waits for what takes a moment on an idle machine."""

QUICK = {"scene": "canvas", "steps": 5}
ENDLESS = {"scene": "canvas", "steps": 1_000_000}


@contextmanager
def serving(
    root: Path,
    access: Any = None,
    port: int = 0,
    start_jobs: bool = True,
    end_jobs: bool = True,
) -> "Iterator[Server]":
    """The server of `root`; without `start_jobs` what is queued stays queued.

    Workers outlive their server by design; unless `end_jobs` is off, those of this one are ended with it.
    """
    from dream3d.ui.server import Address, Server

    server = Server(root, Address(port=port), access)
    if not start_jobs:
        server.store.tend = list  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + SECONDS
        while not server.started:
            assert time.monotonic() < deadline and thread.is_alive(), "the server did not start"
            time.sleep(0.05)
        yield server
    finally:
        server.should_exit = True
        thread.join(20)
        for job in server.store.ids() if end_jobs else ():
            server.store.kill(job)


class Answer:
    """Status, headers and body of an answer."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.headers = {k.lower(): v for k, v in answer.getheaders()}
        self.body = answer.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return self.json["error"]["message"]


def basic(name: str, password: str) -> dict[str, str]:
    """The headers of a request in a user's name."""
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def ask(
    server: "Server",
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """One request, its path exactly as given; a dict or list goes as JSON."""
    host, port = server.url.removeprefix("http://").rstrip("/").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=SECONDS)
    sent = dict(headers or {})
    if isinstance(body, dict | list):
        body = json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    try:
        connection.request(method, path, body, sent)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def submit(server: "Server", prompt: str = "a mug", **more: Any) -> str:
    """Queue a quick job over HTTP; returns its id."""
    body = {"prompt": prompt, "preset": "gaussian", "seed": 0, "settings": QUICK, **more}
    answer = ask(server, "POST", "/api/jobs", body)
    assert answer.status == 201, answer.body
    return answer.json["job"]["id"]


def wait(server: "Server", job: str, *states: str, seconds: float = SECONDS) -> dict[str, Any]:
    """Until the job is in one of the states and nobody works on it any more, or runs."""
    deadline = time.monotonic() + seconds
    while True:
        found = ask(server, "GET", f"/api/jobs/{job}").json["job"]
        if found["state"] in states and (found["ended"] or found["state"] in ("queued", "running")):
            return found
        assert time.monotonic() < deadline, f"still {found['state']}: {found['message']}"
        time.sleep(0.1)
