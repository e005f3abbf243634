"""Meshes and pictures a user sends: they reach the run, lead nowhere else, and are nobody else's."""

import base64
import io
import json
import os
import shlex
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

pytest.importorskip("gradio", reason="the web page is an extra: pip install 'dream3d[ui]'")

from ui_support import Answer, ask, serving

from dream3d.config import load_config_file
from dream3d.errors import ConfigError
from dream3d.jobs import JobRequest, JobStore
from dream3d.ui.filled import filled_from, read_form
from dream3d.ui.jobs import UserJobs
from dream3d.ui.security import MAX_BODY, MAX_UPLOAD
from dream3d.ui.tasks import Tasks
from dream3d.ui.uploads import checked
from systems.base import fingerprint

RAW = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    place = tmp_path_factory.mktemp("uploads")
    os.environ["GRADIO_TEMP_DIR"] = str(place / "cache")
    with serving(place / "app", start_jobs=False) as server:
        yield server


def send(server: Any, name: str, data: bytes) -> Answer:
    return ask(server, "POST", f"/api/uploads?name={name}", data, RAW)


def mesh(kind: str) -> bytes:
    made = trimesh.creation.box().export(file_type=kind)
    return made if isinstance(made, bytes) else made.encode()


def glb(document: Any, binary: bytes = b"") -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    binary = struct.pack("<II", len(binary), 0x004E4942) + binary if binary else b""
    length = 20 + len(text) + len(binary)
    head = struct.pack("<4sIIII", b"glTF", 2, length, len(text), 0x4E4F534A)
    return head + text + binary


SHAPE = {"attributes": {"POSITION": 0}}


def bomb(**more: Any) -> bytes:
    """A GLB of one triangle but for what is said."""
    whole = {
        "asset": {"version": "2.0"},
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [SHAPE]}],
        "accessors": [{"bufferView": 0, "count": 3, "componentType": 5126, "type": "VEC3"}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "buffers": [{"byteLength": 36}],
    }
    return glb({**whole, **more}, bytes(36))


