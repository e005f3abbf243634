"""Textured meshes, films and views of an asset no two of whose sides look alike, read back by other programs."""

import io
import json
import subprocess
import zipfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import trimesh
from axes_asset import BOXES, MeshAsset, axes_mesh
from PIL import Image
from readers import gltf_report

from dream3d.errors import AssetError, ConfigError, OutputError
from dream3d.export import FORMATS, About, Asset, ExportOptions, export_asset, export_scene
from dream3d.export.formats.html import covariances, page
from dream3d.export.formats.stl import closed_mesh, welded
from dream3d.export.materials import with_corners
from dream3d.origin import ModelOrigin
from dream3d.scenes.surface import ColoredMesh

OPTIONS = ExportOptions(texture_size=256, picture_size=32, frames=4)
EVIL = 'a "mug" <img src=x onerror=alert(1)></script> ${oc.env:HOME}\r\nv 9 9 9 ünï'
NOTES = ("model: owner/model, revision abc123, MIT", "codec: owner/taesd", "seed: 3")
LOW, HIGH = np.array([-0.25, -0.6, -0.2]), np.array([0.7, 0.6, 0.45])


@pytest.fixture(scope="module")
def asset() -> Asset:
    models = (ModelOrigin("owner/model", "abc123", "MIT"), ModelOrigin("owner/taesd", use="codec"))
    about = About(EVIL, "diffusers", "owner/model", "MIT", 3, "abc123", models)
    return Asset(MeshAsset(), about)


def encoded(asset: Asset, name: str, options: ExportOptions = OPTIONS) -> bytes:
    return FORMATS[name]().encode(asset, options).data


def color_at(mesh: trimesh.Trimesh, direction: int, sign: int) -> np.ndarray:
    """The texture's colour at the corner of the mesh that lies farthest along an axis."""
    at = (sign * np.asarray(mesh.vertices)[:, direction]).argmax()
    visual = mesh.visual
    picture = np.asarray(
        getattr(visual.material, "baseColorTexture", None) or visual.material.image
    )
    u, v = np.asarray(visual.uv)[at]
    size = len(picture)
    row = min(int((1.0 - v) * size), size - 1)  # trimesh's v grows upward
    return picture[row, min(int(u * size), size - 1), :3] / 255.0


def check_colors(mesh: trimesh.Trimesh) -> None:
    """Red above, blue below, green at +X, yellow at +Z, of a +Y up mesh."""
    np.testing.assert_allclose(mesh.bounds, [LOW, HIGH], atol=1e-5)
    for direction, sign, box in ((1, 1, 0), (1, -1, 1), (0, 1, 2), (2, 1, 3)):
        np.testing.assert_allclose(color_at(mesh, direction, sign), BOXES[box][2], atol=0.03)


