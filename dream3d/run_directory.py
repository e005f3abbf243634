"""The directory a run leaves behind: its name, its record, its log.

    outputs/a-red-mug-3f2a9c1e/
        result.json    status, prompt, seed, seconds, peak memory, versions, files
        config.yaml    the resolved configuration; `dream3d generate --config` repeats the run
        reference.png  the picture it follows, where it was given one
        metrics.jsonl  one line per step
        phases.json    seconds by phase so far, while it runs
        preview.png, turntable.mp4, asset.ply, asset.glb
        checkpoints/

The name is made from letters and digits of the prompt and a hash, so no prompt can choose a path.
"""

import errno
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dream3d.errors import ConfigError, OutputError
from dream3d.files import append_line, make_directory, write_json, write_text, writing

FORMAT_VERSION = 1
ASSET_FILES = ("preview.png", "turntable.mp4", "asset.ply", "asset.glb")
FILES = ("config.yaml", "reference.png", "metrics.jsonl", *ASSET_FILES)


def slug(prompt: str) -> str:
    """At most 40 characters of a-z, 0-9 and inner hyphens that recall the prompt; "prompt" when nothing is left."""
    ascii_text = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", ascii_text.lower()).strip("-")
    return words[:40].strip("-") or "prompt"


def default_name(prompt: str, config_text: str) -> str:
    """`slug(prompt)` and eight hex digits that differ between prompts and between configurations."""
    digest = hashlib.sha256(config_text.encode("utf-8")).hexdigest()
    return f"{slug(prompt)}-{digest[:8]}"


class RunDirectory:
    """One run's files. Make one with `create` or `open`.

    Args:
        path: an existing directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, prompt: str, config_text: str, out: Path | None = None) -> "RunDirectory":
        """A new run directory that holds `config.yaml`.

        Args:
            prompt: the run's; names the directory when `out` is None.
            config_text: the resolved configuration as YAML.
            out: where; it must not exist or be empty. None picks a free name below `outputs`.

        Raises:
            OutputError: `out` holds something already, or cannot be made.
        """
        if out is None:
            path = cls._free(Path("outputs"), default_name(prompt, config_text))
        else:
            path = out
            make_directory(path)
            with writing(path):
                taken = any(path.iterdir())
            if taken:
                raise OutputError(
                    f"{path} is not empty; choose another --out, or go on with the run in it: "
                    f"dream3d generate --resume {path}"
                )
        run = cls(path)
        write_text(path / "config.yaml", config_text)
        return run

    @staticmethod
    def _free(root: Path, name: str) -> Path:
        """Make the first of `name`, `name-2`, `name-3`, ... that does not exist; safe against other processes."""
        make_directory(root)
        number = 1
        while True:
            path = root / (name if number == 1 else f"{name}-{number}")
            try:
                with writing(path):
                    os.mkdir(path)
                return path
            except OutputError as error:
                if not isinstance(error.__cause__, FileExistsError):
                    raise
            number += 1

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """An earlier run's directory.

        Raises:
            ConfigError: there is no run in it.
        """
        if not (path / "config.yaml").is_file():
            raise ConfigError(
                f"{path} is not a run directory: it has no config.yaml. A run directory is what "
                "`dream3d generate` prints in its last line."
            )
        return cls(path)

    @property
    def config_path(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    def files(self) -> dict[str, int]:
        """Sizes in bytes of the run's files that exist, by name."""
        return {
            name: (self.path / name).stat().st_size
            for name in FILES
            if (self.path / name).is_file()
        }

    def newest_checkpoint(self) -> str:
        """File name of the newest checkpoint, whole or damaged; empty without one. Later ones compare greater."""
        found = (self.path / "checkpoints").glob("stage-*.safetensors")
        return max((path.name for path in found), default="")

    def read_record(self) -> dict[str, Any]:
        """The contents of `result.json`; empty when there is none yet.

        Raises:
            ConfigError: it is damaged or was written by another format version.
        """
        path = self.path / "result.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read ({error}); remove it to go on") from error
        version = record.get("format_version") if isinstance(record, dict) else None
        if version != FORMAT_VERSION:
            raise ConfigError(
                f"{path} has format_version {version!r}; this dream3d reads {FORMAT_VERSION}"
            )
        return record

    def write_record(self, record: dict[str, Any]) -> dict[str, Any]:
        """Replace `result.json` by `record` with the format version and the list of files; returns that.

        Raises:
            OutputError: it cannot be written; the old one stays.
        """
        files = {name: {"path": name, "bytes": size} for name, size in sorted(self.files().items())}
        full = {"format_version": FORMAT_VERSION, **record, "files": files}
        write_json(self.path / "result.json", full)
        return full

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes of this machine from working on the run; the lock dies with the process.

        Raises:
            ConfigError: another process works on it.
        """
        if os.name != "posix":
            yield
            return
        import fcntl

        handle = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigError(
                    f"another process is working on the run in {self.path}; stop it or wait for it"
                ) from error
            except OSError as error:
                # Some network file systems know no locks; a run there goes without.
                if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
            yield
        finally:
            os.close(handle)

    def write_phases(self, seconds: dict[str, float]) -> None:
        """Say in `phases.json` where the time went so far; `result.json` has it for the whole run when it ends.

        Raises:
            OutputError: the disk is full.
        """
        write_json(self.path / "phases.json", {"format_version": FORMAT_VERSION, "phases": seconds})

    def append_metrics(self, row: dict[str, float | int | None]) -> None:
        """Add one line to `metrics.jsonl`.

        Raises:
            OutputError: the disk is full.
        """
        append_line(self.path / "metrics.jsonl", json.dumps(row, allow_nan=False))

    def metrics(self) -> list[dict[str, Any]]:
        """All complete lines of `metrics.jsonl`; a line cut short by a crash is left out."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return []
        rows = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                rows.append(row)
        return rows

    def drop_metrics_from(self, stage: int, step: int) -> None:
        """Forget the steps that a resumed run is about to repeat: those at or after `step` of `stage`."""
        rows = self.metrics()
        kept = [row for row in rows if (row.get("stage", 0), row.get("step", 0)) < (stage, step)]
        if rows:
            lines = [json.dumps(row, allow_nan=False) + "\n" for row in kept]
            write_text(self.path / "metrics.jsonl", "".join(lines))
