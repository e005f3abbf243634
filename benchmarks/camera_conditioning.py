"""Which way of telling a small network its camera is learnt fastest?

Every variant is the embedded prior's network with fresh weights, trained on the same objects, views and noise (single
objects with a front), and told the camera differently:

- tokens: a perceptron's four tokens beside the text's, in cross-attention (the shipped prior);
- tokens, joint: the same, and half of the steps denoise the four views of an object jointly;
- class: camera features through a linear layer onto the time embedding (a class embedding);
- rays: the Pluecker coordinates of every latent cell's ray as six more input channels.

The measure is the camera gap: by how much the loss at t = .9 and .95 grows when a view is told its neighbour's camera.
With `--start DIR` the text encoder and the network begin with the weights of an earlier prior, and only the way in of
the camera is fresh: from fresh weights 30 thousand images are too few for any of them to take notice of it.
One thread; `python benchmarks/camera_conditioning.py --start DIR --images 12000 --every 2000`.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel

from dream3d.cameras import CameraBatch
from dream3d.diffusion import TableSchedule
from dream3d.prior_training.batches import draw_batch, even_times
from dream3d.prior_training.config import TrainingConfig
from dream3d.prior_training.objective import latents_of, loss_weights, losses, noisy
from dream3d.prior_training.probes import Probe, make_probe
from dream3d.prior_training.weights import open_components
from dream3d.priors.latent.camera_encoder import FEATURES, camera_features
from dream3d.priors.latent.components import Components
from dream3d.priors.latent.multiview import enable_joint_views

Variant = Literal["tokens", "tokens, joint", "class", "rays"]
VARIANTS: tuple[Variant, ...] = ("tokens", "class", "rays", "tokens, joint")
OBJECTS, VIEWS = 8, 4
RAY_CHANNELS = 6
WRONG_BY = 1  # views


@dataclass(frozen=True)
class Network:
    """The parts of one variant; calling it predicts the clean latent."""

    variant: Variant
    parts: Components

    def parameters(self) -> list[Tensor]:
        """Everything that trains."""
        modules = [self.parts.text_encoder, self.parts.unet]
        if self.variant.startswith("tokens") and self.parts.camera_encoder is not None:
            modules.append(self.parts.camera_encoder)
        return [p for module in modules for p in module.parameters()]

    def __call__(
        self,
        z_t: Float[Tensor, "B C h w"],
        index: Int[Tensor, " B"],
        token_ids: Int[Tensor, "B L"],
        cameras: CameraBatch,
        views: int = 1,
    ) -> Float[Tensor, "B C h w"]:
        """As `predicted_x0`, with the camera told in this variant's way."""
        context, labels = self.parts.text_encoder(token_ids)[0], None
        if self.variant == "class":
            labels = camera_features(cameras)
        elif self.variant == "rays":
            z_t = torch.cat([z_t, plucker(cameras, z_t.shape[-1])], dim=1)
        elif self.parts.camera_encoder is not None:
            tokens = self.parts.camera_encoder(camera_features(cameras))
            context = torch.cat([context, tokens.to(context.dtype)], dim=1)
        return self.parts.unet(
            z_t,
            index,
            encoder_hidden_states=context,
            class_labels=labels,
            cross_attention_kwargs={"views": views} if views > 1 else None,
            return_dict=False,
        )[0].float()


def plucker(cameras: CameraBatch, size: int) -> Float[Tensor, "B 6 S S"]:
    """Direction and moment (origin x direction) of the ray through the centre of each latent cell."""
    scale = size / cameras.height
    K = cameras.K.clone()
    K[:, :2] *= scale
    small = CameraBatch(
        cameras.c2w,
        K,
        size,
        size,
        cameras.azimuth_deg,
        cameras.elevation_deg,
        cameras.distance,
    )
    with torch.autocast("cpu", enabled=False):
        origins, directions = small.rays()
        moments = torch.linalg.cross(origins.expand_as(directions), directions)
    return torch.cat([directions, moments], dim=-1).permute(0, 3, 1, 2)


def begin_with(parts: Components, start: Path) -> None:
    """Take over text encoder and network from a prior's directory; what a variant adds starts without effect."""
    earlier = CLIPTextModel.from_pretrained(start / "text_encoder")
    parts.text_encoder.load_state_dict(earlier.state_dict())
    weights = load_file(start / "unet/diffusion_pytorch_model.safetensors")
    own = parts.unet.state_dict()
    wider = torch.zeros_like(own["conv_in.weight"])
    wider[:, : weights["conv_in.weight"].shape[1]] = weights["conv_in.weight"]
    weights["conv_in.weight"] = wider
    for name in set(own) - set(weights):
        if not name.startswith("class_embedding."):
            raise ValueError(f"{start} lacks {name}")
        weights[name] = own[name] if "linear_1" in name else torch.zeros_like(own[name])
    parts.unet.load_state_dict(weights)


