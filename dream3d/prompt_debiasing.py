"""Words that fight a view's words are dropped from that view's prompt (Hong et al. 2023, prompt debiasing).

"a smiling cat, back view" asks for a face where there is none: a masked language model finds "front" likely in
"[MASK] view of a smiling cat". A word whose removal makes a view markedly more likely is left out for that view:

    drop w from the prompt of view v  where  p_v(prompt) / (p_v(prompt) / 2 + p_v(prompt without w) / 2) < threshold

p_v is renormalised over the four views. `DebiasingSettings` are a run's; off unless they name a language model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dream3d.errors import ConfigError, ModelError

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


@dataclass(frozen=True)
class DebiasingSettings:
    """Whether, and by which language model, each view's prompt loses the words that speak for another view.

    Attributes:
        model: a masked language model: a directory, or an id such as google-bert/bert-base-uncased; empty is off.
        removable: words that may be dropped; empty for all words of the prompt.
        threshold: the ratio below which a word is dropped, in (0, 1]; 0.95 is published.
    """

    model: str = ""
    removable: tuple[str, ...] = ()
    threshold: float = 0.95

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold <= 1.0:
            raise ConfigError(
                f"debiasing.threshold is {self.threshold}; choose a ratio above 0 and at most 1"
            )

    def directory(self) -> Path | None:
        """Where the language model is, downloaded if need be; None where debiasing is off.

        Raises:
            ModelError: it cannot be had.
        """
        if not self.model:
            return None
        from dream3d.priors.pipelines.hub import model_directory

        return model_directory(self.model, whole=True)

    def prompt_for(self, prompt: str) -> Callable[[str], str]:
        """From a side (of SIDE_OF) to the prompt for views of it. The language model is read, asked and freed here.

        Raises:
            ModelError: it cannot be had, or is none.
        """
        directory = self.directory()
        if directory is None:
            return lambda side: prompt
        kept = debiased(prompt, masked_model(directory), self.removable, self.threshold)
        return lambda side: kept[SIDE_OF[side]]


def debiased(
    prompt: str,
    probability: ViewProbability,
    removable: tuple[str, ...] = (),
    threshold: float = 0.95,
) -> dict[str, str]:
    """The prompt for each of VIEWS, without the words that speak for another.

    Args:
        prompt: any text.
        probability: of the views, given a prompt; asked once for it and once without each word.
        removable: see `DebiasingSettings`.
        threshold: see there.
    """
    words, full = prompt.split(), shares(probability, prompt)
    kept: dict[str, list[str]] = {view: [] for view in VIEWS}
    for index, word in enumerate(words):
        may_go = not removable or word.strip(",.").lower() in removable
        rest = " ".join(words[:index] + words[index + 1 :])
        without = shares(probability, rest) if may_go and rest else full
        for view in VIEWS:
            mean = 0.5 * (full[view] + without[view])
            if mean == 0.0 or full[view] / mean >= threshold:
                kept[view].append(word)
    # A prompt of nothing says less than a biased one.
    return {view: " ".join(words) or prompt for view, words in kept.items()}


def masked_model(directory: Path) -> ViewProbability:
    """The view probabilities of a masked language model (e.g. BERT) in a local directory; nothing is downloaded.

    Raises:
        ModelError: there is no such model, or it does not know the views as words.
    """
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(directory, **here)
        model: Any = AutoModelForMaskedLM.from_pretrained(directory, use_safetensors=True, **here)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{directory} holds no masked language model in safetensors ({str(error).splitlines()[0]}); give one such "
            "as google-bert/bert-base-uncased, or leave debiasing.model empty"
        ) from error
    model = model.eval()
    ids = [tokenizer.convert_tokens_to_ids(view) for view in VIEWS]
    if tokenizer.mask_token_id is None or {None, tokenizer.unk_token_id} & set(ids):
        raise ModelError(
            f"the language model in {directory} has no mask, or not {', '.join(VIEWS)} as words of one token; give one "
            "such as google-bert/bert-base-uncased"
        )

    def probability(prompt: str) -> dict[str, float]:
        text = f"This image is depicting a {tokenizer.mask_token} view of {prompt}"
        tokens = tokenizer(text, return_tensors="pt", truncation=True)
        place = (tokens.input_ids[0] == tokenizer.mask_token_id).nonzero()[0]
        with torch.no_grad():
            logits = model(**tokens).logits[0, place]
        return dict(zip(VIEWS, logits.softmax(-1)[0, ids].tolist(), strict=True))

    return probability
