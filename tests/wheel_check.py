"""Build the wheel, install it into a fresh environment outside the checkout, and generate an asset there.

Run by `make wheel-check`; not a pytest test, because installing needs a package index and tests run without a network.
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command; a failure prints its output and stops the check."""
    print("$", *command, flush=True)
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def main(torch_requirement: str) -> None:
    """Everything a user of the wheel does first."""
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", work / "dist", ROOT, cwd=work)
        wheel = next((work / "dist").glob("*.whl"))
        venv.create(work / "env", with_pip=True)
        python = work / "env" / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", torch_requirement, cwd=work)
        run(python, "-m", "pip", "install", "--quiet", wheel, cwd=work)
        dream3d = work / "env" / "bin" / "dream3d"
        run(dream3d, "--help", cwd=work)
        for kind in ("presets", "systems"):
            if not json.loads(run(dream3d, "list", kind, "--json", cwd=work))["items"]:
                sys.exit(f"the wheel holds no {kind}")
        out = run(
            dream3d,
            *("generate", "a red mug", "--preset", "fast", "--out", work / "mug", "--json"),
            *("steps=30",),
            cwd=work,
        )
        result = json.loads(out)
        if result["status"] != "done":
            sys.exit(f"the run ended as {result['status']}: {result}")
        missing = [
            name
            for name in ("asset.glb", "asset.ply", "preview.png", "turntable.mp4", "config.yaml")
            if not (work / "mug" / name).stat().st_size
        ]
        if missing:
            sys.exit(f"empty files: {missing}")
        source = run(python, "-c", "import dream3d; print(dream3d.__file__)", cwd=work).strip()
        if str(ROOT) in source:
            sys.exit(f"the check used the checkout, not the wheel: {source}")
    print("wheel: built, installed and generated outside the checkout")


if __name__ == "__main__":
    main(sys.argv[1])
