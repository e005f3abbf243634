"""Zero123 (Liu et al. 2023, arXiv 2303.11328): what a pictured object looks like from elsewhere.

Stable Diffusion's U-Net on eight channels: the noisy latent, and the picture's clean one as the codec gives it, not
scaled. In place of text it is told one token, a linear map of the picture's CLIP embedding and the camera's place
relative to the picture's. Guidance drops both. Stable-Zero123 replaces the difference of distances by the picture's own
polar angle.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import linear

from dream3d.cameras import CameraBatch, spherical
from dream3d.diffusion import Prediction
from dream3d.errors import ModelError
from dream3d.priors.base import Condition
from dream3d.priors.latent.components import read_json
from dream3d.priors.pipelines.opening import (
    model_index,
    placement,
    required_class,
    slice_codec,
    usual_chunk,
    weight_dtype,
)
from dream3d.priors.pipelines.parts import check_weights, load_part
from dream3d.priors.pipelines.pictures import for_clip
from dream3d.priors.pipelines.prior import PipelineParts, PipelinePrior
from dream3d.priors.pipelines.table import STABLE_DIFFUSION
from dream3d.priors.pipelines.text import TextEmbedder
from dream3d.rendering import RenderOutput

PROJECTIONS = ("clip_camera_projection", "cc_projection")
"""Folders the linear map is found in, by who converted the weights."""


def relative_pose(
    cameras: CameraBatch, reference: CameraBatch, stable: bool = False
) -> Float[Tensor, "B 4"]:
    """Where each camera is, seen from the picture's: [polar angle, sin and cos of azimuth, distance], as differences.

    Angles in radians, the polar angle from straight above; azimuth positive counter-clockwise seen from above, which is
    toward the right-hand side of whoever took the picture.

    Args:
        cameras: upright, looking at the origin.
        reference: one camera, the picture's.
        stable: Stable-Zero123's form, whose last entry is the reference's polar angle itself.
    """
    (azimuth, polar, distance), (a, p, d) = spherical(cameras), spherical(reference)
    turn = azimuth - a
    last = p.expand_as(polar) if stable else distance - d
    return torch.stack([polar - p, turn.sin(), turn.cos(), last], dim=-1)


@dataclass(frozen=True)
class Sight:
    """A picture as the network is told it.

    Attributes:
        embedding: CLIP's.
        latent: the codec's mode, not scaled.
        camera: the picture was taken with.
    """

    embedding: Float[Tensor, "1 D"]
    latent: Float[Tensor, "1 C h w"]
    camera: CameraBatch


class Zero123Prior(PipelinePrior):
    """Adapter; asks nothing before it has been shown a picture (`seeing`).

    Args:
        parts: with a network on eight channels; their text is never asked.
        projection: weight [D, C + 4] and bias [D] of the linear map.
        open_encoder: reads the CLIP vision encoder; it is kept only while it looks.
        device: of the networks.
        stable: Stable-Zero123's form of the camera.
        chunk: samples per network call at most; 0 for all at once.
    """

    accepts_cameras = True
    conditionings = ("camera",)
    needs_picture = True
    needs_text = False
    embeds_ahead = False

    def __init__(
        self,
        parts: PipelineParts,
        projection: tuple[Tensor, Tensor],
        open_encoder: Callable[[], Any],
        device: torch.device,
        stable: bool = False,
        chunk: int = 0,
    ) -> None:
        super().__init__(parts, device, chunk=chunk)
        self.stable = stable
        self._projection = projection
        self._open_encoder = open_encoder
        self._sight: Sight | None = None

    @property
    def has_companion(self) -> bool:
        """None: a companion is also asked without cameras."""
        return False

    def seeing(self, picture: RenderOutput, camera: CameraBatch) -> "Zero123Prior":
        """The same prior, asked about this picture on white, as the published models were trained."""
        image = picture.over(torch.ones(1, 1, 3, device=picture.rgb.device)).to(self.device)
        with torch.no_grad():
            encoder = self._open_encoder()
            embedding = encoder(pixel_values=for_clip(image, encoder)).image_embeds.float()
            mode = self.encode(image) / self.codec.factor + self.codec.shift
        bound = copy.copy(self)
        bound._sight = Sight(embedding, mode, camera.to(self.device))
        return bound

    def embed(self, prompts: list[str]) -> Float[Tensor, "B 1 D"]:
        """The picture's embedding, whatever the prompt; zeros for the empty one, which drops the picture.

        Raises:
            ValueError: no picture has been shown.
        """
        sight = self._seen()
        said = torch.tensor([float(bool(prompt)) for prompt in prompts], device=self.device)
        return said[:, None, None] * sight.embedding[None]

    def output(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Prediction:
        """One network call.

        Raises:
            ValueError: no picture has been shown, or the condition has no cameras.
        """
        sight = self._seen()
        if condition.cameras is None or condition.views_per_object > 1:
            raise ValueError("Zero123 is told every view's camera; use conditioning=camera")
        assert self.table is not None
        pose = relative_pose(condition.cameras.to(self.device), sight.camera, self.stable)
        told = torch.cat([condition.tokens[:, 0], pose], dim=-1).to(self.dtype)
        said = (condition.tokens != 0).any(dim=-1, keepdim=True).to(self.dtype)  # [B, 1, 1]
        latent = said[..., None] * sight.latent.to(self.dtype)
        value = self.network(
            torch.cat([z_t.to(self.dtype), latent], dim=1),
            self.table.index(t),
            encoder_hidden_states=said * linear(told, *self._projection)[:, None],
            return_dict=False,
        )[0]
        return self._prediction(value.to(z_t.dtype), z_t, t)

    def _seen(self) -> Sight:
        if self._sight is None:
            raise ValueError("Zero123 needs a picture; give one with --image")
        return self._sight

    def _channels(self) -> int:
        return int(self.network.config["out_channels"])


def open_zero123(
    directory: Path,
    device: torch.device,
    precision: str = "auto",
    stable: bool = False,
    chunk: int = 0,
    low_vram: bool = False,
) -> Zero123Prior:
    """A directory in the layout of the public conversions to diffusers.

    Args:
        directory: with unet, vae, scheduler, image_encoder and clip_camera_projection (or cc_projection).
        device: of the networks.
        precision: "auto", "float32", "bfloat16" or "float16".
        stable: whether it holds Stable-Zero123.
        chunk: samples per network call at most; 0 for all at once.
        low_vram: layers from main memory, codec in slices and tiles, few samples at once.

    Raises:
        ModelError: a part is missing, damaged, pickled, or of another kind.
    """
    row, index = STABLE_DIFFUSION, model_index(directory)
    dtype = weight_dtype(row, precision, device)

    def load(name: str) -> Any:
        return load_part(required_class(index, name, directory), directory / name, dtype)

    network, vae = load("unet"), load("vae").to(device)
    placement(low_vram, device)(network)
    if low_vram:
        slice_codec(vae)
    channels = int(network.config["in_channels"]), int(network.config["out_channels"])
    if channels[0] != 2 * channels[1]:
        raise ModelError(
            f"the unet of {directory} takes {channels[0]} channels; Zero123's takes twice what it returns, "
            f"{2 * channels[1]}. Give a Zero123 directory"
        )
    weight, bias = _load_projection(directory, network.config["cross_attention_dim"])
    projection = weight.to(device, dtype), bias.to(device, dtype)
    text = TextEmbedder(row, _no_text, device)
    parts = PipelineParts(row, network, vae, load("scheduler"), text)

    def open_encoder() -> Any:
        return load("image_encoder").to(device)

    chunk = chunk or usual_chunk(low_vram)
    return Zero123Prior(parts, projection, open_encoder, device, stable, chunk)


def _no_text() -> Any:
    raise ValueError("Zero123 has no text encoder")


def _load_projection(directory: Path, width: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of the linear map from CLIP embedding and camera to one token."""
    folder = next((directory / n for n in PROJECTIONS if (directory / n).is_dir()), None)
    if folder is None:
        raise ModelError(f"{directory} lacks {' or '.join(PROJECTIONS)}; restore the directory")
    check_weights(folder)
    weights = load_file(sorted(folder.glob("*.safetensors"))[0])
    weight = [w for key, w in weights.items() if key.endswith(".weight") and w.ndim == 2]
    bias = [w for key, w in weights.items() if key.endswith(".bias") and w.ndim == 1]
    read = read_json(directory / "image_encoder" / "config.json")
    shape = (width, int(read.get("projection_dim", 0)) + 4)
    if len(weights) != 2 or len(weight) != 1 or len(bias) != 1 or weight[0].shape != shape:
        found = ", ".join(f"{key} {list(w.shape)}" for key, w in weights.items())
        raise ModelError(
            f"{folder} holds {found}; expected one weight {list(shape)} and its bias: restore the directory"
        )
    return weight[0], bias[0]
