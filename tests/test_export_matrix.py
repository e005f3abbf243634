"""Every format of splats, a radiance field and a mesh, each read back by a program of others: `make export-matrix`."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh
from axes_asset import ASSETS
from readers import gltf_report, through_splat_transform

from dream3d.export import FORMATS, About, Asset, ExportOptions, export_asset

pytestmark = pytest.mark.slow
OPTIONS = ExportOptions(faces=6000, texture_size=256, picture_size=64, frames=4)


@pytest.fixture(scope="module", params=list(ASSETS))
def asset(request: pytest.FixtureRequest) -> Asset:
    return Asset(ASSETS[request.param](), About(prompt="axes", seed=0))


def read_mesh(name: str, path: Path) -> trimesh.Trimesh:
    """In the world's frame."""
    kind = {"glb": "glb", "stl": "stl", "mesh-ply": "ply"}.get(name)
    if name == "obj":
        zipfile.ZipFile(path).extractall(path.parent / "obj")
        mesh = trimesh.load(path.parent / "obj" / "asset.obj", force="mesh")
    elif name == "usdz":
        from pxr import Usd, UsdGeom, UsdValidation

        stage = Usd.Stage.Open(str(path))
        validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
        assert UsdValidation.ValidationContext(validators).Validate(stage) == []
        shape = UsdGeom.Mesh(stage.GetPrimAtPath("/asset/mesh"))
        faces = np.array(shape.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
        mesh = trimesh.Trimesh(np.array(shape.GetPointsAttr().Get()), faces)
    else:
        mesh = trimesh.load(io.BytesIO(path.read_bytes()), file_type=kind, force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    if name in ("stl", "mesh-ply"):
        x, y, z = np.asarray(mesh.vertices).T
        mesh.vertices = np.stack([x, z, -y], axis=1) / (50.0 if name == "stl" else 1.0)
    return mesh


@pytest.mark.parametrize("name", [n for n in FORMATS if FORMATS[n].holds == "mesh"])
def test_meshes(tmp_path: Path, asset: Asset, name: str) -> None:
    if (remedy := FORMATS[name].missing()) is not None:
        pytest.skip(remedy)
    path = tmp_path / FORMATS[name].file_name
    export_asset(asset, name, path, OPTIONS)
    mesh = read_mesh(name, path)
    low, high = mesh.bounds
    # The arm reaches to +X, the nose to +Z, the body is highest; converted surfaces are a cell or two off.
    np.testing.assert_allclose(low, [-0.25, -0.6, -0.2], atol=0.06)
    np.testing.assert_allclose(high, [0.7, 0.6, 0.45], atol=0.06)


@pytest.mark.node
@pytest.mark.parametrize("name", ["glb", "gltf-splat"])
def test_gltf(tmp_path: Path, asset: Asset, name: str) -> None:
    path = tmp_path / "asset.glb"
    export_asset(asset, name, path, OPTIONS)
    unknown = ["MESH_PRIMITIVE_INVALID_ATTRIBUTE"] if name == "gltf-splat" else []
    issues = gltf_report(path, unknown)["issues"]
    assert issues["numErrors"] == issues["numWarnings"] == 0, issues["messages"]


@pytest.mark.node
@pytest.mark.parametrize("name", ["ply", "splat", "compressed-ply", "spz", "sog"])
def test_splats(tmp_path: Path, asset: Asset, name: str) -> None:
    path = tmp_path / FORMATS[name].file_name
    export_asset(asset, name, path, OPTIONS)
    table = through_splat_transform(path, tmp_path / "read.ply")
    place = np.stack([table[axis] for axis in "xyz"], axis=1)
    if name != "spz":
        place *= (1.0, -1.0, -1.0)
    color = 0.5 + 0.28209479 * np.stack([table[f"f_dc_{i}"] for i in range(3)], axis=1)
    for where, expected in (
        (place[:, 1] > 0.35, 0),
        (place[:, 1] < -0.35, 2),
        (place[:, 0] > 0.5, 1),
    ):
        # Of the upper part, leave the yellow nose out.
        mean = np.median(color[where & (place[:, 2] < 0.25)], axis=0)
        assert mean.argmax() == expected and mean.max() > 0.6 > 0.4 > np.sort(mean)[1]


@pytest.mark.parametrize("name", [n for n in FORMATS if FORMATS[n].holds == "pictures"])
def test_pictures(tmp_path: Path, asset: Asset, name: str) -> None:
    path = tmp_path / FORMATS[name].file_name
    assert export_asset(asset, name, path, OPTIONS).bytes > 1000


_BLENDER = """
import bpy, json, sys, mathutils
bpy.ops.wm.read_factory_settings(use_empty=True)
path, kind = sys.argv[-2:]
{"glb": bpy.ops.import_scene.gltf, "obj": bpy.ops.wm.obj_import, "usdz": bpy.ops.wm.usd_import,
 "stl": bpy.ops.wm.stl_import, "mesh-ply": bpy.ops.wm.ply_import}[kind](filepath=path)
places = [o.matrix_world @ v.co for o in bpy.data.objects if o.type == "MESH" for v in o.data.vertices]
images = [list(i.size) for i in bpy.data.images if i.size[0]]
print("FOUND" + json.dumps([[min(p[i] for p in places) for i in range(3)],
                            [max(p[i] for p in places) for i in range(3)], images]))
"""


@pytest.mark.blender
@pytest.mark.parametrize("name", ["glb", "obj", "usdz", "stl", "mesh-ply"])
def test_blender_reads_meshes_upright(tmp_path: Path, name: str) -> None:
    """Blender's world is +Z up: the world's (x, y, z) is its (x, -z, y), whatever the format's own frame."""
    import json
    import subprocess

    from readers import BLENDER

    path = tmp_path / FORMATS[name].file_name
    export_asset(Asset(ASSETS["mesh"]()), name, path, OPTIONS)
    if name == "obj":
        zipfile.ZipFile(path).extractall(tmp_path)
        path = tmp_path / "asset.obj"
    done = subprocess.run(
        [str(BLENDER), "-c", _BLENDER, str(path), name],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert "FOUND" in done.stdout, done.stdout + done.stderr
    low, high, images = json.loads(done.stdout.split("FOUND")[1].splitlines()[0])
    scale = 50.0 if name == "stl" else 1.0
    np.testing.assert_allclose(np.array(low) / scale, [-0.25, -0.45, -0.6], atol=1e-3)
    np.testing.assert_allclose(np.array(high) / scale, [0.7, 0.2, 0.6], atol=1e-3)
    if name in ("glb", "obj", "usdz"):
        assert [256, 256] in images
