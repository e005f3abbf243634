"""Batches of the page: a list of prompts becomes jobs of the one queue, and a record says which belong together.

A record is `batches/ID/batch.json` beside the jobs.
"""

import re
import secrets
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from dream3d.batch.lines import Line, read_lines, seed_list
from dream3d.batch.plan import Defaults, Item, make_plan
from dream3d.batch.run import Row
from dream3d.batch.summary import contact_html, contact_png, results_csv
from dream3d.errors import ConfigError, Dream3DError
from dream3d.files import make_directory, write_json
from dream3d.jobs import Job, JobRequest
from dream3d.jobs.records import read_object
from dream3d.ui.jobs import UserJobs, summary

KINDS = (".txt", ".csv", ".jsonl")
MOST_ASSETS = 100
FILES = {"results.csv": "text/csv", "contact.html": "text/html", "contact.png": "image/png"}
"""What a batch is summed up in, with the types for HTTP."""
_ID = re.compile(r"[0-9a-f]{16}")
_KEYS = {"name", "text", "preset", "seeds", "settings"}


class Batches:
    """The batches of one server.

    Args:
        jobs: where their jobs are queued and found.
    """

    def __init__(self, jobs: UserJobs) -> None:
        self.jobs = jobs
        self.root = jobs.store.root / "batches"

    def submit(self, data: Any, user: str) -> str:
        """Queue a job for every line and seed; lines that cannot be made are kept with their problem.

        Args:
            data: `name` of the list, which ends in one of `KINDS`; its `text`; `preset`, `seeds` ("0,1") and `settings`
                for lines that do not say.
            user: whose batch it is.

        Raises:
            ConfigError: the list as a whole cannot be read, or holds too much.
        """
        if not isinstance(data, dict) or not set(data) <= _KEYS:
            raise ConfigError(f"a batch is an object of {', '.join(sorted(_KEYS))}")
        settings = data.get("settings") or {}
        if not isinstance(settings, dict) or not isinstance(data.get("text"), str):
            raise ConfigError("text must be text, and settings an object of dotted keys")
        defaults = Defaults(
            preset=str(data.get("preset") or "default"),
            seeds=seed_list(data.get("seeds") or ""),
            overrides=settings,
        )
        name = str(data.get("name") or "prompts.txt")[-200:]
        batch = secrets.token_hex(8)
        items = make_plan(self._lines(name, data["text"]), defaults)
        if len(items) > MOST_ASSETS:
            raise ConfigError(
                f"{len(items)} assets are too many for the page; at most {MOST_ASSETS}, or use `dream3d batch`"
            )
        rows = [self._queue(item, batch, user) for item in items]
        record = {"id": batch, "name": name, "owner": user, "created": time.time(), "items": rows}
        make_directory(self.root / batch)
        write_json(self._record(batch), record)
        self.jobs.store.tend()
        return batch

    def _lines(self, name: str, text: str) -> list[Line]:
        """The list by the reader of `dream3d batch`; errors name the list, not where it lies."""
        kind = next((kind for kind in KINDS if name.lower().endswith(kind)), None)
        if kind is None:
            raise ConfigError(f"{name} is neither .txt nor .csv nor .jsonl; rename or convert it")
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / f"prompts{kind}"
            path.write_text(text, encoding="utf-8")
            try:
                return read_lines(path)
            except ConfigError as error:
                raise ConfigError(str(error).replace(str(path), name)) from error

    def _queue(self, item: Item, batch: str, user: str) -> dict[str, Any]:
        row = {"line": item.line, "prompt": item.prompt, "seed": item.seed, "problem": item.problem}
        if item.request is None:
            return {**row, "job": ""}
        asked = item.request
        request = JobRequest(
            asked.prompt, asked.preset, asked.seed, asked.negative_prompt, asked.overrides, user
        )
        try:
            tags = {"batch": batch, "line": item.line}
            return {**row, "job": self.jobs.submit(request, tags, start=False)}
        except Dream3DError as error:
            return {**row, "job": "", "problem": str(error)}

    def listed(self, user: str) -> list[dict[str, Any]]:
        """The user's batches, newest first: id, name, when, how many assets."""
        ids = [path.name for path in self.root.iterdir()] if self.root.is_dir() else []
        records = [read_object(self._record(batch)) for batch in ids if _ID.fullmatch(batch)]
        own = [r for r in records if r and (not user or r["owner"] == user)]
        own.sort(key=lambda record: -record["created"])
        return [
            {key: record[key] for key in ("id", "name", "created")}
            | {"assets": len(record["items"])}
            for record in own
        ]

    def get(self, batch: str, user: str) -> dict[str, Any]:
        """A batch as it stands: every asset with its job, how many are in each state, the seconds left.

        Raises:
            ConfigError: there is none of that id, or it is somebody else's.
        """
        record = self._own(batch, user)
        found = self._jobs(record)
        items = []
        for item in record["items"]:
            job = found.get(item["job"])
            state = "failed" if item["problem"] else job.state if job else "deleted"
            told = {} if job is None else summary(job)
            keys = ("step", "steps", "seconds_left", "preview", "message", "ended")
            items.append({**item, "state": state, **{key: told.get(key) for key in keys}})
        return {
            **{key: record[key] for key in ("id", "name", "created")},
            "items": items,
            "states": dict(Counter(item["state"] for item in items)),
            "ended": all(item["ended"] is not False for item in items),
            "seconds_left": seconds_left(list(found.values())),
        }

    def cancel(self, batch: str, user: str) -> None:
        """Ask all its jobs to stop."""
        for job in self._jobs(self._own(batch, user)).values():
            if job.state in ("queued", "running"):
                self.jobs.store.cancel(job.id)

    def file(self, batch: str, user: str, name: str) -> bytes:
        """A file of `FILES`, as `dream3d batch` writes it; contact.html has its pictures in it.

        Raises:
            ConfigError: there is no such batch or file.
        """
        rows = self._rows(self._own(batch, user))
        match name:
            case "results.csv":
                return results_csv(rows).encode()
            case "contact.html":
                return contact_html(rows, self.jobs.store.root).encode()
            case "contact.png":
                return contact_png(rows, self.jobs.store.root)
        raise ConfigError(f"there is no such file; a batch has {', '.join(FILES)}")

    def _rows(self, record: dict[str, Any]) -> list[Row]:
        """The batch as `dream3d batch` sees one."""
        found = self._jobs(record)
        rows = []
        for item in record["items"]:
            job = found.get(item["job"])
            problem = item["problem"] or ("" if job else "deleted")
            request = job.request if job else None
            plan = Item(item["line"], item["prompt"], item["seed"], request, item["job"], problem)
            rows.append(Row(plan, job))
        return rows

    def _record(self, batch: str) -> Path:
        return self.root / batch / "batch.json"

    def _own(self, batch: str, user: str) -> dict[str, Any]:
        record = read_object(self._record(batch)) if _ID.fullmatch(batch) else {}
        if not record or (user and record["owner"] != user):
            raise ConfigError("there is no such batch")
        return record

    def _jobs(self, record: dict[str, Any]) -> dict[str, Job]:
        """Its jobs by id, without those that were deleted meanwhile."""
        ids = [item["job"] for item in record["items"] if item["job"]]
        return {job: self.jobs.store.status(job) for job in ids if self.jobs.store.exists(job)}


def seconds_left(jobs: list[Job]) -> float | None:
    """Until the last is done, one after another, at the pace of those that run or are done; None before one does."""
    paces = [(job.since - job.created) / job.steps for job in jobs if job.state == "done"]
    paces += [
        job.seconds_left / (job.steps - job.step)
        for job in jobs
        if job.state == "running" and job.seconds_left is not None and job.step < job.steps
    ]
    if not paces:
        return None
    left = sum(job.steps - job.step for job in jobs if job.state in ("queued", "running"))
    return min(paces) * left
