"""A new, untrained embedded model: tokenizer, networks, schedule; every size in one place."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from diffusers import DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dream3d.priors.latent.camera_encoder import CameraEncoder
from dream3d.priors.latent.codec import PatchCodec
from dream3d.priors.latent.components import Components

START, END = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True)
class Architecture:
    """Sizes of the embedded model.

    Attributes:
        image_size: side in pixels.
        patch_size: pixels per latent cell; the latent grid is image_size / patch_size.
        latent_channels: of the codec.
        channels: of the U-Net's levels, finest first. Attention at every level but the finest.
        heads: of attention.
        groups: of group normalisation; divides every entry of `channels`.
        text_dim: width of text and camera tokens.
        text_layers: of the text encoder.
        text_length: tokens per prompt, start and end included.
        camera_tokens: that describe one camera.
    """

    image_size: int = 64
    patch_size: int = 4
    latent_channels: int = 24
    channels: tuple[int, ...] = (64, 128, 128)
    heads: int = 4
    groups: int = 16
    text_dim: int = 128
    text_layers: int = 2
    text_length: int = 20
    camera_tokens: int = 4


def learn_merges(words: Iterable[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Byte-pair merges that make each word one token, for CLIP's tokenizer.

    Merges are learnt on the words themselves until no pair is left, so that encoding, which replays them in order,
    ends at whole words. Any other word still falls apart into known pieces.

    Returns:
        The tokens (single letters and digits first, with and without the end-of-word mark), and the merges in order.
    """
    spelled = {word: (*word[:-1], word[-1] + "</w>") for word in sorted(set(words))}
    signs = "abcdefghijklmnopqrstuvwxyz0123456789,.'-"
    tokens = [*signs, *(sign + "</w>" for sign in signs)]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for pieces in spelled.values() for pair in pairwise(pieces))
        if not pairs:
            return tokens, merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        tokens.append("".join(best))
        spelled = {word: _merged(pieces, best) for word, pieces in spelled.items()}


def _merged(pieces: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Every occurrence of `pair`, from the left, as one piece."""
    result: list[str] = []
    for piece in pieces:
        # A piece just merged must not merge again with the same left half: compare the raw neighbour.
        if result and (result[-1], piece) == pair:
            result[-1] = "".join(pair)
        else:
            result.append(piece)
    return tuple(result)


def build_tokenizer(words: Iterable[str], length: int) -> CLIPTokenizer:
    """CLIP's tokenizer with one token per word of `words`, padding to `length`."""
    tokens, merges = learn_merges(words)
    ordered = [*dict.fromkeys(tokens), START, END]
    vocabulary = {token: place for place, token in enumerate(ordered)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)  # type: ignore[arg-type]


def build_components(words: Iterable[str], codec: PatchCodec, sizes: Architecture) -> Components:
    """A model with random weights and the given codec.

    The U-Net is told text and camera by cross-attention alone and predicts the clean latent on a cosine schedule.
    Random numbers come from torch's global generator, the only one `torch.nn` initialises from.
    """
    tokenizer = build_tokenizer(words, sizes.text_length)
    start, end = tokenizer.get_vocab()[START], tokenizer.get_vocab()[END]
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=sizes.text_dim,
            intermediate_size=4 * sizes.text_dim,
            projection_dim=sizes.text_dim,
            num_hidden_layers=sizes.text_layers,
            num_attention_heads=sizes.heads,
            max_position_embeddings=sizes.text_length,
            bos_token_id=start,
            eos_token_id=end,
            pad_token_id=end,
        )
    )
    attending = len(sizes.channels) - 1
    unet = UNet2DConditionModel(
        sample_size=sizes.image_size // sizes.patch_size,
        in_channels=sizes.latent_channels,
        out_channels=sizes.latent_channels,
        block_out_channels=sizes.channels,
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * attending),
        up_block_types=(*["CrossAttnUpBlock2D"] * attending, "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=sizes.text_dim,
        attention_head_dim=sizes.heads,  # diffusers' name for the number of heads
        norm_num_groups=sizes.groups,
    )
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    camera_encoder = CameraEncoder(sizes.camera_tokens, sizes.text_dim, 2 * sizes.text_dim)
    return Components(tokenizer, text_encoder, unet, codec, scheduler, camera_encoder)
