"""LoRA files and other codecs, against the pipeline that loads them itself."""

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import pytest
import torch
import transformers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file, save_file
from test_pipelines import run
from tiny_pipelines import HIDDEN, save_tiny, tiny_pipeline

from dream3d.errors import ConfigError, ModelError
from dream3d.priors.base import Condition
from dream3d.priors.pipelines.lora import merge_lora
from dream3d.priors.pipelines.opening import Opening, open_prior
from dream3d.priors.pipelines.table import ROWS
from dream3d.priors.pipelines.text import TextEmbedder
from dream3d.priors.pretrained import DiffusersConfig

CPU = torch.device("cpu")
SD = "StableDiffusionPipeline"
LORA = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sd")
    save_tiny(SD, directory)
    return directory


def write_lora(pipeline: Any, directory: Path, text: bool) -> Path:
    """A random LoRA for the U-Net, and the text encoder if asked, as diffusers writes one."""
    torch.manual_seed(3)
    layers: dict[str, Any] = {}
    parts = {"unet": pipeline.unet, **({"text_encoder": pipeline.text_encoder} if text else {})}
    for name, part in parts.items():
        targets = ["to_q", "to_v"] if name == "unet" else ["q_proj", "v_proj"]
        config = LoraConfig(r=2, lora_alpha=2, target_modules=targets)
        try:
            part.add_adapter(config)
        except ValueError as error:  # transformers asks for a PEFT that is not out yet
            pytest.skip(str(error))
        for key, weight in part.named_parameters():
            if "lora_" in key:
                torch.nn.init.normal_(weight, std=0.3)
        layers[f"{name}_lora_layers"] = get_peft_model_state_dict(part)
    diffusers.StableDiffusionPipeline.save_lora_weights(directory, **layers)
    return directory / LORA


@pytest.mark.parametrize("text", [False, True], ids=["network", "network and text"])
def test_lora_as_the_pipeline_loads_it(text: bool, saved: Path, tmp_path: Path) -> None:
    source = diffusers.StableDiffusionPipeline.from_pretrained(saved)
    file = write_lora(source, tmp_path, text)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(saved)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(tmp_path, weight_name=LORA)
    prior = open_prior(saved, CPU, Opening(loras=((file, 1.0),)))
    z = torch.randn(1, *prior.latent_shape, generator=torch.Generator().manual_seed(1))
    call = run(pipeline, z, 1.0, 4, prior.image_size)[0]
    tokens = prior.embed(["a red mug"])
    t = torch.tensor([call["t"] / 999.0])
    ours = prior.predict(call["sample"], t, Condition(tokens)).value
    torch.testing.assert_close(ours, call["output"], atol=1e-5, rtol=1e-5)
    plain = open_prior(saved, CPU)
    other = plain.predict(call["sample"], t, Condition(plain.embed(["a red mug"]))).value
    assert (ours - other).abs().max() > 1e-3, "the LoRA changes the prediction"


def test_lora_strength_and_companion(saved: Path, tmp_path: Path) -> None:
    source = diffusers.StableDiffusionPipeline.from_pretrained(saved)
    file = write_lora(source, tmp_path, False)
    off = open_prior(saved, CPU, Opening(loras=((file, 0.0),)))
    plain = open_prior(saved, CPU)
    z, t = torch.randn(1, *plain.latent_shape), torch.tensor([0.5])
    condition = Condition(plain.embed(["a red mug"]))
    off.embed([""])
    expected = plain.predict(z, t, condition).value
    torch.testing.assert_close(off.predict(z, t, condition).value, expected)
    # Merged: a companion's own updates do not meet it.
    torch.testing.assert_close(off.companion(2, 0).output(z, t, condition).value.detach(), expected)