def test_glb_read_by_trimesh_has_its_colours_in_place(asset: Asset) -> None:
    mesh = trimesh.load(io.BytesIO(encoded(asset, "glb")), file_type="glb", force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    check_colors(mesh)
    outward = (np.asarray(mesh.vertex_normals) * np.asarray(mesh.vertices)).sum(axis=1)
    assert outward.mean() > 0.0


@pytest.mark.node
def test_the_khronos_validator_has_nothing_to_say_of_meshes(tmp_path: Path, asset: Asset) -> None:
    for size in (256, 0):
        path = tmp_path / "asset.glb"
        path.write_bytes(encoded(asset, "glb", ExportOptions(texture_size=size)))
        report = gltf_report(path)
        assert report["issues"]["messages"] == []
    assert report["info"]["generator"].startswith("dream3d")


def test_obj_read_by_trimesh_has_its_colours_in_place(tmp_path: Path, asset: Asset) -> None:
    archive = zipfile.ZipFile(io.BytesIO(encoded(asset, "obj")))
    assert sorted(archive.namelist()) == ["asset.mtl", "asset.obj", "asset.png"]
    archive.extractall(tmp_path)
    mesh = trimesh.load(tmp_path / "asset.obj", force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    check_colors(mesh)
    text = (tmp_path / "asset.obj").read_text()
    assert "\nv 9 9 9" not in text, "a prompt ends no comment"
    assert text.count("\nvn ") == text.count("\nv ") == len(axes_mesh().vertices)
    assert "Kd 1 1 1" in (tmp_path / "asset.mtl").read_text()


def test_usd_validates_and_keeps_frame_and_colour_space(tmp_path: Path, asset: Asset) -> None:
    if (remedy := FORMATS["usdz"].missing()) is not None:
        pytest.skip(remedy)
    from pxr import Usd, UsdGeom, UsdShade, UsdValidation

    (tmp_path / "asset.usdz").write_bytes(encoded(asset, "usdz"))
    stage = Usd.Stage.Open(str(tmp_path / "asset.usdz"))
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    errors = UsdValidation.ValidationContext(validators).Validate(stage)
    assert len(validators) > 10 and [e.GetMessage() for e in errors] == []
    assert UsdGeom.GetStageUpAxis(stage) == "Y" and UsdGeom.GetStageMetersPerUnit(stage) == 1.0
    points = np.array(UsdGeom.Mesh(stage.GetPrimAtPath("/asset/mesh")).GetPointsAttr().Get())
    np.testing.assert_allclose([points.min(axis=0), points.max(axis=0)], [LOW, HIGH], atol=1e-5)
    shader = UsdShade.Shader(stage.GetPrimAtPath("/asset/baked/base_color"))
    assert shader.GetInput("sourceColorSpace").Get() == "sRGB"
    with zipfile.ZipFile(tmp_path / "asset.usdz") as archive:
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())


def test_stl_and_mesh_ply_stand_on_z(asset: Asset) -> None:
    stl = trimesh.load(io.BytesIO(encoded(asset, "stl")), file_type="stl")
    # (x, y, z) becomes (x, -z, y), and 50 mm are one unit.
    low, high = np.array([LOW[0], -HIGH[2], LOW[1]]), np.array([HIGH[0], -LOW[2], HIGH[1]])
    np.testing.assert_allclose(stl.bounds, [50.0 * low, 50.0 * high], atol=1e-3)
    ply = trimesh.load(io.BytesIO(encoded(asset, "mesh-ply")), file_type="ply")
    np.testing.assert_allclose(ply.bounds, [low, high], atol=1e-5)
    top = np.asarray(ply.vertices)[:, 2].argmax()
    np.testing.assert_allclose(ply.visual.vertex_colors[top, :3], [230, 26, 26], atol=1)


def test_watertight_is_closed_or_refused() -> None:
    ball = trimesh.creation.icosphere(subdivisions=2)
    colors = np.full((len(ball.vertices), 3), 0.5)
    faces = np.asarray(ball.faces)
    holed = ColoredMesh(np.asarray(ball.vertices), faces[1:], colors)
    assert not welded(holed).is_watertight
    assert closed_mesh(welded(holed)).is_watertight
    open_half = ColoredMesh(
        np.asarray(ball.vertices), faces[np.asarray(ball.triangles_center)[:, 1] > 0], colors
    )
    with pytest.raises(AssetError, match="not watertight"):
        closed_mesh(welded(open_half))


def test_normals_are_smooth_across_the_seams_of_a_texture() -> None:
    ball = trimesh.creation.icosphere(subdivisions=2)
    faces = np.asarray(ball.faces)
    apart = np.arange(faces.size).reshape(-1, 3)
    made = with_corners(
        np.asarray(ball.vertices), faces, np.zeros((faces.size, 2)), apart, np.zeros((16, 16, 3))
    )
    assert len(made.vertices) == faces.size
    np.testing.assert_allclose(made.normals, made.vertices, atol=0.04)


def test_files_tell_where_they_come_from(asset: Asset, tmp_path: Path) -> None:
    """Program, prompt, models, licences and seed, as data; what a prompt holds is never a line of its own."""
    known = asset.about.known()
    assert known["prompt"] == EVIL and known["revision"] == "abc123"
    assert known["models"][1] == {"use": "codec", "model": "owner/taesd"}
    for options in (OPTIONS, ExportOptions(texture_size=0)):
        data = encoded(asset, "glb", options)
        document = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
        extras = document["asset"]["extras"]
        assert {key: extras[key] for key in known} == known
        assert document["asset"]["copyright"].endswith("under MIT")
    header = encoded(asset, "mesh-ply").partition(b"end_header\n")[0].decode("ascii").splitlines()
    assert {f"comment {line}" for line in NOTES} <= set(header)
    text = zipfile.ZipFile(io.BytesIO(encoded(asset, "obj"))).read("asset.obj").decode()
    lines = text.splitlines()
    assert lines[0].startswith("# dream3d") and {f"# {line}" for line in NOTES} <= set(lines)
    assert [line.startswith("# prompt: a ") for line in lines].count(True) == 1
    assert not [line for line in lines if line.startswith("v 9 9 9")]
    if FORMATS["usdz"].missing() is None:
        from pxr import Usd

        (tmp_path / "asset.usdz").write_bytes(encoded(asset, "usdz"))
        stage = Usd.Stage.Open(str(tmp_path / "asset.usdz"))
        assert dict(stage.GetRootLayer().customLayerData) == {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in known.items()
        }


def broken(kind: str) -> ColoredMesh:
    mesh = axes_mesh()
    vertices, faces = mesh.vertices.copy(), mesh.faces
    if kind == "not finite":
        vertices[3] = np.nan
    return ColoredMesh(vertices, faces[: {"empty": 0, "has 1 faces": 1}.get(kind)], mesh.colors)


@pytest.mark.parametrize("name", ["glb", "obj", "usdz", "stl", "mesh-ply", "html"])
@pytest.mark.parametrize("kind", ["empty", "has 1 faces", "not finite"])
def test_broken_meshes_are_refused_by_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    if FORMATS[name].missing():
        pytest.skip(str(FORMATS[name].missing()))
    monkeypatch.setattr(MeshAsset, "to_mesh", lambda *_, **__: broken(kind))
    target = tmp_path / "out"
    target.write_text("old")
    with pytest.raises(AssetError, match="has 0 faces" if kind == "empty" else kind):
        scene = MeshAsset()
        splats = Asset(scene)
        splats.splats = lambda: None  # type: ignore[assignment]  # not what is tested
        export_asset(splats, name, target, OPTIONS)
    assert target.read_text() == "old"


def test_a_missing_tool_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(AssetError, match=r"cannot write usdz: .*pip install 'dream3d\[usd\]'"):
        export_scene(MeshAsset(), "usdz", tmp_path / "asset.usdz")


@pytest.mark.parametrize("name", ["mp4", "webm"])
def test_films_play_in_every_channel(asset: Asset, tmp_path: Path, name: str) -> None:
    shown = {}
    for channel in ("rgb", "normal", "depth"):
        options = ExportOptions(picture_size=31, frames=4, channel=channel)
        path = tmp_path / f"film.{name}"
        path.write_bytes(encoded(asset, name, options))
        reader = imageio_ffmpeg.read_frames(str(path))
        assert next(reader)["size"] == (32, 32)
        frames = [np.frombuffer(f, np.uint8).reshape(32, 32, 3) for f in reader]
        assert len(frames) == 4
        shown[channel] = frames
    ask = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "ffmetadata", "-"]
    told = subprocess.run(ask, capture_output=True, check=True).stdout.decode()
    assert all(line in told.replace("\\", "") for line in NOTES)
    rgb = shown["rgb"][0].astype(int)
    assert rgb[9, 16, 0] > rgb[9, 16, 2] and rgb[22, 16, 2] > rgb[22, 16, 0], "red above blue"
    # A front that faces the viewer is (0.5, 0.5, 1).
    assert shown["normal"][0][22, 16, 2] > 200
    assert shown["depth"][0][16, 16].mean() > shown["depth"][0][1, 1].mean() + 50


