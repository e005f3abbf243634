"""MVDream (Shi et al. 2023, arXiv 2308.16512): four views of one object denoised together, each told its camera.

It is Stable Diffusion's own U-Net with two changes. Self-attention runs over the tokens of all views, and a perceptron
of the camera's 16 numbers is added to the time embedding: diffusers' `class_embed_type="projection"` is that perceptron
(linear, SiLU, linear), so its own class is the whole network. The published weights carry the names of the original
training code; they are renamed here.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.diffusion import Prediction
from dream3d.errors import ModelError
from dream3d.priors.base import Condition
from dream3d.priors.latent.components import read_json
from dream3d.priors.latent.multiview import enable_joint_views
from dream3d.priors.pipelines.opening import (
    model_index,
    placement,
    required_class,
    slice_codec,
    usual_chunk,
    weight_dtype,
)
from dream3d.priors.pipelines.parts import check_weights, load_part, open_text_pipeline, refuse_gaps
from dream3d.priors.pipelines.prior import PipelineParts, PipelinePrior
from dream3d.priors.pipelines.table import STABLE_DIFFUSION
from dream3d.priors.pipelines.text import TextEmbedder

VIEWS = 4
CAMERA_NUMBERS = 16
PUBLISHED = "MultiViewUNetModel"
"""What the published directory calls the network's class."""


