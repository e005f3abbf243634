"""Splat containers, read back by splat-transform, which shares no code with the writers."""

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from readers import (
    NODE_DIRECTORY,
    gltf_report,
    node,
    ply_table,
    through_splat_transform,
)

from dream3d.errors import AssetError
from dream3d.export.asset import About
from dream3d.export.formats.compressed_ply import compressed_ply_bytes
from dream3d.export.formats.gltf_splat import NAME, gltf_splat_bytes
from dream3d.export.formats.sog import sog_bytes
from dream3d.export.formats.splat import splat_bytes
from dream3d.export.formats.spz import spz_bytes
from dream3d.export.splat_codes import along_a_curve, smallest_three
from dream3d.export.splat_ply import SplatArrays, splat_ply_bytes
from dream3d.origin import ModelOrigin

COUNT = 300
MODELS = (
    ModelOrigin("owner/model", "abc123", "MIT"),
    ModelOrigin("style.safetensors", "sha256:00ff", use="lora"),
)
# Many readers look for the end of a PLY's header by its last word and the end of the line.
ABOUT = About(prompt="a röd mug end_header\nelement x 3 end_header", seed=3, models=MODELS)
Writer = Callable[[SplatArrays], bytes]
WRITERS: dict[str, Writer] = {
    "asset.ply": lambda splats: splat_ply_bytes(splats, ABOUT.ply_comments()),
    "asset.splat": splat_bytes,
    "asset.compressed.ply": lambda splats: compressed_ply_bytes(splats, ABOUT),
    "asset.spz": spz_bytes,
    "asset.sog": lambda splats: sog_bytes(splats, ABOUT),
    "asset.splats.glb": lambda splats: gltf_splat_bytes(splats, ABOUT),
}


def random_splats(count: int = COUNT, coefficients: int = 16, seed: int = 0) -> SplatArrays:
    rng = np.random.default_rng(seed)
    return SplatArrays(
        rng.uniform(-0.6, 0.6, (count, 3)).astype(np.float32),
        rng.uniform(-5.0, -2.0, (count, 3)).astype(np.float32),
        rng.normal(size=(count, 4)).astype(np.float32),
        np.clip(rng.normal(size=count), -3.0, 3.0).astype(np.float32),
        (0.3 * rng.normal(size=(count, coefficients, 3))).astype(np.float32),
    )


def matched(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> np.ndarray:
    """For every expected splat the found one at its place, which must be one each."""
    there = np.stack([found[axis] for axis in "xyz"], axis=1)
    wanted = np.stack([expected[axis] for axis in "xyz"], axis=1)
    distance = np.linalg.norm(wanted[:, None] - there[None], axis=-1)
    nearest = distance.argmin(axis=1)
    assert len(set(nearest.tolist())) == len(wanted) == len(there)
    return nearest


# Largest errors of (position, opacity logit, log-scale, degree 0, higher degrees, rotation as 1 - |cosine|): what
# the bits of each format allow, e.g. half a step of 1/255 of an opacity of 0.95 is 0.05 of its logit.
TOLERANCE = {
    "asset.ply": (1e-6, 1e-5, 1e-5, 1e-6, 1e-6, 1e-6),
    "asset.splat": (1e-6, 0.06, 1e-5, 0.008, None, 1e-3),
    "asset.compressed.ply": (1e-3, 0.06, 3e-3, 0.008, 0.02, 1e-5),
    "asset.spz": (2e-4, 0.06, 0.032, 0.014, 0.07, 1e-4),
    "asset.sog": (5e-5, 0.06, 0.02, 0.015, 0.02, 1e-3),
}


@pytest.mark.node
@pytest.mark.parametrize("name", TOLERANCE)
def test_splat_transform_reads_what_was_written(tmp_path: Path, name: str) -> None:
    """Against the plain PLY by its specification, splat by splat: place, orientation, size, opacity, every harmonic."""
    splats = random_splats()
    # Harmonics SPZ's and the compressed PLY's bytes can hold.
    splats.sh[:, 1:] = np.clip(splats.sh[:, 1:], -0.9, 0.9)
    (tmp_path / name).write_bytes(WRITERS[name](splats))
    found = through_splat_transform(tmp_path / name, tmp_path / "read.ply")
    # SPZ keeps the world's frame; splat-transform passes its numbers on. The others are turned to +Y down.
    expected = world_table(splats) if name == "asset.spz" else ply_table(splat_ply_bytes(splats))
    index = matched(found, expected)
    position, opacity, scale, color, rest, rotation = TOLERANCE[name]
    for names, tolerance in (
        ("x y z", position),
        ("opacity", opacity),
        ("scale_0 scale_1 scale_2", scale),
        ("f_dc_0 f_dc_1 f_dc_2", color),
        (" ".join(f"f_rest_{i}" for i in range(45)), rest),
    ):
        for column in names.split():
            if tolerance is None:
                assert column not in found
            else:
                error = np.abs(found[column][index] - expected[column]).max()
                assert error <= tolerance, f"{column} is off by {error}"
    q, p = (np.stack([t[f"rot_{i}"] for i in range(4)], axis=1) for t in (found, expected))
    q, p = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (q[index], p))
    assert (1.0 - np.abs((q * p).sum(axis=1))).max() <= rotation


