"""Words that fight a view are left out of that view's prompt, and of no other."""

from pathlib import Path

import pytest
import torch

from dream3d import prompt_debiasing
from dream3d.cameras import orbit_cameras
from dream3d.config import config_to_yaml, load_config, load_config_text
from dream3d.errors import ConfigError, ModelError
from dream3d.priors.gaussian import ClosedFormPrior
from dream3d.prompt_debiasing import SIDE_OF, VIEWS, DebiasingSettings, debiased, masked_model
from dream3d.prompts import Prompts
from dream3d.run import run_system
from dream3d.ui.form import changed_settings, form_fields
from systems.base import fingerprint


def smiling(prompt: str) -> dict[str, float]:
    """A smile speaks for the front, anything else for nothing."""
    front = 0.9 if "smiling" in prompt else 0.25
    return {view: front if view == "front" else (1.0 - front) / 3.0 for view in VIEWS}


def test_a_word_for_the_front_goes_from_the_other_views() -> None:
    kept = debiased("a smiling cat", smiling)
    assert kept == {"front": "a smiling cat"} | dict.fromkeys(("side", "back", "overhead"), "a cat")
    assert debiased("a smiling cat", smiling, removable=("cat",))["back"] == "a smiling cat"
    # The ratio is (0.1 / 3) / (half of it and half of 0.25) = 0.235.
    assert debiased("a smiling cat", smiling, threshold=0.23)["back"] == "a smiling cat"
    assert debiased("a smiling cat", smiling, threshold=0.24)["back"] == "a cat"
    assert debiased("smiling", smiling)["back"] == "smiling"


class Told(ClosedFormPrior):
    """Remembers what it was asked to embed."""

    def __init__(self) -> None:
        super().__init__(8)
        self.embedded: list[str] = []

    def embed(self, prompts: list[str]) -> torch.Tensor:
        self.embedded.extend(prompts)
        return super().embed(prompts)


def told(overrides: list[str], directory: Path) -> list[str]:
    """Every text a run of two steps embeds, in order."""
    stage = {"guidance": "sds", "steps": 2, "views": 8, "render_size": 8, "conditioning": "text"}
    config = load_config(
        "gaussian",
        [
            *overrides,
            *(f"{key}={value}" for key, value in stage.items()),
            "scene=canvas",
            "cameras=ring",
        ],
        "a smiling cat",
    )
    prior = Told()
    run_system(config, directory, prior=prior)
    return prior.embedded


def test_a_setting_of_a_run_changes_the_prompts_of_its_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counted(prompt: str) -> dict[str, float]:
        asked.append(prompt)
        return smiling(prompt)

    (tmp_path / "bert").mkdir()
    monkeypatch.setattr(prompt_debiasing, "masked_model", lambda directory: counted)
    plain = told([], tmp_path / "plain")
    assert not asked and {text.split(",")[0] for text in plain} == {"a smiling cat", ""}
    on = told([f"debiasing.model={tmp_path / 'bert'}"], tmp_path / "on")
    # The prompt, and without each of its words: once, however many views and steps there are.
    assert len(asked) == 4
    assert [text.replace("smiling ", "") for text in plain] == [
        text.replace("smiling ", "") for text in on
    ]
    assert {text for text in on if "smiling" in text} == {
        text for text in plain if text.endswith(("front view", "smiling cat"))
    }
    off = [f"debiasing.model={tmp_path / 'bert'}", "debiasing.removable=[cat]"]
    assert told(off, tmp_path / "off") == plain


def test_the_prompts_of_a_step_are_debiased_by_side() -> None:
    kept = debiased("a smiling cat", smiling)
    prior = Told()
    prompts = Prompts(prior, "a smiling cat", "", lambda side: kept[SIDE_OF[side]])
    prompts.conditions(orbit_cameras([0.0, 180.0, 135.0]), "text", words=True)
    assert prior.embedded[:3] == [
        "a smiling cat, front view",
        "a cat, back view",
        "a cat, back left view",
    ]


def test_the_setting_is_checked_kept_and_shown(tmp_path: Path) -> None:
    given = [
        "debiasing.model=some/bert",
        "debiasing.threshold=0.9",
        "debiasing.removable=[smiling, happy]",
    ]
    config = load_config("default", given, "a cat")
    assert config.debiasing == DebiasingSettings("some/bert", ("smiling", "happy"), 0.9)
    assert load_config_text(config_to_yaml(config)) == config
    plain = load_config("default", (), "a cat")
    assert plain.debiasing == DebiasingSettings() and fingerprint(plain) != fingerprint(config)
    for override, message in (
        ("debiasing.threshold=0", "debiasing.threshold is 0.0; choose a ratio"),
        ("debiasing.words=x", "debiasing.words"),
        ("view_words=false", "no stage names views"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config("default", [*given, override], "a cat")
    fields = form_fields(config)["debiasing"]
    assert [field.path for field in fields] == [
        f"debiasing.{name}" for name in ("model", "removable", "threshold")
    ]
    assert all(field.help for field in fields)
    written = {
        "debiasing.model": "some/bert",
        "debiasing.removable": "smiling, happy",
        "debiasing.threshold": "0.9",
    }
    overrides = changed_settings(form_fields(plain)["debiasing"], written)
    assert load_config("default", overrides, "a cat") == config
    untouched = {field.path: field.value for field in form_fields(plain)["debiasing"]}
    assert changed_settings(form_fields(plain)["debiasing"], untouched) == {}
    with pytest.raises(ModelError, match="no directory"):
        DebiasingSettings(str(tmp_path / "nothing")).prompt_for("a cat")


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
    kept = DebiasingSettings(str(tmp_path)).prompt_for("a cat")
    assert set(kept("left").split()) <= {"a", "cat"}
    with pytest.raises(ModelError, match="no masked language model"):
        masked_model(tmp_path / "nothing")
    (tmp_path / "vocab.txt").write_text("\n".join([*words, "side", "front", "back", "above"]))
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="as words of one token"):
        masked_model(tmp_path)
