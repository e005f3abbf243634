"""Every row of the pipeline table against the pipeline itself, on tiny random weights."""

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tiny_pipelines import save_tiny, tiny_pipeline
from torch import Tensor

from dream3d.diffusion import Prediction, TableSchedule, add_noise
from dream3d.priors.base import Condition
from dream3d.priors.pipelines.call import arguments
from dream3d.priors.pipelines.opening import Opening, open_prior
from dream3d.priors.pipelines.packing import Text
from dream3d.priors.pipelines.prior import PipelinePrior
from dream3d.priors.pipelines.table import ROWS

CPU = torch.device("cpu")
PROMPT = "a red mug"
GUIDANCE = 3.0
EVERY_ROW = pytest.mark.parametrize("name", sorted(ROWS))
FAST = ("StableDiffusionPipeline", "ZImagePipeline", "Flux2KleinPipeline")
EVERY_ROW_MOSTLY_SLOW = pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in sorted(ROWS)],
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Directory of a tiny pipeline by name, saved once."""
    made: dict[str, tuple[Path, Any]] = {}

    def get(name: str, **options: Any) -> tuple[Path, Any]:
        key = name + "".join(options.values())
        if key not in made:
            directory = tmp_path_factory.mktemp(key)
            made[key] = (directory, save_tiny(name, directory, **options))
        return made[key]

    return get


def open_tiny(directory: Path, **how: Any) -> PipelinePrior:
    """Opened at 16 pixels: some networks do not say what they were trained at, and the published ones' is large."""
    index = json.loads((directory / "model_index.json").read_text())
    size = 32 if index["_class_name"] == "SanaPipeline" else 16  # Sana's call insists
    return open_prior(directory, CPU, Opening(resolution=size, guidance_embedding=GUIDANCE, **how))


def to_pipeline(pipeline: Any, z: Tensor) -> Tensor:
    """Latents as the pipeline's call takes them, by the pipeline's own packing."""
    if type(pipeline).__name__ in ("FluxPipeline", "QwenImagePipeline"):
        return pipeline._pack_latents(z, *z.shape)
    return z


def from_pipeline(pipeline: Any, x: Tensor, prior: PipelinePrior) -> Tensor:
    """What a pipeline's scheduler was given, as a latent on a grid, by the pipeline's own unpacking."""
    name, size = type(pipeline).__name__, prior.image_size
    if name in ("FluxPipeline", "QwenImagePipeline"):
        grid = pipeline._unpack_latents(x, size, size, pipeline.vae_scale_factor)
        return grid.reshape(len(x), *prior.latent_shape)
    if name == "Flux2KleinPipeline":
        return x.transpose(1, 2).reshape(len(x), *prior.latent_shape)
    return x


def run(pipeline: Any, z: Tensor, guidance: float, steps: int, size: int) -> list[dict[str, Any]]:
    """The pipeline's own sampling from `z`; what its scheduler was given and gave back, per step."""
    calls: list[dict[str, Any]] = []
    inner = pipeline.scheduler.step

    def step(output: Tensor, t: Any, sample: Tensor, *rest: Any, **options: Any) -> Any:
        result = inner(output, t, sample, *rest, **options)
        after = result[0] if isinstance(result, tuple) else result.prev_sample
        calls.append({"output": output, "t": float(t), "sample": sample, "after": after})
        return result

    pipeline.scheduler.step = step
    name = type(pipeline).__name__
    options: dict[str, Any] = {"guidance_scale": guidance}
    if name == "QwenImagePipeline":
        options = {"true_cfg_scale": guidance, "negative_prompt": " "}
    if name == "Lumina2Pipeline":
        options["cfg_normalization"] = False
    if name in ("PixArtSigmaPipeline", "SanaPipeline", "PRXPipeline", "PRXPixelPipeline"):
        options["use_resolution_binning"] = False
    if name in ("PixArtSigmaPipeline", "SanaPipeline", "IFPipeline"):
        options["clean_caption"] = False
    if name == "IFPipeline":
        pipeline.prepare_intermediate_images = lambda *a, **k: z
    else:
        options["latents"] = to_pipeline(pipeline, z)
    pipeline(
        prompt=PROMPT,
        height=size,
        width=size,
        num_inference_steps=steps,
        output_type="pt" if name == "IFPipeline" else "latent",
        **options,
    )
    return calls


