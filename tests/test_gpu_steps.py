"""Every scene, prior and guidance on a GPU: what they compute equals the CPU's, and steps of the loop go through.

Runs over the registries, so that whatever is registered is covered.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_support import CPU, DEVICE, away, share_beyond

from dream3d.background_samplers import BACKGROUND_SAMPLERS
from dream3d.camera_samplers import CAMERA_SAMPLERS
from dream3d.cameras import orbit_cameras
from dream3d.errors import AssetError, ConfigError
from dream3d.export import FORMATS, About, Asset, ExportOptions, export_asset
from dream3d.noise_sources import NOISE_SOURCES, FixedNoise
from dream3d.phases import Phases
from dream3d.priors.base import Condition, Prior
from dream3d.priors.embedded import EmbeddedConfig
from dream3d.priors.gaussian import ClosedFormPrior
from dream3d.prompts import Prompts
from dream3d.run import make_companion, repeatable
from dream3d.scenes.base import SCENES, Scene
from dream3d.time_samplers import TIME_SAMPLERS, AnnealedTime
from dream3d.train import StepReport, TrainState, make_optimizer, train_stage
from guidance import GUIDANCE
from systems.base import Stage

pytestmark = pytest.mark.gpu
PROMPT = "a red cube"


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Convolutions in full float32, as on the CPU; TF32 is looked at by itself."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="module")
def priors() -> dict[str, Prior]:
    return {"here": EmbeddedConfig().load(DEVICE), "cpu": EmbeddedConfig().load(CPU)}


def made(name: str, device: torch.device, seed: int = 0) -> Scene:
    return SCENES[name].tiny().create(torch.Generator().manual_seed(seed), device)


def on_device(scene: Scene) -> bool:
    return all(p.device.type == DEVICE.type for p in scene.parameters().values())


@pytest.mark.parametrize("name", SCENES.names())
def test_a_scene_shows_what_it_shows_on_the_cpu(name: str) -> None:
    here, there = made(name, DEVICE), made(name, CPU)
    assert on_device(here)
    assert here.state().keys() == there.state().keys()
    for key, value in there.state().items():
        assert away(here.state()[key].double(), value.double()) < 1e-4, key
    cameras = orbit_cameras([20.0, 160.0], [10.0, 40.0], size=24)
    for render in ("render", "render_normals"):
        ours = getattr(here, render)(cameras.to(DEVICE))
        true = getattr(there, render)(cameras)
        for part in ("rgb", "alpha", "depth"):
            a, b = getattr(ours, part), getattr(true, part)
            assert a.device.type == DEVICE.type
            # Single precision decides differently at a few outlines and alpha cut-offs.
            assert share_beyond(a, b, 1e-2 if part != "depth" else 3e-2) < 0.02, (render, part)


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in SCENES.names()},
    "splats-adaptive": ("splats", {"density": "adaptive", "split_gradient": 0.0}),
    "splats-harmonics": ("splats", {"sh_degree": 2, "weight_tv_depth": 0.1, "weight_tv_rgb": 0.1}),
    "splats-random": ("splats", {"init": "random", "density": "none", "weight_flat": 0.1}),
    "nerf-planes": ("nerf", {"field": "planes"}),
    "nerf-frequency": ("nerf", {"field": "frequency", "layers": 2}),
    "nerf-dense": ("nerf", {"field": "dense", "background": "learned"}),
    "nerf-fine": ("nerf", {"fine": 8, "normals": "finite", "weight_orientation": 0.1}),
    "nerf-lit": ("nerf", {"shading": "mixed", "normals": "analytic"}),
    "neus-lit": ("neus", {"shading": "lambert", "normals": "finite"}),
    "mesh-texels": ("mesh", {"material": "texels", "move": False}),
    "mesh-lambert": ("mesh", {"shading": "lambert", "normal_map": True}),
    "mesh-pbr": ("mesh", {"shading": "pbr", "material": "texels", "normal_map": True}),
    "tets-normals": ("tets", {"normals": "smooth"}),
}
"""Every scene, and the settings of it that are computed by other code."""


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_scene_learns_and_is_restored(variant: str) -> None:
    name, changes = VARIANTS[variant]
    config = replace(SCENES[name].tiny(), **changes)  # type: ignore[type-var]
    generator = torch.Generator().manual_seed(1)
    scene = config.create(torch.Generator().manual_seed(0), DEVICE)
    optimizer = make_optimizer(scene, (0.9, 0.99))
    cameras = orbit_cameras([20.0, 160.0], size=24).to(DEVICE)
    for step in range(3):
        progress = (step + 1) / 3
        out = scene.render(cameras)
        target = torch.linspace(0, 1, 24, device=DEVICE)[:, None].expand(out.rgb.shape)
        loss = (out.over(torch.ones(1, 1, 3, device=DEVICE)) - target).square().mean()
        loss = loss + sum(scene.regularisation(out, progress).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grads = {k: p.grad for k, p in scene.parameters().items() if p.grad is not None}
        assert any(g.abs().sum() > 0 for g in grads.values())
        for key, grad in grads.items():
            assert grad.device.type == DEVICE.type and torch.isfinite(grad).all(), key
        for group in optimizer.param_groups:
            group["lr"] = scene.learning_rates(progress)[group["name"]]
        optimizer.step()
        # Where densification and pruning are due.
        scene.density_control(optimizer, 0.3 * progress, 100 * (step + 1) - 1, generator)
        assert on_device(scene)
    other = config.create(torch.Generator().manual_seed(5), DEVICE)
    other.load_state({key: value.cpu() for key, value in scene.state().items()})
    assert on_device(other)
    with torch.no_grad():
        assert share_beyond(other.render(cameras).rgb, scene.render(cameras).rgb, 1e-5) == 0.0


SOLID = [name for name in SCENES.names() if name != "canvas"]


@pytest.mark.parametrize("target", SOLID)
@pytest.mark.parametrize("source", ["splats", "nerf", "tets", "mesh"])
def test_scenes_become_one_another(source: str, target: str) -> None:
    def become(device: torch.device) -> Scene | str:
        generator = torch.Generator().manual_seed(0)
        try:
            scene = SCENES[target].tiny().convert(made(source, device), generator, device)
        except (AssetError, ConfigError) as error:
            return type(error).__name__
        return scene

    found = become(DEVICE)
    if isinstance(found, str):
        assert become(CPU) == found
        return
    assert on_device(found)
    out = found.render(orbit_cameras([20.0], size=24).to(DEVICE))
    assert torch.isfinite(out.rgb).all() and out.alpha.max() > 0.5


@pytest.mark.parametrize("name", SOLID)
def test_every_format_is_written(name: str, tmp_path: Path) -> None:
    asset = Asset(made(name, DEVICE), About(prompt="a ball", seed=0))
    options = ExportOptions(faces=2000, texture_size=64, picture_size=32, frames=2)
    for format in FORMATS:
        if FORMATS[format].missing() is None:
            written = export_asset(asset, format, tmp_path / FORMATS[format].file_name, options)
            assert written.bytes > 100, format


def test_the_embedded_prior_computes_as_on_the_cpu(priors: dict[str, Prior]) -> None:
    g = torch.Generator().manual_seed(0)
    images = torch.rand(4, 64, 64, 3, generator=g)
    cameras = orbit_cameras([0.0, 90.0, 180.0, 270.0], 15.0, size=64)
    noise = torch.randn(4, *priors["cpu"].latent_shape, generator=g)
    t = torch.tensor([0.1, 0.4, 0.7, 0.95])
    texts = [PROMPT, "a blue sphere", "", "a red cube, front view"]
    found: dict[str, list[torch.Tensor]] = {}
    for name, prior in priors.items():
        pictures = images.to(prior.device).requires_grad_()
        z = prior.encode(pictures)
        (slope,) = torch.autograd.grad(z.square().sum(), pictures)
        tokens = prior.embed(texts)
        parts = [z, slope, tokens, prior.decode(z.detach())]
        there = cameras.to(prior.device)
        for condition in (
            Condition(tokens),
            Condition(tokens, there),
            Condition(tokens[:1].expand(4, -1, -1), there, 4),
        ):
            z_t = z.detach() + noise.to(prior.device)
            prediction = prior.predict(z_t, t.to(prior.device), condition)
            parts += [prediction.eps, prediction.x0]
        found[name] = parts
    assert all(x.device.type == DEVICE.type for x in found["here"])
    for i, (ours, true) in enumerate(zip(found["here"], found["cpu"], strict=True)):
        assert away(ours, true) < 1e-3, i


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_the_embedded_prior_in_half_precision(precision: str, priors: dict[str, Prior]) -> None:
    if precision == "float16" and DEVICE.type == "cpu":
        pytest.skip("float16 is for GPUs")
    half, full = EmbeddedConfig(precision=precision).load(DEVICE), priors["here"]
    g = torch.Generator().manual_seed(0)
    z = torch.randn(2, *full.latent_shape, generator=g).to(DEVICE)
    t = torch.tensor([0.3, 0.8], device=DEVICE)
    ours, true = (p.predict(z, t, Condition(p.embed([PROMPT, ""]))).eps for p in (half, full))
    assert ours.dtype == torch.float32 and away(ours, true) < 0.05


def run_stage(stage: Stage, prior: Prior, steps: int = 2) -> Scene:
    """Some steps of the loop, as a run takes them."""
    assert stage.scene is not None
    generator = torch.Generator().manual_seed(0)
    scene = stage.scene.create(generator, DEVICE)
    before = {key: value.cpu() for key, value in scene.state().items()}
    companion = make_companion(stage, prior, 0)
    state = TrainState(0, make_optimizer(scene, stage.betas), generator, 0, companion)
    reports: list[StepReport] = []
    with repeatable(DEVICE):
        prompts = Prompts(prior, PROMPT, "a blue sphere")
        train_stage(
            replace(stage, steps=steps), scene, prior, prompts, state, reports.append, Phases()
        )
    assert len(reports) == steps and on_device(scene)
    assert not any(report.metrics["skipped"] for report in reports)
    after = scene.state()
    changed = [
        k for k, v in before.items() if v.shape != after[k].shape or (v != after[k].cpu()).any()
    ]
    assert changed
    return scene


def stage_for(guidance: str = "sds", scene: str = "splats", **changes: Any) -> Stage:
    rule = GUIDANCE[guidance]()
    falls = {"time": AnnealedTime(0.9, 0.3, "linear"), "noise": FixedNoise()}
    usual = {"views": 4, "render_size": 32, "conditioning": "multiview"}
    needed = falls if rule.needs_falling_time else {}
    return Stage(rule, SCENES[scene].tiny(), **{**usual, **needed, **changes})


@pytest.mark.parametrize("name", GUIDANCE.names())
def test_every_guidance_takes_steps_on_splats(name: str, priors: dict[str, Prior]) -> None:
    run_stage(stage_for(name), priors["here"])


@pytest.mark.parametrize("name", SCENES.names())
def test_the_loop_takes_steps_on_every_scene(name: str, priors: dict[str, Prior]) -> None:
    run_stage(stage_for("sds", name), priors["here"])


@pytest.mark.parametrize(
    ("part", "name"),
    [
        *(("noise", name) for name in NOISE_SOURCES.names()),
        *(("time", name) for name in TIME_SAMPLERS.names()),
        *(("cameras", name) for name in CAMERA_SAMPLERS.names()),
        *(("background", name) for name in BACKGROUND_SAMPLERS.names()),
        *(("view_prompts", name) for name in ("bins", "interpolated", "perp-neg")),
        *(("conditioning", name) for name in ("text", "camera")),
    ],
)
def test_every_sampler_takes_steps(part: str, name: str, priors: dict[str, Prior]) -> None:
    registries: dict[str, Any] = {
        "noise": NOISE_SOURCES,
        "time": TIME_SAMPLERS,
        "cameras": CAMERA_SAMPLERS,
        "background": BACKGROUND_SAMPLERS,
    }
    value = registries[part][name]() if part in registries else name
    run_stage(stage_for("sds", **{part: value}), priors["here"])


@pytest.mark.parametrize("components", [1, 3])
def test_closed_form_priors_take_steps(components: int) -> None:
    prior = ClosedFormPrior(16, components=components, device=DEVICE)
    run_stage(stage_for("sds", conditioning="camera"), prior)
    run_stage(stage_for("vsd", conditioning="camera"), prior)


def test_a_step_is_the_one_of_the_cpu(priors: dict[str, Prior]) -> None:
    """The same draws, the same prior, the same gradient: the first step moves a canvas alike."""
    found = []
    for where, device in (("here", DEVICE), ("cpu", CPU)):
        generator = torch.Generator().manual_seed(0)
        stage = stage_for("sds", "canvas")
        assert stage.scene is not None
        scene = stage.scene.create(generator, device)
        optimizer = make_optimizer(scene, stage.betas)
        state = TrainState(0, optimizer, generator, 0)
        prior, reports = priors[where], list[StepReport]()
        train_stage(
            replace(stage, steps=1),
            scene,
            prior,
            Prompts(prior, PROMPT),
            state,
            reports.append,
            Phases(),
        )
        moments = [optimizer.state[p]["exp_avg"] for p in scene.parameters().values()]
        found.append([*moments, torch.tensor(reports[0].loss)])
    for ours, true in zip(*found, strict=True):
        assert away(ours, true) < 1e-2
