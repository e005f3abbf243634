"""The HTTP API: JSON over /api, the same that the page itself uses. docs/ui.md describes it with a client."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from starlette.concurrency import run_in_threadpool

import dream3d
from dream3d.errors import ConfigError, Dream3DError
from dream3d.jobs import JobRequest
from dream3d.ui.batches import FILES, Batches
from dream3d.ui.exports import export_options, list_exports, make_export
from dream3d.ui.filled import filled_from, form_data, read_form
from dream3d.ui.form import PARTS
from dream3d.ui.history import Pace
from dream3d.ui.jobs import UserJobs, summary
from dream3d.ui.words import check_prompt, vocabulary

FORMAT_VERSION = 1
STATIC = Path(__file__).parent / "static"
_SCRIPTS = b"".join(path.read_bytes() for path in sorted(STATIC.iterdir()) if path.is_file())
PAGE_VERSION = hashlib.sha256(_SCRIPTS + dream3d.__version__.encode()).hexdigest()[:16]
"""Differs when the page's own files do: an open page of an older server then loads itself anew."""

PAGE = 60
_REQUEST_KEYS = {"prompt", "negative_prompt", "preset", "seed", "settings"}
_TYPES = {
    ".png": "image/png",
    ".mp4": "video/mp4",
    ".glb": "model/gltf-binary",
    ".yaml": "text/plain; charset=utf-8",
    ".jsonl": "text/plain; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_SHOWN = frozenset({".png", ".mp4"})
# A page or picture among the exports may run its own scripts, but as nobody: it is not this site to the browser.
SANDBOX = "sandbox allow-scripts; default-src data: blob: 'unsafe-inline' 'unsafe-eval'"


def _user(request: Request) -> str:
    return request.state.user


def _answer(data: dict[str, Any], status: int = 200) -> JSONResponse:
    headers = {"cache-control": "no-store"}
    return JSONResponse(
        {"format_version": FORMAT_VERSION, "page": PAGE_VERSION, **data}, status, headers=headers
    )


async def _json(request: Request) -> Any:
    """The body. Only what says that it is JSON is read: a form of another site cannot say so."""
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise ConfigError("send JSON: Content-Type: application/json")
    try:
        return await request.json()
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the body is no JSON: {error}") from error


def refusal(error: Dream3DError) -> JSONResponse:
    """An error a user can cure: what, and how. Nothing of others' jobs or of paths is in it."""
    message = str(error)
    status = 404 if message.startswith("there is no such") else 422
    return _answer({"error": {"type": type(error).__name__, "message": message}}, status)


def read_request(data: Any, user: str) -> JobRequest:
    """A job request from JSON.

    Raises:
        ConfigError: unknown keys or wrong types.
        PromptError: see `JobRequest`.
    """
    if not isinstance(data, dict):
        raise ConfigError("the body must be one JSON object")
    unknown = sorted(set(map(str, data)) - _REQUEST_KEYS)
    if unknown:
        raise ConfigError(
            f"'{unknown[0]}' is not known; a job has {', '.join(sorted(_REQUEST_KEYS))}"
        )
    settings = data.get("settings", {})
    seed = data.get("seed")
    if not isinstance(settings, dict):
        raise ConfigError("settings must be an object of dotted keys, e.g. {'steps': 200}")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
        raise ConfigError(f"seed is {seed!r}; choose an integer in [0, 2^63)")
    return JobRequest(
        prompt=data.get("prompt", ""),
        preset=data.get("preset", "default"),
        seed=seed,
        negative_prompt=data.get("negative_prompt", ""),
        overrides=settings,
        owner=user,
    )


def build_api(jobs: UserJobs) -> APIRouter:
    """All routes below /api."""
    api = APIRouter(prefix="/api")

    @api.get("/server")
    def server(request: Request) -> JSONResponse:
        return _answer({"version": dream3d.__version__, "user": _user(request)})

    @api.get("/vocabulary")
    def words() -> JSONResponse:
        return _answer({"vocabulary": vocabulary()})

    @api.get("/prompt")
    def prompt(text: str = "", prior: str = "embedded") -> JSONResponse:
        return _answer(asdict(check_prompt(text[:1000], prior)))

    @api.get("/catalogue/{kind}")
    def catalogue(kind: str) -> JSONResponse:
        from dream3d.catalogue import entries

        return _answer({kind: entries(kind)})

    _add_form(api, jobs)
    _add_jobs(api, jobs)
    _add_files(api, jobs)
    _add_batches(api, Batches(jobs))
    return api


def _add_batches(api: APIRouter, batches: Batches) -> None:
    @api.post("/batches")
    async def submit(request: Request) -> JSONResponse:
        data = await _json(request)
        user = _user(request)

        def work() -> JSONResponse:
            batch = batches.submit(data, user)
            return _answer({"batch": batches.get(batch, user)}, 201)

        return await run_in_threadpool(work)

    @api.get("/batches")
    def listing(request: Request) -> JSONResponse:
        return _answer({"batches": batches.listed(_user(request))})

    @api.get("/batches/{batch}")
    def status(request: Request, batch: str) -> JSONResponse:
        return _answer({"batch": batches.get(batch, _user(request))})

    @api.post("/batches/{batch}/cancel")
    def cancel(request: Request, batch: str) -> JSONResponse:
        batches.cancel(batch, _user(request))
        return _answer({"batch": batches.get(batch, _user(request))})

    @api.get("/batches/{batch}/{name}")
    def file(request: Request, batch: str, name: str) -> Response:
        data = batches.file(batch, _user(request), name)
        headers = {
            "content-disposition": f'attachment; filename="{batch[:6]}-{name}"',
            "content-security-policy": SANDBOX,
            "cache-control": "no-store",
        }
        return Response(data, 200, headers, FILES[name])


def _add_form(api: APIRouter, jobs: UserJobs) -> None:
    pace = Pace(jobs.store)

    @api.get("/form")
    def form(request: Request, preset: str = "default", steps: int | None = None) -> JSONResponse:
        query = request.query_params
        parts = {kind: query[kind] for kind in PARTS if kind in query}
        filled = None
        if origin := query.get("from"):
            filled = filled_from(jobs.get(origin, _user(request)), jobs)
            preset, parts, steps = filled["preset"], filled["parts"], filled["steps"]
        return _answer({"form": form_data(preset, parts, steps, pace), "filled": filled})

    @api.post("/uploads")
    async def upload(request: Request, name: str = "") -> JSONResponse:
        if request.headers.get("content-type") != "application/octet-stream":
            raise ConfigError("send the file as it is: Content-Type: application/octet-stream")
        data = await request.body()
        kept = await run_in_threadpool(jobs.uploads.add, name, data, _user(request))
        return _answer({"upload": kept}, 201)

    @api.post("/form")
    async def press(request: Request) -> JSONResponse:
        data = await _json(request)
        user = _user(request)

        def work() -> JSONResponse:
            job = jobs.submit(read_form(data, user))
            return _answer({"job": summary(jobs.get(job, user))}, 201)

        return await run_in_threadpool(work)


def _add_jobs(api: APIRouter, jobs: UserJobs) -> None:
    @api.post("/jobs")
    async def submit(request: Request) -> JSONResponse:
        data = await _json(request)
        user = _user(request)

        def work() -> JSONResponse:
            job = jobs.submit(read_request(data, user))
            return _answer({"job": summary(jobs.get(job, user))}, 201)

        return await run_in_threadpool(work)

    @api.get("/jobs")
    def listing(
        request: Request, search: str = "", offset: int = 0, limit: int = PAGE
    ) -> JSONResponse:
        found = jobs.listed(_user(request), search[:200])
        shown = found[max(0, offset) :][: max(0, min(limit, 500))]
        return _answer({"total": len(found), "jobs": [summary(job) for job in shown]})

    @api.get("/jobs/{job}")
    def status(request: Request, job: str) -> JSONResponse:
        return _answer({"job": summary(jobs.get(job, _user(request)))})

    @api.get("/jobs/{job}/events")
    def events(request: Request, job: str, after: int = 0) -> JSONResponse:
        jobs.get(job, _user(request))
        found, following = jobs.store.events(job, max(0, after))
        return _answer({"events": found, "next": following})

    @api.get("/jobs/{job}/steps")
    def steps(request: Request, job: str) -> JSONResponse:
        return _answer(jobs.steps(job, _user(request)))

    @api.get("/jobs/{job}/details")
    def details(request: Request, job: str) -> JSONResponse:
        return _answer(jobs.details(job, _user(request)))

    @api.post("/jobs/{job}/cancel")
    def cancel(request: Request, job: str) -> JSONResponse:
        jobs.cancel(job, _user(request))
        return _answer({"job": summary(jobs.get(job, _user(request)))})

    @api.post("/jobs/{job}/resume")
    def resume(request: Request, job: str) -> JSONResponse:
        jobs.resume(job, _user(request))
        return _answer({"job": summary(jobs.get(job, _user(request)))})

    @api.post("/jobs/{job}/evaluation")
    def evaluate(request: Request, job: str) -> JSONResponse:
        jobs.evaluate(job, _user(request))
        return _answer({}, 202)

    @api.delete("/jobs/{job}")
    def delete(request: Request, job: str) -> JSONResponse:
        jobs.delete(job, _user(request))
        return _answer({})


def _add_files(api: APIRouter, jobs: UserJobs) -> None:
    @api.get("/jobs/{job}/files")
    def files(request: Request, job: str) -> JSONResponse:
        found = jobs.files(jobs.get(job, _user(request)))
        return _answer({"files": {name: path.stat().st_size for name, path in found.items()}})

    @api.get("/jobs/{job}/exports")
    def exports(request: Request, job: str) -> JSONResponse:
        found = list_exports(jobs, job, _user(request))
        return _answer({"exports": found, "options": export_options()})

    @api.post("/jobs/{job}/exports/{name}")
    async def export(request: Request, job: str, name: str) -> JSONResponse:
        wishes = await _json(request)
        user = _user(request)
        await run_in_threadpool(make_export, jobs, job, user, name, wishes)
        return _answer({}, 202)

    @api.get("/jobs/{job}/files/{name}")
    def file(request: Request, job: str, name: str, v: str = "", save: str = "") -> Response:
        path, saved_as = jobs.file(job, _user(request), name)
        kind = _TYPES.get(path.suffix, "application/octet-stream")
        headers = {"cache-control": "private, max-age=86400" if v else "no-cache"}
        if path.suffix in (".html", ".svg"):
            kind = "text/html; charset=utf-8"
            headers["content-security-policy"] = SANDBOX
        shown = not save and (path.suffix in _SHOWN or path.suffix == ".html")
        if path.suffix == ".png" and path.name == "preview.png":
            # It is replaced while the job runs: read as a whole it is always one picture.
            if save:
                headers["content-disposition"] = f'attachment; filename="{saved_as}"'
            return Response(path.read_bytes(), 200, headers, kind)
        return FileResponse(
            path,
            headers=headers,
            media_type=kind,
            filename=saved_as,
            content_disposition_type="inline" if shown else "attachment",
        )


def build_static() -> APIRouter:
    """The page's own scripts and styles, read from a list made at the start."""
    router = APIRouter()
    known = {path.name: path for path in STATIC.iterdir() if path.suffix in _TYPES}

    @router.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in known:
            return Response("there is no such file", 404)
        headers = {"cache-control": "no-cache"}
        return Response(known[name].read_bytes(), 200, headers, _TYPES[known[name].suffix])

    return router
