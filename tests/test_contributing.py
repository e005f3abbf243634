"""What CONTRIBUTING tells people to write works as written, and what is written of the rules is what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dream3d.catalogue import entries
from dream3d.registry import Registry

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
assert run_system(config, Path({str(tmp_path)!r})).status == "finished"
import pytest
laws = ["tests/test_guidance_laws.py", "tests/test_guidance_scenes.py", "tests/test_setting_docs.py"]
options = ["-q", "-m", "not slow", "-k", "prompt-direction", "-p", "no:cacheprovider"]
print("laws", int(pytest.main([*laws, *options])))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout.strip().endswith("laws 0"), done.stdout[-3000:] + done.stderr[-2000:]


def test_the_table_of_rules_says_what_they_say() -> None:
    text = (ROOT / "docs" / "guidance.md").read_text(encoding="utf-8")
    row = r"^\| `([a-z0-9-]+)` \| (.*) \| `(.*)` \| (.*) \| (.*) \| .* \|$"
    written = {found[0]: found[1:] for found in re.findall(row, text, re.M)}
    for entry in entries("guidance"):
        costs = sorted(set(entry["evaluations"].values()))
        facts = (entry["paper"], entry["formula"], " to ".join(map(str, costs)))
        assert written.get(entry["name"]) == (*facts, "yes" if entry["experimental"] else "")


def test_a_copied_file_does_not_take_the_place_of_its_original() -> None:
    parts: Registry[object] = Registry("part", "guidance")
    first = parts.register("sds")(type("SDS", (), {"__module__": "guidance.sds"}))
    # The same file read again is no copy.
    parts.register("sds")(type("SDS", (), {"__module__": "guidance.sds"}))
    copied = type("SDS", (), {"__module__": "guidance.my_sds"})
    with pytest.raises(
        ValueError, match=r"already used by guidance\.sds\.SDS; register guidance\.my_"
    ):
        parts.register("sds")(copied)
    assert first.registered_name == "sds"  # type: ignore[attr-defined]
