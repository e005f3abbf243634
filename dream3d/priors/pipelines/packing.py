"""All that a text encoder says about a prompt in one tensor, so that everything above a prior treats prompts alike.

Pipelines want more than tokens: a pooled embedding, a mask. Both go below the tokens as further rows of the same width,
padded with zeros: [tokens L | pooled ceil(P / D) | mask ceil(L / D) | image N]. Stacking, indexing and averaging
prompts then need no case for any pipeline.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Text:
    """What a text encoder made of B prompts.

    Attributes:
        tokens: embeddings.
        pooled: one vector per prompt, or None.
        mask: which tokens count, or None where all do.
        image: tokens of a picture beside the words, or None (see `image_prompt`).
    """

    tokens: Float[Tensor, "B L D"]
    pooled: Float[Tensor, "B P"] | None = None
    mask: Bool[Tensor, "B L"] | None = None
    image: Float[Tensor, "B N D"] | None = None


@dataclass(frozen=True)
class TextLayout:
    """Where the parts of a `Text` lie in its packed form.

    Attributes:
        length: L, tokens.
        width: D.
        pooled: P, 0 for none.
        masked: whether there is a mask.
        image: N, 0 for none.
    """

    length: int
    width: int
    pooled: int = 0
    masked: bool = False
    image: int = 0


def _rows(values: Float[Tensor, "B N"], width: int) -> Float[Tensor, "B R D"]:
    padding = -values.shape[1] % width
    return torch.nn.functional.pad(values, (0, padding)).unflatten(1, (-1, width))


def pack(text: Text) -> tuple[Float[Tensor, "B R D"], TextLayout]:
    """One tensor, and how to read it."""
    _, length, width = text.tokens.shape
    parts = [text.tokens.float()]
    if text.pooled is not None:
        parts.append(_rows(text.pooled.float(), width))
    if text.mask is not None:
        parts.append(_rows(text.mask.float(), width))
    if text.image is not None:
        parts.append(text.image.float())
    pooled = 0 if text.pooled is None else text.pooled.shape[1]
    image = 0 if text.image is None else text.image.shape[1]
    return torch.cat(parts, dim=1), TextLayout(length, width, pooled, text.mask is not None, image)


def unpack(packed: Float[Tensor, "B R D"], layout: TextLayout) -> Text:
    """The inverse of `pack`. A token counts where any of the prompts that were averaged has one."""
    tokens, rest = packed[:, : layout.length], packed[:, layout.length :].flatten(1)
    pooled_rows = -(-layout.pooled // layout.width)
    pooled = rest[:, : layout.pooled] if layout.pooled else None
    mask = rest[:, pooled_rows * layout.width :][:, : layout.length] > 0 if layout.masked else None
    image = packed[:, packed.shape[1] - layout.image :] if layout.image else None
    return Text(tokens, pooled, mask, image)


def padded(text: Text, length: int) -> Text:
    """The same text with room for `length` tokens; the new ones do not count."""
    room = length - text.tokens.shape[1]
    if room <= 0:
        return text
    assert text.mask is not None, "only a masked text can be padded"
    pad = torch.nn.functional.pad
    return Text(pad(text.tokens, (0, 0, 0, room)), text.pooled, pad(text.mask, (0, room)))
