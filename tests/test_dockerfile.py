"""What the Dockerfile says of this tree is so; building it needs a network, so no test does."""

import json
import re
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from dream3d.cli.main import main
from dream3d.ui import serve

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def instructions() -> list[tuple[str, str]]:
    """Name and text of every instruction, its continued lines joined, without comments."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(name, rest) for name, rest in found]


def texts(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def test_the_context_is_what_the_wheel_is_made_of() -> None:
    assert texts("COPY") == [". /opt/dream3d"]
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    assert (rules[0], rules[-1]) == ("*", "**/__pycache__")
    allowed = [line.removeprefix("!") for line in rules[1:-1]]
    assert all((ROOT / name).exists() for name in allowed)
    project, setuptools = PROJECT["project"], PROJECT["tool"]["setuptools"]
    directories = [path.name for path in ROOT.iterdir() if path.is_dir() and "." not in path.name]
    patterns = setuptools["packages"]["find"]["include"]
    shipped = {name for name in directories if any(fnmatch(name, p) for p in patterns)}
    assert shipped >= set(setuptools["package-data"])
    assert set(allowed) == {
        "pyproject.toml",
        project["readme"],
        *project["license-files"],
        *shipped,
    }


def test_torch_is_the_one_of_the_makefile_and_stays() -> None:
    pin = re.search(r"^TORCH \?= (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert pin is not None and f"TORCH={pin[1]}" in texts("ARG")
    installs = [run for run in texts("RUN") if "pip install" in run and "--upgrade pip" not in run]
    assert len(installs) == 2
    assert all('"${TORCH}"' in run for run in installs)
    extras = re.findall(r'"\.\[([a-z,]+)\]"', " ".join(installs))
    assert extras == ["all,cuda"]
    assert set(extras[0].split(",")) <= set(PROJECT["project"]["optional-dependencies"])


def test_the_container_opens_the_page_for_others_on_the_exposed_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served: list[Any] = []
    monkeypatch.setattr(serve, "serve", lambda *arguments: served.append(arguments))
    *reaper, entry = json.loads(texts("ENTRYPOINT")[0])
    assert reaper == ["tini", "--"] and entry in PROJECT["project"]["scripts"]
    assert main(json.loads(texts("CMD")[0])) == 0
    (root, listen, port, access, _) = served[0]
    assert (listen, [str(port)]) == ("0.0.0.0", texts("EXPOSE"))
    assert access.users and not access.hosts
    # Whatever is kept lies in the volume, the page's jobs too.
    assert texts("WORKDIR")[-1:] == texts("VOLUME") and not root.is_absolute()