def world_table(splats: SplatArrays) -> dict[str, np.ndarray]:
    """The splats in the world's own frame by the PLY's names."""
    rest = splats.sh[:, 1:].transpose(0, 2, 1).reshape(len(splats.means), -1)
    columns = {
        **dict(zip("xyz", splats.means.T, strict=True)),
        "opacity": splats.opacity_logits,
        **{f"scale_{i}": splats.log_scales[:, i] for i in range(3)},
        **{f"f_dc_{i}": splats.sh[:, 0, i] for i in range(3)},
        **{f"f_rest_{i}": rest[:, i] for i in range(45)},
        **{f"rot_{i}": splats.quaternions[:, i] for i in range(4)},
    }
    return columns


def glb_attributes(data: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """JSON and the float attributes of a GLB with one primitive, by the glTF specification."""
    length = struct.unpack_from("<I", data, 12)[0]
    document = json.loads(data[20 : 20 + length])
    binary = data[28 + length :]
    found = {}
    widths = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}
    for name, index in document["meshes"][0]["primitives"][0]["attributes"].items():
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        width = widths[accessor["type"]]
        if accessor["componentType"] == 5126 and "byteStride" not in view:
            found[name] = np.frombuffer(binary, "<f4", accessor["count"] * width, start).reshape(
                -1, width
            )
    return document, found


@pytest.mark.node
def test_gltf_splats_equal_those_of_another_writer(tmp_path: Path) -> None:
    """splat-transform writes the same splats from our PLY; its world is ours seen from behind (half a turn about Y)."""
    splats = random_splats()
    (tmp_path / "asset.ply").write_bytes(splat_ply_bytes(splats))
    cli = NODE_DIRECTORY / "node_modules" / "@playcanvas" / "splat-transform" / "bin" / "cli.mjs"
    node(cli, "-w", "-q", tmp_path / "asset.ply", tmp_path / "theirs.glb")
    their_document, theirs = glb_attributes((tmp_path / "theirs.glb").read_bytes())
    our_document, ours = glb_attributes(gltf_splat_bytes(splats, About()))
    primitive = our_document["meshes"][0]["primitives"][0]
    their_primitive = their_document["meshes"][0]["primitives"][0]
    assert primitive["mode"] == their_primitive["mode"]
    assert primitive["extensions"].keys() == their_primitive["extensions"].keys() == {NAME}
    for key in ("kernel", "colorSpace"):
        assert primitive["extensions"][NAME][key] == their_primitive["extensions"][NAME][key]
    assert set(ours) == {name for name in theirs if name.startswith(NAME)} | {"POSITION"}
    about_y = np.array([-1.0, 1.0, -1.0])
    index = matched(
        dict(zip("xyz", theirs["POSITION"].T, strict=True)),
        dict(zip("xyz", (ours["POSITION"] * about_y).T, strict=True)),
    )
    for name in ("SCALE", "OPACITY", "SH_DEGREE_0_COEF_0"):
        np.testing.assert_allclose(
            theirs[f"{NAME}:{name}"][index], ours[f"{NAME}:{name}"], rtol=1e-4, atol=1e-5
        )
    # Half a turn about Y, (0, 1, 0, 0) in xyzw, applied after each splat's own orientation.
    x, y, z, w = ours[f"{NAME}:ROTATION"].T
    turned = np.stack([z, w, -x, -y], axis=1)
    cosine = (turned * theirs[f"{NAME}:ROTATION"][index]).sum(axis=1)
    np.testing.assert_allclose(np.abs(cosine), 1.0, atol=1e-4)
    # Degree 1 is (y, z, x) up to sign: y stays, z and x change theirs.
    for order, sign in enumerate((1.0, -1.0, -1.0)):
        name = f"{NAME}:SH_DEGREE_1_COEF_{order}"
        np.testing.assert_allclose(theirs[name][index], sign * ours[name], atol=1e-4)


