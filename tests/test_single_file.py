"""Stable Diffusion checkpoints that are one file, on tiny random weights under the original names."""

import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from original_layout import write_original
from safetensors.torch import save_file
from tiny_pipelines import ddim, save_tiny

from dream3d.errors import ConfigError, ModelError
from dream3d.priors.base import Condition
from dream3d.priors.pipelines import hub
from dream3d.priors.pipelines.opening import open_prior
from dream3d.priors.pipelines.single_file import file_scheduler
from dream3d.priors.pretrained import DiffusersConfig

CPU = torch.device("cpu")
CLASSES = {
    "1": "StableDiffusionPipeline",
    "2": "StableDiffusionPipeline",
    "xl": "StableDiffusionXLPipeline",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Directory of a tiny pipeline, one without weights, the one file and its tensors; saved once per kind."""
    done: dict[str, Any] = {}

    def get(kind: str) -> tuple[Path, Path, Path, dict[str, torch.Tensor]]:
        if kind not in done:
            place = tmp_path_factory.mktemp(f"sd{kind}")
            options = {"first": 16} if kind == "xl" else {}
            pipeline = save_tiny(CLASSES[kind], place / "whole", **options)
            shutil.copytree(
                place / "whole", place / "config", ignore=shutil.ignore_patterns("*.safetensors")
            )
            tensors = write_original(pipeline, place / "model.safetensors", kind)
            done[kind] = (place / "whole", place / "config", place / "model.safetensors", tensors)
        return done[kind]

    return get


@pytest.mark.parametrize("kind", ["1", pytest.param("2", marks=pytest.mark.slow), "xl"])
def test_one_file_is_the_directory(kind: str, made: Any) -> None:
    """Bit for bit the pipeline the file was written from: text, network and codec."""
    whole, config, file, _ = made(kind)
    prior = DiffusersConfig(model=str(file), config=str(config)).load(CPU)
    other = open_prior(whole, CPU)
    tokens, expected = prior.embed(["a red mug", ""]), other.embed(["a red mug", ""])
    assert torch.equal(tokens, expected)
    z, t = torch.randn(2, *other.latent_shape), torch.tensor([0.3, 0.8])
    ours, theirs = (p.predict(z, t, Condition(tokens)) for p in (prior, other))
    assert torch.equal(ours.value, theirs.value) and ours.kind == theirs.kind
    images = torch.rand(1, other.image_size, other.image_size, 3)
    assert torch.equal(prior.encode(images), other.encode(images))
    assert torch.equal(prior.decode(z), other.decode(z))
    assert prior.origins[0].model == str(file)


def test_a_last_level_without_signal_is_read_from_the_file(tmp_path: Path) -> None:
    """An empty weight `ztsnr`; schedulers that know no such table stay as they are."""
    file = tmp_path / "x.safetensors"
    for names, signal in ((["a"], False), (["a", "ztsnr"], True)):
        save_file({name: torch.zeros(()) for name in names}, file)
        told = file_scheduler(ddim(), file)
        assert (told.alphas_cumprod[-1] > 1e-4) != signal and told.config.steps_offset == 1
    pndm = diffusers.PNDMScheduler()
    assert file_scheduler(pndm, file) is not None


def test_what_the_file_says_of_its_prediction_counts(made: Any, tmp_path: Path) -> None:
    _, config, _, tensors = made("1")
    file = tmp_path / "v.safetensors"
    save_file(tensors, file, metadata={"modelspec.prediction_type": "v"})
    prior: Any = DiffusersConfig(model=str(file), config=str(config)).load(CPU)
    assert prior.kind == "v"
    save_file({**tensors, "v_pred": torch.zeros(())}, file)
    prior = DiffusersConfig(model=str(file), config=str(config)).load(CPU)
    assert prior.kind == "v"


def test_without_configuration_the_published_one_is_asked_for(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only small files, and an error that says how to go without a network."""
    _, config, file, _ = made("1")
    asked: dict[str, Any] = {}

    def fetch(repo_id: str, **options: Any) -> str:
        asked.update(options, id=repo_id)
        return str(config)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    DiffusersConfig(model=str(file)).load(CPU)
    assert asked["id"] == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert asked["allow_patterns"] == list(hub.WANTED), "no weights"
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.snapshot_download", _no_network)
    with pytest.raises(ModelError, match=r"Or give prior\.config"):
        DiffusersConfig(model=str(file)).load(CPU)


def _no_network(*_: Any, **__: Any) -> str:
    raise OSError("no route to host")


def spoil(how: str, tensors: dict[str, torch.Tensor], file: Path) -> Path:
    """A file that cannot be used, in one of many ways."""
    tensors = dict(tensors)
    first = next(key for key in tensors if key.startswith("model.diffusion_model.input_blocks.1.0"))
    if how == "missing":
        del tensors[first]
    elif how == "size":
        tensors[first] = torch.zeros(3)
    elif how == "left over":
        tensors["model.diffusion_model.input_blocks.1.0.extra"] = torch.zeros(3)
    elif how == "no codec":
        tensors = {k: v for k, v in tensors.items() if not k.startswith("first_stage")}
    elif how == "no text":
        tensors = {k: v for k, v in tensors.items() if not k.startswith("cond_stage")}
    elif how == "another":
        tensors = {"double_blocks.0.img_mod.lin.weight": torch.zeros(2)}
    save_file(tensors, file)
    if how == "half":
        file.write_bytes(file.read_bytes()[:-100])
    elif how == "pickle":
        return file.rename(file.with_suffix(".ckpt"))
    elif how == "absent":
        file.unlink()
    return file


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "1 missing keys"),
        ("size", "1 mismatched keys"),
        ("left over", "1 unexpected keys"),
        ("no codec", r"holds no vae; give one as prior\.vae"),
        ("no text", "no whole checkpoint of a kind known here"),
        ("another", "double_blocks"),
        ("half", "half-downloaded"),
        ("pickle", "can run code when read"),
        ("absent", "there is no file"),
    ],
)
def test_files_that_cannot_be_used(how: str, words: str, made: Any, tmp_path: Path) -> None:
    _, config, _, tensors = made("1")
    file = spoil(how, tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=words):
        DiffusersConfig(model=str(file), config=str(config)).load(CPU)


def test_configurations_that_do_not_fit(made: Any, tmp_path: Path) -> None:
    _, config, file, _ = made("1")
    with pytest.raises(ModelError, match="needs the configuration of a StableDiffusionPipeline"):
        DiffusersConfig(model=str(file), config=str(made("xl")[1])).load(CPU)
    with pytest.raises(ModelError, match="which holds no pipeline"):
        DiffusersConfig(model=str(file), config=str(tmp_path)).load(CPU)
    with pytest.raises(ConfigError, match=r"leave prior\.config empty"):
        DiffusersConfig(model=str(config), config=str(config)).load(CPU)