def times(prior: PipelinePrior, pipeline: Any, calls: list[dict[str, Any]], i: int) -> list[float]:
    """Our t before and after step i, from the scheduler's timesteps or sigmas."""
    if isinstance(prior.schedule, TableSchedule):
        return [float(t) / 999.0 for t in pipeline.scheduler.timesteps[i : i + 2]]
    return [float(s) for s in pipeline.scheduler.sigmas[i : i + 2]]


def guided(prior: PipelinePrior, z: Tensor, t: Tensor, guidance: float) -> Tensor:
    """The pipeline's guided output from our two predictions, by the row's `cfg`."""
    row = prior.row
    empty = " " if row.cfg == "norm-rescaled" else ""
    tokens = prior.embed([empty, PROMPT])
    both = prior.predict(torch.cat([z, z]), t.repeat(2), Condition(tokens))
    u, c = both.value.chunk(2)
    if row.cfg == "embedded":
        return c
    scale = guidance + 1.0 if row.cfg == "c+s(c-u)" else guidance
    value = u + scale * (c - u)
    if row.cfg == "norm-rescaled":
        shape = diffusers.QwenImagePipeline._pack_latents(c, *c.shape)
        packed = diffusers.QwenImagePipeline._pack_latents(value, *c.shape)
        ratio = shape.norm(dim=-1, keepdim=True) / packed.norm(dim=-1, keepdim=True)
        # Undo the packing through its own indices.
        where = diffusers.QwenImagePipeline._pack_latents(
            torch.arange(value.numel()).reshape(value.shape).float(), *c.shape
        ).long()
        flat = torch.empty(value.numel())
        flat[where.flatten()] = (packed * ratio).flatten()
        value = flat.reshape(value.shape)
    return value


@EVERY_ROW
def test_one_step_equals_the_pipelines_own(name: str, saved: Any) -> None:
    """Text, packing, time, sign and guidance: what the scheduler is given and what comes out, to 1e-5."""
    directory, _ = saved(name)
    prior = open_tiny(directory)
    z = torch.randn(1, *prior.latent_shape, generator=torch.Generator().manual_seed(1))
    fresh = tiny_pipeline(name)
    calls = run(fresh, z, GUIDANCE, 4, prior.image_size)
    for i in range(2):
        call, (t, s) = calls[i], times(prior, fresh, calls, i)
        sample = from_pipeline(fresh, call["sample"], prior)
        after = from_pipeline(fresh, call["after"], prior)
        level = torch.tensor([t])
        if name == "StableDiffusionXLPipeline":  # Euler walks in z / alpha
            sample = sample * prior.schedule.alpha(level)
            after = after * prior.schedule.alpha(torch.tensor([s]))
        value = guided(prior, sample, level, GUIDANCE)
        alpha, sigma = (
            f(level).reshape(1, 1, 1, 1) for f in (prior.schedule.alpha, prior.schedule.sigma)
        )
        ours = Prediction(value, prior.kind, sample, alpha, sigma)
        told = from_pipeline(fresh, call["output"], prior)
        if (
            name == "IFPipeline"
        ):  # its ancestral step draws noise; the network's part is what is ours
            told = told[:, :3]
            torch.testing.assert_close(value, told, atol=1e-5, rtol=1e-5)
            continue
        expected = ours.flow if prior.kind == "x0" else value
        if prior.kind == "x0":
            expected = (sample - value) / level  # the pipeline's velocity
        torch.testing.assert_close(expected, told, atol=1e-5, rtol=1e-5)
        stepped = add_noise(prior.schedule, ours.x0, ours.eps, torch.tensor([s]))
        torch.testing.assert_close(stepped, after, atol=1e-5, rtol=1e-5)


