"""How diffusers' text-to-image pipelines differ, as data: one row a pipeline class, read by one adapter.

Every column is a trap somebody fell into: the sign of the output, the direction and unit of the network's time, what is
done to latents before the network sees them, which extra inputs it takes. `tests/test_pipelines.py` holds each row to
the pipeline itself.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from dream3d.priors.pipelines.distilled import Mark

Output = Literal["scheduler", "flow", "-flow", "x0"]
ModelTime = Literal["index", "sigma", "1000 sigma", "1 - sigma"]
LatentNorm = Literal["none", "scale", "shift-scale", "mean-std", "batch-norm"]
Layout = Literal["grid", "packed", "flat", "list"]
Positions = Literal["", "flux", "flux2", "shapes"]
GuidanceForm = Literal["u+s(c-u)", "c+s(c-u)", "norm-rescaled", "embedded"]


@dataclass(frozen=True)
class PipelineRow:
    """One pipeline class.

    Attributes:
        pipeline: its name in diffusers, `_class_name` in a model_index.json.
        since: the first diffusers release that has it.
        network: folder of the denoising network.
        output: what the network returns. "scheduler" is what the scheduler's `prediction_type` says, on its table of
            noise levels; the others live on straight paths: "flow" is eps - x0, "-flow" its negative, "x0" the clean
            sample.
        time: what the network is told: the table's index, the noise level, 1000 times it, or one minus it.
        norm: what is done to the codec's latents: nothing (no codec), a factor, a shift and a factor, per-channel mean
            and standard deviation, or 2 x 2 patches normalised by the codec's batch-norm statistics.
        layout: the latent as the network takes it: an image; 2 x 2 patches as a sequence; pixels as a sequence; a list
            of one-frame videos.
        channels, downscale: of the latent against the image, in the published models; the loaded model decides.
        native: side in pixels the published models were trained at.
        cfg: how the pipeline combines the conditional c and unconditional u. This package always computes
            u + s (c - u); under "c+s(c-u)" its s is the pipeline's plus one, under "norm-rescaled" the pipeline also
            restores c's norm, and under "embedded" the scale is an input of the network (`guidance_embedding`) and
            there is no second pass: use cfg_scale 1.
        scale: the pipeline's default guidance scale, in its own convention.
        names: the network's argument names for image, time and text.
        pooled: argument for the pooled text embedding, "" where there is none; "text_embeds" goes into
            `added_cond_kwargs`.
        mask: argument for the text's mask, "" where there is none.
        positions: which position ids the network wants.
        size_ids: SDXL's original size, crop and target size.
        added_none: PixArt's `added_cond_kwargs`, present but empty.
        guidance_argument: the network takes its guidance scale as an input, if its configuration says so.
        variance_channels: the network may return twice the channels; the second half is a learnt variance.
        time_scale: the network's configuration has a `timestep_scale` that multiplies time.
        text_options: arguments of the pipeline's `encode_prompt`.
        call_defaults: arguments of `encode_prompt` whose value is the default of the pipeline's `__call__`.
        text_results: what `encode_prompt` returns, in order; "" is ignored.
        empty_results: how to read `encode_prompt`'s answer, guidance on, for the empty prompt; () where it is embedded
            as any other. Some pipelines wrap the prompt in instructions, and leave the empty one bare.
        trimmed: prompts differ in length; what no prompt of a run needs is cut off before the network.
        adapters: takes an IP-Adapter, as diffusers' pipelines of the same family do.
        control: the class of ControlNets that go with it; "" for none.
        dtype: of the weights on a GPU.
        distilled: what gives those models of the class away that classifier-free guidance means nothing to.
        needs: further Python packages the pipeline cannot do without.
        advice: what a user should know, one line.
    """

    pipeline: str
    since: str
    network: Literal["unet", "transformer"]
    output: Output
    time: ModelTime
    norm: LatentNorm
    channels: int
    downscale: int
    native: int
    scale: float
    layout: Layout = "grid"
    cfg: GuidanceForm = "u+s(c-u)"
    names: tuple[str, str, str] = ("hidden_states", "timestep", "encoder_hidden_states")
    pooled: str = ""
    mask: str = ""
    positions: Positions = ""
    size_ids: bool = False
    added_none: bool = False
    guidance_argument: bool = False
    variance_channels: bool = False
    time_scale: bool = False
    text_options: dict[str, Any] = field(default_factory=dict)
    call_defaults: tuple[str, ...] = ()
    text_results: tuple[str, ...] = ("tokens", "")
    empty_results: tuple[str, ...] = ()
    trimmed: bool = False
    adapters: bool = False
    control: Literal["", "ControlNetModel", "SD3ControlNetModel", "FluxControlNetModel"] = ""
    dtype: Literal["float16", "bfloat16"] = "bfloat16"
    distilled: tuple[Mark, ...] = ()
    needs: tuple[str, ...] = ()
    advice: str = ""


_UNET = ("sample", "timestep", "encoder_hidden_states")
_FEW_STEPS = (
    Mark("scheduler", "_class_name", ("LCMScheduler", "TCDScheduler")),
    Mark("network", "time_cond_proj_dim"),
)
_ALONE = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}

STABLE_DIFFUSION = PipelineRow(
    "StableDiffusionPipeline",
    since="0.35",
    network="unet",
    output="scheduler",
    time="index",
    norm="scale",
    channels=4,
    downscale=8,
    native=512,
    scale=7.5,
    names=_UNET,
    text_options=_ALONE,
    adapters=True,
    control="ControlNetModel",
    dtype="float16",
    distilled=_FEW_STEPS,
    advice="1.x predicts noise, most 2.x `v`: read from the scheduler. Fastest step, every LoRA and ControlNet.",
)

SDXL = PipelineRow(
    "StableDiffusionXLPipeline",
    since="0.35",
    network="unet",
    output="scheduler",
    time="index",
    norm="scale",
    channels=4,
    downscale=8,
    native=1024,
    scale=5.0,
    names=_UNET,
    pooled="text_embeds",
    size_ids=True,
    text_options=_ALONE,
    text_results=("tokens", "", "pooled", ""),
    adapters=True,
    control="ControlNetModel",
    dtype="float16",
    distilled=_FEW_STEPS,
    advice="Its codec overflows in float16: it is kept in float32 unless vae names one made for float16.",
)

DEEPFLOYD_IF = PipelineRow(
    "IFPipeline",
    since="0.35",
    network="unet",
    output="scheduler",
    time="index",
    norm="none",
    channels=3,
    downscale=1,
    native=64,
    scale=7.0,
    names=_UNET,
    variance_channels=True,
    text_options=_ALONE,
    dtype="float16",
    advice="Pixels, no codec. Gated.",
)

SD3 = PipelineRow(
    "StableDiffusion3Pipeline",
    since="0.35",
    network="transformer",
    output="flow",
    time="1000 sigma",
    norm="shift-scale",
    channels=16,
    downscale=8,
    native=1024,
    scale=7.0,
    pooled="pooled_projections",
    text_options={**_ALONE, "prompt_2": None, "prompt_3": None},
    text_results=("tokens", "", "pooled", ""),
    control="SD3ControlNetModel",
    advice="SD3 and SD3.5. Gated.",
)

FLUX = PipelineRow(
    "FluxPipeline",
    since="0.35",
    network="transformer",
    output="flow",
    time="sigma",
    norm="shift-scale",
    channels=16,
    downscale=8,
    native=1024,
    scale=3.5,
    layout="packed",
    cfg="embedded",
    pooled="pooled_projections",
    positions="flux",
    guidance_argument=True,
    text_options={"num_images_per_prompt": 1, "prompt_2": None},
    text_results=("tokens", "pooled", ""),
    control="FluxControlNetModel",
    distilled=(Mark("network", "guidance_embeds", way="embedded"),),
    advice="Guidance is distilled into the network: set guidance_embedding, and cfg_scale 1. Gated.",
)

FLUX2_KLEIN = PipelineRow(
    "Flux2KleinPipeline",
    since="0.37",
    network="transformer",
    output="flow",
    time="sigma",
    norm="batch-norm",
    channels=128,
    downscale=16,
    native=1024,
    scale=4.0,
    layout="flat",
    positions="flux2",
    guidance_argument=True,
    text_options={"num_images_per_prompt": 1},
    distilled=(Mark("index", "is_distilled"),),
    advice="Take the base model: the distilled one has no score to guide with.",
)

Z_IMAGE = PipelineRow(
    "ZImagePipeline",
    since="0.36",
    network="transformer",
    output="-flow",
    time="1 - sigma",
    norm="shift-scale",
    channels=16,
    downscale=8,
    native=1024,
    scale=5.0,
    layout="list",
    cfg="c+s(c-u)",
    names=("x", "t", "cap_feats"),
    text_options={"do_classifier_free_guidance": False},
    trimmed=True,
    advice="The pipeline's scale g is cfg_scale g + 1 here.",
)

QWEN_IMAGE = PipelineRow(
    "QwenImagePipeline",
    since="0.35",
    network="transformer",
    output="flow",
    time="sigma",
    norm="mean-std",
    channels=16,
    downscale=8,
    native=1328,
    scale=4.0,
    layout="packed",
    cfg="norm-rescaled",
    mask="encoder_hidden_states_mask",
    positions="shapes",
    guidance_argument=True,
    text_options={"num_images_per_prompt": 1},
    text_results=("tokens", "mask"),
    trimmed=True,
    advice="40 GB in bfloat16. The pipeline restores the conditional's norm: use guidance.rescale.",
)

PRX = PipelineRow(
    "PRXPipeline",
    since="0.36",
    network="transformer",
    output="flow",
    time="sigma",
    norm="shift-scale",
    channels=16,
    downscale=8,
    native=512,
    scale=5.0,
    mask="attention_mask",
    text_options=_ALONE,
    text_results=("tokens", "mask", "", ""),
    advice="Trained at 256 and 512 pixels too: a true low-resolution flow prior.",
    needs=("ftfy",),
)

PRX_PIXEL = PipelineRow(
    "PRXPixelPipeline",
    since="0.39",
    network="transformer",
    output="x0",
    time="sigma",
    norm="none",
    channels=3,
    downscale=1,
    native=1024,
    scale=5.0,
    mask="attention_mask",
    text_options=_ALONE,
    text_results=("tokens", "mask", "", ""),
    advice="Pixels, no codec; its noise is twice a unit Gaussian. Experimental.",
    needs=("ftfy",),
)

LUMINA2 = PipelineRow(
    "Lumina2Pipeline",
    since="0.35",
    network="transformer",
    output="-flow",
    time="1 - sigma",
    norm="shift-scale",
    channels=16,
    downscale=8,
    native=1024,
    scale=4.0,
    mask="encoder_attention_mask",
    text_options=_ALONE,
    text_results=("tokens", "mask", "", ""),
    empty_results=("", "", "tokens", "mask"),
)

PIXART_SIGMA = PipelineRow(
    "PixArtSigmaPipeline",
    since="0.35",
    network="transformer",
    output="scheduler",
    time="index",
    norm="scale",
    channels=4,
    downscale=8,
    native=1024,
    scale=4.5,
    mask="encoder_attention_mask",
    added_none=True,
    variance_channels=True,
    text_options=_ALONE,
    text_results=("tokens", "mask", "", ""),
    dtype="float16",
)

SANA = PipelineRow(
    "SanaPipeline",
    since="0.35",
    network="transformer",
    output="flow",
    time="1000 sigma",
    norm="scale",
    channels=32,
    downscale=32,
    native=1024,
    scale=4.5,
    mask="encoder_attention_mask",
    variance_channels=True,
    time_scale=True,
    text_options=_ALONE,
    call_defaults=("complex_human_instruction",),
    text_results=("tokens", "mask", "", ""),
    empty_results=("", "", "tokens", "mask"),
    advice="The weights are licensed for non-commercial use.",
)

READ_ELSEWHERE = ("MVDreamPipeline", "ImageDreamPipeline", "Zero123Pipeline")
"""Pipelines outside diffusers that have readers of their own (`dream3d.priors.view_models`)."""

ROWS: dict[str, PipelineRow] = {
    row.pipeline: row
    for row in (
        STABLE_DIFFUSION,
        SDXL,
        DEEPFLOYD_IF,
        SD3,
        FLUX,
        FLUX2_KLEIN,
        Z_IMAGE,
        QWEN_IMAGE,
        PRX,
        PRX_PIXEL,
        LUMINA2,
        PIXART_SIGMA,
        SANA,
    )
}
"""Every supported pipeline class, by name."""
