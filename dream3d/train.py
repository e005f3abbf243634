"""The loop: one stage of an optimisation, read from top to bottom."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.companion import CompanionTrainer
from dream3d.controls import control_picture
from dream3d.errors import NumericsError
from dream3d.latent_scenes import latents_of
from dream3d.parallel import ALONE, ViewShare
from dream3d.phases import Phases
from dream3d.priors.base import Prior
from dream3d.prompts import Prompts
from dream3d.rendering import RenderOutput
from dream3d.scenes.base import Scene
from dream3d.surface_noise import Seen
from dream3d.transfer import sent
from guidance.base import Sides, Views, gradient_as_loss
from guidance.clips import clip_entries, clip_norm, clip_pixels
from systems.base import Stage
from systems.reference import Reference
from systems.second import SecondPrior

PATIENCE = 10
"""Steps in a row whose gradient is not finite before the run is given up."""


@dataclass(frozen=True)
class Second:
    """A loaded second prior.

    Attributes:
        settings: how it is asked.
        prior: asked.
        prompts: embedded by it.
    """

    settings: SecondPrior
    prior: Prior
    prompts: Prompts


@dataclass
class TrainState:
    """What a stage needs to go on, beside the scene.

    Attributes:
        step: steps done in this stage.
        optimizer: one group per scene parameter, under the parameter's name.
        generator: source of all randomness of the run, on the CPU so that devices agree.
        seed: the run's seed, for what must stay the same from step to step.
        companion: trains beside the scene, where the guidance asks for one.
        skipped: steps in a row that were skipped because a gradient was not finite.
        share: which of a step's views this process renders.
        reference: the picture the object must look like, where there is one.
        second: another prior that looks at the same renders, where there is one.
    """

    step: int
    optimizer: torch.optim.Adam
    generator: torch.Generator
    seed: int
    companion: CompanionTrainer | None = None
    skipped: int = 0
    share: ViewShare = ALONE
    reference: Reference | None = None
    second: Second | None = None


@dataclass(frozen=True)
class StepReport:
    """What is known after a step.

    Attributes:
        step: steps done in this stage, counted from 1.
        steps: steps of this stage.
        loss: guidance term (per view and latent entry) plus regularisers.
        metrics: the guidance's metrics, the regularisers' values, `skipped`.
        images: the views of this step over their backgrounds, detached.
        scene: the scene itself, for previews.
        preview_due: whether this step ends a preview interval or the stage.
        stage, stages: position in the run; filled in by `run_system`.
        phases: seconds by phase of the run so far; filled in by `run_system`.
    """

    step: int
    steps: int
    loss: float
    metrics: dict[str, float]
    images: Float[Tensor, "B H W 3"]
    scene: Scene
    preview_due: bool
    stage: int = 0
    stages: int = 1
    phases: Mapping[str, float] = field(default_factory=dict)


def make_optimizer(scene: Scene, betas: tuple[float, float]) -> torch.optim.Adam:
    """Adam with one named group per parameter; learning rates come from the scene at each step."""
    groups = [{"params": [p], "name": name} for name, p in scene.parameters().items()]
    return torch.optim.Adam(groups, lr=0.0, betas=betas, eps=1e-15, fused=True)


def with_reference(cameras: CameraBatch, state: TrainState) -> CameraBatch:
    """The cameras of a step, and behind them that of the picture where this step looks at it."""
    reference = state.reference
    if reference is None or reference.silent or state.step % reference.settings.every:
        return cameras
    return CameraBatch.concatenate([cameras, reference.settings.camera(cameras.height)])


def probe(
    stage: Stage,
    prompts: Prompts,
    z: Float[Tensor, "B C H W"],
    seen: Seen,
    state: TrainState,
) -> Views:
    """Where and with which words the prior is asked about the latents `z` of this step's views.

    `seen.cameras` and `state.generator` are on the host: words and times are chosen there, without waiting for a GPU.
    """
    progress, cameras = state.step / stage.steps, seen.cameras
    joint = stage.conditioning == "multiview"
    # Views that are denoised jointly are one noisy sample, so they share one noise level.
    t = stage.time(1 if joint else stage.views, progress, state.generator).expand(stage.views)
    shape = (stage.views, z.shape[1], z.shape[2], z.shape[3])
    noise = stage.noise(shape, progress, state.seed, state.generator, seen)
    mine = state.share.mine(stage.views)
    t, noise = t[mine], noise[mine]
    condition, empty, negative = prompts.conditions(
        cameras, stage.conditioning, stage.view_words, stage.view_prompts
    )
    told, noise = (sent(x, z.device, z.dtype) for x in (t, noise))
    views = Views(z.detach(), told, noise, condition, empty, negative, progress)
    views = replace(views, guider=stage.guider, known_t=t, lower=stage.time.lower(progress))
    if stage.view_words and stage.view_prompts == "perp-neg":
        views = replace(views, sides=Sides(*prompts.sides(cameras, stage.conditioning)))
    if state.companion is None:
        return views
    plain = prompts.plain(cameras, stage.conditioning)
    return replace(views, companion=state.companion.companion, plain=plain)


def second_opinion(
    stage: Stage,
    state: TrainState,
    images: Float[Tensor, "B H W 3"],
    shown: RenderOutput,
    seen: Seen,
) -> dict[str, Tensor]:
    """The weighted loss by which a second prior pulls at the renders; nothing where there is none.

    `images` are the views over their backgrounds, `shown` the same without; gradient reaches the scene through the
    former.
    """
    second, progress = state.second, state.step / stage.steps
    weight = 0.0 if second is None else second.settings.weight(progress)
    if second is None or weight == 0.0:
        return {}
    own = second.settings.of(stage)
    z = second.prior.encode(images)
    views = probe(own, second.prompts, z, seen, replace(state, companion=None))
    views = views.with_control(control_picture(second.prior.control, shown, seen.cameras))
    grad = own.guidance(second.prior, views).grad
    grad = clip_norm(clip_entries(grad, stage.entry_clip(progress)), stage.norm_clip(progress), 1)
    return {"second": weight * gradient_as_loss(z, grad) / z[0].numel()}


def read_out(
    scalars: dict[str, float | Tensor], optimizer: torch.optim.Optimizer
) -> tuple[dict[str, float], list[str]]:
    """A step's numbers, and the names of the parameters whose gradient is not finite.

    Everything crosses from the device to the host at once: the only moment of a step at which the host waits.

    Raises:
        ValueError: a metric is no single number.
    """
    names, extremes = [], []
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None and p.grad.numel():
                names.append(group["name"])
                # Not finite if an entry is not, and found in one pass over them.
                extremes += torch.aminmax(p.grad)
    on_device = {name: x for name, x in scalars.items() if isinstance(x, Tensor)}
    for name, x in on_device.items():
        if x.numel() != 1:
            raise ValueError(
                f"the metric '{name}' has shape {tuple(x.shape)}; report one number, such as its mean"
            )
    parts = [*on_device.values(), *extremes]
    if not parts:
        return {name: float(x) for name, x in scalars.items()}, []
    with torch.no_grad():
        read = torch.stack([x.to(parts[-1].device).reshape(()) for x in parts]).tolist()
    numbers = {**scalars, **dict(zip(on_device, read, strict=False))}
    low, high = read[len(on_device) :: 2], read[len(on_device) + 1 :: 2]
    broken = [n for n, a, b in zip(names, low, high, strict=True) if not math.isfinite(b - a)]
    return {name: float(x) for name, x in numbers.items()}, broken


def update(
    scene: Scene, stage: Stage, state: TrainState, broken: list[str], phases: Phases
) -> None:
    """Apply this step's gradients and the scene's density control, unless a gradient is not finite.

    Raises:
        NumericsError: too many such steps in a row.
    """
    progress = (state.step + 1) / stage.steps
    rates = scene.learning_rates(progress)
    if broken:
        state.skipped += 1
        if state.skipped >= PATIENCE:
            raise NumericsError(
                f"the gradient of {', '.join(broken)} was not finite {PATIENCE} steps in a row (step "
                f"{state.step + 1} of {stage.steps}); lower guidance.cfg_scale or the scene's learning "
                "rates, or raise time.min above 0.02. The last checkpoint is intact."
            )
        return
    state.skipped = 0
    with phases("optimise"):
        for group in state.optimizer.param_groups:
            group["lr"] = rates[group["name"]]
        state.optimizer.step()
    with phases("density"):
        scene.density_control(state.optimizer, progress, state.step, state.generator)


def train_stage(
    stage: Stage,
    scene: Scene,
    prior: Prior,
    prompts: Prompts,
    state: TrainState,
    on_step: Callable[[StepReport], None],
    phases: Phases,
) -> None:
    """Optimise `scene` until `stage.steps` steps are done; `state` and `scene` are consistent whenever `on_step` runs.

    Raises:
        NumericsError: the optimisation diverged.
    """
    size, device = stage.render_size, prior.device
    mine = state.share.mine(stage.views)
    while state.step < stage.steps:
        progress = state.step / stage.steps
        with phases("render"):
            # Every process draws for all views, so that all draw the same.
            cameras = stage.cameras(stage.views, size, progress, state.generator)[mine]
            every = stage.background(stage.views, size, progress, state.generator, device)
            background = every[mine]
            looked_at, latent = with_reference(cameras, state), scene.latent_colors
            output = (scene.render_latents if latent else scene.render)(looked_at.to(device))
            shown = output[: len(cameras)]
            images = shown.over(latent.latents(background) if latent else background)
        with phases("prior"):
            z = latents_of(images, prior) if latent else prior.encode(images)
            if stage.pixel_clip > 0.0:
                bound = stage.pixel_clip / z.numel()
                images.register_hook(lambda grad, bound=bound: clip_pixels(grad, bound))
            seen = Seen(shown.depth.detach(), shown.alpha.detach(), cameras)
            views = probe(stage, prompts, z, seen, state)
            views = views.with_control(control_picture(prior.control, shown, cameras))
            guided = stage.guidance(prior, views)
            grad = clip_entries(guided.grad, stage.entry_clip(progress))
            grad = clip_norm(grad, stage.norm_clip(progress), views.condition.views_per_object)
            also = second_opinion(stage, state, images, shown, seen)
        with phases("backward"):
            terms = scene.regularisation(output, progress) | also
            if state.reference is not None and len(looked_at) > len(cameras):
                terms |= state.reference.losses(output.rgb[-1:], output.alpha[-1:], progress)
            # Per latent entry, so that a regulariser's weight means the same at every resolution.
            loss = gradient_as_loss(z, grad) / z[0].numel() + sum(terms.values())
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            state.share.average(scene.parameters().values())
        scalars: dict[str, float | Tensor] = {
            "loss": state.share.mean(loss),
            **guided.metrics,
            **terms,
        }
        if state.companion is not None and views.plain is not None:
            with phases("companion"):
                scalars["companion"] = state.companion.step(views.z, views.plain, state.generator)
        numbers, broken = read_out(scalars, state.optimizer)
        update(scene, stage, state, broken, phases)
        state.step += 1
        on_step(
            StepReport(
                step=state.step,
                steps=stage.steps,
                loss=numbers.pop("loss"),
                metrics={**numbers, "skipped": float(state.skipped)},
                images=(latent.rgb(images.detach()).clamp(0, 1) if latent else images.detach()),
                scene=scene,
                preview_due=state.step % stage.preview_every == 0 or state.step == stage.steps,
            )
        )