@EVERY_ROW_MOSTLY_SLOW
def test_known_answer_is_read_as_the_pipeline_reads_it(
    name: str, saved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that knows x and eps: whatever output takes the pipeline to x in one step, the adapter reads as x."""
    directory, _ = saved(name)
    prior, pipeline = open_tiny(directory), tiny_pipeline(name)
    x, eps = torch.randn(2, 1, *prior.latent_shape, generator=torch.Generator().manual_seed(2))
    if name == "IFPipeline":
        pipeline.scheduler = diffusers.DDPMScheduler.from_config(
            pipeline.scheduler.config, variance_type="fixed_small", clip_sample=False
        )
    network = pipeline.components[prior.row.network]
    answers = {"eps": eps, "eps - x": eps - x, "x - eps": x - eps, "x": x}
    scale = float(prior.parts.settings.get("noise_scale", 1.0))
    off = 0.0 if name == "ZImagePipeline" else 1.0  # the scale that switches guidance off
    found = []
    for answer, value in answers.items():
        told = _answer(pipeline, prior, value)
        monkeypatch.setattr(network, "forward", lambda *a, told=told, **k: (told,))
        monkeypatch.setattr(prior.network, "forward", lambda *a, told=told, **k: (told,))
        at_end = _last_level(prior, pipeline, x, scale * eps)
        result = run(pipeline, at_end, off, 1, prior.image_size)[-1]
        after = from_pipeline(pipeline, result["after"], prior)
        reached = _clean(name, result, after, pipeline, prior)
        t = torch.tensor([0.5])
        noisy = add_noise(prior.schedule, x, eps, t)
        tokens = prior.embed([PROMPT])
        ours = prior.predict(noisy, t, Condition(tokens)).x0
        assert torch.allclose(reached, x, atol=1e-3) == torch.allclose(ours, x, atol=1e-3), answer
        if torch.allclose(reached, x, atol=1e-3):
            found.append(answer)
            torch.testing.assert_close(ours, x, atol=1e-5, rtol=1e-4)
    assert len(found) == 1, "the pipeline itself must tell the answers apart"


def _answer(pipeline: Any, prior: PipelinePrior, value: Tensor) -> Any:
    """`value` as the pipeline's network would return it."""
    if prior.row.variance_channels and prior.network.config["out_channels"] == 2 * value.shape[1]:
        return torch.cat([value, torch.zeros_like(value)], dim=1)
    if prior.row.layout == "list":
        return list(value[:, :, None])
    if prior.row.layout == "flat":
        return pipeline._pack_latents(value)
    return to_pipeline(pipeline, value)


def _last_level(prior: PipelinePrior, pipeline: Any, x: Tensor, noise: Tensor) -> Tensor:
    """Where a run of one step begins."""
    if not isinstance(prior.schedule, TableSchedule):
        return noise
    pipeline.scheduler.set_timesteps(1)
    t = torch.tensor([float(pipeline.scheduler.timesteps[0]) / 999.0])
    z = add_noise(prior.schedule, x, noise, t)
    if isinstance(pipeline.scheduler, diffusers.EulerDiscreteScheduler):
        return z / prior.schedule.alpha(t) / pipeline.scheduler.init_noise_sigma
    return z


def _clean(
    name: str, call: dict[str, Any], after: Tensor, pipeline: Any, prior: PipelinePrior
) -> Tensor:
    """The clean sample the scheduler believed in when it made the pipeline's only step."""
    if not isinstance(prior.schedule, TableSchedule):
        return after
    output, sample = call["output"][:, : after.shape[1]], call["sample"]
    if name == "StableDiffusionXLPipeline":  # Euler walks in z / alpha
        sample = sample * prior.schedule.alpha(torch.tensor([call["t"] / 999.0]))
    scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    scheduler.set_timesteps(1)
    return scheduler.step(output, int(call["t"]), sample).pred_original_sample


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_stable_diffusion_predicts_what_its_scheduler_says(prediction: str, saved: Any) -> None:
    """DDIM's own step from our prediction, for v and x0 as well."""
    directory, _ = saved("StableDiffusionPipeline", prediction=prediction)
    prior = open_tiny(directory)
    scheduler = diffusers.DDIMScheduler.from_pretrained(directory / "scheduler")
    scheduler.set_timesteps(4)
    now, then = (int(t) for t in scheduler.timesteps[1:3])
    z = torch.randn(2, *prior.latent_shape, generator=torch.Generator().manual_seed(1))
    ours = prior.predict(z, torch.full((2,), now / 999.0), Condition(prior.embed([PROMPT, ""])))
    expected = scheduler.step(ours.value, now, z).prev_sample
    stepped = add_noise(prior.schedule, ours.x0, ours.eps, torch.full((2,), then / 999.0))
    torch.testing.assert_close(stepped, expected, atol=1e-5, rtol=1e-5)


@EVERY_ROW_MOSTLY_SLOW
def test_encode_inverts_the_pipelines_decoding(name: str, saved: Any) -> None:
    """Normalisation as the pipeline's: the codec, told our latent by the pipeline's recipe, shows our picture."""
    directory, pipeline = saved(name)
    prior = open_tiny(directory)
    images = torch.rand(2, prior.image_size, prior.image_size, 3, requires_grad=True)
    z = prior.encode(images)
    assert z.shape[1:] == prior.latent_shape
    z.square().sum().backward()
    assert images.grad is not None and images.grad.abs().max() > 0.0
    vae, latents = prior.parts.vae, z.detach()
    if vae is None:
        torch.testing.assert_close(prior.decode(latents), images.detach())
        return
    raw = _raw(pipeline, latents)
    signal = vae.decode(raw, return_dict=False)[0]
    signal = signal[:, :, 0] if signal.ndim == 5 else signal
    expected = (signal.permute(0, 2, 3, 1) * 0.5 + 0.5).clamp(0.0, 1.0)
    torch.testing.assert_close(prior.decode(latents), expected, atol=1e-5, rtol=1e-5)
    signal = images.detach().permute(0, 3, 1, 2) * 2 - 1
    encoded = vae.encode(signal[:, :, None] if raw.ndim == 5 else signal)
    own = encoded.latent if hasattr(encoded, "latent") else encoded.latent_dist.mode()
    torch.testing.assert_close(raw, own, atol=1e-5, rtol=1e-4)


def _raw(pipeline: Any, z: Tensor) -> Tensor:
    """The lines of each pipeline's `__call__` between its last step and its codec."""
    config, name = pipeline.vae.config, type(pipeline).__name__
    if name == "Flux2KleinPipeline":
        bn = pipeline.vae.bn
        std = torch.sqrt(bn.running_var.view(1, -1, 1, 1) + config.batch_norm_eps)
        return pipeline._unpatchify_latents(z * std + bn.running_mean.view(1, -1, 1, 1))
    if name == "QwenImagePipeline":
        shape = (1, -1, 1, 1, 1)
        std = 1.0 / torch.tensor(config.latents_std).view(shape)
        return z[:, :, None] / std + torch.tensor(config.latents_mean).view(shape)
    shifted = ("StableDiffusion3Pipeline", "FluxPipeline", "ZImagePipeline", "PRXPipeline")
    if name in (*shifted, "Lumina2Pipeline"):
        return z / config.scaling_factor + config.shift_factor
    return z / config.scaling_factor


@EVERY_ROW_MOSTLY_SLOW
def test_companion_begins_as_the_prior_and_can_learn(name: str, saved: Any) -> None:
    directory, _ = saved(name)
    prior = open_tiny(directory)
    tokens = prior.embed([PROMPT])
    z = torch.randn(1, *prior.latent_shape, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0.4])
    before = prior.predict(z, t, Condition(tokens)).value
    companion = prior.companion(rank=2, seed=0)
    learnt = companion.output(z, t, Condition(tokens)).value
    torch.testing.assert_close(learnt.detach(), before, atol=0.0, rtol=0.0)
    learnt.square().sum().backward()
    gradients = [p.grad for p in companion.parameters().values() if p.grad is not None]
    assert any(g.abs().max() > 0.0 for g in gradients)
    torch.testing.assert_close(
        prior.predict(z, t, Condition(tokens)).value, before, atol=0.0, rtol=0.0
    )


