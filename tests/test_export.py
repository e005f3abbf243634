"""Exports are read back by readers that share no code with the writers, on an asset whose every axis has its colour."""

import io
import json
import struct
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from dream3d.cameras import orbit_cameras
from dream3d.errors import AssetError, OutputError
from dream3d.export.glb import glb_bytes, srgb_to_linear, vertex_normals
from dream3d.export.pictures import FRAMES, grid, render_views, turntable_mp4, write_preview
from dream3d.export.splat_ply import (
    PROPERTIES,
    SplatArrays,
    splat_arrays,
    splat_ply_bytes,
    turned_about_x,
)
from renderers.splats import render_splats
from renderers.splats_data import SplatData


def random_splats(count: int = 20, coefficients: int = 16, seed: int = 0) -> SplatArrays:
    rng = np.random.default_rng(seed)
    return SplatArrays(
        rng.uniform(-0.6, 0.6, (count, 3)).astype(np.float32),
        rng.uniform(-3.0, -1.5, (count, 3)).astype(np.float32),
        rng.normal(size=(count, 4)).astype(np.float32),
        rng.normal(size=count).astype(np.float32),
        (0.3 * rng.normal(size=(count, coefficients, 3))).astype(np.float32),
    )


def read_ply(data: bytes) -> dict[str, np.ndarray]:
    """A reader by the PLY specification, knowing nothing of the writer."""
    head, body = data.split(b"end_header\n", 1)
    lines = head.decode("ascii").split("\n")
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    count = next(int(line.split()[2]) for line in lines if line.startswith("element vertex"))
    names = [line.split()[2] for line in lines if line.startswith("property float")]
    rows = np.array(struct.unpack(f"<{count * len(names)}f", body)).reshape(count, len(names))
    return {name: rows[:, index] for index, name in enumerate(names)}


def test_ply_has_the_62_properties_in_the_original_order() -> None:
    table = read_ply(splat_ply_bytes(random_splats()))
    assert list(table) == list(PROPERTIES)
    assert len(table) == 62
    assert list(table)[:9] == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    assert list(table)[-8:] == [
        "opacity",
        "scale_0",
        "scale_1",
        "scale_2",
        *(f"rot_{i}" for i in range(4)),
    ]


def test_ply_values_are_raw_and_turned_y_down() -> None:
    splats = random_splats(coefficients=4)
    table = read_ply(splat_ply_bytes(splats))
    np.testing.assert_allclose(table["x"], splats.means[:, 0], rtol=1e-6)
    np.testing.assert_allclose(table["y"], -splats.means[:, 1], rtol=1e-6)
    np.testing.assert_allclose(table["z"], -splats.means[:, 2], rtol=1e-6)
    np.testing.assert_allclose(table["opacity"], splats.opacity_logits, rtol=1e-6)
    np.testing.assert_allclose(table["scale_1"], splats.log_scales[:, 1], rtol=1e-6)
    np.testing.assert_allclose(table["f_dc_2"], splats.sh[:, 0, 2], rtol=1e-6)
    # Channel-major: f_rest_0..14 are red. Degree 1 is (y, z, x); the first two change sign.
    np.testing.assert_allclose(table["f_rest_2"], splats.sh[:, 3, 0], rtol=1e-6)
    np.testing.assert_allclose(table["f_rest_15"], -splats.sh[:, 1, 1], rtol=1e-6)
    assert not np.any(table["f_rest_3"]), "degrees that are not there are zero"
    assert not np.any(table["nx"])
    rotations = np.stack([table[f"rot_{i}"] for i in range(4)], axis=1)
    np.testing.assert_allclose(np.linalg.norm(rotations, axis=1), 1.0, rtol=1e-6)


def as_data(splats: SplatArrays) -> SplatData:
    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).double()

    return SplatData(
        tensor(splats.means),
        tensor(splats.log_scales),
        tensor(splats.quaternions),
        tensor(splats.opacity_logits),
        sh=tensor(splats.sh),
    )


def test_turned_splats_under_a_turned_camera_look_the_same() -> None:
    """Positions, orientations and every harmonic of degree 1-3 at once, through the renderer."""
    splats = random_splats()
    cameras = orbit_cameras([20.0, 130.0, 250.0], [35.0, -20.0, 5.0], size=24).to(
        "cpu", torch.float64
    )
    turn = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
    turned_cameras = type(cameras)(
        turn @ cameras.c2w,
        cameras.K,
        cameras.height,
        cameras.width,
        cameras.azimuth_deg,
        cameras.elevation_deg,
        cameras.distance,
    )
    before = render_splats(as_data(splats), cameras)
    after = render_splats(as_data(turned_about_x(splats)), turned_cameras)
    assert before.alpha.mean() > 0.05
    torch.testing.assert_close(before.rgb, after.rgb, atol=1e-9, rtol=0)
    torch.testing.assert_close(before.alpha, after.alpha, atol=1e-9, rtol=0)


