"""Tiny random-weight pipelines of the very classes in the adapter's table, saved as `save_pretrained` saves them."""

import inspect
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from dream3d.priors.latent.build import build_tokenizer

WORDS = ("a", "red", "mug", "blue", "car", "view", "user", "assistant", "system")
HIDDEN = 32
SIGNS = ("<pad>", "</s>", "<unk>", "<bos>")
TEMPLATE = "{% for m in messages %}user {{ m['content'] }} {% endfor %}assistant"


def clip_tokenizer() -> Any:
    return build_tokenizer(WORDS, 12)


def word_tokenizer(length: int = 16) -> Any:
    """A tokenizer of whole words with a chat template; stands in for T5's, Gemma's and Qwen's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: place for place, word in enumerate([*SIGNS, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        bos_token="<bos>",
        model_max_length=length,
        padding_side="right",
    )
    fast.chat_template = TEMPLATE
    return fast


def clip(cls: Any, width: int = HIDDEN) -> Any:
    tokenizer = clip_tokenizer()
    vocabulary = tokenizer.get_vocab()
    return cls(
        transformers.CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=32,
            projection_dim=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=12,
            bos_token_id=vocabulary["<|startoftext|>"],
            eos_token_id=vocabulary["<|endoftext|>"],
            pad_token_id=vocabulary["<|endoftext|>"],
        )
    )


def t5(width: int = HIDDEN) -> Any:
    config = transformers.T5Config(
        vocab_size=32, d_model=width, d_ff=32, d_kv=8, num_layers=1, num_heads=2
    )
    return transformers.T5EncoderModel(config)


def _decoder(layers: int = 2) -> dict[str, Any]:
    return {
        "vocab_size": 32,
        "hidden_size": HIDDEN,
        "intermediate_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "pad_token_id": 0,
        "bos_token_id": 3,
        "eos_token_id": 1,
    }


def qwen3(layers: int = 2) -> Any:
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**_decoder(layers)))


def qwen25_vl() -> Any:
    text = {**_decoder(), "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": HIDDEN,
        "fullatt_block_indexes": [0],
    }
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def gemma2() -> Any:
    return transformers.Gemma2Model(
        transformers.Gemma2Config(**_decoder(), query_pre_attn_scalar=16, sliding_window=64)
    )


def vae(channels: int = 4, shift: float | None = None, **extra: Any) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=0.4,
        shift_factor=shift,
        **extra,
    )


def unet(**extra: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (8, 16),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 1,
            "cross_attention_dim": HIDDEN,
            "attention_head_dim": 2,
            "norm_num_groups": 4,
            **extra,
        }
    )


def flow_scheduler() -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)


def ddim(prediction: str = "epsilon") -> Any:
    return diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )


def stable_diffusion(prediction: str = "epsilon") -> dict[str, Any]:
    return {
        "vae": vae(),
        "unet": unet(),
        "scheduler": ddim(prediction),
        "text_encoder": clip(transformers.CLIPTextModel),
        "tokenizer": clip_tokenizer(),
        "safety_checker": None,
        "feature_extractor": None,
        "image_encoder": None,
        "requires_safety_checker": False,
    }


def sdxl(first: int = HIDDEN) -> dict[str, Any]:
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    )
    return {
        "vae": vae(),
        "unet": unet(
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=HIDDEN + 48,
            cross_attention_dim=first + HIDDEN,
        ),
        "scheduler": scheduler,
        "text_encoder": clip(transformers.CLIPTextModel, first),
        "text_encoder_2": clip(transformers.CLIPTextModelWithProjection),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": clip_tokenizer(),
    }


def deepfloyd() -> dict[str, Any]:
    scheduler = diffusers.DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=False
    )
    return {
        "unet": unet(in_channels=3, out_channels=6),
        "scheduler": scheduler,
        "text_encoder": t5(),
        "tokenizer": word_tokenizer(77),
        "safety_checker": None,
        "feature_extractor": None,
        "watermarker": None,
        "requires_safety_checker": False,
    }


def sd3(layers: int = 1) -> dict[str, Any]:
    network = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=layers,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=2 * HIDDEN,
        caption_projection_dim=16,
        pooled_projection_dim=2 * HIDDEN,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    with_projection = transformers.CLIPTextModelWithProjection
    return {
        "vae": vae(4, 0.06),
        "transformer": network,
        "scheduler": flow_scheduler(),
        "text_encoder": clip(with_projection),
        "text_encoder_2": clip(with_projection),
        "text_encoder_3": t5(2 * HIDDEN),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": clip_tokenizer(),
        "tokenizer_3": word_tokenizer(),
    }


def flux() -> dict[str, Any]:
    network = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=HIDDEN,
        pooled_projection_dim=HIDDEN,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )
    return {
        "vae": vae(4, 0.11),
        "transformer": network,
        "scheduler": flow_scheduler(),
        "text_encoder": clip(transformers.CLIPTextModel),
        "text_encoder_2": t5(),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": word_tokenizer(),
    }


def flux2_klein() -> dict[str, Any]:
    codec = diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
    )
    codec.bn.running_mean.normal_()  # type: ignore[operator]
    codec.bn.running_var.uniform_(0.5, 2.0)  # type: ignore[operator]
    network = diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * HIDDEN,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    return {
        "vae": codec,
        "transformer": network,
        "scheduler": flow_scheduler(),
        "text_encoder": qwen3(28),
        "tokenizer": word_tokenizer(),
    }


def z_image() -> dict[str, Any]:
    network = diffusers.ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=HIDDEN,
        axes_dims=[4, 4, 8],
        axes_lens=[256, 32, 32],
    )
    return {
        "vae": vae(4, 0.11),
        "transformer": network,
        "scheduler": flow_scheduler(),
        "text_encoder": qwen3(),
        "tokenizer": word_tokenizer(),
    }


def qwen_image() -> dict[str, Any]:
    codec = diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.5, 1.0, 2.0, 1.5],
    )
    network = diffusers.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=HIDDEN,
        axes_dims_rope=(4, 4, 8),
    )
    return {
        "vae": codec,
        "transformer": network,
        "scheduler": flow_scheduler(),
        "text_encoder": qwen25_vl(),
        "tokenizer": word_tokenizer(),
    }


def _prx_network(channels: int) -> Any:
    return diffusers.PRXTransformer2DModel(
        in_channels=channels,
        patch_size=2,
        context_in_dim=HIDDEN,
        hidden_size=32,
        mlp_ratio=1.0,
        num_heads=2,
        depth=1,
        axes_dim=[8, 8],
    )


def prx() -> dict[str, Any]:
    return {
        "vae": vae(4, 0.11),
        "transformer": _prx_network(4),
        "scheduler": flow_scheduler(),
        "text_encoder": gemma2(),
        "tokenizer": word_tokenizer(),
        "default_sample_size": 16,
    }


def prx_pixel() -> dict[str, Any]:
    return {
        "transformer": _prx_network(3),
        "scheduler": flow_scheduler(),
        "text_encoder": gemma2(),
        "tokenizer": word_tokenizer(),
        "default_sample_size": 16,
        "prompt_max_tokens": 16,
    }


def lumina2() -> dict[str, Any]:
    network = diffusers.Lumina2Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        hidden_size=24,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=2,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(280, 32, 32),
        cap_feat_dim=HIDDEN,
    )
    return {
        "vae": vae(4, 0.11),
        "transformer": network,
        "scheduler": flow_scheduler(),
        "text_encoder": gemma2(),
        "tokenizer": word_tokenizer(),
    }


def pixart_sigma() -> dict[str, Any]:
    network = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        cross_attention_dim=16,
        sample_size=8,
        caption_channels=HIDDEN,
        use_additional_conditions=False,
    )
    return {
        "vae": vae(),
        "transformer": network,
        "scheduler": ddim(),
        "text_encoder": t5(),
        "tokenizer": word_tokenizer(),
    }


def sana() -> dict[str, Any]:
    codec = diffusers.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    )
    network = diffusers.SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=HIDDEN,
        sample_size=8,
        timestep_scale=0.7,
    )
    return {
        "vae": codec,
        "transformer": network,
        "scheduler": flow_scheduler(),
        "text_encoder": gemma2(),
        "tokenizer": word_tokenizer(),
    }


BUILDERS: dict[str, Any] = {
    "StableDiffusionPipeline": stable_diffusion,
    "StableDiffusionXLPipeline": sdxl,
    "IFPipeline": deepfloyd,
    "StableDiffusion3Pipeline": sd3,
    "FluxPipeline": flux,
    "Flux2KleinPipeline": flux2_klein,
    "ZImagePipeline": z_image,
    "QwenImagePipeline": qwen_image,
    "PRXPipeline": prx,
    "PRXPixelPipeline": prx_pixel,
    "Lumina2Pipeline": lumina2,
    "PixArtSigmaPipeline": pixart_sigma,
    "SanaPipeline": sana,
}


def tiny_pipeline(name: str, **options: Any) -> Any:
    """A pipeline of class `name`, always with the same weights, none of them zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = BUILDERS[name](**options)
        for part in parts.values():
            if isinstance(part, torch.nn.Module):
                part.eval().requires_grad_(False)
                for weight in part.parameters():
                    # Zero-initialised layers would hide what comes before them.
                    if weight.abs().max() == 0.0:
                        weight.normal_(std=0.1)
        cls = getattr(diffusers, name)
        known = inspect.signature(cls.__init__).parameters
        pipeline = cls(**{key: part for key, part in parts.items() if key in known})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny(name: str, directory: Path, **options: Any) -> Any:
    """`tiny_pipeline`, saved; returns the pipeline."""
    pipeline = tiny_pipeline(name, **options)
    pipeline.save_pretrained(directory)
    return pipeline
