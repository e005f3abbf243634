"""What a file format is: a name, what it holds, and a pure function from an asset to the bytes of one file."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from dream3d.errors import ConfigError
from dream3d.export.asset import Asset
from dream3d.export.pictures import Channel
from dream3d.registry import Registry

CHANNELS: tuple[Channel, ...] = ("rgb", "normal", "depth")
LIMITS = {
    "faces": (4, 1_000_000),
    "texture_size": (16, 8192),
    "picture_size": (16, 2048),
    "frames": (2, 1000),
}


@dataclass(frozen=True)
class ExportOptions:
    """What can be chosen about a file; a format ignores what does not concern it.

    Attributes:
        faces: a mesh has about this many triangles at most.
        texture_size: side of the textures in pixels; 0 writes colours per vertex where the format can (glb).
        watertight: refuse a mesh that is not closed, after closing the holes that can be closed.
        picture_size: side of the pictures of films and views in pixels; films round it to an even number.
        frames: pictures of a film or of a set of views.
        channel: what films show.
    """

    faces: int = 20_000
    texture_size: int = 1024
    watertight: bool = False
    picture_size: int = 256
    frames: int = 40
    channel: Channel = "rgb"

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if name == "texture_size" and value == 0:
                continue
            if not isinstance(value, int) or not low <= value <= high:
                raise ConfigError(f"{name} is {value!r}; choose an integer from {low} to {high}")
        if self.channel not in CHANNELS:
            raise ConfigError(f"channel is '{self.channel}'; choose one of {', '.join(CHANNELS)}")


@dataclass(frozen=True)
class Encoded:
    """A file's bytes and what is in it.

    Attributes:
        data: the whole file.
        details: counts and the like, JSON types only.
    """

    data: bytes
    details: dict[str, Any] = field(default_factory=dict)


class Format(ABC):
    """One file format. Subclasses are registered in FORMATS; the first line of their docstring is shown by `list`.

    Attributes:
        holds: "mesh", "splats" or "pictures".
        file_name: in the run directory, when no other is asked for; its end is the format's suffix.
        media_type: for HTTP.
        opens_in: programs that read it.
        frame: the axes of the file.
        color: how colours are encoded in it.
    """

    registered_name: ClassVar[str]
    holds: ClassVar[Literal["mesh", "splats", "pictures"]]
    file_name: ClassVar[str]
    media_type: ClassVar[str]
    opens_in: ClassVar[str]
    frame: ClassVar[str]
    color: ClassVar[str]

    @classmethod
    def missing(cls) -> str | None:
        """What is not installed and how to get it; None when the format can be written."""
        return None

    @abstractmethod
    def encode(self, asset: Asset, options: ExportOptions) -> Encoded:
        """The file.

        Raises:
            AssetError: the scene cannot give what the format holds, or it is broken; the message says why.
            OutputError: there is no room for temporary files.
        """


FORMATS: Registry[Format] = Registry("format", "dream3d.export.formats")


def export_name(name: str) -> str:
    """The file of a format among a job's `exports`, beside what its run made itself."""
    return f"export-{name}.{FORMATS[name].file_name.partition('.')[2]}"