@lru_cache(maxsize=8)
def _frames(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Blender's world from ours and its camera's axes; made once, because sending numbers to a GPU waits for it."""
    world = [
        [1.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, -1.0, 0.0],
        [0.0, 1.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
    axes = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    return torch.tensor(world).to(device, dtype), axes.to(device, dtype)


def camera_rows(cameras: CameraBatch) -> Float[Tensor, "B 16"]:
    """What the network is told: camera-to-world, row by row, as Blender has it, at distance 1.

    Blender's world is +Z up, so an object that faces +Z here faces -Y there: (x, y, z) -> (x, -z, y), as glTF files are
    imported. Its cameras look along -Z with +Y up, where ours look along +Z with +Y down.
    """
    world, axes = _frames(cameras.c2w.device, cameras.c2w.dtype)
    pose = world @ cameras.c2w @ axes
    distance = pose[:, :3, 3:].norm(dim=1, keepdim=True)
    scale = torch.ones_like(pose)
    scale[:, :3, 3:] = 1.0 / (distance + 1e-8)
    return (pose * scale).flatten(1)


def whole_objects(chunk: int) -> int:
    """The chunk in which no object's views are torn apart; 0, all at once, stays."""
    return 0 if not chunk else max(VIEWS, chunk // VIEWS * VIEWS)


class MVDreamPrior(PipelinePrior):
    """A `PipelinePrior` that asks about four views of an object at a time, or several objects' four each.

    Args:
        parts: with a network from `load_network`.
        device: of the networks.
        chunk: samples per network call at most; whole objects are kept together. 0 for all at once.
    """

    accepts_cameras = True
    joint_views = VIEWS
    conditionings = ("multiview",)

    @property
    def has_companion(self) -> bool:
        """None: a companion is also asked without cameras."""
        return False

    def __init__(self, parts: PipelineParts, device: torch.device, chunk: int = 0) -> None:
        super().__init__(parts, device, chunk=whole_objects(chunk))

    def ask_at_once(self, samples: int) -> None:
        super().ask_at_once(whole_objects(samples))

    def check_views(self, z_t: Float[Tensor, "B C h w"], condition: Condition) -> CameraBatch:
        """The cameras of the condition.

        Raises:
            ValueError: it has none, or its views are not grouped in fours.
        """
        views = condition.views_per_object
        if condition.cameras is None or views != VIEWS or len(z_t) % VIEWS:
            name = type(self).__name__.removesuffix("Prior")
            raise ValueError(
                f"{name} takes {VIEWS} views of an object with their cameras; got {len(z_t)} samples in groups of "
                f"{views}{'' if condition.cameras else ' without cameras'}"
            )
        return condition.cameras

    def output(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Prediction:
        """As `PipelinePrior.output`, for B a multiple of four.

        Raises:
            ValueError: the condition has no cameras, or its views are not grouped in fours.
        """
        cameras = self.check_views(z_t, condition)
        assert self.table is not None
        value = self._ask(
            sample=self.accelerator.image(z_t.to(self.dtype)),
            timestep=self.table.index(t),
            encoder_hidden_states=self.parts.text.read(condition.tokens).tokens.to(self.dtype),
            class_labels=camera_rows(cameras).to(self.device, self.dtype),
            cross_attention_kwargs={"views": VIEWS},
            return_dict=False,
        )
        return self._prediction(value.to(z_t.dtype), z_t, t)


def open_mvdream(
    directory: Path,
    device: torch.device,
    precision: str = "auto",
    chunk: int = 0,
    low_vram: bool = False,
) -> MVDreamPrior:
    """A directory as published (ashawkey/mvdream-sd2.1-diffusers), or with the network under diffusers' names.

    Args:
        directory: with unet, vae, text_encoder, tokenizer, scheduler.
        device: of the networks.
        precision: "auto", "float32", "bfloat16" or "float16".
        chunk: samples per network call at most; 0 for all at once.
        low_vram: layers from main memory, codec in slices and tiles, few samples at once.

    Raises:
        ModelError: a part is missing, damaged, pickled, or of another kind.
    """
    dtype = weight_dtype(STABLE_DIFFUSION, precision, device)
    model_index(directory)
    network = load_network(directory / "unet", dtype)
    parts = open_parts(directory, network, device, dtype, low_vram)
    return MVDreamPrior(parts, device, chunk or usual_chunk(low_vram))


def open_parts(
    directory: Path, network: Any, device: torch.device, dtype: torch.dtype, low_vram: bool = False
) -> PipelineParts:
    """The parts of a directory beside its network, and that brought to the device.

    Raises:
        ModelError: one is missing, damaged, pickled, or of another kind.
    """
    row, index = STABLE_DIFFUSION, model_index(directory)

    def load(name: str) -> Any:
        return load_part(required_class(index, name, directory), directory / name, dtype)

    def open_text() -> Any:
        return open_text_pipeline(directory, row, dtype).to(device)

    placement(low_vram, device)(network)
    vae = load("vae").to(device)
    if low_vram:
        slice_codec(vae)
    text = TextEmbedder(row, open_text, device)
    return PipelineParts(row, network, vae, load("scheduler"), text)


def load_network(folder: Path, dtype: torch.dtype) -> Any:
    """The network in a directory, under the published names or under diffusers'.

    Raises:
        ModelError: damaged, of another kind, or weights missing or left over.
    """
    config = read_json(folder / "config.json")
    if config.get("_class_name") == PUBLISHED:
        network = _load_published(folder, config, dtype)
        enable_joint_views(network)
        return network
    if config.get("class_embed_type") != "projection":
        raise ModelError(
            f"{folder} holds no MVDream network: it is not told a camera. Give a directory whose unet is a "
            f"{PUBLISHED}, or a UNet2DConditionModel with class_embed_type 'projection' over {CAMERA_NUMBERS} numbers"
        )
    network = load_part(UNet2DConditionModel, folder, dtype)
    enable_joint_views(network)
    return network


def network_settings(config: dict[str, Any], linear: bool) -> dict[str, Any]:
    """diffusers' settings for the published ones.

    Args:
        config: the published config.json.
        linear: whether the projections around attention are linear layers (2.x) or 1 x 1 convolutions (1.x).
    """
    width, levels = int(config["model_channels"]), list(config["channel_mult"])
    channels = [width * factor for factor in levels]
    attends = [2**level in config["attention_resolutions"] for level in range(len(levels))]
    per_head = int(config.get("num_head_channels", -1))
    heads = [c // per_head if per_head > 0 else int(config["num_heads"]) for c in channels]
    names = ["CrossAttn" if with_text else "" for with_text in attends]
    return {
        "sample_size": config["image_size"],
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "block_out_channels": tuple(channels),
        "down_block_types": tuple(f"{name}DownBlock2D" for name in names),
        "up_block_types": tuple(f"{name}UpBlock2D" for name in reversed(names)),
        "layers_per_block": config["num_res_blocks"],
        "transformer_layers_per_block": config.get("transformer_depth", 1),
        "cross_attention_dim": config["context_dim"],
        "attention_head_dim": tuple(heads),
        "use_linear_projection": linear,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": config["camera_dim"],
    }


def renamed(weights: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Tensor]:
    """The published weights under diffusers' names."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    # The camera's perceptron stands where the original code has that of class labels.
    original = {
        "model.diffusion_model." + key.replace("camera_embed.", "label_emb.0."): value
        for key, value in weights.items()
    }
    converted = convert_ldm_unet_checkpoint(original, settings)
    # ImageDream's attention to the picture is a processor's in diffusers.
    return {
        key.replace(".attn2.to_k_ip.", ".attn2.processor.to_k_ip.").replace(
            ".attn2.to_v_ip.", ".attn2.processor.to_v_ip."
        ): value
        for key, value in converted.items()
    }


def _load_published(folder: Path, config: dict[str, Any], dtype: torch.dtype) -> Any:
    if config.get("ip_dim"):
        raise ModelError(
            f"{folder} is ImageDream's network, which is also told a picture; use prior=imagedream with --image FILE"
        )
    weights = published_weights(folder)
    network = fill_published(folder, config, weights, lambda s: UNet2DConditionModel(**s))
    return network.to(dtype).eval().requires_grad_(False)


def published_weights(folder: Path) -> dict[str, Tensor]:
    """The weights in a folder, under the names they have.

    Raises:
        ModelError: there are none, or they are damaged or pickled.
    """
    check_weights(folder)
    weights: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights |= load_file(file)
    return weights


def fill_published(
    folder: Path,
    config: dict[str, Any],
    weights: dict[str, Tensor],
    build: Callable[[dict[str, Any]], Any],
) -> Any:
    """A network with the published weights; each must find its place, and each place its weight.

    Args:
        folder: for messages.
        config: its config.json.
        weights: under the published names.
        build: from diffusers' settings to a network of diffusers.

    Raises:
        ModelError: weights are missing, left over or of other sizes.
    """
    try:
        linear = next(w.ndim for key, w in weights.items() if key.endswith("proj_in.weight")) == 2
        settings = network_settings(config, linear)
        network = build(settings)
        fitting = renamed(weights, settings)
        own = network.state_dict()
        wrong = [k for k in own if k in fitting and fitting[k].shape != own[k].shape]
        given = {key: value for key, value in fitting.items() if key not in wrong}
        missing, unexpected = network.load_state_dict(given, strict=False)
    except (KeyError, StopIteration, TypeError, ValueError) as error:
        raise ModelError(
            f"{folder} is not MVDream's network as published ({error}); restore the directory"
        ) from error
    lost = len(weights) - len(fitting)
    report = {
        "missing_keys": [key for key in missing if key not in wrong],
        "unexpected_keys": [*unexpected, *["(not renamed)"] * lost],
        "mismatched_keys": wrong,
    }
    refuse_gaps(report, f"the unet weights of {folder.parent}")
    return network
