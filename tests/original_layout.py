"""A pipeline of diffusers written as one file under the names of the original training code (ldm, sgm, open_clip)."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
CODEC = {
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
    "mid_block.attentions.0": "mid.attn_1",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    ".resnets.": ".block.",
}
OPEN_CLIP = {
    "encoder.layers.": "transformer.resblocks.",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
    "final_layer_norm": "ln_final",
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "text_projection.weight": "text_projection",
}


def _replaced(name: str, table: dict[str, str]) -> str:
    for new, old in table.items():
        name = name.replace(new, old)
    return name


def network(unet: Any) -> dict[str, Tensor]:
    per_block = unet.config.layers_per_block + 1

    def rename(key: str) -> str:
        place = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", key)
        if place:
            side, block, kind, layer, rest = place.groups()
            index = int(block) * per_block + int(layer) + (side == "down")
            stem = "input_blocks" if side == "down" else "output_blocks"
            if kind == "downsamplers":
                return f"{stem}.{index + per_block - 1}.0.op.{rest.removeprefix('conv.')}"
            if kind == "upsamplers":
                attends = any(k.startswith(f"up_blocks.{block}.attentions") for k in state)
                return f"{stem}.{index + per_block - 1}.{2 if attends else 1}.{rest}"
            inside = _replaced(rest, RESNET) if kind == "resnets" else rest
            return f"{stem}.{index}.{int(kind == 'attentions')}.{inside}"
        middle = re.match(r"mid_block\.(\w+)\.(\d+)\.(.*)", key)
        if middle:
            kind, layer, rest = middle.groups()
            return (
                f"middle_block.1.{rest}"
                if kind == "attentions"
                else f"middle_block.{2 * int(layer)}.{_replaced(rest, RESNET)}"
            )
        return _replaced(key, TOP)

    state = unet.state_dict()
    return {f"model.diffusion_model.{rename(key)}": value for key, value in state.items()}


def codec(vae: Any) -> dict[str, Tensor]:
    last = len(vae.config.block_out_channels) - 1
    found = {}
    for key, value in vae.state_dict().items():
        name = re.sub(r"up_blocks\.(\d+)", lambda m: f"up.{last - int(m.group(1))}", key)
        name = re.sub(
            r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m.group(1)) + 1}", name
        )
        name = _replaced(name.replace("down_blocks", "down"), CODEC)
        if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name):
            value = value[:, :, None, None]
        found[f"first_stage_model.{name}"] = value
    return found


def clip(encoder: Any, prefix: str) -> dict[str, Tensor]:
    state = {key.removeprefix("text_model."): v for key, v in encoder.state_dict().items()}
    return {f"{prefix}text_model.{key}": value for key, value in state.items()}


def open_clip(encoder: Any, prefix: str) -> dict[str, Tensor]:
    state = {key.removeprefix("text_model."): v for key, v in encoder.state_dict().items()}
    found = {}
    for key, value in state.items():
        if "self_attn.q_proj" in key:
            parts = [value, *(state[key.replace("q_proj", f"{other}_proj")] for other in "kv")]
            name = key.replace("self_attn.q_proj.", "attn.in_proj_")
            found[prefix + _replaced(name, OPEN_CLIP)] = torch.cat(parts)
        elif not re.search(r"self_attn\.[kv]_proj", key):
            found[prefix + _replaced(key, OPEN_CLIP)] = (
                value.T if key == "text_projection.weight" else value
            )
    return found


def write_original(pipeline: Any, file: Path, kind: str, metadata: Any = None) -> dict[str, Tensor]:
    """`pipeline` as one file of `kind` "1", "2" or "xl", with the odd weights such files carry."""
    tensors = {**network(pipeline.unet), **codec(pipeline.vae)}
    if kind == "1":
        tensors |= clip(pipeline.text_encoder, "cond_stage_model.transformer.")
    elif kind == "2":
        tensors |= open_clip(pipeline.text_encoder, "cond_stage_model.model.")
        tensors["cond_stage_model.model.logit_scale"] = torch.ones(())
    else:
        tensors |= clip(pipeline.text_encoder, "conditioner.embedders.0.transformer.")
        tensors |= open_clip(pipeline.text_encoder_2, "conditioner.embedders.1.model.")
    tensors["alphas_cumprod"] = torch.ones(3)
    tensors = {key: value.contiguous().clone() for key, value in tensors.items()}
    save_file(tensors, file, metadata=metadata)
    return tensors
