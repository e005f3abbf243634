"""Views of one asset on several processes: the same gradients, the same scene, one writer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dream3d.config import load_config
from dream3d.errors import ConfigError
from dream3d.parallel import ALONE, ViewShare, check_share

PATIENCE = 900.0

SETTINGS = {
    "scene.backend": "torch",
    "scene.count": 60,
    "scene.max_count": 80,
    "scene.density_every": 3,
    "views": 4,
    "checkpoint_every": 0,
}


def test_shares_are_even_and_whole() -> None:
    views = list(range(8))
    assert views[ALONE.mine(8)] == views
    parts = [views[ViewShare(rank, 4).mine(8)] for rank in range(4)]
    assert parts == [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"views": 3}, "views is 3; choose a multiple of 2"),
        ({"conditioning": "multiview"}, "denoised jointly cannot be split"),
        ({"scene.density": "adaptive"}, "adaptive counts the gradients of all views"),
        ({"noise": "surface"}, "laid out over all views"),
        ({"guidance": "vsd"}, "companion learns from all views"),
    ],
)
def test_what_cannot_be_split_is_refused(settings: dict, message: str) -> None:
    config = load_config("gaussian", {"views": 4, **settings}, "a mug")
    check_share(config, ALONE)
    with pytest.raises(ConfigError, match=message):
        check_share(config, ViewShare(0, 2))


WORK = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from dream3d.config import load_config
from dream3d.parallel import joined
from dream3d.run import run_system
from safetensors.torch import save_file
with joined() as share:
    settings, out = json.loads(sys.argv[1]), Path(sys.argv[2])
    held = {}
    for steps in (1, 12):
        config = load_config("gaussian", {**settings, "steps": steps}, "a mug", seed=3)
        losses = []
        told = lambda report: losses.append(report.loss)
        made = run_system(config, out / f"{share.rank}-{steps}", told, share=share)
        for name, value in made.scene.parameters().items():
            held[f"{steps}/value/{name}"] = value.detach().clone()
            if steps == 1:
                held[f"{steps}/grad/{name}"] = value.grad.clone()
        held[f"{steps}/loss"] = torch.tensor(losses[0], dtype=torch.float64)
    save_file(held, out / f"scene-{share.rank}-of-{share.ranks}.safetensors")
"""


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    script = tmp_path / "work.py"
    script.write_text(WORK)
    work = [str(script), json.dumps(SETTINGS), str(tmp_path)]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += [
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "127.0.0.1:0",
        "--local-addr",
        "127.0.0.1",
    ]
    for launcher in ([], torchrun):
        command = [sys.executable, *launcher, *work]
        subprocess.run(command, env=environment, check=True, timeout=PATIENCE)
    one = load_file(tmp_path / "scene-0-of-1.safetensors")
    first = load_file(tmp_path / "scene-0-of-2.safetensors")
    second = load_file(tmp_path / "scene-1-of-2.safetensors")
    assert one.keys() == first.keys() == second.keys()
    assert len(first["12/value/means"]) > 60, "density control took part"
    # Round splats do not feel a rotation: their gradients are rounding errors, so the largest of all sets the scale.
    size = max(v.abs().max().item() for name, v in one.items() if name.startswith("1/grad"))
    for name, value in one.items():
        assert torch.equal(first[name], second[name]), f"{name}: both processes hold the same"
        # Adam makes a step of full size of any gradient, be it a rounding error: gradients are what can be compared.
        if name.startswith("1/grad"):
            torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-5 * size, msg=name)
    torch.testing.assert_close(first["1/loss"], one["1/loss"], rtol=1e-5, atol=0.0)
    assert (tmp_path / "0-12" / "checkpoints").is_dir()
    assert not (tmp_path / "1-12").exists(), "one process writes"
