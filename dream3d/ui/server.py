"""The web server: the HTTP API, the page's files, the Gradio page, and the guard around all of them."""

import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before Gradio is imported: it reports usage home unless told not to.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from dream3d.errors import Dream3DError
from dream3d.jobs import JobStore
from dream3d.ui.api import build_api, build_static, refusal
from dream3d.ui.jobs import UserJobs
from dream3d.ui.page import build_page, head
from dream3d.ui.security import Access, Guard
from dream3d.ui.tasks import Tasks
from dream3d.ui.theme import calm

SECONDS_BETWEEN_TENDING = 2.0
QUEUE_LIMIT = 100


@dataclass(frozen=True)
class Address:
    """Where to listen.

    Attributes:
        host: "127.0.0.1" for this machine only.
        port: 1 to 65535; 0 takes a free one.
    """

    host: str = "127.0.0.1"
    port: int = 7860


def build_app(store: JobStore, access: Access) -> Guard:
    """Everything that is served, as one ASGI application."""
    jobs = UserJobs(store, Tasks(store))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        ended = threading.Event()
        thread = threading.Thread(target=_tend, args=(store, ended), daemon=True)
        thread.start()
        yield
        ended.set()

    app = FastAPI(title="dream3d", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(Dream3DError)
    def refused(_request: Request, error: Dream3DError) -> JSONResponse:
        return refusal(error)

    app.include_router(build_api(jobs))
    app.include_router(build_static())
    page = build_page()
    page.queue(max_size=64, api_open=False)
    app = gr.mount_gradio_app(
        app,
        page,
        path="/",
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        show_error=False,
        max_file_size="50mb",
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=calm(),
        head=head(),
    )
    return Guard(_with_lifespan(app, lifespan), access)


def _with_lifespan(app: FastAPI, ours: Any) -> FastAPI:
    """The mounted page has a lifespan of its own; run both."""
    theirs = app.router.lifespan_context

    @asynccontextmanager
    async def both(inner: FastAPI) -> AsyncIterator[None]:
        async with theirs(inner), ours(inner):
            yield

    app.router.lifespan_context = both
    return app


def _tend(store: JobStore, ended: threading.Event) -> None:
    """Start waiting jobs whose turn has come, also those that other programs queued."""
    while not ended.wait(SECONDS_BETWEEN_TENDING):
        with suppress(Dream3DError, OSError):
            store.tend()


class Server(uvicorn.Server):
    """The server; `run()` serves until a signal, `started` and `address` tell of it."""

    def __init__(self, root: Path, address: Address, access: Access | None = None) -> None:
        store = JobStore(root, queue_limit=QUEUE_LIMIT)
        config = uvicorn.Config(
            build_app(store, access or Access()),
            host=address.host,
            port=address.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
            limit_concurrency=512,
            h11_max_incomplete_event_size=32768,
        )
        super().__init__(config)
        self.store = store

    @property
    def url(self) -> str:
        """The address to open, once it has started."""
        name, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://{'127.0.0.1' if name in ('0.0.0.0', '::') else name}:{port}/"