def test_gif_turns_for_ever(asset: Asset) -> None:
    picture = Image.open(io.BytesIO(encoded(asset, "gif")))
    assert set(NOTES) < set(picture.info["comment"].decode().splitlines())
    assert picture.info["loop"] == 0 and getattr(picture, "n_frames", 1) == 4
    front = np.asarray(picture.convert("RGB")).astype(int)
    assert front[9, 16, 0] > front[9, 16, 2] and front[22, 16, 2] > front[22, 16, 0]


def test_views_project_the_object_where_the_pictures_show_it(asset: Asset) -> None:
    """By nerfstudio's convention: the green arm's end, moved to +Z up, lands on green pixels."""
    archive = zipfile.ZipFile(
        io.BytesIO(encoded(asset, "views", ExportOptions(frames=3, picture_size=64)))
    )
    document = json.loads(archive.read("transforms.json"))
    assert document["format_version"] == 1 and document["about"]["prompt"] == EVIL
    seen = 0
    for frame in document["frames"]:
        picture = np.asarray(Image.open(io.BytesIO(archive.read(frame["file_path"]))))
        assert picture.shape == (64, 64, 4) and picture[0, 0, 3] == 0
        # (0.66, 0, 0.05) in the world is (0.66, -0.05, 0) with +Z up.
        x, y, z, _ = np.linalg.inv(frame["transform_matrix"]) @ [0.66, -0.05, 0.0, 1.0]
        column = document["cx"] + document["fl_x"] * x / -z
        row = document["cy"] - document["fl_y"] * y / -z
        r, g, b, a = picture[int(row), int(column)].astype(int)
        seen += a > 128 and g > 1.5 * max(r, b)
    assert seen >= 2


def test_a_prompt_in_the_page_is_text_only(asset: Asset) -> None:
    made = page(asset.splats(), asset.textured(20_000, 64), asset.about).decode()
    assert "<img" not in made and made.count("</script>") == 3
    assert "http:" not in made and "https:" not in made


def test_covariances_turn_with_the_quaternion() -> None:
    from dream3d.export.splat_ply import SplatArrays

    half = np.sqrt(0.5)
    splat = SplatArrays(
        np.zeros((1, 3), np.float32),
        np.log(np.array([[0.3, 0.1, 0.2]], np.float32)),
        np.array([[half, 0.0, 0.0, half]], np.float32),  # a quarter turn about Z
        np.zeros(1, np.float32),
        np.zeros((1, 1, 3), np.float32),
    )
    np.testing.assert_allclose(covariances(splat)[0], np.diag([0.01, 0.09, 0.04]), atol=1e-7)


def test_options_and_places_are_checked(tmp_path: Path, asset: Asset) -> None:
    with pytest.raises(ConfigError, match="texture_size is 9000"):
        ExportOptions(texture_size=9000)
    with pytest.raises(OutputError, match="is a directory"):
        export_asset(asset, "glb", tmp_path, OPTIONS)
    made = export_asset(asset, "stl", tmp_path / "new" / "ünï $(x);'.stl", OPTIONS)
    assert made.path.stat().st_size == made.bytes
    assert [path.name for path in made.path.parent.iterdir()] == ["ünï $(x);'.stl"]
