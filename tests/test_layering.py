"""The direction of imports is a rule, not a habit: read every file's imports and check it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("dream3d", "renderers", "guidance", "systems")

# Modules of dream3d that everything else may use.
VOCABULARY = (
    "dream3d.errors",
    "dream3d.origin",
    "dream3d.registry",
    "dream3d.cameras",
    "dream3d.controls",
    "dream3d.rendering",
    "dream3d.diffusion",
    "dream3d.schedules",
    "dream3d.prompts",
    "dream3d.files",
    "dream3d.kernels",
    "dream3d.transfer",
    "dream3d.triton_group_norm",
    "dream3d.priors",
    "dream3d.companion",
)
# What a stage is put together from, beside the vocabulary, scenes and guidance.
STAGE_PARTS = (
    "dream3d.background_samplers",
    "dream3d.camera_samplers",
    "dream3d.noise_sources",
    "dream3d.surface_noise",
    "dream3d.time_samplers",
    "dream3d.prompt_debiasing",
    "dream3d.cut_out",
    "dream3d.picture_file",
)
HEAVY_OPTIONAL = {
    "gsplat",
    "nerfacc",
    "pytorch3d",
    "tinycudann",
    "nvdiffrast",
    "gradio",
    "peft",
    "warp",
    "ray",
    "submitit",
    "mitsuba",
    "drjit",
    "triton",
}
MAY_IMPORT_OPTIONAL = (
    "renderers",
    "dream3d.ui",
    "app",
    "dream3d.priors",
    "dream3d.bench.mitsuba_peer",
    "dream3d.triton_group_norm",
    "dream3d.batch.ray_cluster",
    "dream3d.batch.slurm",
)

RUNS_CODE = {
    *("eval", "exec", "os.system", "os.popen"),
    *("subprocess.getoutput", "subprocess.getstatusoutput"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load"),
}


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return names


def inside(name: str, roots: tuple[str, ...]) -> bool:
    return any(name == root or name.startswith(root + ".") for root in roots)


def own(names: set[str]) -> set[str]:
    return {name for name in names if inside(name, PACKAGES)}


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_point_downward(name: str) -> None:
    used = own(imports(modules()[name]))
    if inside(name, ("renderers",)):
        allowed: tuple[str, ...] = (*VOCABULARY, "renderers")
    elif inside(name, ("guidance",)):
        allowed = (*VOCABULARY, "guidance")
    elif inside(name, ("dream3d.world",)):
        allowed = (*VOCABULARY, "dream3d.world")
    elif inside(name, ("dream3d.priors",)):
        # The embedded prior speaks the world's language: its grammar and its content hash, nothing else of it.
        allowed = (*VOCABULARY, "dream3d.world.grammar", "dream3d.world.freeze")
    elif inside(name, VOCABULARY):
        allowed = VOCABULARY
    elif inside(name, ("dream3d.scenes",)):
        allowed = (*VOCABULARY, "dream3d.scenes", "renderers")
    elif inside(name, STAGE_PARTS):
        allowed = (*VOCABULARY, *STAGE_PARTS, "dream3d.world.backgrounds")
    elif inside(name, ("systems",)):
        allowed = (*VOCABULARY, *STAGE_PARTS, "dream3d.scenes", "guidance", "systems")
    else:
        # The program: everything but the user interfaces, which only their own packages use.
        if inside(name, ("dream3d.cli", "dream3d.ui", "dream3d.__main__")):
            return
        wrong = {u for u in used if inside(u, ("dream3d.cli", "dream3d.ui"))}
        assert not wrong, f"{name} imports the interface: {sorted(wrong)}"
        return
    wrong = {u for u in used if not inside(u, allowed)}
    assert not wrong, f"{name} may import {', '.join(allowed)}; it imports {sorted(wrong)}"


@pytest.mark.parametrize("name", sorted(modules()))
def test_optional_packages_stay_in_backends(name: str) -> None:
    used = {imported.split(".")[0] for imported in imports(modules()[name])} & HEAVY_OPTIONAL
    assert not used or inside(name, MAY_IMPORT_OPTIONAL), f"{name} imports optional {sorted(used)}"


@pytest.mark.parametrize("name", sorted(modules()))
def test_no_code_from_data(name: str) -> None:
    """No pickle, no eval, no shell, no yaml.load, no torch.load without weights_only."""
    tree = ast.parse(modules()[name].read_text())
    found = imports(modules()[name]) & {
        "pickle",
        "marshal",
        "shelve",
        "dill",
        "cloudpickle",
        "joblib",
    }
    assert not found, f"{name} imports {sorted(found)}, which run code from data"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("torch", "yaml", "numpy"):
            assert "load" not in {alias.name for alias in node.names}, f"{name}: a nameless load"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert called not in RUNS_CODE, f"{name}: {called}"
            assert keywords.get("allow_pickle", "False") == "False", f"{name}: allow_pickle"
            assert not called.startswith("pickle."), f"{name}: {called}"
            assert keywords.get("shell") != "True", f"{name}: shell=True"
            if called == "torch.load":
                assert keywords.get("weights_only") == "True", f"{name}: torch.load"


def test_import_is_light() -> None:
    code = "import sys, dream3d; print('torch' in sys.modules, 'numpy' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert out.stdout.strip() == "False False", out.stderr
