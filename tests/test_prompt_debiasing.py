"""Words that fight a view are left out of that view's prompt, and of no other."""

from pathlib import Path

import pytest
import torch

from dream3d.cameras import orbit_cameras
from dream3d.priors.gaussian import ClosedFormPrior
from dream3d.prompt_debiasing import VIEWS, Debiasing, masked_model
from dream3d.prompts import Prompts


def smiling(prompt: str) -> dict[str, float]:
    """A smile speaks for the front, anything else for nothing."""
    front = 0.9 if "smiling" in prompt else 0.25
    return {view: front if view == "front" else (1.0 - front) / 3.0 for view in VIEWS}


def test_a_word_for_the_front_goes_from_the_other_views() -> None:
    rewrite = Debiasing(smiling)
    assert rewrite("a smiling cat", "front") == "a smiling cat"
    for side in ("back", "left", "right", "overhead"):
        assert rewrite("a smiling cat", side) == "a cat"
    assert Debiasing(smiling, removable=("cat",))("a smiling cat", "back") == "a smiling cat"
    # The ratio is (0.1 / 3) / (half of it and half of 0.25) = 0.235.
    assert Debiasing(smiling, threshold=0.23)("a smiling cat", "back") == "a smiling cat"
    assert Debiasing(smiling)("smiling", "back") == "smiling"


def test_it_is_asked_once_and_reaches_the_prompts_of_a_step() -> None:
    asked: list[str] = []

    def counted(prompt: str) -> dict[str, float]:
        asked.append(prompt)
        return smiling(prompt)

    embedded: list[str] = []

    class Told(ClosedFormPrior):
        def embed(self, prompts: list[str]) -> torch.Tensor:
            embedded.extend(prompts)
            return super().embed(prompts)

    prompts = Prompts(Told(4), "a smiling cat", rewrite=Debiasing(counted))
    for _ in range(2):
        prompts.conditions(orbit_cameras([0.0, 180.0, 135.0]), "text", words=True)
    assert len(asked) == 4  # the prompt, and without each of its words
    assert embedded[:3] == [
        "a smiling cat, front view",
        "a cat, back view",
        "a cat, back left view",
    ]


def test_a_masked_language_model_gives_the_probabilities(tmp_path: Path) -> None:
    """A random one: what is tested is the reading of its logits, not its opinion."""
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "this",
        "image",
        "is",
        "depicting",
        "a",
        "view",
        "of",
        "cat",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join([*words, *VIEWS]))
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    torch.manual_seed(0)
    size = len(words) + len(VIEWS)
    BertForMaskedLM(
        BertConfig(
            vocab_size=size,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
    ).save_pretrained(tmp_path)
    found = masked_model(tmp_path)("a cat")
    assert set(found) == set(VIEWS) and 0.0 < sum(found.values()) < 1.0
    with pytest.raises((OSError, ValueError)):
        masked_model(tmp_path / "nothing")