def original_lora(file: Path, alpha: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    """A LoRA of one layer under the names of the first trainers, with its `alpha` or without; returns up and down."""
    torch.manual_seed(4)
    up, down = torch.randn(16, 2), torch.randn(2, HIDDEN)
    layer = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {f"{layer}.lora_up.weight": up, f"{layer}.lora_down.weight": down}
    extra = {} if alpha is None else {f"{layer}.alpha": torch.tensor(alpha)}
    save_file({**tensors, **extra}, file)
    return up, down


@pytest.mark.parametrize("alpha", [None, 0.5, 4.0])
def test_a_lora_is_as_strong_as_its_alpha_says(alpha: float | None, tmp_path: Path) -> None:
    """W + scale alpha / rank up down, in closed form; without an alpha it is the rank."""
    file = tmp_path / "x.safetensors"
    up, down = original_lora(file, alpha)
    network = tiny_pipeline(SD).unet
    weight = network.down_blocks[1].attentions[0].transformer_blocks[0].attn2.to_k.weight
    before = weight.clone()
    merge_lora(network, ROWS[SD], file, 0.6)
    after = network.down_blocks[1].attentions[0].transformer_blocks[0].attn2.to_k.weight
    expected = before + 0.6 * (2.0 if alpha is None else alpha) / 2.0 * up @ down
    torch.testing.assert_close(after, expected)


def test_the_text_part_of_a_lora_goes_to_the_text_encoders(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its strength, before the words are embedded; what concerns the network alone goes to none."""
    given: list[Any] = []

    def load(cls: Any, state: Any, **told: Any) -> None:
        given.append((sorted(state), told["prefix"], told["lora_scale"], told["text_encoder"]))

    monkeypatch.setattr(
        diffusers.StableDiffusionPipeline, "load_lora_into_text_encoder", classmethod(load)
    )
    layer = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    both = {
        f"{layer}.lora_A.weight": torch.zeros(2, 32),
        f"{layer}.lora_B.weight": torch.zeros(32, 2),
    }
    save_file(both, tmp_path / "text.safetensors")
    original_lora(tmp_path / "network.safetensors", None)
    loras = ((tmp_path / "text.safetensors", 0.7), (tmp_path / "network.safetensors", 0.3))
    prior = open_prior(saved, CPU, Opening(loras=loras))
    assert not given
    prior.embed(["a red mug"])
    (only,) = given
    assert only[:3] == (sorted(both), "text_encoder", 0.7)
    assert isinstance(only[3], transformers.CLIPTextModel)


def test_what_no_prompt_of_a_run_needs_is_cut_off(saved: Path) -> None:
    """The longest prompt so far decides, whichever call brought it; what is cut has never counted."""

    class Stub:
        config: ClassVar[dict[str, Any]] = {}

        def encode_prompt(self, prompt: list[str], **_: Any) -> Any:
            return [torch.ones(len(words.split()), 4) for words in prompt], None

    text = TextEmbedder(ROWS["ZImagePipeline"], Stub, CPU, keep=True)
    lengths = []
    for prompts in (["a mug"], ["a", "a big red mug"], ["a"]):
        packed = text.embed(prompts)
        read = text.read(packed)
        assert read.mask is not None
        assert read.mask.sum(1).tolist() == [len(words.split()) for words in prompts]
        assert read.tokens.shape[1] == read.mask.shape[1]
        lengths.append(read.tokens.shape[1])
    assert lengths == [2, 4, 4]


@pytest.mark.parametrize("how", ["renamed", "shape", "pickle", "absent", "half", "another model"])
def test_lora_that_does_not_fit_is_refused(how: str, saved: Path, tmp_path: Path) -> None:
    source = diffusers.StableDiffusionPipeline.from_pretrained(saved)
    file = write_lora(source, tmp_path, False)
    tensors = load_file(file)
    first = next(key for key in tensors if "lora_A" in key)
    if how == "renamed":
        for key in [k for k in tensors if k.startswith(first.partition(".lora_A")[0] + ".")]:
            tensors[key.replace("attn1", "attn7").replace("attn2", "attn7")] = tensors.pop(key)
        save_file(tensors, file)
    elif how == "shape":
        tensors[first] = torch.zeros(2, 5)
        save_file(tensors, file)
    elif how == "pickle":
        file = file.rename(file.with_suffix(".bin"))
    elif how == "absent":
        file = tmp_path / "nowhere.safetensors"
    elif how == "half":
        file.write_bytes(file.read_bytes()[:-40])
    else:
        save_file({"transformer.x.lora_A.weight": torch.zeros(2, 4)}, file)
    with pytest.raises(ModelError):
        open_prior(saved, CPU, Opening(loras=((file, 1.0),)))


def test_lora_settings() -> None:
    with pytest.raises(ConfigError, match="2 numbers for 1 LoRAs"):
        DiffusersConfig(loras=["a.safetensors"], lora_scales=[1.0, 2.0])


def test_tiny_autoencoder_takes_the_codecs_place(saved: Path, tmp_path: Path) -> None:
    """TAESD's class: its latents are the network's own, unscaled, and it differs from the pipeline's codec."""
    torch.manual_seed(0)
    taesd = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        latent_channels=4,
    )
    taesd.save_pretrained(tmp_path / "taesd")
    prior = open_prior(saved, CPU, Opening(vae=tmp_path / "taesd"))
    images = torch.rand(2, 16, 16, 3)
    z = prior.encode(images)
    assert z.shape == (2, 4, 8, 8)
    expected = taesd.encode(images.permute(0, 3, 1, 2) * 2 - 1).latents
    torch.testing.assert_close(z, expected.detach(), atol=1e-5, rtol=1e-5)
    with pytest.raises(ModelError, match="holds no codec"):
        open_prior(saved, CPU, Opening(vae=tmp_path))
    with pytest.raises(ModelError, match=r"UNet2DConditionModel; prior\.vae takes"):
        open_prior(saved, CPU, Opening(vae=saved / "unet"))


def glb_extras(file: Path) -> dict[str, Any]:
    data = file.read_bytes()
    document = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    return document["asset"]["extras"]


def test_generate_with_a_role(saved: Path, tmp_path: Path) -> None:
    """The whole program on a tiny Stable Diffusion: text encoders come once, the record and every file name the
    models that were used, by id and commit, and no place on this machine."""
    from dream3d.config import load_config
    from dream3d.export.run import about_run, load_asset
    from dream3d.generation import generate_run
    from dream3d.priors.pipelines import hub, text

    cached = tmp_path / "models--owner--sd-turbo" / "snapshots" / "0123abc"
    shutil.copytree(saved, cached)
    file = write_lora(diffusers.StableDiffusionPipeline.from_pretrained(saved), tmp_path, False)
    opened = []
    embed = text.TextEmbedder.embed

    def counted(self: Any, prompts: list[str]) -> Any:
        opened.append(len(prompts))
        return embed(self, prompts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text.TextEmbedder, "embed", counted)
        patch.setattr(hub, "download", lambda repo_id, **_: str(cached))
        config = load_config(
            "gaussian",
            {
                "prior": {"name": "diffusers", "model": "draft", "loras": [str(file)]},
                "conditioning": "text",
                "steps": 3,
                "render_size": 16,
                # Few and small splats: the surface is found in less time.
                "scene.count": 20,
                "scene.init_scale": 0.5,
            },
            prompt="a red mug",
        )
        told_of: list[Any] = []
        result = generate_run(
            config, tmp_path / "run", on_event=lambda kind, data: told_of.append((kind, data))
        )
    assert result.status == "done"
    assert len(opened) == 1, "one call embeds all views' words"
    (warning,) = result.record["warnings"]
    assert told_of == [("warning", {"message": warning})]
    assert (
        "cfg_scale is 7.5" in warning and "'turbo'" in warning and "choose cfg_scale 1" in warning
    )
    model = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    main = {"model": model, "revision": "0123abc", "licence": "CreativeML OpenRAIL-M"}
    assert {name: result.record["prior"][name] for name in main} == main
    again = load_asset(tmp_path / "run").about.known()
    for told in (glb_extras(result.files["asset.glb"]), again):
        assert told["models"][0] == {"use": "model", **main} and told["revision"] == "0123abc"
        lora = told["models"][1]
        assert (lora["use"], lora["model"]) == ("lora", LORA) and lora["revision"][:7] == "sha256:"
        assert str(tmp_path) not in json.dumps(told)
    header = result.files["asset.ply"].read_bytes().partition(b"end_header\n")[0].decode("ascii")
    line = f"model: {model}, revision 0123abc, CreativeML OpenRAIL-M"
    assert f"comment {line}" in header.splitlines()
    assert line in Image.open(result.files["preview.png"]).info["Comment"].splitlines()
    # Without a record the role's preferred model is what can be said.
    assert about_run(config).known()["model"] == model
    named = load_config("gaussian", {"prior": {"name": "stable-diffusion"}}, prompt="a red mug")
    assert about_run(named).known()["license"] == "CreativeML OpenRAIL-M"


def test_layers_from_main_memory_change_nothing(saved: Path) -> None:
    """The hooks of `low_vram`, here with the CPU on both ends: the network's and the text encoders' answers stay."""
    from dream3d.priors.pipelines import opening

    def spared(low_vram: bool, device: torch.device) -> Any:
        return lambda module: opening.from_main_memory(module, device)

    plain = open_prior(saved, CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "placement", spared)
        prior = open_prior(saved, CPU, Opening(low_vram=True))
        tokens = prior.embed(["a red mug", ""])
    assert not prior.parts.text.loaded
    torch.testing.assert_close(tokens, plain.embed(["a red mug", ""]))
    z, t = torch.randn(2, *plain.latent_shape), torch.tensor([0.3, 0.6])
    torch.testing.assert_close(
        prior.predict(z, t, Condition(tokens)).value, plain.predict(z, t, Condition(tokens)).value
    )
    assert prior.parts.vae.use_slicing and prior.parts.vae.use_tiling and prior.chunk == 2


def test_low_vram_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--low-vram` reaches the prior's settings; a prior with nothing to spare refuses it."""
    from dream3d import generation
    from dream3d.cli.main import main
    from dream3d.config import config_to_yaml
    from dream3d.errors import Cancelled

    asked = []

    def noted(config: Any, *_: Any, **__: Any) -> None:
        asked.append(config)
        raise Cancelled("enough")

    words = ["generate", "a red mug", "--quiet", "--low-vram"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "generate_run", noted)
        main([*words, "prior=sdxl", "conditioning=text"])
    assert asked[0].prior.low_vram and "low_vram: true" in config_to_yaml(asked[0])
    capsys.readouterr()
    assert main(words) != 0
    assert "nothing that could be kept off the GPU" in capsys.readouterr().err
    assert main(["generate", "--low-vram", "--resume", str(tmp_path)]) != 0
    assert "--low-vram cannot be given" in capsys.readouterr().err