def build(variant: Variant, seed: int, start: Path | None) -> Network:
    """The shipped architecture with this variant's way in; fresh weights, or those in `start` but for the way in."""
    parts, _ = open_components(TrainingConfig(output=os.devnull, seed=seed))
    config: dict[str, Any] = dict(parts.unet.config)
    changes: dict[str, Any] = {}
    if variant == "class":
        changes = {
            "class_embed_type": "projection",
            "projection_class_embeddings_input_dim": FEATURES,
        }
    elif variant == "rays":
        changes = {"in_channels": config["in_channels"] + RAY_CHANNELS}
    if changes:
        torch.manual_seed(seed)
        kept = {k: v for k, v in config.items() if not k.startswith("_")}
        unet = UNet2DConditionModel(**{**kept, **changes})
        enable_joint_views(unet)
        parts = Components(
            parts.tokenizer,
            parts.text_encoder,
            unet,
            parts.vae,
            parts.scheduler,
            parts.camera_encoder,
        )
    if start is not None:
        begin_with(parts, start)
    return Network(variant, parts)


@torch.no_grad()
def gaps(network: Network, probe: Probe, schedule: TableSchedule) -> dict[str, float]:
    """Loss and camera gap at both noise levels."""
    turned = torch.arange(len(probe.x0)).reshape(-1, VIEWS).roll(WRONG_BY, dims=1).flatten()
    found = {}
    for level in (0.9, 0.95):
        t = torch.full((len(probe.x0),), level)
        z_t = noisy(schedule, probe.x0, t, torch.Generator().manual_seed(1))
        told = []
        for cameras in (probe.cameras, probe.cameras[turned]):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                output = network(z_t, schedule.index(t), probe.token_ids, cameras)
            told.append(losses(probe.x0, output).mean().item())
        found[f"loss_{level}"] = round(told[0], 4)
        found[f"camera_gap_{level}"] = round(told[1] / told[0] - 1.0, 4)
    return found


def train(
    variant: Variant,
    images: int,
    every: int,
    seed: int,
    tell: Callable[[str], None],
    start: Path | None = None,
) -> dict[str, Any]:
    """Train one variant; a row of measurements every so many images."""
    config = TrainingConfig(
        objects=OBJECTS,
        views=VIEWS,
        pair_share=0.0,
        primitive_share=0.0,
        front_share=1.0,
        camera_share=1.0,
        joint_share=0.5 if variant == "tokens, joint" else 0.0,
        view_words_share=0.0,
    )
    network = build(variant, seed, start)
    schedule = TableSchedule(network.parts.scheduler.alphas_cumprod)
    probe = make_probe(network.parts, torch.device("cpu"))
    weights = network.parameters()
    optimiser = torch.optim.AdamW(weights, lr=config.learning_rate, betas=(0.9, 0.99), fused=True)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    rows, began, seen = [], time.process_time(), 0
    while seen < images:
        batch = draw_batch(config, network.parts.tokenizer, rng)
        views = VIEWS if batch.told == "joint" else 1
        x0 = latents_of(network.parts, batch.images)
        t = even_times(len(x0) // views, config.time_power, generator, repeat=views)
        z_t = noisy(schedule, x0, t, generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = network(z_t, schedule.index(t), batch.token_ids, batch.cameras, views)
        loss = (losses(x0, output) * loss_weights(schedule, t, config.max_weight)).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, config.clip)
        optimiser.step()
        seen += len(x0)
        if seen % every < len(x0):
            row = {"images": seen, **gaps(network, probe, schedule)}
            rows.append(row)
            tell(f"{variant}: {row}")
    return {
        "variant": variant,
        "parameters": sum(p.numel() for p in weights),
        "cpu_seconds": round(time.process_time() - began, 1),
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare ways of telling a network its camera.")
    parser.add_argument("--images", type=int, default=30_000)
    parser.add_argument("--every", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="directory of an earlier prior")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/camera.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {
        "format_version": 1,
        "machine": f"{platform.machine()}, {platform.system()}, one thread",
        "torch": torch.__version__,
        "images_per_step": OBJECTS * VIEWS,
        "seed": arguments.seed,
        "start_images": 0,
        "variants": [],
    }
    if arguments.start is not None:
        manifest = json.loads((arguments.start / "dream3d.json").read_text())
        results["start_images"] = manifest["images_seen"]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    for variant in arguments.variants:
        results["variants"].append(
            train(
                variant,
                arguments.images,
                arguments.every,
                arguments.seed,
                print,
                arguments.start,
            )
        )
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
