"""A job's files as data: what was asked (job.json), how it stands (status.json), how far it is (progress.json)."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from dream3d.errors import ConfigError, PromptError
from dream3d.files import append_line, write_json

FORMAT_VERSION = 1
MAX_PROMPT = 1000
MAX_OVERRIDES = 200

State = Literal["queued", "running", "done", "failed", "cancelled", "lost"]
STATES: tuple[State, ...] = ("queued", "running", "done", "failed", "cancelled", "lost")
ENDED: tuple[State, ...] = ("done", "failed", "cancelled", "lost")
"""Nothing happens any more unless somebody resumes the job."""

Overrides = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class JobRequest:
    """What to make. All of it is data: nothing here names a file or reaches a shell.

    Attributes:
        prompt, negative_prompt: at most `MAX_PROMPT` characters each.
        preset: name of a preset.
        seed: of all randomness, in [0, 2^63); None keeps the preset's.
        overrides: settings by dotted key, or `key=value` texts, as `dream3d generate` takes them.
        owner: who asked, an opaque text (a browser session, a batch); for filtering lists.
    """

    prompt: str
    preset: str = "default"
    seed: int | None = None
    negative_prompt: str = ""
    overrides: Mapping[str, Any] | tuple[str, ...] = ()
    owner: str = ""

    def __post_init__(self) -> None:
        for name in ("prompt", "negative_prompt", "preset", "owner"):
            check_text(name, getattr(self, name))
        if not self.prompt.strip() and not self._has_picture():
            raise PromptError("the prompt is empty; say what to make, for example: a red mug")
        if len(self.overrides) > MAX_OVERRIDES:
            raise ConfigError(f"{len(self.overrides)} settings given; at most {MAX_OVERRIDES}")
        try:
            json.dumps(self.overrides, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"a setting is not plain, finite data ({error})") from error

    def _has_picture(self) -> bool:
        """Whether a picture is given, which some priors take in place of words; the others refuse at the start."""
        if isinstance(self.overrides, Mapping):
            return "reference.image" in self.overrides
        return any(text.startswith("reference.image=") for text in self.overrides)

    def config_text(self) -> str:
        """The resolved configuration as YAML.

        Raises:
            ConfigError, PromptError: a name, key or value is not known; the message says which.
        """
        from dream3d.config import config_to_yaml, load_config

        config = load_config(
            self.preset, self.overrides, self.prompt, self.negative_prompt, self.seed
        )
        return config_to_yaml(config)


def check_text(name: str, value: Any) -> None:
    """Refuse what no prompt or name can be.

    Raises:
        PromptError: not text, too long, or with characters that no file can hold.
    """
    if not isinstance(value, str):
        raise PromptError(f"{name} is {value!r}; it must be text")
    if len(value) > MAX_PROMPT:
        raise PromptError(f"the {name} has {len(value)} characters; at most {MAX_PROMPT}, please")
    if "\0" in value:
        raise PromptError(f"the {name} holds the character U+0000; remove it")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(
            f"the {name} holds half a character ({error.reason}); remove it"
        ) from error


@dataclass(frozen=True)
class Manifest:
    """job.json: written once.

    Attributes:
        id: sixteen hex digits.
        request: what was asked, as it was asked; config.yaml beside it is the same, resolved.
        created: Unix time.
        steps: of all stages.
        tags: further data of the client's, e.g. the line of a batch; JSON types.
    """

    id: str
    request: JobRequest
    created: float
    steps: int
    tags: dict[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the manifest."""
        request = asdict(self.request)
        write_json(path, {"format_version": FORMAT_VERSION, **asdict(self), "request": request})

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read a manifest.

        Raises:
            ConfigError: missing, damaged, or of another format version.
        """
        data = read_object(path)
        if not data:
            raise ConfigError(f"{path.parent.name} holds no job, or a damaged one")
        if data.get("format_version") != FORMAT_VERSION:
            raise ConfigError(
                f"job {path.parent.name} has format_version {data.get('format_version')!r}; "
                f"this dream3d reads {FORMAT_VERSION}"
            )
        try:
            request = dict(data["request"])
            if isinstance(request["overrides"], list):
                request["overrides"] = tuple(request["overrides"])
            return cls(
                data["id"], JobRequest(**request), data["created"], data["steps"], data["tags"]
            )
        except (KeyError, TypeError) as error:
            raise ConfigError(f"job {path.parent.name} is damaged ({error})") from error


@dataclass(frozen=True)
class Job:
    """A job as it stands.

    Attributes:
        id: sixteen hex digits.
        state: "lost" when its worker died without a word; resume it.
        request: what was asked.
        created, since: Unix times of the job and of its state.
        live: a process works on it, be it on the last exports of a cancelled job.
        steps, step: optimiser steps in all and done.
        stage, stages: which stage of how many, counted from 0.
        seconds_left: estimate for the optimisation; None without one.
        loss: of the last step; None before the first.
        message: why it failed or was cancelled, or empty.
        error: type of the error, or empty.
        attempts: workers that had it so far.
        position: jobs before it in the queue; None unless it waits.
        preview: when the preview was last written, in nanoseconds; 0 without one.
        files: sizes of the run's files, by name.
        warnings: what went wrong without ending the job, e.g. an out-of-memory step-down.
        tags: the client's own data.
    """

    id: str
    state: State
    request: JobRequest
    created: float
    since: float
    live: bool = False
    steps: int = 0
    step: int = 0
    stage: int = 0
    stages: int = 1
    seconds_left: float | None = None
    loss: float | None = None
    message: str = ""
    error: str = ""
    attempts: int = 0
    position: int | None = None
    preview: int = 0
    files: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    tags: dict[str, Any] = field(default_factory=dict)

    def as_data(self) -> dict[str, Any]:
        """The job in JSON types."""
        return {**asdict(self), "warnings": list(self.warnings)}


def write_status(path: Path, state: State, message: str = "", error: str = "") -> None:
    """Replace status.json."""
    document = {"format_version": FORMAT_VERSION, "state": state, "since": time.time()}
    write_json(path, {**document, "message": message, "error": error})


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty when the file is missing or is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def append_event(path: Path, kind: str, **data: Any) -> None:
    """Add an event with the time it is written; lines cut short by a crash do not swallow the next one.

    Raises:
        OutputError: the disk is full.
    """
    append_line(path, json.dumps({"time": time.time(), "event": kind, **data}, allow_nan=False))


def read_events(path: Path, after: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The whole events behind byte `after`, and where to go on reading.

    Args:
        path: events.jsonl.
        after: what an earlier call returned; 0 reads all.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, after))
            data = file.read()
    except OSError:
        return [], after
    whole, newline, _ = data.rpartition(b"\n")
    events = []
    for line in whole.split(b"\n"):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            events.append(event)
    return events, after + len(whole) + len(newline)