def png_bomb(side: int) -> bytes:
    """A black PNG of side^2 pixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def data_uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def picture(side: int = 32) -> bytes:
    """A red square on nothing."""
    stream = io.BytesIO()
    made = Image.new("RGBA", (side, side))
    made.paste((255, 0, 0, 255), (side // 4, side // 4, 3 * side // 4, 3 * side // 4))
    made.save(stream, format="PNG")
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["glb", "obj", "ply", "stl"])
def test_a_mesh_reaches_the_run(server: Any, kind: str) -> None:
    name = send(server, f"..%2f..%2fbox.{kind.upper()}", mesh(kind)).json["upload"]
    form = {"prompt": "a mug", "preset": "texture", "settings": {"scene.mesh": name}}
    answer = ask(server, "POST", "/api/form", form)
    assert answer.status == 201, answer.body
    overrides = answer.json["job"]["request"]["overrides"]
    path = Path(overrides["scene.mesh"])
    assert path.is_relative_to(server.store.root / "uploads") and path.name == f"file.{kind}"
    from dream3d.scenes.mesh_file import load_mesh

    assert len(load_mesh(path).faces) == 12


def test_a_picture_reaches_the_run(server: Any) -> None:
    name = send(server, "a.png", picture()).json["upload"]
    answer = ask(server, "POST", "/api/form", {"prompt": "a mug", "image": name})
    assert answer.status == 201, answer.body
    job = answer.json["job"]["id"]
    config = ask(server, "GET", f"/api/jobs/{job}/details").json["config"]
    assert "image: reference.png" in config, "the job has a copy of its own"
    filled = ask(server, "GET", f"/api/form?from={job}").json["filled"]
    again = ask(server, "POST", "/api/form", {"prompt": "a mug", "image": filled["image"]})
    assert again.status == 201, again.body
    small = send(server, "b.png", picture(8)).json["upload"]
    answer = ask(server, "POST", "/api/form", {"prompt": "a mug", "image": small})
    assert answer.status == 422 and answer.message.startswith("file.png has 8 x 8 pixels")


def test_files_of_megabytes_are_taken_and_no_more(server: Any) -> None:
    assert send(server, "a.stl", b"x" * (MAX_BODY + 1)).status == 201
    assert send(server, "a.stl", b"x" * (MAX_UPLOAD + 1)).status == 413


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("a.exe", b"MZ", "must end in one of"),
        ("a.ckpt", b"\x80\x04cos\nsystem\n(S'id'\ntR.", "must end in one of"),
        ("a.safetensors", b"\x80\x04cos\nsystem\n(S'id'\ntR.", "must end in one of"),
        ("a.glb", b"PK\3\4", "this is no GLB file"),
        ("a.glb", glb([]), "this is no GLB file"),
        ("a.glb", glb({"buffers": [{"uri": "../../secret.bin"}]}), "refers to other files"),
        ("a.glb", glb({"images": [{"uri": "http://127.0.0.1:9/x.png"}]}), "refers to other files"),
        ("a.glb", glb({"images": "x"}), "refers to other files"),
        ("a.ply", b"PLY?", "this is no PLY file"),
        ("a.png", b"\x89PNG and no more", "this is no picture"),
        ("a.png", b"<svg onload='x'/>", "this is no picture"),
        ("a.png", png_bomb(8000), "the picture has 8000 x 8000 pixels; at most 40 million"),
        ("a.png", png_bomb(30000), "the picture has too many pixels"),
        ("a.glb", bomb(accessors=[{"count": 2**31}]), "claims 2147483648 elements"),
        ("a.glb", bomb(accessors=[{"count": -1}]), "claims -1 elements"),
        ("a.glb", bomb(nodes=[{"mesh": 0}] * 10_001), "has 10001 nodes; at most 10000"),
        ("a.glb", bomb(meshes=[{"primitives": [SHAPE] * 10**5}], accessors=[{"count": 36}]), "with all its rep"),
        ("a.glb", bomb(images=[{"uri": data_uri(png_bomb(8000))}]), "a picture in this GLB has 8000 x 8000"),
        ("a.glb", bomb(images=[{"bufferView": 0}]), "this is no picture"),
        ("a.glb", bomb(extensionsUsed=["KHR_draco_mesh_compression"]), "without compression"),
        ("a.glb", bomb(nodes=[{"mesh": 7}]), "this is no GLB file"),
        ("a.glb", bomb(nodes={"mesh": 7}), "this is no GLB file"),
    ],
)  # fmt: skip
def test_what_is_refused(server: Any, name: str, data: bytes, what: str) -> None:
    answer = send(server, name, data)
    assert answer.status == 422 and what in answer.message, answer.body


def test_what_is_no_bomb_is_taken() -> None:
    assert checked(".glb", bomb()) == bomb()
    inside = bomb(images=[{"uri": data_uri(picture())}])
    assert checked(".glb", inside) == inside
    textured = trimesh.creation.box()
    uv = np.zeros((len(textured.vertices), 2))
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.new("RGB", (8, 8)))
    textured.visual = trimesh.visual.TextureVisuals(uv, material)
    made = textured.export(file_type="glb")
    assert isinstance(made, bytes) and checked(".glb", made) == made


WAYS_OUT = [
    b"mtllib secret.mtl\nusemtl a\n",
    b"  mtllib secret.mtl\n",
    b"# no line of its own: mtllib secret.mtl\n",
    b"mtl\\\nlib secret.mtl\n",
    b"mtl\\\\\n\nlib secret.mtl\n",
    b"v 0 0 0\rmtllib secret.mtl\n",
    b"mtlmtlliblib secret.mtl\n",
    "\ufeffmtllib secret.mtl\n".encode(),
    "mtllib secret.mtl\n".encode("utf-16"),
]


@pytest.mark.parametrize("way", WAYS_OUT)
def test_an_obj_loses_its_way_out(way: bytes, tmp_path: Path, monkeypatch: Any) -> None:
    """Its reader asks for no other file, whether or not it can make sense of the rest."""
    asked = []
    monkeypatch.setattr(
        trimesh.resolvers.FilePathResolver, "get", lambda _, name: asked.append(name) or b""
    )
    shape = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
    (tmp_path / "a.obj").write_bytes(checked(".obj", way + shape))
    with suppress(IndexError, ValueError):
        trimesh.load(tmp_path / "a.obj", force="mesh")
    assert asked == []
    with pytest.raises(ConfigError, match="folded"):
        checked(".obj", b"\\" * 100 + b"\n" * 100)


@pytest.mark.parametrize("name", ["upload:..", "upload:" + "0" * 16, "upload:/etc/hostname"])
def test_uploads_that_are_none(server: Any, name: str) -> None:
    form = {"prompt": "a mug", "preset": "texture", "settings": {"scene.mesh": name}}
    answer = ask(server, "POST", "/api/form", form)
    assert answer.status == 404 and "there is no such upload" in answer.message


def test_others_files_are_not_ones_own(tmp_path: Path) -> None:
    """Nor any file of the machine, however the setting is written."""
    store = JobStore(tmp_path / "app")
    store.tend = list  # type: ignore[method-assign]
    jobs = UserJobs(store, Tasks(store))
    name = jobs.uploads.add("box.stl", mesh("stl"), "ada")
    path = str(jobs.uploads.path(name, "ada"))
    mine = jobs.checked(JobRequest("a mug", "texture", 0, "", {"scene.mesh": name}, "ada"))
    assert mine.overrides == {"scene.mesh": path}
    with pytest.raises(ConfigError, match="there is no such upload"):
        jobs.checked(JobRequest("a mug", "texture", 0, "", {"scene.mesh": name}, "bob"))
    name = jobs.uploads.add("a.png", picture(), "ada")
    job = jobs.submit(JobRequest("a mug", "texture", 0, "", {"reference.image": name}, "ada"))
    kept = {"reference.image": str(store.directory(job).resolve() / "reference.png")}
    assert jobs.checked(JobRequest("a mug", "texture", 0, "", kept, "ada"))
    with pytest.raises(ConfigError, match="is no file of yours"):
        jobs.checked(JobRequest("a mug", "texture", 0, "", kept, "bob"))
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture())
    for overrides in (
        {"scene.mesh": path},
        {"scene.mesh": str(secret)},
        {"scene": {"name": "mesh", "mesh": str(secret)}},
        {"reference.image": str(secret)},
        {"reference": {"image": str(secret)}},
        {"reference": str(secret)},
        {"stages.0.scene.mesh": "/etc/hostname"},
        {"prior.path": "/etc"},
        # Without a slash: a name in the server's own directory, or of a model it would fetch.
        {"prior.path": "secrets"},
        {"prior": {"name": "particles", "images": "secrets"}},
        {"prior": {"name": "diffusers", "model": "gpt2"}},
        {"prior": {"name": "sdxl", "vae": "gpt2"}},
        {"second": {"prior": {"name": "diffusers", "model": "gpt2"}, "guidance": "sds"}},
        {"debiasing.model": "gpt2"},
        {"debiasing": {"model": "secrets"}},
        {"prior": {"name": "sdxl", "loras": ["secret.safetensors"]}},
        {"prior": {"name": "sdxl", "image_prompt": "secret.png", "ip_adapter": "ip-adapter"}},
    ):
        with pytest.raises(
            ConfigError, match=r"no file of yours|(prior|debiasing)\.\w+ cannot be chosen"
        ):
            jobs.checked(JobRequest("a mug", "texture", 0, "", overrides, "bob"))
    assert jobs.checked(JobRequest("a mug", "default", 0, "", {"prior": "sdxl"}, "bob"))


def test_files_sent_long_ago_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = JobStore(tmp_path / "app")
    store.tend = list  # type: ignore[method-assign]
    jobs = UserJobs(store, Tasks(store))
    monkeypatch.setattr("dream3d.ui.uploads.MOST_FILES", 3)
    used, old, fresh = (jobs.uploads.add("box.stl", mesh("stl"), "") for _ in range(3))
    job = jobs.submit(JobRequest("a mug", "texture", 0, "", {"scene.mesh": used}))
    with pytest.raises(ConfigError, match="3 files were sent within an hour; try again later"):
        jobs.uploads.add("box.stl", mesh("stl"), "")
    for name in (used, old):
        os.utime(jobs.uploads.path(name, "").parent, (1.0, 1.0))
    another = jobs.uploads.add("box.stl", mesh("stl"), "")
    assert all(jobs.uploads.path(name, "").is_file() for name in (fresh, another))
    for name in (used, old):
        with pytest.raises(ConfigError, match="no such upload"):
            jobs.uploads.path(name, "")
    assert mesh_of(store, job).read_bytes() == mesh("stl"), "the run has a copy of its own"


def mesh_of(store: JobStore, job: str) -> Path:
    """The mesh that a job begins with, as its worker reads the configuration."""
    config = load_config_file(store.directory(job) / "config.yaml")
    return Path(config.stages[0].scene.mesh)  # type: ignore[union-attr]


def test_a_job_is_whole_without_its_uploads_and_wherever_it_lies(tmp_path: Path) -> None:
    """Uploads deleted, the root moved: the same mesh and picture, for the run, its command and the run after it."""
    store = JobStore(tmp_path / "app")
    store.tend = list  # type: ignore[method-assign]
    jobs = UserJobs(store, Tasks(store))
    sent = {
        "scene.mesh": jobs.uploads.add("box.glb", mesh("glb"), "ada"),
        "reference.image": jobs.uploads.add("a.png", picture(), "ada"),
    }
    job = jobs.submit(JobRequest("a mug", "texture", 0, "", sent, "ada"))
    before = fingerprint(load_config_file(store.directory(job) / "config.yaml"))
    shutil.rmtree(jobs.uploads.root)
    store.root.rename(tmp_path / "moved")
    store = JobStore(tmp_path / "moved")
    store.tend = list  # type: ignore[method-assign]
    jobs = UserJobs(store, Tasks(store))
    directory = store.directory(job)
    assert mesh_of(store, job) == directory / "mesh-0.glb"
    assert mesh_of(store, job).read_bytes() == mesh("glb")
    assert str(tmp_path / "app") not in (directory / "config.yaml").read_text()
    config = load_config_file(directory / "config.yaml")
    assert fingerprint(config) == before, "its checkpoints stay its own"
    command = shlex.split(jobs.details(job, "ada")["command"])
    assert f"scene.mesh={json.dumps(str(directory / 'mesh-0.glb'))}" in command
    filled = filled_from(jobs.get(job, "ada"), jobs)
    form = {key: filled[key] for key in ("prompt", "preset", "seed", "settings", "image")}
    again = jobs.submit(read_form(form, "ada"))
    assert mesh_of(store, again) == store.directory(again) / "mesh-0.glb"
    with pytest.raises(ConfigError, match="is no file of yours"):
        jobs.submit(read_form(form, "bob"))
    store.cancel(job)
    store.delete(job)
    assert mesh_of(store, again).read_bytes() == mesh("glb")


def test_a_mesh_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "app")
    with pytest.raises(ConfigError, match=r"scene\.mesh is '.*none\.glb', which cannot be read"):
        store.submit(JobRequest("a mug", "texture", 0, "", {"scene.mesh": "none.glb"}))
    assert store.ids() == []


@pytest.mark.parametrize("ending", ["obj", "ply"])
def test_a_mesh_without_triangles_is_told_at_once(tmp_path: Path, ending: str) -> None:
    """Before, the run was queued, loaded everything and failed with the path of the server's copy."""
    store = JobStore(tmp_path / "app")
    store.tend = list  # type: ignore[method-assign]
    jobs = UserJobs(store, Tasks(store))
    points = {
        "obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\n",
        "ply": b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
        b"end_header\n0 0 0\n",
    }
    name = jobs.uploads.add(f"points.{ending}", points[ending], "")
    with pytest.raises(ConfigError, match=rf"^file\.{ending} (holds no triangles|cannot be read)"):
        jobs.submit(JobRequest("a mug", "texture", 0, "", {"scene.mesh": name}))
    assert store.ids() == []