def test_turning_twice_is_nothing() -> None:
    splats = random_splats()
    again = turned_about_x(turned_about_x(splats))
    np.testing.assert_array_equal(again.means, splats.means)
    np.testing.assert_array_equal(again.sh, splats.sh)
    np.testing.assert_array_equal(again.quaternions, -splats.quaternions)


@pytest.mark.parametrize("name", ["means", "log_scales", "quaternions", "opacity_logits", "sh"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_splats_that_are_not_finite_are_refused(name: str, value: float) -> None:
    splats = random_splats()
    getattr(splats, name)[3] = value
    with pytest.raises(AssetError, match=f"1 of 20 splats have {name} that are not finite"):
        splat_ply_bytes(splats)


def test_no_splats_are_refused() -> None:
    with pytest.raises(AssetError, match="no splats left"):
        splat_ply_bytes(random_splats(count=0))
    splats = random_splats()
    splats.quaternions[0] = 0.0
    with pytest.raises(AssetError, match="1 splats have the orientation 0"):
        splat_ply_bytes(splats)


def axes_mesh() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three boxes: red along +X, green along +Y, blue along +Z, of different lengths."""
    boxes = []
    for axis, length in enumerate((0.9, 0.7, 0.5)):
        box = trimesh.creation.box([0.1, 0.1, 0.1])
        box.vertices[:, axis] = (box.vertices[:, axis] + 0.05) / 0.1 * length
        color = np.zeros((len(box.vertices), 3))
        color[:, axis] = 0.5
        boxes.append((np.asarray(box.vertices), np.asarray(box.faces), color))
    vertices = np.concatenate([b[0] for b in boxes])
    faces = np.concatenate([b[1] + 8 * i for i, b in enumerate(boxes)])
    return vertices, faces, np.concatenate([b[2] for b in boxes])


def read_glb(data: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """A reader by the glTF 2.0 specification, which checks what a validator checks of such a file."""
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    json_length, json_type = struct.unpack_from("<I4s", data, 12)
    assert json_type == b"JSON" and json_length % 4 == 0
    document = json.loads(data[20 : 20 + json_length])
    binary_length, binary_type = struct.unpack_from("<I4s", data, 20 + json_length)
    binary = data[28 + json_length :]
    assert binary_type == b"BIN\0" and binary_length == len(binary) and len(binary) % 4 == 0
    assert 0 <= len(binary) - document["buffers"][0]["byteLength"] < 4
    types = {5126: ("<f4", 4), 5123: ("<u2", 2), 5125: ("<u4", 4)}
    widths = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}
    arrays = []
    for accessor in document["accessors"]:
        view = document["bufferViews"][accessor["bufferView"]]
        dtype, size = types[accessor["componentType"]]
        width = widths[accessor["type"]]
        assert view["byteOffset"] % 4 == 0 and (width * size) % 4 == 0
        assert view["byteLength"] == accessor["count"] * width * size
        raw = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        array = np.frombuffer(raw, dtype).reshape(accessor["count"], width)
        if "min" in accessor:
            np.testing.assert_array_equal(array.min(axis=0), np.float32(accessor["min"]))
            np.testing.assert_array_equal(array.max(axis=0), np.float32(accessor["max"]))
        arrays.append(array)
    primitive = document["meshes"][0]["primitives"][0]
    named = {name: arrays[index] for name, index in primitive["attributes"].items()}
    assert len({len(array) for array in named.values()}) == 1
    named["indices"] = arrays[primitive["indices"]].reshape(-1, 3)
    assert named["indices"].max() < len(named["POSITION"])
    return document, named


def test_glb_is_valid_and_keeps_the_frame() -> None:
    vertices, faces, colors = axes_mesh()
    document, arrays = read_glb(glb_bytes(vertices, faces, colors))
    assert document["asset"]["version"] == "2.0"
    np.testing.assert_allclose(arrays["POSITION"].max(axis=0), [0.9, 0.7, 0.5], rtol=1e-6)
    np.testing.assert_array_equal(arrays["indices"], faces)
    np.testing.assert_allclose(np.linalg.norm(arrays["NORMAL"], axis=1), 1.0, atol=1e-5)
    outermost = arrays["POSITION"][:, 1].argmax()
    assert arrays["COLOR_0"][outermost, 1] > 0 == arrays["COLOR_0"][outermost, 0]


def test_glb_colours_are_linear() -> None:
    vertices, faces, colors = axes_mesh()
    _, arrays = read_glb(glb_bytes(vertices, faces, colors))
    # 0.5 in sRGB is 21.4 % of the light.
    np.testing.assert_allclose(
        arrays["COLOR_0"].max(axis=0) / 65535, [0.21404] * 3 + [1.0], atol=2e-5
    )
    np.testing.assert_allclose(
        srgb_to_linear(np.array([0.0, 0.04045, 1.0])), [0.0, 0.0031308, 1.0], atol=1e-6
    )


def test_trimesh_reads_the_glb_back() -> None:
    vertices, faces, colors = axes_mesh()
    loaded = trimesh.load(
        io.BytesIO(glb_bytes(vertices, faces, colors)), file_type="glb", force="mesh"
    )
    assert loaded.is_watertight
    assert len(loaded.faces) == len(faces)
    assert loaded.volume == pytest.approx(0.01 * (0.9 + 0.7 + 0.5), rel=1e-5)
    np.testing.assert_allclose(loaded.bounds[1], [0.9, 0.7, 0.5], rtol=1e-6)


def test_faces_without_area_are_left_out_and_normals_point_outward() -> None:
    vertices, faces, colors = axes_mesh()
    more = np.concatenate([faces, [[0, 0, 1]]])
    _, arrays = read_glb(glb_bytes(vertices, more, colors))
    assert len(arrays["indices"]) == len(faces)
    ball = trimesh.creation.icosphere()
    normals = vertex_normals(np.asarray(ball.vertices), np.asarray(ball.faces))
    np.testing.assert_allclose(normals, ball.vertices, atol=0.02)


def test_broken_meshes_are_refused() -> None:
    vertices, faces, colors = axes_mesh()
    nan = vertices.copy()
    nan[0, 0] = np.nan
    bright = colors + 1.0
    for message, mesh in (
        ("the mesh is empty", (vertices, faces[:0], colors)),
        ("the mesh is empty", (vertices, np.zeros((4, 3), dtype=int), colors)),
        ("not finite", (nan, faces, colors)),
        ("not finite", (vertices, faces, colors * np.nan)),
        ("names vertex 1000 of 24", (vertices, np.full((1, 3), 1000), colors)),
        ("must lie in", (vertices, faces, bright)),
    ):
        with pytest.raises(AssetError, match=message):
            glb_bytes(*mesh)


class Gradient:
    """A scene whose picture tells the camera: red is the azimuth, the background stays free at the borders."""

    def parameters(self) -> dict[str, torch.Tensor]:
        return {"x": torch.zeros(1)}

    def render(self, cameras):
        from dream3d.rendering import RenderOutput

        shape = (len(cameras), cameras.height, cameras.width)
        alpha = torch.zeros(*shape, 1)
        alpha[:, 4:-4, 4:-4] = 1.0
        red = torch.zeros(*shape, 3)
        red[..., 0] = (cameras.azimuth_deg / 360.0)[:, None, None]
        return RenderOutput(red * alpha, alpha, alpha)


def test_preview_shows_eight_sides_over_grey(tmp_path: Path) -> None:
    write_preview(Gradient(), tmp_path / "preview.png", 32)  # type: ignore[arg-type]
    picture = np.asarray(Image.open(tmp_path / "preview.png"))
    assert picture.shape == (64, 128, 3)
    assert tuple(picture[0, 0]) == (209, 209, 209)
    reds = [picture[16 + 32 * row, 16 + 32 * column, 0] for row in range(2) for column in range(4)]
    np.testing.assert_allclose(reds, [255 * i / 8 for i in range(8)], atol=1)


def test_grid_fills_the_last_row() -> None:
    sheet = grid(np.zeros((5, 2, 3, 3), dtype=np.uint8))
    assert sheet.shape == (4, 12, 3)
    assert sheet[2:, 3:].min() == 209


def test_turntable_plays_once_around(tmp_path: Path) -> None:
    film = turntable_mp4(Gradient(), 64)  # type: ignore[arg-type]
    (tmp_path / "turntable.mp4").write_bytes(film)
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "turntable.mp4"))
    about = next(reader)
    frames = [np.frombuffer(frame, np.uint8).reshape(64, 64, 3) for frame in reader]
    assert about["codec"] == "h264" and about["pix_fmt"].startswith("yuv420p")
    assert 2.0 <= about["duration"] <= 3.0
    assert len(frames) == FRAMES
    reds = np.array([frame[24:40, 24:40, 0].mean() for frame in frames])
    assert np.all(np.diff(reds) > 0), "the frames are in order, from the front toward +X"


def test_pictures_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    class Broken(Gradient):
        def render(self, cameras):
            output = super().render(cameras)
            return type(output)(output.rgb * float("nan"), output.alpha, output.depth)

    with pytest.raises(AssetError, match="not finite"):
        render_views(Broken(), [0.0], 16)  # type: ignore[arg-type]


def test_a_failing_encoder_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object):
        yield
        yield
        raise RuntimeError("no space left on device")

    monkeypatch.setattr("imageio_ffmpeg.write_frames", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(OutputError, match="ffmpeg failed: no space left on device"):
        turntable_mp4(Gradient(), 16)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_plain_colours_become_degree_zero() -> None:
    data = as_data(random_splats())
    plain = SplatData(
        data.means,
        data.log_scales,
        data.quaternions,
        data.opacity_logits,
        features=torch.full((20, 3), 0.8),
    )
    table = read_ply(splat_ply_bytes(splat_arrays(plain)))
    # Colour is 0.5 + Y_0^0 f_dc with Y_0^0 = 1 / (2 sqrt(pi)).
    np.testing.assert_allclose(0.5 + table["f_dc_0"] / (2 * np.sqrt(np.pi)), 0.8, rtol=1e-6)
