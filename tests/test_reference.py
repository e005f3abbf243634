"""Image to 3D: reading a picture, cutting the object out, and making a scene look like it from one side."""

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dream3d.cameras import orbit_cameras
from dream3d.cli.main import main
from dream3d.config import load_config, load_config_file
from dream3d.cut_out import border_plane, cut_out
from dream3d.errors import ConfigError, PictureError, PromptError
from dream3d.evaluation.geometry import overlap
from dream3d.evaluation.run import against_picture, load_scene
from dream3d.evaluation.truth import truth_variant
from dream3d.generation import GenerationResult, generate_run, resume_run
from dream3d.jobs.records import JobRequest
from dream3d.jobs.store import JobStore
from dream3d.picture_file import pixel_digest, read_picture, write_picture
from dream3d.world.grammar import parse
from systems.base import RunConfig, fingerprint
from systems.reference import Reference, ReferenceSettings, load_reference

SMALL = {"steps": 6, "render_size": 24, "scene.count": 200, "scene.max_count": 200, "views": 2}


def disc(size: int = 64, color: tuple[int, int, int] = (200, 40, 30), x: float = 0.5) -> np.ndarray:
    """A disc of radius a quarter of the side on transparent ground."""
    v, u = np.mgrid[:size, :size] + 0.5
    inside = (u - x * size) ** 2 + (v - 0.5 * size) ** 2 < (size / 4) ** 2
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[inside] = (*color, 255)
    return pixels


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "disc.png"
    write_picture(path, disc())
    return path


def true_render(prompt: str, size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """A world object: premultiplied colour and coverage."""
    shown = truth_variant(parse(prompt), 3).render(orbit_cameras([40.0], 20.0, size=size))
    return shown.rgb[0].numpy(), shown.alpha[0].numpy()


# Reading.


def test_what_is_written_is_read(picture: Path) -> None:
    assert (read_picture(picture) == disc()).all()
    assert pixel_digest(read_picture(picture)) == pixel_digest(disc())
    assert pixel_digest(disc(x=0.6)) != pixel_digest(disc())


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter clockwise
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg").shape == (40, 20, 4)


def test_sixteen_bits_and_palettes(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 20), 32768, np.uint16)).save(tmp_path / "deep.png")
    assert (read_picture(tmp_path / "deep.png")[..., 0] == 128).all()
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, 255, 128, 0])
    image.save(tmp_path / "p.png", transparency=0)
    assert read_picture(tmp_path / "p.png")[0, 0].tolist() == [255, 128, 0, 255]


def test_a_large_picture_is_scaled_down(tmp_path: Path) -> None:
    Image.new("RGB", (3000, 1500), "red").save(tmp_path / "big.png")
    assert read_picture(tmp_path / "big.png").shape == (512, 1024, 4)


def bomb() -> bytes:
    """A PNG of a hundred bytes that promises 60000 x 60000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(999)))


def animation() -> bytes:
    frames, out = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")], io.BytesIO()
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:])
    return out.getvalue()


def tiny() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a picture"),
        (b"#!/bin/sh\nrm -rf /\n", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n", "not a picture"),
        (bomb(), "at most 50 million|too large"),
        (animation(), "holds 2 pictures"),
        (tiny(), "at least 16 a side"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(PictureError, match=words):
        read_picture(tmp_path / "x.png")


def test_missing_cut_short_and_folders(tmp_path: Path, picture: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(PictureError, match="there is no picture"):
            read_picture(path)
    picture.write_bytes(picture.read_bytes()[:-60])
    with pytest.raises(PictureError, match="cannot be read"):
        read_picture(picture)


# Cutting out.


def test_transparency_is_taken_as_it_is() -> None:
    found = cut_out(disc())
    assert (found * 255.0).round().astype(np.uint8).tolist() == disc().tolist()


@pytest.mark.parametrize("ground", [(0.85, 0.85, 0.8), (0.1, 0.3, 0.7), "gradient"])
def test_a_plain_background_is_removed(ground: object) -> None:
    rgb, alpha = true_render("a green mug")
    if ground == "gradient":
        behind = np.linspace([0.9, 0.7, 0.6], [0.6, 0.7, 0.9], 128)[:, None]
    else:
        behind = np.array(ground, np.float32)
    pixels = ((rgb + (1 - alpha) * behind).clip(0, 1) * 255).round().astype(np.uint8)
    found = cut_out(np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], axis=-1))
    true, own = torch.from_numpy(alpha > 0.5), torch.from_numpy(found[..., 3:] > 0.5)
    assert overlap(true, own) > 0.97
    assert np.abs(found[..., :3] * found[..., 3:] - rgb).mean() < 0.004


def test_an_object_may_reach_the_edge_and_noise_is_no_object() -> None:
    image = np.full((64, 64, 3), 0.8, np.float32)
    image[20:, 25:40] = 0.1
    plane, share = border_plane(image)
    assert np.allclose(plane, 0.8, atol=1e-3)
    assert 0.9 < share < 1.0
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 4), dtype=np.uint8)
    noise[..., 3] = 255
    with pytest.raises(PictureError, match="rembg"):
        cut_out(noise)
    with pytest.raises(PictureError, match="nothing stands out"):
        cut_out(np.full((64, 64, 4), 255, np.uint8))


# The losses.


def test_the_object_is_moved_to_the_middle_and_scaled(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", disc(x=0.3))
    for fill, middle, width in ((0.8, 0.5, 0.8), (0.0, 0.3, 0.5)):
        reference = Reference(ReferenceSettings(str(tmp_path / "a.png"), fill=fill))
        covered = reference.picture(64, torch.device("cpu")).alpha[0, :, :, 0] > 0.5
        columns = covered.any(dim=0).nonzero()
        assert (columns.min() + columns.max() + 1).item() / 128 == pytest.approx(middle, abs=0.02)
        assert len(columns) / 64 == pytest.approx(width, abs=0.04)


def test_the_losses_are_what_they_say(picture: Path) -> None:
    reference = Reference(ReferenceSettings(str(picture), fill=0.0))
    truth = reference.picture(64, torch.device("cpu"))
    assert all(x == 0.0 for x in reference.losses(truth.rgb, truth.alpha, 0.5).values())
    rgb, alpha = torch.rand(1, 64, 64, 3), torch.rand(1, 64, 64, 1)
    found = reference.losses(rgb, alpha, 0.5)
    assert found["reference_rgb"] == pytest.approx(
        reference.settings.weight_rgb(0.5) * ((rgb - truth.rgb) ** 2).mean().item()
    )
    assert found["reference_mask"] == pytest.approx(
        reference.settings.weight_mask(0.5) * ((alpha - truth.alpha) ** 2).mean().item()
    )
    assert load_reference(ReferenceSettings()) is None


@pytest.mark.parametrize(
    "bad", [{"fill": 1.5}, {"every": 0}, {"elevation_deg": 91.0}, {"fovy_deg": 0.0}]
)
def test_bad_settings_are_refused(bad: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        ReferenceSettings(**bad)


# Runs.


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without exports, which take most of the time of one this small."""
    monkeypatch.setattr("dream3d.generation.export_all", lambda *_: [])


