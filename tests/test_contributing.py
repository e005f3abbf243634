"""What CONTRIBUTING tells people to write works as written."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_guidance_of_the_text_registers_lists_and_makes_something(tmp_path: Path) -> None:
    """The example as a file of the package `guidance`, in a process of its own, with its YAML from the text."""
    code = next(
        c for c in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "GUIDANCE.register" in c
    )
    preset = next(c for c in re.findall(r"```yaml\n(.*?)```", TEXT, re.S) if "guidance:" in c)
    assert len(code.splitlines()) <= 80
    (tmp_path / "prompt_direction.py").write_text(code)
    script = f"""
import guidance
guidance.__path__.append({str(tmp_path)!r})
from dream3d.catalogue import entries
from dream3d.config import load_config_text
from dream3d.run import run_system
from pathlib import Path
entry = next(e for e in entries("guidance") if e["name"] == "prompt-direction")
assert entry["paper"] and entry["formula"] and entry["evaluations"] == {{"least": 2, "most": 2}}, entry
preset = {preset!r}
small = "prompt: a mug\\nprior: gaussian\\nscene: {{name: canvas, size: 8}}\\nsteps: 3\\nrender_size: 8\\n"
kept = [line for line in preset.splitlines() if line.startswith("guidance")]
config = load_config_text(small + "\\n".join(kept))
assert type(config.stages[0].guidance).__name__ == "PromptDirection"
print(run_system(config, Path({str(tmp_path)!r})).status)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout.strip().endswith("finished"), done.stderr[-2000:]
