"""A user's jobs as the page and the HTTP API see them: the job store, with other people's jobs left out."""

import dataclasses
import re
import time
import typing
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dream3d.config import load_config, load_config_file
from dream3d.errors import ConfigError, Dream3DError, PromptError
from dream3d.jobs import ENDED, Job, JobRequest, JobStore
from dream3d.jobs.records import read_object
from dream3d.priors.base import PriorConfig
from dream3d.run import resolve_device
from dream3d.run_directory import RunDirectory, slug
from dream3d.setting_docs import usual_settings
from dream3d.ui.command import shell_command
from dream3d.ui.tasks import Tasks
from dream3d.ui.uploads import Uploads
from systems.base import RunConfig

SECONDS_LIST_IS_FRESH = 0.5
POINTS = 400
OWN_FILES = {"scene.mesh", "reference.image"}
"""Settings that name a file, of which a job keeps a copy."""
_FILE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


class UserJobs:
    """The jobs of one server.

    Args:
        store: all of them.
        tasks: what is done for finished ones.
    """

    def __init__(self, store: JobStore, tasks: Tasks) -> None:
        self.store = store
        self.tasks = tasks
        self.uploads = Uploads(store)
        self._listed: tuple[float, list[Job]] = (-1e9, [])

    def submit(
        self, request: JobRequest, tags: Mapping[str, Any] | None = None, start: bool = True
    ) -> str:
        """Queue a job; `tags` and `start` are as of `JobStore.submit`.

        Raises:
            PromptError: also when the embedded prior does not know a word, which saves a start for nothing.
            ConfigError, OutputError: as `JobStore.submit`.
        """
        self._listed = (-1e9, [])
        try:
            return self.store.submit(self.checked(request), tags, start=start)
        except Dream3DError as error:
            raise type(error)(self.uploads.without_paths(str(error))) from error

    def checked(self, request: JobRequest) -> JobRequest:
        """The request with the files of its user in it, when nothing speaks against it.

        Raises:
            PromptError, ConfigError: words the embedded prior does not know, a file that is not the user's, or a device
                that this machine does not have.
        """
        if isinstance(request.overrides, Mapping):
            resolved = self.uploads.resolved(dict(request.overrides), request.owner)
            request = replace(request, overrides=resolved)
        if request.owner:
            for text in _texts(request.overrides):
                if ("/" in text or "\\" in text) and not self.uploads.is_own(text, request.owner):
                    raise ConfigError(f"'{text}' is no file of yours; send it with the form")
        config = check_words(request)
        resolve_device(config.device)
        if request.owner:
            self._check_files(config, request.preset, request.owner)
        check_meshes(config)  # opened only now that it is known to be theirs
        return request

    def _check_files(self, config: RunConfig, preset: str, user: str) -> None:
        """Where others come in, a setting may name no file of this machine but those they sent."""
        scenes = [stage.scene for stage in config.stages if stage.scene is not None]
        named = [config.reference.image, *(getattr(scene, "mesh", "") for scene in scenes)]
        for path in named:
            if path not in ("", "sphere") and not self.uploads.is_own(path, user):
                raise ConfigError(f"'{path}' is no file of yours; send it with the form")
        # Texts of a prior name files and models, which the server would open or fetch; a preset's own are as they are.
        plain = load_config(preset)
        if config.debiasing.model != plain.debiasing.model:
            raise ConfigError("debiasing.model cannot be chosen here; ask who runs the server")
        check_prior_texts(config.prior, plain.prior, "prior")
        if config.second is not None:
            other = None if plain.second is None else plain.second.prior
            check_prior_texts(config.second.prior, other, "second.prior")

    def get(self, job: str, user: str) -> Job:
        """The job as it stands.

        Raises:
            ConfigError: there is none of that id, or it is somebody else's.
        """
        found = self.store.status(job)
        if user and found.request.owner != user:
            raise ConfigError("there is no such job")
        return found

    def listed(self, user: str, search: str = "") -> list[Job]:
        """The user's jobs, newest first, whose prompt, preset or settings hold every word of `search`."""
        age = time.monotonic() - self._listed[0]
        if age > SECONDS_LIST_IS_FRESH:
            self._listed = (time.monotonic(), self.store.list_jobs())
        words = search.lower().split()
        return [
            job
            for job in self._listed[1]
            if (not user or job.request.owner == user) and _matches(job, words)
        ]

    def cancel(self, job: str, user: str) -> None:
        """Ask it to stop."""
        self.store.cancel(self.get(job, user).id)

    def resume(self, job: str, user: str) -> None:
        """Let it go on."""
        self.store.resume(self.get(job, user).id)

    def delete(self, job: str, user: str) -> None:
        """Remove it with its files."""
        self.store.delete(self.get(job, user).id)
        self._listed = (-1e9, [])

    def file(self, job: str, user: str, name: str) -> tuple[Path, str]:
        """A file of the job and the name to save it under. Names are looked up, never joined to a path as they come.

        Raises:
            ConfigError: there is no such file.
        """
        found = self.get(job, user)
        files = self.files(found)
        if not _FILE.fullmatch(name) or name not in files:
            raise ConfigError("there is no such file")
        extension = name.partition(".")[2]
        stem = name.partition(".")[0]
        return files[name], f"{slug(found.request.prompt)}-{found.id[:6]}-{stem}.{extension}"

    def files(self, job: Job) -> dict[str, Path]:
        """What may be served of a job, by name."""
        directory = self.store.directory(job.id)
        files = {name: directory / "run" / name for name in job.files}
        exports = directory / "exports"
        if exports.is_dir():
            files |= {p.name: p for p in sorted(exports.iterdir()) if _FILE.fullmatch(p.name)}
        # A link could lead anywhere; the program itself makes none.
        return {n: path for n, path in files.items() if path.is_file() and not path.is_symlink()}

    def steps(self, job: str, user: str) -> dict[str, Any]:
        """The loss over the steps, thinned to `POINTS` means, and where the time went so far."""
        run = RunDirectory(self.store.run_path(self.get(job, user).id))
        rows = [row for row in run.metrics() if isinstance(row.get("loss"), int | float)]
        width = max(1, -(-len(rows) // POINTS))
        points = [
            {
                "step": place + len(part),
                "loss": sum(row["loss"] for row in part) / len(part),
            }
            for place in range(0, len(rows), width)
            if (part := rows[place : place + width])
        ]
        return {"steps": len(rows), "points": points, "phases": phases_of(run)}

    def details(self, job: str, user: str) -> dict[str, Any]:
        """The exact command and configuration, the record of the run, the measures against the truth."""
        found = self.get(job, user)
        directory = self.store.directory(job)
        config = directory / "config.yaml"
        evaluating = self.tasks.state(job, "evaluation")
        return {
            "command": shell_command(self._with_own_files(found.request, config)),
            "config": config.read_text(encoding="utf-8") if config.is_file() else "",
            "record": read_object(directory / "run" / "result.json"),
            "can_be_measured": found.state == "done" and uses_embedded(directory),
            "evaluation": read_object(directory / "evaluation.json"),
            "evaluating": None if evaluating is None else vars(evaluating),
        }

    @staticmethod
    def _with_own_files(request: JobRequest, config: Path) -> JobRequest:
        """The request with the job's own copies in place of what was sent, which may be forgotten."""
        if not isinstance(request.overrides, Mapping) or not OWN_FILES & request.overrides.keys():
            return request
        try:
            resolved = load_config_file(config)
        except Dream3DError:
            return request
        mesh = getattr(resolved.stages[0].scene, "mesh", "")
        copies = {"scene.mesh": mesh, "reference.image": resolved.reference.image}
        named = {key: copies[key] for key in OWN_FILES & request.overrides.keys()}
        return replace(request, overrides={**request.overrides, **named})

    def evaluate(self, job: str, user: str) -> None:
        """Measure the result against the truth of its prompt, once.

        Raises:
            ConfigError: it is not done, or its prior has no truth.
        """
        found = self.get(job, user)
        directory = self.store.directory(job)
        if found.state != "done" or not uses_embedded(directory):
            raise ConfigError("only a finished job of the embedded prior can be measured")
        if (directory / "evaluation.json").exists():
            return
        arguments = ["evaluate", "--no-ceiling", str(directory / "run")]
        if not self.tasks.start(job, "evaluation", arguments, directory / "evaluation.json"):
            raise ConfigError("much is waiting to be measured already; try again later")


def file_settings(prior: type) -> list[str]:
    """The settings of a prior that name files or models: all that are text, or lists of texts."""
    hints = typing.get_type_hints(prior)
    texts = (str, list[str], tuple[str, ...])
    names = [field.name for field in dataclasses.fields(prior) if hints[field.name] in texts]
    return [name for name in names if name != "precision"]


def check_words(request: JobRequest) -> RunConfig:
    """The resolved configuration; words the embedded prior does not know are refused.

    Raises:
        PromptError, ConfigError: the message says which, and what is near.
    """
    from dream3d.ui.words import check_prompt

    config = load_config(
        request.preset,
        request.overrides,
        request.prompt,
        request.negative_prompt,
        request.seed,
    )
    prior = type(config.prior).registered_name  # type: ignore[attr-defined]
    for text in (request.prompt, request.negative_prompt):
        note = check_prompt(text, prior)
        if not note.known:
            raise PromptError(note.message)
    return config


def check_meshes(config: RunConfig) -> None:
    """Refuse a file without triangles now, not when the run has loaded and reads it.

    Raises:
        ConfigError: as `load_mesh`.
    """
    from dream3d.scenes.mesh_file import load_mesh

    for stage in config.stages:
        path = getattr(stage.scene, "mesh", "sphere")
        if path not in ("", "sphere"):
            load_mesh(Path(path))


def uses_embedded(directory: Path) -> bool:
    """Whether the job's prior is the one whose prompts have a truth."""
    try:
        prior = load_config_file(directory / "config.yaml").prior
    except Dream3DError:
        return False
    return type(prior).registered_name == "embedded"  # type: ignore[attr-defined]


def phases_of(run: RunDirectory) -> dict[str, float]:
    """Seconds by phase: of the finished run, else as far as it has come."""
    phases = read_object(run.path / "result.json").get("phases") or read_object(
        run.path / "phases.json"
    ).get("phases")
    return {str(k): float(v) for k, v in (phases or {}).items()}


def summary(job: Job) -> dict[str, Any]:
    """A job in JSON types, as the HTTP API tells of it."""
    data = job.as_data()
    data["ended"] = job.state in ENDED and not job.live
    data["can_cancel"] = job.state in ("queued", "running")
    data["can_resume"] = job.state in ENDED and job.state != "done" and not job.live
    data["can_delete"] = job.state != "running" and not job.live
    return data


def _texts(value: Any) -> list[str]:
    """All texts in nested settings."""
    if isinstance(value, Mapping):
        return [text for part in value.values() for text in _texts(part)]
    if isinstance(value, list | tuple):
        return [text for part in value for text in _texts(part)]
    return [value] if isinstance(value, str) else []


def _matches(job: Job, words: Iterable[str]) -> bool:
    request = job.request
    text = f"{request.prompt} {request.preset} {job.state} {request.overrides} {job.id}".lower()
    return all(word in text for word in words)


def check_prior_texts(prior: PriorConfig, own: PriorConfig | None, key: str) -> None:
    """Refuse texts that are neither the usual ones of such a prior nor those of the preset's `own`."""
    for name in file_settings(type(prior)):
        value = getattr(prior, name)
        usual = (usual_settings(type(prior)), own)
        if value and all(value != getattr(other, name, None) for other in usual):
            raise ConfigError(f"{key}.{name} cannot be chosen here; ask who runs the server")