@pytest.mark.node
def test_the_khronos_validator_accepts_gltf_splats(tmp_path: Path) -> None:
    """It does not know the ratified extension yet: its attribute names are told to it as the one thing to pass over."""
    path = tmp_path / "asset.splats.glb"
    path.write_bytes(gltf_splat_bytes(random_splats(), About(prompt="é</script>", license="MIT")))
    issues = gltf_report(path, ["MESH_PRIMITIVE_INVALID_ATTRIBUTE"])["issues"]
    assert issues["numErrors"] == issues["numWarnings"] == 0, issues["messages"]
    assert gltf_report(path)["issues"]["numErrors"] == 19, "what it does not know"


@pytest.mark.parametrize("name", WRITERS)
def test_broken_splats_are_refused_by_every_writer(name: str) -> None:
    splats = random_splats(4)
    splats.opacity_logits[1] = np.nan
    with pytest.raises(AssetError, match="1 of 4 splats have opacity_logits that are not finite"):
        WRITERS[name](splats)
    with pytest.raises(AssetError, match="no splats left"):
        WRITERS[name](random_splats(0))


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("coefficients", [1, 4, 9])
def test_one_splat_and_every_degree_can_be_written(name: str, coefficients: int) -> None:
    assert WRITERS[name](random_splats(1, coefficients))
    assert WRITERS[name](random_splats(257, coefficients))


def test_spz_out_of_reach_is_refused() -> None:
    splats = random_splats(3)
    splats.means[0, 0] = 4000.0
    with pytest.raises(AssetError, match="4000 from the origin and SPZ reaches 2047"):
        spz_bytes(splats)
    version = struct.unpack_from("<I", gzip.decompress(spz_bytes(random_splats(3))), 4)[0]
    assert version == 3


def test_sog_pictures_are_lossless_and_meta_is_version_two() -> None:
    archive = zipfile.ZipFile(io.BytesIO(sog_bytes(random_splats(), ABOUT)))
    meta = json.loads(archive.read("meta.json"))
    assert (meta["version"], meta["count"], meta["shN"]["bands"]) == (2, COUNT, 3)
    assert meta["scales"]["codebook"] == sorted(meta["scales"]["codebook"])
    for name in archive.namelist():
        if name.endswith(".webp"):
            data = archive.read(name)
            assert data[12:16] == b"VP8L" and Image.open(io.BytesIO(data)).mode in ("RGB", "RGBA")


@pytest.mark.parametrize("name", ["asset.ply", "asset.compressed.ply"])
def test_headers_name_the_models_and_end_where_they_end(name: str) -> None:
    header, _, body = WRITERS[name](random_splats(3)).partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    assert "comment model: owner/model, revision abc123, MIT" in lines
    assert "comment lora: style.safetensors, revision sha256:00ff" in lines
    assert [line for line in lines if "element x" in line] == [
        "comment prompt: a r\\xf6d mug end header element x 3 end header"
    ]
    assert header.split()[-1] != b"end" and body


def test_json_names_the_models() -> None:
    said = [
        {"use": "model", "model": "owner/model", "revision": "abc123", "licence": "MIT"},
        {"use": "lora", "model": "style.safetensors", "revision": "sha256:00ff"},
    ]
    sog = zipfile.ZipFile(io.BytesIO(WRITERS["asset.sog"](random_splats(3))))
    assert json.loads(sog.read("meta.json"))["asset"]["extras"]["models"] == said
    document, _ = glb_attributes(WRITERS["asset.splats.glb"](random_splats(3)))
    assert document["asset"]["extras"]["models"] == said


def test_a_morton_curve_keeps_every_splat_and_neighbours_together() -> None:
    splats = random_splats()
    ordered = along_a_curve(splats)
    np.testing.assert_array_equal(np.sort(ordered.means, axis=0), np.sort(splats.means, axis=0))
    step = np.linalg.norm(np.diff(ordered.means, axis=0), axis=1).mean()
    assert step < 0.5 * np.linalg.norm(np.diff(splats.means, axis=0), axis=1).mean()


def test_three_components_tell_a_rotation() -> None:
    q = random_splats().quaternions.astype(np.float64)
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    largest, others = smallest_three(q)
    again = np.zeros_like(q)
    for row in range(len(q)):
        again[row, [i for i in range(4) if i != largest[row]]] = others[row]
        again[row, largest[row]] = np.sqrt(1.0 - (others[row] ** 2).sum())
    np.testing.assert_allclose(np.abs((again * q).sum(axis=1)), 1.0, atol=1e-9)
