"""A finished job made by hand, whose asset cannot be mistaken: red above, blue below, green toward +X."""

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dream3d.cameras import orbit_cameras
from dream3d.export.glb import glb_bytes
from dream3d.export.pictures import png_bytes
from dream3d.export.splat_ply import splat_arrays, splat_ply_bytes
from dream3d.files import write_bytes, write_json, write_text
from dream3d.jobs import JobRequest, JobStore
from dream3d.jobs.records import write_status
from renderers.splats import render_splats
from renderers.splats_data import SplatData

if TYPE_CHECKING:
    from dream3d.ui.server import Server

RED, BLUE, GREEN = (0.9, 0.05, 0.05), (0.05, 0.05, 0.9), (0.05, 0.7, 0.05)
BALLS = (((0.0, 0.55, 0.0), RED), ((0.0, -0.55, 0.0), BLUE), ((0.7, 0.0, 0.0), GREEN))
RADIUS = 0.3


def three_balls_as_splats() -> SplatData:
    """Points on the three balls, as small splats that hide what is behind."""
    generator = torch.Generator().manual_seed(0)
    means, colors = [], []
    for place, color in BALLS:
        points = torch.randn(400, 3, generator=generator)
        means.append(RADIUS * points / points.norm(dim=1, keepdim=True) + torch.tensor(place))
        colors.append(torch.tensor(color).expand(400, 3))
    return SplatData(
        means=torch.cat(means),
        log_scales=torch.full((1200, 3), float(np.log(0.035))),
        quaternions=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(1200, 4),
        opacity_logits=torch.full((1200,), 4.0),
        features=torch.cat(colors),
    )


def random_splats(count: int = 150, seed: int = 1) -> SplatData:
    """Splats of all shapes and orientations whose colour depends on the direction, to compare renderers with."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    sh = 0.25 * normal(count, 16, 3)
    sh[:, 0] = 0.8 * normal(count, 3)
    return SplatData(
        means=0.4 * normal(count, 3),
        log_scales=-2.3 + 0.4 * normal(count, 3),
        quaternions=normal(count, 4),
        opacity_logits=1.0 + normal(count),
        sh=sh,
    )


def three_balls_as_mesh() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, faces and colours of the balls."""
    import trimesh

    vertices, faces, colors, first = [], [], [], 0
    for place, color in BALLS:
        ball = trimesh.creation.icosphere(subdivisions=3, radius=RADIUS)
        vertices.append(ball.vertices + np.array(place))
        faces.append(ball.faces + first)
        colors.append(np.tile(color, (len(ball.vertices), 1)))
        first += len(ball.vertices)
    points, paint = (np.concatenate(part).astype(np.float32) for part in (vertices, colors))
    return points, np.concatenate(faces), paint


def finished_job(
    server: "Server",
    prompt: str,
    splats: SplatData,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
) -> str:
    """A job that looks done: its files and records are written by hand, out of the server's sight until it is whole."""
    store = JobStore(server.store.root.parent / "made elsewhere")
    request = JobRequest(prompt, "gaussian", seed, overrides=settings or {})
    job = store.submit(request, start=False)
    directory = store.root / job
    run = directory / "run"
    run.mkdir()
    write_bytes(run / "asset.ply", splat_ply_bytes(splat_arrays(splats)))
    write_bytes(run / "asset.glb", glb_bytes(*three_balls_as_mesh()))
    views = render_splats(splats, orbit_cameras([0.0, 90.0], 15.0, size=96), antialias=True)
    pictures = (views.rgb + (1.0 - views.alpha) * 0.9).clamp(0, 1)
    pixels = (torch.cat(list(pictures), dim=1) * 255).to(torch.uint8).numpy()
    write_bytes(run / "preview.png", png_bytes(pixels))
    write_text(run / "config.yaml", (directory / "config.yaml").read_text())
    rows = [{"stage": 0, "step": n, "loss": 1 / n, "seconds": 0.1 * n} for n in range(1, 41)]
    write_text(run / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    record = {"status": "done", "seed": 0, "seconds": 4.0, "phases": {"prior": 2.5, "render": 1.5}}
    write_json(run / "result.json", {"format_version": 1, **record})
    write_json(directory / "progress.json", {"step": 40, "stage": 0, "stages": 1, "loss": 0.025})
    write_status(directory / "status.json", "done")
    server.store.root.mkdir(exist_ok=True)
    os.rename(directory, server.store.root / job)
    return job
