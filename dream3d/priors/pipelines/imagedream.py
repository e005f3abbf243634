"""ImageDream (Wang and Shi 2023, arXiv 2312.02201): MVDream that is also told a picture.

Its network is MVDream's with a second attention beside every attention to words, whose sums are added: to a few tokens
that a resampler makes of what CLIP sees in the picture (the "local" controller, the form of IP-Adapter's "plus"). The
"pixel" controller, the published default, joins the picture's clean latent to the four noisy ones as a fifth view, with
a camera of zeros; what the network says of that one is dropped. Guidance drops words, tokens and fifth view together.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dream3d.cameras import CameraBatch, spherical
from dream3d.diffusion import Prediction
from dream3d.errors import ModelError
from dream3d.priors.base import Condition
from dream3d.priors.latent.components import read_json
from dream3d.priors.latent.multiview import JointViewAttention, attend
from dream3d.priors.pipelines.mvdream import (
    PUBLISHED,
    VIEWS,
    MVDreamPrior,
    camera_rows,
    fill_published,
    open_parts,
    published_weights,
)
from dream3d.priors.pipelines.opening import model_index, required_class, usual_chunk, weight_dtype
from dream3d.priors.pipelines.parts import load_part
from dream3d.priors.pipelines.pictures import for_clip
from dream3d.priors.pipelines.prior import PipelineParts
from dream3d.priors.pipelines.resampler import Resampler, open_resampler
from dream3d.priors.pipelines.table import STABLE_DIFFUSION
from dream3d.priors.pipelines.text import TextEmbedder
from dream3d.rendering import RenderOutput

Controller = Literal["pixel", "local"]
RESAMPLER = "image_embed."
"""What the names of the resampler's weights begin with among the network's."""
PICTURE_AZIMUTH = torch.pi / 2
"""Where the picture was taken from, as the network counts azimuth: Blender's +X. No document says so; it is the view
that public code which goes on from the four views takes as the picture's."""


class PicturedAttention(nn.Module):
    """Attention to words and, added to it, to the picture's tokens, which come behind the words.

    Args:
        tokens: of the picture.
        width: of a token.
        inner: of keys and values.
        weight: of the picture's part.
    """

    def __init__(self, tokens: int, width: int, inner: int, weight: float) -> None:
        super().__init__()
        self.tokens, self.weight = tokens, weight
        self.to_k_ip = nn.Linear(width, inner, bias=False)
        self.to_v_ip = nn.Linear(width, inner, bias=False)

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "B L C"],
        encoder_hidden_states: Float[Tensor, "B S D"] | None = None,
        attention_mask: Tensor | None = None,
        views: int = 1,
    ) -> Float[Tensor, "B L C"]:
        """`attention_mask` and `views` are accepted for the interface; every view sees words and picture alone."""
        assert encoder_hidden_states is not None
        words, picture = encoder_hidden_states.tensor_split([-self.tokens], dim=1)
        layers: Any = attn  # diffusers declares these as optional
        query = _heads(layers.to_q(hidden_states), attn.heads)
        seen = [
            attend(query, _heads(key, attn.heads), _heads(value, attn.heads))
            for key, value in (
                (layers.to_k(words), layers.to_v(words)),
                (self.to_k_ip(picture), self.to_v_ip(picture)),
            )
        ]
        both = (seen[0] + self.weight * seen[1]).transpose(1, 2).flatten(2)
        return layers.to_out[1](layers.to_out[0](both.to(hidden_states.dtype)))


