"""What `dream3d doctor` says of machines that lack something."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from dream3d import doctor
from dream3d.cli.main import main

ROOT = Path(__file__).parent.parent


def test_json_names_packages_devices_and_the_prior(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "--json"])
    findings = json.loads(capsys.readouterr().out)
    assert status == (0 if findings["healthy"] else 2)
    names = {entry["name"] for entry in findings["optional"]}
    assert names >= {"gsplat", "nerfacc", "pytorch3d", "tinycudann", "nvdiffrast", "gradio"}
    for entry in (*findings["required"], *findings["optional"]):
        assert entry["enables"]
        assert ("remedy" in entry) == (not entry["installed"] or "broken" in entry)
    cpu = findings["devices"][0]
    assert (cpu["name"], cpu["cores"] >= 1, cpu["memory_megabytes"]["total"] > 100) == (
        "cpu",
        True,
        True,
    )
    assert findings["ffmpeg"]["installed"]
    assert findings["embedded_prior"]["world_hash"]
    assert "default" in findings["dream3d"]["presets"]


def test_every_dependency_of_the_project_is_examined() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    listed = project.split("\ndependencies = [")[1].split("]\n")[0]
    # What stands in for the standard library of older Pythons is not looked for.
    lines = [line for line in listed.splitlines() if "python_version" not in line]
    wanted = set(re.findall(r'"([A-Za-z0-9_-]+)', "\n".join(lines)))
    assert {package.distribution for package in doctor.REQUIRED} == wanted


def test_a_missing_package_has_a_remedy_and_makes_it_unhealthy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name in ("numba", "gradio") else find(name),
    )
    findings = doctor.examine()
    assert not findings["healthy"]
    entries = {entry["name"]: entry for entry in (*findings["required"], *findings["optional"])}
    assert entries["numba"]["remedy"] == "pip install numba"
    assert entries["gradio"]["remedy"] == "pip install 'dream3d[ui]'"
    text = doctor.report(findings)
    assert "not ready: see what is missing above" in text
    assert "missing      the fast CPU renderers (pip install numba)" in text


def test_a_missing_prior_or_ffmpeg_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_ffmpeg() -> str:
        raise RuntimeError("No ffmpeg exe could be found")

    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", no_ffmpeg)
    findings = doctor.examine()
    assert findings["ffmpeg"]["remedy"] == "pip install --force-reinstall imageio-ffmpeg"
    assert not findings["healthy"]
    assert findings["ffmpeg"]["remedy"] in doctor.report(findings)