def following(picture: Path, **settings: object) -> RunConfig:
    plain = load_config("gaussian", SMALL | settings, "x")
    return replace(plain, reference=replace(plain.reference, image=str(picture)))


def means(result: GenerationResult) -> torch.Tensor:
    assert result.scene is not None
    return result.scene.state()["means"]


@pytest.mark.usefixtures("bare")
def test_a_run_follows_its_picture_and_keeps_it(tmp_path: Path, picture: Path) -> None:
    """The red disc is found under a prior that wants a grey cloud; the run repeats and resumes without the original."""
    strong = {"reference.weight_rgb": 100, "reference.weight_mask": 100}
    config = following(picture, steps=20, **strong)
    result = generate_run(config, tmp_path / "run")
    without = generate_run(replace(config, reference=ReferenceSettings()), tmp_path / "plain")
    assert result.scene is not None
    assert without.scene is not None
    near = against_picture(result.scene, config.reference)
    far = against_picture(without.scene, config.reference)
    assert near["reference_psnr"] > far["reference_psnr"] + 3.0
    assert near["reference_iou"] > far["reference_iou"]

    picture.unlink()
    (tmp_path / "run").rename(tmp_path / "moved")
    kept = load_config_file(tmp_path / "moved" / "config.yaml")
    assert kept.reference.image == str(tmp_path / "moved" / "reference.png")
    load_scene(tmp_path / "moved", kept)  # the checkpoint is this run's own
    again = generate_run(kept, tmp_path / "again")
    assert torch.equal(means(again), means(result))
    assert again.files["reference.png"].is_file()
    assert resume_run(tmp_path / "moved").status == "done"


@pytest.mark.usefixtures("bare")
def test_a_resumed_run_needs_its_own_picture(tmp_path: Path, picture: Path) -> None:
    config = following(picture, **{"reference.every": 2})
    run = generate_run(config, tmp_path / "run", should_stop=lambda: True)
    assert run.status == "cancelled"
    write_picture(tmp_path / "run" / "reference.png", disc(color=(0, 0, 255)))
    with pytest.raises(ConfigError, match="not the picture this run began with"):
        resume_run(tmp_path / "run")
    write_picture(tmp_path / "run" / "reference.png", disc())
    resumed, whole = resume_run(tmp_path / "run"), generate_run(config, tmp_path / "whole")
    assert torch.equal(means(resumed), means(whole))


def test_the_fingerprint_knows_the_picture_not_its_path() -> None:
    config = load_config("gaussian", SMALL, "x")
    marks = [
        fingerprint(replace(config, reference=ReferenceSettings(image, sha256=sha)))
        for image, sha in (("a.png", "1"), ("b.png", "1"), ("b.png", "2"))
    ]
    assert marks[0] == marks[1] != marks[2]


@pytest.mark.usefixtures("bare")
def test_the_command_line_takes_a_picture(
    tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture
) -> None:
    settings = [f"{key}={value}" for key, value in SMALL.items()]
    command = ["generate", "x", "--preset", "gaussian", "--quiet", "--out", str(tmp_path / "run")]
    assert main([*command, "--image", str(tmp_path / "none.png"), *settings]) == 2
    assert "there is no picture" in capsys.readouterr().err
    assert not (tmp_path / "run").exists(), "refused before anything is written"
    assert main([*command, "--image", str(picture), *settings]) == 0
    assert (read_picture(tmp_path / "run" / "reference.png") == disc()).all()


def test_a_job_keeps_its_own_picture(tmp_path: Path, picture: Path) -> None:
    request = JobRequest("x", "gaussian", overrides={**SMALL, "reference.image": str(picture)})
    store = JobStore(tmp_path / "jobs")
    job = store.submit(request, start=False)
    picture.unlink()
    config = load_config_file(store.directory(job) / "config.yaml")
    assert (read_picture(config.reference.image) == disc()).all()
    with pytest.raises(PictureError):
        store.submit(request, start=False)
    assert JobRequest("", overrides=("reference.image=a.png",)).prompt == ""
    with pytest.raises(PromptError):
        JobRequest("", overrides=("reference.fill=0",))
