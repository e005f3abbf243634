"""IP-Adapter image prompts against diffusers' own pipelines, on tiny random weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from test_control import Asked, tiny_controlnet
from test_pipelines import guided, run, times
from tiny_pipelines import HIDDEN, save_tiny, tiny_pipeline

from dream3d.errors import ConfigError, ModelError
from dream3d.priors.base import Condition
from dream3d.priors.model_list import adapter_id
from dream3d.priors.pipelines.control import ControlSettings
from dream3d.priors.pipelines.hub import WANTED, adapter_file
from dream3d.priors.pipelines.image_prompt import ImagePrompt
from dream3d.priors.pipelines.opening import Opening, open_prior
from dream3d.priors.pipelines.resampler import Resampler
from dream3d.priors.pretrained import DiffusersConfig
from dream3d.prompts import Prompts

CPU = torch.device("cpu")
SD, XL = "StableDiffusionPipeline", "StableDiffusionXLPipeline"
SEEN = 24
"""Width of the image encoder's embedding."""


def image_encoder() -> Any:
    config = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        projection_dim=SEEN,
    )
    return transformers.CLIPVisionModelWithProjection(config).eval()


def adapter_weights(unet: Any, kind: str) -> dict[str, torch.Tensor]:
    """A random IP-Adapter for `unet` under the published names."""
    width = unet.config.cross_attention_dim
    tensors: dict[str, torch.Tensor] = {}
    if kind == "plain":
        tensors["image_proj.proj.weight"] = torch.randn(4 * width, SEEN)
        tensors["image_proj.proj.bias"] = torch.randn(4 * width)
        tensors["image_proj.norm.weight"] = torch.rand(width) + 0.5
        tensors["image_proj.norm.bias"] = torch.randn(width)
    elif kind == "plus":  # a resampler of all tokens but those of the encoder's last layer
        resampler = Resampler(3, 16, 32, 128, width, layers=4, hidden=128)
        torch.nn.init.normal_(resampler.latents)
        tensors |= {f"image_proj.{key}": x for key, x in resampler.state_dict().items()}
    else:  # full face: a small perceptron of every token the encoder makes
        tensors["image_proj.proj.0.weight"] = torch.randn(16, 16)
        tensors["image_proj.proj.0.bias"] = torch.randn(16)
        tensors["image_proj.proj.2.weight"] = torch.randn(width, 16)
        tensors["image_proj.proj.2.bias"] = torch.randn(width)
        tensors["image_proj.proj.3.weight"] = torch.rand(width) + 0.5
        tensors["image_proj.proj.3.bias"] = torch.randn(width)
    places = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for i, name in enumerate(places):
        attention = unet.get_submodule(name.removesuffix(".processor"))
        for x in "kv":
            tensors[f"ip_adapter.{1 + 2 * i}.to_{x}_ip.weight"] = torch.randn(
                attention.to_q.out_features, width
            )
    return tensors


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Directory of a tiny pipeline, an adapter with its encoder, and a picture; saved once."""
    made: dict[tuple[str, str], tuple[Path, Path, Path]] = {}

    def get(name: str, kind: str = "plain") -> tuple[Path, Path, Path]:
        if (name, kind) not in made:
            place = tmp_path_factory.mktemp(name)
            pipeline = save_tiny(name, place / "model")
            with torch.random.fork_rng():
                torch.manual_seed(4)
                image_encoder().save_pretrained(place / "image_encoder")
                save_file(adapter_weights(pipeline.unet, kind), place / "adapter.safetensors")
                pixels = torch.randint(0, 255, (40, 30, 3), dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(place / "style.png")
            made[name, kind] = (
                place / "model",
                place / "adapter.safetensors",
                place / "style.png",
            )
        return made[name, kind]

    return get


def settings(adapter: Path, picture: Path, scale: float = 0.6) -> ImagePrompt:
    return ImagePrompt(picture, adapter, adapter.parent / "image_encoder", scale)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (SD, "plain"),
        (SD, "full"),
        (SD, "plus"),
        (XL, "plain"),
        (XL, "plus"),
    ],
)
def test_steps_equal_the_pipelines_own(name: str, kind: str, saved: Any) -> None:
    """Guided: the picture goes with the prompt and not with the empty one."""
    directory, adapter, picture = saved(name, kind)
    prior = open_prior(directory, CPU, Opening(picture=settings(adapter, picture)))
    pipeline = tiny_pipeline(name)
    pipeline.load_ip_adapter(
        str(adapter.parent), subfolder="", weight_name=adapter.name, local_files_only=True
    )
    pipeline.set_ip_adapter_scale(0.6)
    shown = Image.open(picture).convert("RGB")
    z = torch.randn(1, *prior.latent_shape, generator=torch.Generator().manual_seed(1))
    calls = run(Asked(pipeline, ip_adapter_image=shown), z, 3.0, 4, prior.image_size)
    plain = open_prior(directory, CPU)
    for i in range(2):
        sample, (t, _) = calls[i]["sample"], times(prior, pipeline, calls, i)
        level = torch.tensor([t])
        if name == XL:  # Euler walks in z / alpha
            sample = sample * prior.schedule.alpha(level)
        ours = guided(prior, sample, level, 3.0)
        torch.testing.assert_close(ours, calls[i]["output"], atol=1e-5, rtol=1e-5)
        assert (ours - guided(plain, sample, level, 3.0)).abs().max() > 1e-3


@pytest.mark.slow
def test_words_alone_at_scale_zero_and_away_from_the_negative(saved: Any) -> None:
    """At scale 0 it is the plain prior; a negative prompt is told no picture; mixtures of views keep it."""
    directory, adapter, picture = saved(SD)
    off = open_prior(directory, CPU, Opening(picture=settings(adapter, picture, 0.0)))
    prior = open_prior(directory, CPU, Opening(picture=settings(adapter, picture)))
    plain = open_prior(directory, CPU)
    z, t = torch.randn(2, *prior.latent_shape), torch.tensor([0.3, 0.7])
    words = ["a red mug", ""]
    expected = plain.predict(z, t, Condition(plain.embed(words))).value
    ours = off.predict(z, t, Condition(off.embed(words))).value
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)
    tokens = prior.embed(["a red mug", "", "a car"])
    read = prior.parts.text.read
    image = read(tokens).image
    assert image is not None and image.shape[1:] == (4, HIDDEN)
    assert torch.equal(image[0], image[2]) and not torch.equal(image[0], image[1])
    bare = read(prior.avoided(tokens)).image
    assert bare is not None and torch.equal(bare, image[1:2].expand(3, -1, -1))
    assert torch.equal(read(prior.avoided(tokens)).tokens, read(tokens).tokens)
    mixed = read(0.5 * tokens[:1] + 0.5 * tokens[2:]).image
    torch.testing.assert_close(mixed, image[:1])
    from dream3d.cameras import orbit_cameras

    cameras = orbit_cameras([0.0, 90.0])
    told, empty, negative = Prompts(prior, "a mug", "blue").conditions(cameras, "text", True)
    assert negative is not None
    a, b, c = (read(x.tokens).image for x in (told, empty, negative))
    assert a is not None and b is not None and c is not None
    assert torch.equal(b, c) and not torch.equal(a, b)


@pytest.mark.slow
def test_with_a_controlnet_and_a_companion(saved: Any, tmp_path: Path) -> None:
    """The ControlNet reads words alone; the companion begins as the prior, picture and all."""
    directory, adapter, picture = saved(SD)
    tiny_controlnet(SD, tiny_pipeline(SD).unet).save_pretrained(tmp_path)
    how = Opening(picture=settings(adapter, picture), control=ControlSettings(tmp_path))
    prior = open_prior(directory, CPU, how)
    z, t = torch.randn(1, *prior.latent_shape), torch.tensor([0.4])
    told = Condition(prior.embed(["a red mug"]), control=torch.rand(1, 16, 16, 3))
    before = prior.predict(z, t, told).value
    companion = prior.companion(rank=2, seed=0)
    learnt = companion.output(z, t, told).value
    torch.testing.assert_close(learnt.detach(), before, atol=0.0, rtol=0.0)
    learnt.square().sum().backward()
    assert any(
        p.grad is not None and p.grad.abs().max() > 0.0 for p in companion.parameters().values()
    )


def test_by_settings(saved: Any, tmp_path: Path) -> None:
    directory, adapter, picture = saved(SD)
    config = DiffusersConfig(
        model=str(directory), image_prompt=str(picture), ip_adapter=str(adapter.parent)
    )
    prior: Any = config.load(CPU)
    assert [(one.use, one.model) for one in prior.origins[1:]] == [
        ("ip-adapter", str(adapter.parent))
    ]
    assert prior.parts.text.image.shape == (2, 4, HIDDEN)
    assert not any("image_encoder" in name for name, _ in prior.network.named_modules())
    with pytest.raises(ConfigError, match="give both or neither"):
        DiffusersConfig(model="a/b", image_prompt="x.png")
    with pytest.raises(ConfigError, match=r"image_prompt_scale is -1\.0"):
        DiffusersConfig(model="a/b", image_prompt_scale=-1.0)
    with pytest.raises(ModelError, match="has none"):
        adapter_file(str(tmp_path))
    with pytest.raises(ModelError, match=r"owner/name/folder/file\.safetensors"):
        adapter_file("h94/IP-Adapter")


def test_only_the_adapter_and_its_encoder_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def fetch(repo_id: str, **options: Any) -> str:
        asked.update(options, id=repo_id)
        return "/somewhere"

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    file = adapter_file("h94/IP-Adapter/models/ip-adapter_sd15.safetensors")
    assert file == Path("/somewhere/models/ip-adapter_sd15.safetensors")
    assert asked["id"] == "h94/IP-Adapter"
    assert asked["allow_patterns"] == [
        "models/ip-adapter_sd15.safetensors",
        "models/image_encoder/*.json",
        "models/image_encoder/*.safetensors",
        "README.md",
    ]
    assert "*.json" in WANTED, "which would fetch every folder's"


def test_the_role_means_the_one_for_the_pipeline() -> None:
    assert adapter_id("ip-adapter", SD) == "h94/IP-Adapter/models/ip-adapter_sd15.safetensors"
    assert adapter_id("ip-adapter", XL).startswith("h94/IP-Adapter/sdxl_models/")
    assert adapter_id("/a/file.safetensors", SD) == "/a/file.safetensors"
    with pytest.raises(ConfigError, match="names nothing for a SanaPipeline"):
        adapter_id("ip-adapter", "SanaPipeline")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("layer", "attention weights"),
        ("width", "its tokens have 5 channels"),
        ("face", "face-id"),
        ("strange", "is no IP-Adapter: it holds unet"),
        ("half", "half-downloaded"),
        ("pickle", "can run code when read"),
        ("absent", "there is no IP-Adapter file"),
        ("no encoder", "there is no image encoder"),
        ("encoder", "makes 24 channels, the adapter wants 7"),
        ("no picture", "there is no picture"),
        ("pipeline", "takes no IP-Adapter here"),
    ],
)
def test_adapters_that_do_not_fit(how: str, words: str, saved: Any, tmp_path: Path) -> None:
    directory, adapter, picture = saved(SD)
    tensors, file = load_file(adapter), tmp_path / "adapter.safetensors"
    encoder = adapter.parent / "image_encoder"
    if how == "layer":
        del tensors["ip_adapter.1.to_k_ip.weight"]
    elif how == "width":
        tensors["ip_adapter.1.to_k_ip.weight"] = torch.zeros(16, 5)
    elif how == "face":
        del tensors["image_proj.proj.weight"]
    elif how == "strange":
        tensors["unet.x"] = torch.zeros(2)
    elif how == "encoder":
        tensors["image_proj.proj.weight"] = torch.zeros(128, 7)
    save_file(tensors, file)
    if how == "half":
        file.write_bytes(file.read_bytes()[:-40])
    elif how == "pickle":
        file = file.rename(file.with_suffix(".bin"))
    elif how == "absent":
        file.unlink()
    elif how == "no encoder":
        encoder = tmp_path
    elif how == "no picture":
        picture = tmp_path / "nowhere.png"
    elif how == "pipeline":
        directory = tmp_path / "sana"
        save_tiny("SanaPipeline", directory)
    with pytest.raises(ModelError, match=words):
        open_prior(directory, CPU, Opening(picture=ImagePrompt(picture, file, encoder)))
