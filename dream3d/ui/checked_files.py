"""What somebody sends is held against what it claims before it is kept: nothing leads out of it, nothing grows in it.

Its readers are other people's (trimesh, Pillow); what follows knows how they read.
"""

import base64
import io
import json
import struct
from typing import Any

from dream3d.errors import ConfigError
from dream3d.scenes.mesh_file import MOST_FACES

MESHES = (".glb", ".obj", ".ply", ".stl")
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
MOST_PIXELS = 40_000_000
MOST_NODES = 10_000
MOST_FOLDED_LINES = 8
NO_GLB = "this is no GLB file; export the object as binary glTF 2.0"
_JSON, _BINARY = 0x4E4F534A, 0x004E4942
_PACKED = frozenset({"KHR_draco_mesh_compression", "EXT_meshopt_compression"})


def checked(suffix: str, data: bytes) -> bytes:
    """The file's content, without what leads out of it.

    Raises:
        ConfigError: it is not what its name says, refers to other files, or is much larger than it looks.
    """
    if suffix in PICTURES:
        check_picture(data, "the picture")
    elif suffix == ".glb":
        try:
            check_glb(data)
        except (struct.error, ValueError, TypeError, LookupError, AttributeError) as error:
            raise ConfigError(NO_GLB) from error
        except RecursionError as error:
            raise ConfigError(NO_GLB) from error
    elif suffix == ".obj":
        return without_materials(data)
    elif suffix == ".ply" and not data.startswith(b"ply"):
        raise ConfigError("this is no PLY file; it does not begin with ply")
    return data


def check_picture(data: bytes, what: str) -> None:
    """Refuse what cannot be read, or has more pixels than memory is worth.

    Raises:
        ConfigError: see above.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
            width, height = picture.size
    except Image.DecompressionBombError as error:
        raise ConfigError(f"{what} has too many pixels; at most 40 million") from error
    except (OSError, ValueError) as error:
        raise ConfigError("this is no picture that can be read; save it as PNG or JPEG") from error
    if width * height > MOST_PIXELS:
        raise ConfigError(f"{what} has {width} x {height} pixels; at most 40 million")


def without_materials(data: bytes) -> bytes:
    """An OBJ that names no material file, which its reader would look for beside it.

    The reader finds the word anywhere, also across folded lines and in any encoding it can guess: so lines are
    unfolded first, and the text is kept as UTF-8.

    Raises:
        ConfigError: lines are folded in lines that are folded.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    for _ in range(MOST_FOLDED_LINES):
        text = text.replace("\r\n", "\n").replace("\\\n", "")
    if "\r\n" in text or "\\\n" in text:
        raise ConfigError("this OBJ has lines folded many times over; export the object again")
    return text.replace("mtllib", "#tllib").encode()


def check_glb(data: bytes) -> None:
    """Refuse a GLB that refers to other files, or that its reader would make much larger than it is.

    Raises:
        ConfigError: see above; whatever a malformed one raises besides is for the caller.
    """
    magic, _, _, length, kind = struct.unpack_from("<4sIIII", data)
    document = json.loads(data[20 : 20 + length]) if magic == b"glTF" else None
    if not isinstance(document, dict) or kind != _JSON:
        raise ConfigError(NO_GLB)
    for key in ("buffers", "images"):
        parts = document.get(key, [])
        for part in parts if isinstance(parts, list) else [{"uri": ""}]:
            uri = part.get("uri") if isinstance(part, dict) else ""
            if uri is not None and not str(uri).startswith("data:"):
                raise ConfigError("this GLB refers to other files; export it with all in one file")
    if _PACKED & set(document.get("extensionsUsed", [])):
        raise ConfigError("this GLB is compressed; export it without compression (Draco, meshopt)")
    _check_counts(document, len(data))
    binary = data[20 + length + 8 :] if data[20 + length + 4 : 20 + length + 8] else b""
    for image in document.get("images", []):
        check_picture(_image(image, document, binary), "a picture in this GLB")


def _check_counts(document: dict[str, Any], size: int) -> None:
    """What is unfolded may be no larger than what a mesh may be: elements, and meshes that are used again and again."""
    accessors, nodes = document.get("accessors", []), document.get("nodes", [])
    for accessor in accessors:
        if not 0 <= accessor["count"] <= size:
            raise ConfigError(f"this GLB claims {accessor['count']} elements and has {size} bytes")
    if len(nodes) > MOST_NODES:
        raise ConfigError(f"this GLB has {len(nodes)} nodes; at most {MOST_NODES}, join its parts")
    corners = []
    for mesh in document.get("meshes", []):
        shapes = mesh["primitives"]
        used = [shape.get("indices", shape["attributes"].get("POSITION")) for shape in shapes]
        corners.append(sum(accessors[index]["count"] for index in used if index is not None))
    total = sum(corners) + sum(corners[node["mesh"]] for node in nodes if "mesh" in node)
    # Every mesh is counted once for itself and once for each place it stands in.
    if total > 6 * MOST_FACES:
        raise ConfigError(
            f"this GLB has {total // 6} triangles with all its repetitions; at most {MOST_FACES}"
        )


def _image(image: dict[str, Any], document: dict[str, Any], binary: bytes) -> bytes:
    if image.get("uri") is not None:
        return base64.b64decode(str(image["uri"]).partition(",")[2])
    view = document["bufferViews"][image["bufferView"]]
    begin = view.get("byteOffset", 0)
    return binary[begin : begin + view["byteLength"]]