def test_text_encoders_are_freed_and_come_back(saved: Any) -> None:
    directory, _ = saved("StableDiffusionXLPipeline")
    prior = open_tiny(directory)
    first = prior.embed([PROMPT, "", "a car"])
    assert not prior.parts.text.loaded
    torch.testing.assert_close(prior.embed(["a car"]), first[2:])
    assert (first[1] == 0.0).all(), "SDXL's empty prompt is zero"
    assert (first[0] != 0.0).any()


def test_size_ids_are_made_once() -> None:
    """Numbers sent to a GPU make the host wait, so no step may send them."""
    made = [
        arguments(ROWS["StableDiffusionXLPipeline"], {}, z, t, Text(words, words[:, 0]), 1.0, 64)
        for z, t, words in [(torch.zeros(2, 4, 8, 8), torch.zeros(2), torch.zeros(2, 3, 8))] * 2
    ]
    first, second = (given["added_cond_kwargs"]["time_ids"] for given in made)
    assert first.tolist() == [[64, 64, 0, 0, 64, 64]] * 2
    assert first.data_ptr() == second.data_ptr()


def test_chunks_change_nothing(saved: Any) -> None:
    directory, _ = saved("StableDiffusion3Pipeline")
    whole, parts = open_tiny(directory), open_tiny(directory, chunk=2, low_vram=True)
    tokens = whole.embed([PROMPT, "", "a car"])
    parts.embed([PROMPT])
    z = torch.randn(3, *whole.latent_shape)
    t = torch.tensor([0.2, 0.5, 0.9])
    torch.testing.assert_close(
        parts.predict(z, t, Condition(tokens)).value,
        whole.predict(z, t, Condition(tokens)).value,
        atol=1e-6,
        rtol=1e-5,
    )
