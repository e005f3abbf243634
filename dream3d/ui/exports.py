"""A finished job in every format: made on demand by `dream3d export` in a process of its own, kept with the job."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dream3d.errors import ConfigError
from dream3d.export.formats.base import FORMATS, ExportOptions, export_name
from dream3d.ui.form import fields_of
from dream3d.ui.jobs import UserJobs


def export_options() -> list[dict[str, Any]]:
    """What can be chosen about a file, as the form describes its settings."""
    return [field.as_data() for field in fields_of(ExportOptions())]


def list_exports(jobs: UserJobs, job: str, user: str) -> list[dict[str, Any]]:
    """All formats: what each is, what is missing for it, whether it is made.

    Raises:
        ConfigError: there is no such job.
    """
    files = jobs.files(jobs.get(job, user))
    return [_described(jobs, job, name, files) for name in FORMATS.names()]


def _described(jobs: UserJobs, job: str, name: str, files: dict[str, Path]) -> dict[str, Any]:
    chosen = FORMATS[name]
    path = files.get(export_name(name))
    task = jobs.tasks.state(job, f"export {name}")
    return {
        "name": name,
        "summary": (chosen.__doc__ or "").strip().split("\n")[0],
        "opens_in": chosen.opens_in,
        "missing": chosen.missing() or "",
        "file": path.name if path else "",
        "bytes": path.stat().st_size if path else 0,
        "state": task.state if task else ("done" if path else "absent"),
        "message": task.message if task else "",
    }


def make_export(jobs: UserJobs, job: str, user: str, name: str, wishes: Any) -> None:
    """Begin to make a format.

    Args:
        jobs: the server's.
        job: its id.
        user: who asks.
        name: a format.
        wishes: fields of `ExportOptions` as JSON.

    Raises:
        ConfigError: no such job or format, nothing to export yet, a wish that cannot be fulfilled, or too much waits.
    """
    found = jobs.get(job, user)
    if name not in FORMATS.names():
        raise ConfigError(f"there is no such format; choose one of {', '.join(FORMATS.names())}")
    if found.live or found.state not in ("done", "cancelled"):
        raise ConfigError("only a job that has ended can be exported")
    directory = jobs.store.directory(job)
    out = directory / "exports" / export_name(name)
    arguments = ["export", str(directory / "run"), "--format", name, "--out", str(out)]
    arguments += _options(wishes)
    if not jobs.tasks.start(job, f"export {name}", arguments):
        raise ConfigError("many exports are waiting already; try again later")


def _options(wishes: Any) -> list[str]:
    """The wishes as options of the command, checked by the class that knows the limits."""
    if not isinstance(wishes, Mapping):
        raise ConfigError("options must be an object, e.g. {'texture_size': 2048}")
    known = {field.name for field in dataclasses.fields(ExportOptions)}
    unknown = sorted(set(map(str, wishes)) - known)
    if unknown:
        raise ConfigError(f"'{unknown[0]}' is no option; known are {', '.join(sorted(known))}")
    checked = ExportOptions(**wishes)
    words: list[str] = []
    for name in wishes:
        value = getattr(checked, name)
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words += [option] if value else []
        else:
            words += [option, str(value)]
    return words
