"""Prompts to embeddings by a pipeline's own `encode_prompt`, its text encoders in memory only while they work."""

import gc
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.priors.pipelines.packing import Text, TextLayout, pack, padded, unpack
from dream3d.priors.pipelines.table import PipelineRow

BATCH = 8
"""Prompts a text encoder reads at once."""


@runtime_checkable
class Words(Protocol):
    """What a prior's prompts are embedded by."""

    def embed(self, prompts: list[str]) -> Float[Tensor, "B R D"]:
        """Everything the text encoders say, packed, one entry per prompt."""
        ...

    def read(self, packed: Float[Tensor, "B R D"]) -> Text:
        """What `embed` packed."""
        ...

    def without_image(self, packed: Float[Tensor, "B R D"]) -> Float[Tensor, "B R D"]:
        """The same words with no picture beside them."""
        ...


class TextEmbedder:
    """Embeds prompts; loads the text encoders when asked and lets go of them afterwards.

    Args:
        row: of the pipeline.
        open_pipeline: makes a pipeline of text encoders and tokenizers alone, on the device; called again whenever
            new prompts come.
        device: where the encoders compute.
        image: tokens of no picture and of the picture that goes with every prompt but the empty one, or None.
        keep: hold on to the encoders between calls.
    """

    def __init__(
        self,
        row: PipelineRow,
        open_pipeline: Callable[[], Any],
        device: torch.device,
        image: Float[Tensor, "2 N D"] | None = None,
        keep: bool = False,
    ) -> None:
        self.row = row
        self.open_pipeline = open_pipeline
        self.device = device
        self.image = image
        self.keep = keep
        self.layout: TextLayout | None = None
        self.longest = 0
        self._pipeline: Any = None

    @property
    def loaded(self) -> bool:
        """Whether the text encoders are in memory."""
        return self._pipeline is not None

    def embed(self, prompts: list[str]) -> Float[Tensor, "B R D"]:
        """Packed embeddings, float32, one entry per prompt; every call packs alike."""
        if self._pipeline is None:
            self._pipeline = self.open_pipeline()
        with torch.no_grad():
            parts = [
                self._encode(self._pipeline, prompts[start : start + BATCH])
                for start in range(0, len(prompts), BATCH)
            ]
        if not self.keep:
            self._pipeline = None
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return torch.cat(parts)

    def read(self, packed: Float[Tensor, "B R D"]) -> Text:
        """What `embed` packed, without the tokens that no prompt so far had."""
        assert self.layout is not None, "embed a prompt first"
        text = unpack(packed, self.layout)
        if not self.row.trimmed or text.mask is None:
            return text
        return Text(text.tokens[:, : self.longest], text.pooled, text.mask[:, : self.longest])

    def without_image(self, packed: Float[Tensor, "B R D"]) -> Float[Tensor, "B R D"]:
        """The same words with no picture beside them."""
        if self.image is None:
            return packed
        none = self.image[0].to(packed).expand(len(packed), -1, -1)
        return torch.cat([packed[:, : packed.shape[1] - none.shape[1]], none], dim=1)

    def _encode(self, pipeline: Any, prompts: list[str]) -> Float[Tensor, "B R D"]:
        options = dict(self.row.text_options)
        for name in self.row.call_defaults:
            options[name] = inspect.signature(type(pipeline).__call__).parameters[name].default
        results = pipeline.encode_prompt(prompt=list(prompts), device=self.device, **options)
        text = self._named(results, self.row.text_results)
        if self.row.empty_results and "" in prompts:
            options = {**options, "do_classifier_free_guidance": True, "negative_prompt": ""}
            results = pipeline.encode_prompt(prompt=["a"], device=self.device, **options)
            text = _replace_empty(text, self._named(results, self.row.empty_results), prompts)
        if pipeline.config.get("force_zeros_for_empty_prompt"):
            text = _zero_empty(text, prompts)
        if self.row.trimmed:
            assert text.mask is not None
            # Every prompt is given room for the longest the pipeline allows; only what is used is computed with.
            text = padded(text, max(self._room, text.tokens.shape[1]))
            assert text.mask is not None
            self.longest = max(self.longest, int(text.mask.sum(1).max()))
        if self.image is not None:
            said = [int(bool(prompt)) for prompt in prompts]
            text = replace(text, image=self.image[said].to(text.tokens.device))
        packed, layout = pack(text)
        if self.layout is not None and layout != self.layout:
            raise ValueError(f"text layout changed from {self.layout} to {layout}")
        self.layout = layout
        return packed

    def _named(self, results: Any, names: tuple[str, ...]) -> Text:
        """What `encode_prompt` returned, by name."""
        named = dict(zip(names, results, strict=True))
        return _as_text(named["tokens"], named.get("pooled"), named.get("mask"), self._masked)

    @property
    def _masked(self) -> bool:
        return bool(self.row.mask) or self.row.layout == "list"

    @property
    def _room(self) -> int:
        """Tokens the pipeline allows at most."""
        import diffusers

        encode = getattr(diffusers, self.row.pipeline).encode_prompt
        return int(inspect.signature(encode).parameters["max_sequence_length"].default)


def _as_text(tokens: Any, pooled: Tensor | None, mask: Tensor | None, masked: bool) -> Text:
    """Lists of different lengths become one padded tensor with a mask."""
    if isinstance(tokens, list):
        mask = torch.nn.utils.rnn.pad_sequence(
            [torch.ones(len(row), device=row.device) for row in tokens], batch_first=True
        ).bool()
        return Text(torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True), pooled, mask)
    if not masked:
        return Text(tokens, pooled)
    if mask is None:  # the pipeline's way of saying that all count
        mask = torch.ones(tokens.shape[:2], device=tokens.device)
    return Text(tokens, pooled, mask.bool())


def _replace_empty(text: Text, empty: Text, prompts: list[str]) -> Text:
    """`empty`, one prompt, in place of every empty prompt of `text`."""
    said = torch.tensor([bool(p) for p in prompts], device=text.tokens.device)
    tokens = torch.where(said[:, None, None], text.tokens, empty.tokens)
    if text.mask is None or empty.mask is None:
        return Text(tokens, text.pooled, text.mask)
    return Text(tokens, text.pooled, torch.where(said[:, None], text.mask, empty.mask))


def _zero_empty(text: Text, prompts: list[str]) -> Text:
    """SDXL was trained with zeros where there is no prompt."""
    said = torch.tensor([bool(p) for p in prompts], device=text.tokens.device)
    pooled = None if text.pooled is None else text.pooled * said[:, None]
    return Text(text.tokens * said[:, None, None], pooled, text.mask)
