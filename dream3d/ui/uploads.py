"""Files a user sends for a run: a mesh to begin with, a picture to follow. They are named `upload:ID` and nothing else.

A file lies at `uploads/ID/` beside the jobs, under a name of the server's, until it is forgotten; a job that is queued
with it has a copy of its own. What could make its reader open other files is refused or taken out before it is kept.
"""

import re
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from dream3d.errors import ConfigError
from dream3d.files import make_directory, write_bytes, write_json
from dream3d.jobs import JobStore
from dream3d.jobs.records import read_object
from dream3d.ui.checked_files import MESHES, PICTURES, checked

MOST_FILES = 200
KEPT_SECONDS = 3600.0
"""How long a file waits for a run that names it."""
_NAME = re.compile(r"upload:([0-9a-f]{16})")
_COPY = re.compile(r"reference\.png|mesh-\d{1,3}\.(?:glb|obj|ply|stl)")


class Uploads:
    """The files of one server.

    Args:
        store: of the jobs that use them.
    """

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self.root = store.root / "uploads"

    def add(self, name: str, data: bytes, user: str) -> str:
        """Keep a file; returns the name that a setting takes.

        Args:
            name: only its ending is looked at.
            data: all of it.
            user: whose it is.

        Raises:
            ConfigError: it is of no kind that is taken, refers to other files, or there are too many.
        """
        suffix = next((s for s in (*MESHES, *PICTURES) if name.lower().endswith(s)), None)
        if suffix is None:
            raise ConfigError(f"{name[-80:]} must end in one of {', '.join((*MESHES, *PICTURES))}")
        data = checked(suffix, data)
        if self._count() >= MOST_FILES:
            self.forget_unused()
        if self._count() >= MOST_FILES:
            raise ConfigError(f"{MOST_FILES} files were sent within an hour; try again later")
        upload = secrets.token_hex(8)
        directory = self.root / upload
        make_directory(directory)
        write_bytes(directory / f"file{suffix}", data)
        write_json(directory / "upload.json", {"owner": user, "file": f"file{suffix}"})
        return f"upload:{upload}"

    def _count(self) -> int:
        return sum(1 for _ in self.root.iterdir()) if self.root.is_dir() else 0

    def forget_unused(self) -> None:
        """Remove files, but those sent within the last hour: their run may be about to be queued."""
        for directory in list(self.root.iterdir()):
            if time.time() - directory.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(directory)

    def path(self, name: str, user: str) -> Path:
        """The file behind `upload:ID`.

        Raises:
            ConfigError: there is none, or it is somebody else's.
        """
        match = _NAME.fullmatch(name)
        record = read_object(self.root / match[1] / "upload.json") if match else {}
        if match is None or not record or (user and record["owner"] != user):
            raise ConfigError("there is no such upload; send the file again")
        return (self.root / match[1] / record["file"]).resolve()

    def resolved(self, overrides: dict[str, Any], user: str) -> dict[str, Any]:
        """Settings with paths in place of `upload:ID`."""
        return {
            key: str(self.path(value, user))
            if isinstance(value, str) and value.startswith("upload:")
            else value
            for key, value in overrides.items()
        }

    def without_paths(self, message: str) -> str:
        """A message about a file, without where it lies."""
        return re.sub(re.escape(str(self.root.resolve())) + r"/[0-9a-f]{16}/", "", message)

    def is_own(self, path: str, user: str) -> bool:
        """Whether a path is that of a file this user sent, or of the copy that a job of theirs keeps."""
        parent = Path(path).parent
        if _COPY.fullmatch(Path(path).name) and self.store.exists(parent.name):
            own = self.store.manifest(parent.name).request.owner == user
            return own and parent.resolve() == self.store.directory(parent.name).resolve()
        if parent.parent != self.root.resolve():
            return False
        record = read_object(parent / "upload.json")
        return bool(record) and record["owner"] == user and Path(path).name == record["file"]
