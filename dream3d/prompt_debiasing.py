"""Words that fight a view's words are dropped from that view's prompt (Hong et al. 2023, prompt debiasing).

"a smiling cat, back view" asks for a face where there is none: a masked language model finds "front" likely in
"[MASK] view of a smiling cat". A word whose removal makes a view markedly more likely is left out for that view:

    drop w from the prompt of view v  where  p_v(prompt) / (p_v(prompt) / 2 + p_v(prompt without w) / 2) < threshold

p_v is renormalised over the four views. `Debiasing` is a `rewrite` for `dream3d.prompts.Prompts`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VIEWS = ("side", "front", "back", "overhead")
SIDE_OF = {
    "left": "side",
    "right": "side",
    "front": "front",
    "back": "back",
    "overhead": "overhead",
}

ViewProbability = Callable[[str], Mapping[str, float]]
"""From a prompt to the probability of each of VIEWS; need not sum to 1."""


def shares(probability: ViewProbability, prompt: str) -> dict[str, float]:
    """The probability of each view, renormalised over VIEWS."""
    found = probability(prompt)
    total = sum(found[view] for view in VIEWS) or 1.0
    return {view: found[view] / total for view in VIEWS}


@dataclass
class Debiasing:
    """Per view, the prompt without the words that speak for another; each prompt is looked at once.

    Attributes:
        probability: of the views, given a prompt.
        removable: words that may be dropped; empty for all words of the prompt.
        threshold: the ratio below which a word is dropped, in (0, 1].
    """

    probability: ViewProbability
    removable: tuple[str, ...] = ()
    threshold: float = 0.95
    _known: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)

    def __call__(self, prompt: str, side: str) -> str:
        """The prompt for a view; `side` is one of SIDE_OF."""
        if prompt not in self._known:
            self._known[prompt] = self._debiased(prompt)
        return self._known[prompt][SIDE_OF[side]]

    def _debiased(self, prompt: str) -> dict[str, str]:
        words, full = prompt.split(), shares(self.probability, prompt)
        kept: dict[str, list[str]] = {view: [] for view in VIEWS}
        for index, word in enumerate(words):
            may_go = not self.removable or word.strip(",.").lower() in self.removable
            rest = " ".join(words[:index] + words[index + 1 :])
            without = shares(self.probability, rest) if may_go and rest else full
            for view in VIEWS:
                mean = 0.5 * (full[view] + without[view])
                if mean == 0.0 or full[view] / mean >= self.threshold:
                    kept[view].append(word)
        # A prompt of nothing says less than a biased one.
        return {view: " ".join(words) or prompt for view, words in kept.items()}


def masked_model(directory: Path) -> ViewProbability:
    """The view probabilities of a masked language model (e.g. BERT) in a local directory; nothing is downloaded.

    Raises:
        OSError, ValueError: there is no such model.
    """
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    model: Any = AutoModelForMaskedLM.from_pretrained(directory, local_files_only=True).eval()
    ids = [tokenizer.convert_tokens_to_ids(view) for view in VIEWS]

    def probability(prompt: str) -> dict[str, float]:
        text = f"This image is depicting a {tokenizer.mask_token} view of {prompt}"
        tokens = tokenizer(text, return_tensors="pt", truncation=True)
        place = (tokens.input_ids[0] == tokenizer.mask_token_id).nonzero()[0]
        with torch.no_grad():
            logits = model(**tokens).logits[0, place]
        return dict(zip(VIEWS, logits.softmax(-1)[0, ids].tolist(), strict=True))

    return probability