def _heads(x: Float[Tensor, "B L C"], heads: int) -> Float[Tensor, "B H L D"]:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class ImageDreamPrior(MVDreamPrior):
    """Adapter; asks nothing before it has been shown a picture (`seeing`).

    Args:
        parts: with a network from `load_network`.
        resampler: from `load_network`.
        open_encoder: reads the CLIP vision encoder; it is kept only while it looks.
        device: of the networks.
        controller: which one the weights were trained with.
        chunk: as `MVDreamPrior`.
    """

    needs_picture = True

    def __init__(
        self,
        parts: PipelineParts,
        resampler: Resampler,
        open_encoder: Callable[[], Any],
        device: torch.device,
        controller: Controller = "pixel",
        chunk: int = 0,
    ) -> None:
        super().__init__(parts, device, chunk)
        self.controller = controller
        self._resampler = resampler
        self._open_encoder = open_encoder
        self._latent: Float[Tensor, "1 C h w"] | None = None
        self._turn = _turn_from(torch.zeros((), device=device))

    def seeing(self, picture: RenderOutput, camera: CameraBatch) -> "ImageDreamPrior":
        """The same prior, asked about this picture on white; `camera` says which side of the object it shows."""
        image = picture.over(torch.ones(1, 1, 3, device=picture.rgb.device)).to(self.device)
        with torch.no_grad():
            encoder = self._open_encoder()
            seen = encoder(pixel_values=for_clip(image, encoder), output_hidden_states=True)
            features = seen.hidden_states[-2].to(self._resampler.dtype)
            tokens = self._resampler(torch.cat([torch.zeros_like(features), features])).float()
            latent = self.encode(image)
        text = self.parts.text
        assert isinstance(text, TextEmbedder)
        bound = copy.copy(self)
        bound.parts = replace(
            self.parts, text=TextEmbedder(text.row, text.open_pipeline, text.device, tokens)
        )
        bound._latent = latent
        bound._turn = _turn_from(spherical(camera)[0][0].to(self.device))
        return bound

    def embed(self, prompts: list[str]) -> Float[Tensor, "B R D"]:
        """Words, and the picture's tokens behind them; the empty prompt has those of no picture.

        Raises:
            ValueError: no picture has been shown.
        """
        self._seen()
        return super().embed(prompts)

    def output(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Prediction:
        """As `MVDreamPrior.output`.

        Raises:
            ValueError: no picture has been shown, or as there.
        """
        latent = self._seen()
        cameras = self.check_views(z_t, condition)
        text = self.parts.text.read(condition.tokens)
        assert self.table is not None and text.image is not None
        context = torch.cat([text.tokens, text.image], dim=1)
        index, rows, z = self.table.index(t), self._rows(cameras), z_t
        if self.controller == "pixel":
            # Behind each object's four views comes the picture: clean, without a camera, under the same words.
            shown = self._shown(text.image)[::VIEWS, None, None, None] * latent
            z = _with_fifth(z_t, shown)
            rows = _with_fifth(rows, torch.zeros_like(rows[::VIEWS]))
            context, index = (
                _with_fifth(context, context[::VIEWS]),
                _with_fifth(index, index[::VIEWS]),
            )
        value = self.network(
            z.to(self.dtype),
            index,
            encoder_hidden_states=context.to(self.dtype),
            class_labels=rows.to(self.device, self.dtype),
            cross_attention_kwargs={"views": VIEWS + (self.controller == "pixel")},
            return_dict=False,
        )[0]
        if self.controller == "pixel":
            value = value.unflatten(0, (-1, VIEWS + 1))[:, :VIEWS].flatten(0, 1)
        return self._prediction(value.to(z_t.dtype), z_t, t)

    def _rows(self, cameras: CameraBatch) -> Float[Tensor, "B 16"]:
        """What the network is told of the cameras, the world turned so that the picture's side is where it has it."""
        turned = self._turn.to(cameras.c2w) @ cameras.c2w
        return camera_rows(replace(cameras, c2w=turned))

    def _shown(self, tokens: Float[Tensor, "B N D"]) -> Bool[Tensor, " B"]:
        """Which samples are told the picture: all whose tokens are not those of no picture."""
        text = self.parts.text
        assert isinstance(text, TextEmbedder) and text.image is not None
        return (tokens != text.image[0].to(tokens)).flatten(1).any(dim=1)

    def _seen(self) -> Float[Tensor, "1 C h w"]:
        if self._latent is None:
            raise ValueError("ImageDream needs a picture; give one with --image")
        return self._latent


def _turn_from(azimuth: Float[Tensor, ""]) -> Float[Tensor, "4 4"]:
    """The turn of the world that brings the side at `azimuth` to where the network has the picture's."""
    turn = PICTURE_AZIMUTH - azimuth
    spin = torch.eye(4, device=azimuth.device, dtype=azimuth.dtype)
    spin[0, 0] = spin[2, 2] = turn.cos()
    spin[0, 2], spin[2, 0] = turn.sin(), -turn.sin()
    return spin


def _with_fifth(views: Tensor, fifth: Tensor) -> Tensor:
    """One more row behind every four."""
    return torch.cat([views.unflatten(0, (-1, VIEWS)), fifth[:, None].to(views)], dim=1).flatten(
        0, 1
    )


def open_imagedream(
    directory: Path,
    device: torch.device,
    precision: str = "auto",
    controller: Controller = "pixel",
    chunk: int = 0,
    low_vram: bool = False,
) -> ImageDreamPrior:
    """A directory as published (ashawkey/imagedream-ipmv-diffusers).

    Args:
        directory: with unet, vae, text_encoder, tokenizer, scheduler, image_encoder.
        device: of the networks.
        precision: "auto", "float32", "bfloat16" or "float16".
        controller: which one the weights were trained with; the directory does not tell.
        chunk: samples per network call at most; 0 for all at once.
        low_vram: layers from main memory, codec in slices and tiles, few samples at once.

    Raises:
        ModelError: a part is missing, damaged, pickled, or of another kind.
    """
    dtype = weight_dtype(STABLE_DIFFUSION, precision, device)
    encoder = required_class(model_index(directory), "image_encoder", directory)
    network, resampler = load_network(directory / "unet", dtype)
    width = read_json(directory / "image_encoder" / "config.json").get("hidden_size")
    if width != resampler.reads:
        raise ModelError(
            f"the image encoder of {directory} makes {width} channels, the network's resampler reads "
            f"{resampler.reads}; restore the directory"
        )
    parts = open_parts(directory, network, device, dtype, low_vram)

    def open_encoder() -> Any:
        return load_part(encoder, directory / "image_encoder", dtype).to(device)

    chunk = chunk or usual_chunk(low_vram)
    return ImageDreamPrior(parts, resampler.to(device), open_encoder, device, controller, chunk)


def load_network(folder: Path, dtype: torch.dtype) -> tuple[Any, Resampler]:
    """The published network and the resampler among its weights.

    Raises:
        ModelError: damaged, of another kind, or weights missing or left over.
    """
    config = read_json(folder / "config.json")
    tokens = config.get("ip_dim")
    if config.get("_class_name") != PUBLISHED or not isinstance(tokens, int) or tokens < 1:
        raise ModelError(
            f"{folder} holds no ImageDream network: its config.json is that of a {config.get('_class_name')} with "
            f"ip_dim {tokens}. Give a directory whose unet is a {PUBLISHED} with ip_dim above 0; MVDream's is read by "
            "prior=mvdream"
        )
    weights = published_weights(folder)
    mine = {key for key in weights if key.startswith(RESAMPLER)}
    try:
        resampler = open_resampler({k.removeprefix(RESAMPLER): weights.pop(k) for k in mine})
    except (KeyError, IndexError, RuntimeError) as error:
        raise ModelError(
            f"{folder} holds no resampler as published ({error}); restore the directory"
        ) from error
    if resampler.tokens != tokens:
        raise ModelError(
            f"{folder} says ip_dim {tokens}, its resampler makes {resampler.tokens} tokens; restore the directory"
        )

    def build(settings: dict[str, Any]) -> Any:
        network: Any = UNet2DConditionModel(**settings)
        network.set_attn_processor(
            _processors(network, tokens, float(config.get("ip_weight", 1.0)))
        )
        return network

    network = fill_published(folder, config, weights, build)
    return network.to(dtype).eval().requires_grad_(False), resampler.to(dtype)


def _processors(network: Any, tokens: int, weight: float) -> dict[str, Any]:
    """Joint views for what looks at the picture itself, words and picture for the rest."""
    joint, made = JointViewAttention(), {}
    for name in network.attn_processors:
        attention = network.get_submodule(name.removesuffix(".processor"))
        made[name] = joint
        if name.endswith("attn2.processor"):
            keys = attention.to_k
            made[name] = PicturedAttention(tokens, keys.in_features, keys.out_features, weight)
    return made
