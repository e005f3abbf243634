"""The list of models, the hub's answers, and refusals that say what to do; no network anywhere."""

import json
import re
import shutil
import struct
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import httpx
import pytest
import torch
from huggingface_hub import errors
from huggingface_hub.utils import filter_repo_objects
from PIL import Image
from safetensors.torch import save_file
from tiny_pipelines import BUILDERS, save_tiny

from dream3d.cli.main import main
from dream3d.compatibility import doubts
from dream3d.config import load_config
from dream3d.errors import ConfigError, ModelError
from dream3d.origin import ModelOrigin
from dream3d.priors import model_list
from dream3d.priors.model_list import check_model, find_model, roles
from dream3d.priors.pipelines import hub
from dream3d.priors.pipelines.codec import LatentCodec
from dream3d.priors.pipelines.distilled import cfg_trouble
from dream3d.priors.pipelines.hub import model_directory
from dream3d.priors.pipelines.opening import Opening, open_prior, weight_dtype
from dream3d.priors.pipelines.parts import pipeline_row
from dream3d.priors.pipelines.provenance import UNKNOWN, origin_of
from dream3d.priors.pipelines.table import READ_ELSEWHERE, ROWS
from dream3d.priors.pretrained import DiffusersConfig
from dream3d.priors.view_models import MVDreamConfig, Zero123Config

CPU = torch.device("cpu")
SD = "StableDiffusionPipeline"


def answer(status: int) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/x/y"))


FAILURES = {
    "gated": errors.GatedRepoError("gated", response=answer(403)),
    "missing": errors.RepositoryNotFoundError("missing", response=answer(404)),
    "no network": OSError("no route to host"),
    "error": errors.HfHubHTTPError("busy", response=answer(503)),
}


def raising(error: Exception) -> Any:
    def ask(*_: Any, **__: Any) -> Any:
        raise error

    return ask


def test_every_listed_model_has_a_row_and_every_row_a_tiny_twin() -> None:
    for entry in model_list.model_list():
        assert entry.pipeline in (*ROWS, *READ_ELSEWHERE), entry.id
        assert entry.memory > 0.0 and entry.licence
        assert entry.kind != "controlnet" or ROWS[entry.pipeline].control
        assert entry.kind != "ip-adapter" or ROWS[entry.pipeline].adapters
    whole = [entry for entry in model_list.model_list() if entry.kind == "pipeline"]
    assert {entry.pipeline for entry in whole} == {*ROWS, *READ_ELSEWHERE}
    assert set(BUILDERS) == set(ROWS)
    assert all(names for names in roles().values())


@pytest.mark.parametrize("access", FAILURES)
def test_check_says_what_the_hub_says(access: str) -> None:
    state = check_model("stabilityai/stable-diffusion-xl-base-1.0", raising(FAILURES[access]))
    assert state.access == access and state.fix


def test_check_reports_revision_and_licence() -> None:
    info = SimpleNamespace(sha="abc", gated=False, card_data={"license": "apache-2.0"})
    state = check_model("a/b", lambda name: info)
    assert (state.access, state.revision, state.licence, state.fix) == (
        "open",
        "abc",
        "apache-2.0",
        "",
    )


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ("gated", "accept its licence"),
        ("missing", "does not exist"),
        ("no network", "check the network"),
        ("error", "try again later"),
    ],
)
def test_a_failed_download_says_what_to_do(failure: str, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        model_directory("a/b", fetch=raising(FAILURES[failure]), alternatives=("c/d",))
    assert "c/d" in str(caught.value), "others are named, and not taken"
    assert "prior.model=" in str(caught.value)


def test_names_nearly_right_are_asked_about() -> None:
    with pytest.raises(ModelError, match=r"prior\.model is 'sdxll'.* Did you mean sdxl\?"):
        model_directory("sdxll")
    gone = raising(FAILURES["missing"])
    with pytest.raises(ModelError, match="Did you mean stabilityai/stable-diffusion-xl-base"):
        model_directory("stabilityai/stable-difusion-xl-base-1.0", fetch=gone)
    with pytest.raises(ModelError, match=r"prior\.vae=/path"):
        model_directory("a/b", fetch=gone, setting="prior.vae")


def test_a_hub_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first question has a time limit, and after it only what is on this machine is looked at."""
    asked: list[Any] = []

    def info(name: str, revision: str | None, timeout: float) -> Any:
        asked.append(timeout)
        raise httpx.ReadTimeout("timed out")

    def fetch(name: str, local_files_only: bool = False, **options: Any) -> str:
        asked.append(local_files_only)
        raise errors.LocalEntryNotFoundError("not here")

    monkeypatch.setattr("huggingface_hub.model_info", info)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with pytest.raises(ModelError, match="the hub cannot be reached"):
        model_directory("a/b")
    assert 0.0 < asked[0] <= 30.0 and asked[1] is True


def test_a_busy_hub_is_not_called_unreachable() -> None:
    error = errors.LocalEntryNotFoundError("not here")
    error.__cause__ = FAILURES["error"]
    with pytest.raises(ModelError, match=r"busy.*try again later"):
        model_directory("a/b", fetch=raising(error))


def test_the_record_names_the_commit_in_the_hubs_cache(tmp_path: Path) -> None:
    cached = tmp_path / "snapshots" / "abc"
    for config in (MVDreamConfig(), Zero123Config()):
        origin = origin_of(config.model, cached)
        assert origin == ModelOrigin(config.model, "abc", config.license) and origin.licence
    inside = "h94/IP-Adapter/models/ip-adapter_sd15.safetensors"
    found = origin_of(inside, cached / "models" / "ip-adapter_sd15.safetensors", "ip-adapter")
    assert found == ModelOrigin(inside, "abc", "Apache-2.0", "ip-adapter")


@pytest.mark.parametrize(
    ("head", "licence"),
    [
        ("---\nlicense: mit\ntags:\n- license: no\n---\n# A codec", "mit"),
        (
            "---\nlicense: other\nlicense_name: 'stabilityai-ai-community'\n---",
            "stabilityai-ai-community",
        ),
        ("license: mit", UNKNOWN),
        ("---\ntags: x\n---\nlicense: mit", UNKNOWN),
    ],
)
def test_a_licence_is_read_from_the_models_card(head: str, licence: str, tmp_path: Path) -> None:
    cached = tmp_path / "snapshots" / "abc"
    cached.mkdir(parents=True)
    (cached / "README.md").write_text(head)
    assert origin_of("a/b", cached) == ModelOrigin("a/b", "abc", licence)
    assert origin_of("a/b", cached / "unet" / "x.safetensors").licence == licence


def test_a_local_file_is_told_apart_by_its_digest(tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    save_file({"a": torch.zeros(1)}, file, {"modelspec.license": "CC0"})
    one = origin_of(str(file), file, "lora")
    assert one.revision.startswith("sha256:") and one.licence == "CC0"
    save_file({"a": torch.ones(1)}, file)
    other = origin_of(str(file), file, "lora")
    assert other.revision != one.revision and other.licence == UNKNOWN


def test_offline_and_full_disk() -> None:
    offline = errors.LocalEntryNotFoundError("not here")
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
        model_directory("a/b", fetch=raising(offline))
    with pytest.raises(ModelError, match="HF_HOME"):
        model_directory("a/b", fetch=raising(OSError(28, "No space left on device")))


def test_no_code_and_no_pickles_are_fetched(tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def fetch(repo_id: str, **options: Any) -> str:
        asked.update(options)
        return str(tmp_path)

    assert model_directory("a/b", fetch=fetch) == tmp_path
    for bad in ("*.py", "*.bin", "*.ckpt"):
        assert bad not in asked["allow_patterns"]


@pytest.fixture
def hub_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Stands in for the hub: a directory as the repository owner/name; returns what was fetched."""

    def serve(repository: Path) -> list[str]:
        names = [p.relative_to(repository).as_posix() for p in repository.rglob("*") if p.is_file()]
        fetched: list[str] = []

        def info(*_: Any, **__: Any) -> Any:
            return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])

        def fetch(_: str, allow_patterns: Any, ignore_patterns: Any, **__: Any) -> str:
            fetched.extend(
                filter_repo_objects(
                    names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
                )
            )
            for name in fetched:
                (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(repository / name, tmp_path / "here" / name)
            return str(tmp_path / "here")

        monkeypatch.setattr("huggingface_hub.model_info", info)
        monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
        return fetched

    return serve


def test_a_repository_with_fp16_alone_is_read(saved: Path, hub_with: Any) -> None:
    """Of a folder with both precisions only the plain weights are fetched."""
    plain = saved / "unet" / "diffusion_pytorch_model.safetensors"
    for folder in ("unet", "vae", "text_encoder"):
        file = weights(saved / folder)
        file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
    (saved / "unet" / "diffusion_pytorch_model.non_ema.safetensors").write_bytes(b"unread")
    fetched = hub_with(saved)
    prior: Any = DiffusersConfig(model="owner/name").load(CPU)
    assert prior.embed(["a red mug"]).isfinite().all() and prior.dtype == torch.float32
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in fetched
    shutil.copy(saved / "unet" / "diffusion_pytorch_model.fp16.safetensors", plain)
    fetched = hub_with(saved)
    model_directory("owner/name")
    assert [name for name in fetched if name.startswith("unet/") and "config" not in name] == [
        "unet/diffusion_pytorch_model.safetensors"
    ]
    assert "vae/diffusion_pytorch_model.fp16.safetensors" in fetched


@pytest.mark.parametrize(
    ("files", "whole", "words"),
    [
        (
            ["model_index.json", "unet/a.safetensors", "vae/a.bin"],
            False,
            r"only: vae/a\.bin\. To read",
        ),
        (["unet/a.bin", "vae/a.bin", "text_encoder/a.bin"], False, r"a\.bin and 1 more\."),
        (["v1-5-pruned.ckpt"], False, r"only: v1-5-pruned\.ckpt"),
        (["config.json", "a.bin"], True, r"only: a\.bin"),
        (["model_index.json", "v1.ckpt", "unet/a.safetensors", "safety_checker/a.bin"], False, ""),
        (["config.json", "a.safetensors", "old/a.bin"], True, ""),
        # As Stable Diffusion XL's own: beside the parts, the same for other programs.
        (
            ["model_index.json", "unet/a.safetensors", "unet/openvino_model.bin", "vae_x/a.bin"],
            False,
            "",
        ),
        (["model_index.json", "unet/a.safetensors", "vae_decoder/openvino_model.bin"], False, ""),
    ],
)
def test_a_repository_with_pickles_says_so(
    files: list[str], whole: bool, words: str, tmp_path: Path, hub_with: Any
) -> None:
    for name in files:
        (tmp_path / "there" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "there" / name).write_bytes(b"x")
    fetched = hub_with(tmp_path / "there")
    if not words:
        model_directory("owner/name", whole=whole)
        assert not [name for name in fetched if name.endswith((".bin", ".ckpt"))]
        return
    with pytest.raises(ModelError, match=words) as caught:
        model_directory("owner/name", whole=whole)
    assert "run code" in str(caught.value) and "save_pretrained" in str(caught.value)
    assert not fetched


def test_what_is_fetched_of_a_model(tmp_path: Path) -> None:
    """A pipeline's folders, or a part's own weights at the top; its revision; no second copy in 16 bits."""
    asked: dict[str, Any] = {}

    def fetch(repo_id: str, **options: Any) -> str:
        asked.update(options)
        return str(tmp_path)

    def comes(file: str) -> bool:
        wanted, unwanted = asked["allow_patterns"], asked["ignore_patterns"]
        return any(map(partial(fnmatch, file), wanted)) and not any(
            map(partial(fnmatch, file), unwanted)
        )

    model_directory("a/b", "main~3", fetch=fetch)
    assert asked["revision"] == "main~3"
    assert comes("unet/model.safetensors") and comes("unet/config.json")
    assert not comes("model.safetensors") and not comes("unet/model.fp16.safetensors")
    model_directory("a/vae", whole=True, fetch=fetch)
    assert comes("model.safetensors") and not comes("model.fp16.safetensors")
    model_directory("a/b", weights=False, fetch=fetch)
    assert comes("README.md") and comes("unet/config.json") and not comes("unet/model.safetensors")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loras": ["nowhere.safetensors"]}, r"no LoRA file nowhere\.safetensors; prior\.loras"),
        ({"loras": ["{half}"]}, r"half\.safetensors is not a whole safetensors file"),
        ({"loras": ["{picture}"]}, r"\(prior\.loras\) is not a \.safetensors file"),
        ({"controlnet": "/nowhere"}, r"prior\.controlnet: there is no directory /nowhere"),
        (
            {"controlnet": "controlnet-dept"},
            r"prior\.controlnet is .* Did you mean controlnet-depth",
        ),
        ({"controlnet": "a b/c"}, r"prior\.controlnet is 'a b/c'; give a directory, an id"),
        ({"vae": "owner/name/vae"}, r"prior\.vae is 'owner/name/vae'"),
        ({"ip_adapter": "{half}", "image_prompt": "{picture}"}, r"is not a whole safetensors file"),
        ({"ip_adapter": "a/b", "image_prompt": "{picture}"}, r"prior\.ip_adapter is 'a/b'"),
        ({"ip_adapter": "ip-adapter", "image_prompt": "{half}"}, r"prior\.image_prompt\) is not"),
        (
            {"controlnet": "controlnet-depth", "control_image": "no.png"},
            r"no\.png; check prior\.con",
        ),
    ],
)
def test_what_goes_beside_is_looked_at_before_the_model_is_fetched(
    settings: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    def fetch(repo_id: str, **_: Any) -> str:
        fetched.append(repo_id)
        raise OSError("stop")

    monkeypatch.setattr(hub, "download", fetch)
    places = {"half": tmp_path / "half.safetensors", "picture": tmp_path / "seen.png"}
    places["half"].write_bytes(b"\x99" * 20)
    Image.new("RGB", (4, 4)).save(places["picture"])
    given = {
        key: [one.format(**places) for one in value]
        if isinstance(value, list)
        else value.format(**places)
        for key, value in settings.items()
    }
    with pytest.raises(ModelError, match=words):
        DiffusersConfig(model="draft", **given).load(CPU)
    assert not fetched
    with pytest.raises(ModelError, match="check the network"):
        DiffusersConfig(model="draft").load(CPU)
    assert fetched == ["stable-diffusion-v1-5/stable-diffusion-v1-5"]


def test_strange_sources(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no directory"):
        model_directory(str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match="owner/name"):
        model_directory("justaname")
    with pytest.raises(ConfigError, match=r"prior\.model is missing"):
        DiffusersConfig().load(CPU)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_tiny(SD, tmp_path / "model")
    return tmp_path / "model"


def weights(folder: Path) -> Path:
    return next(folder.glob("*.safetensors"))


def damage(how: str, saved: Path) -> None:
    unet = weights(saved / "unet")
    if how == "half":
        unet.write_bytes(unet.read_bytes()[: unet.stat().st_size // 2])
    elif how == "pointer":
        unet.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    elif how == "pickle":
        unet.rename(unet.with_suffix(".bin"))
    elif how == "class":
        index = json.loads((saved / "model_index.json").read_text())
        index["_class_name"] = "WanPipeline"
        (saved / "model_index.json").write_text(json.dumps(index))
    elif how == "code":
        index = json.loads((saved / "model_index.json").read_text())
        index["unet"] = ["mine", "UNet"]
        (saved / "model_index.json").write_text(json.dumps(index))
    elif how == "index":
        (saved / "model_index.json").unlink()
    elif how == "missing":
        from safetensors.torch import load_file, save_file

        tensors = load_file(unet)
        tensors.pop("conv_in.bias")
        save_file(tensors, unet, {"format": "pt"})
    elif how in ("scheduler", "tokenizer"):
        shutil.rmtree(saved / how)
    elif how == "folder":
        for file in (saved / "vae").iterdir():
            file.unlink()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("half", "half-downloaded"),
        ("pointer", "Git LFS pointer"),
        ("pickle", "To read a pickle is to run code"),
        ("class", "WanPipeline, which is not supported"),
        ("code", "is not run"),
        ("index", "no model_index.json"),
        ("missing", r"1 missing keys \(conv_in.bias"),
        ("folder", "vae"),
        ("scheduler", "lacks its folder scheduler"),
        ("tokenizer", "lacks its folder tokenizer"),
    ],
)
def test_damage_is_named(how: str, words: str, saved: Path) -> None:
    damage(how, saved)
    with pytest.raises(ModelError, match=words):
        open_prior(saved, CPU).embed(["a red mug"])


def test_a_codec_of_another_kind_is_refused(saved: Path, tmp_path: Path) -> None:
    tiny = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    blocks = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    codec = diffusers.AutoencoderTiny(latent_channels=16, **tiny, **blocks)
    codec.save_pretrained(tmp_path / "codec")
    with pytest.raises(ModelError, match=r"16 channels .* takes 4: give prior\.vae"):
        open_prior(saved, CPU, Opening(vae=tmp_path / "codec"))
    with pytest.raises(ModelError, match="batch-norm statistics"):
        LatentCodec(codec, "batch-norm")


def test_text_encoders_are_as_strict(saved: Path) -> None:
    file = weights(saved / "text_encoder")
    file.write_bytes(file.read_bytes()[:-8])
    prior = open_prior(saved, CPU)
    with pytest.raises(ModelError, match="half-downloaded"):
        prior.embed(["a red mug"])


def test_resolution_must_fit_the_codec(saved: Path) -> None:
    with pytest.raises(ModelError, match="multiples of 2"):
        open_prior(saved, CPU, Opening(resolution=15))
    save_tiny("StableDiffusion3Pipeline", saved.parent / "sd3")
    with pytest.raises(ModelError, match="multiples of 4"):  # two latent cells a patch
        open_prior(saved.parent / "sd3", CPU, Opening(resolution=18))
    with pytest.raises(ConfigError, match="precision"):
        load_config(overrides=["prior=diffusers", "prior.precision=int4"], prompt="a red mug")


def test_precision_is_the_weights(saved: Path) -> None:
    prior = open_prior(saved, CPU, Opening(precision="bfloat16"))
    assert prior.dtype == torch.bfloat16
    images = torch.rand(1, 16, 16, 3)
    assert prior.encode(images).dtype == torch.float32


def test_on_a_gpu_weights_are_in_the_pipelines_own_precision(saved: Path) -> None:
    """A device without numbers stands in for one. A codec that overflows in float16 is kept out of it."""
    for row in ROWS.values():
        assert weight_dtype(row, "auto", torch.device("cuda")) == getattr(torch, row.dtype)
        assert weight_dtype(row, "auto", CPU) == torch.float32
    config = saved / "vae" / "config.json"

    def opened(upcast: bool, precision: str = "auto") -> tuple[torch.dtype, torch.dtype]:
        config.write_text(json.dumps({**json.loads(config.read_text()), "force_upcast": upcast}))
        how = Opening(compile="none", precision=precision)
        prior = open_prior(saved, torch.device("meta"), how)
        return prior.dtype, prior.codec.dtype

    assert opened(True) == (torch.float16, torch.float32)
    assert opened(False) == (torch.float16, torch.float16)
    assert opened(True, "bfloat16") == (torch.bfloat16, torch.bfloat16)


def test_config_takes_a_directory_or_a_role(saved: Path) -> None:
    config = load_config(overrides=["prior=diffusers", f"prior.model={saved}"], prompt="a red mug")
    prior = config.prior.load(CPU)
    assert prior.origins[0].model == str(saved)
    assert prior.latent_shape == (4, 8, 8)
    entry = find_model("draft")
    assert entry is not None and entry.id.startswith("stable-diffusion-v1-5/")
    assert find_model("nothing") is None


def test_models_list_and_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    told = capsys.readouterr().out
    assert all(told.count(f" {entry.address} ") == 1 for entry in model_list.model_list())
    assert told.index("mvdream-sd2.1") < told.index("prior=mvdream") < told.index("zero123-xl")
    assert main(["models", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert len(listed["models"]) == len(model_list.model_list())
    flux = next(one for one in listed["models"] if one["pipeline"] == "FluxPipeline")
    assert "cfg_scale 1" in flux["advice"]
    # Tests have no network: the command says so and fails.
    assert main(["models", "check", "draft", "--json"]) == 2
    states = json.loads(capsys.readouterr().out)["models"]
    assert [state["access"] for state in states] == ["no network"]
    assert main(["models", "check", "nonsense"]) == 2
    assert "neither a role" in capsys.readouterr().err


def test_safetensors_header_is_not_trusted(tmp_path: Path) -> None:
    from dream3d.priors.pipelines.parts import check_safetensors

    file = tmp_path / "x.safetensors"
    for content in (b"", struct.pack("<Q", 10**12), struct.pack("<Q", 4) + b"{}[]"):
        file.write_bytes(content)
        with pytest.raises(ModelError, match="not a whole safetensors file"):
            check_safetensors(file)


PLAIN: dict[str, Any] = {"index": {}, "network": {}, "scheduler": {}}


@pytest.mark.parametrize(
    ("pipeline", "part", "entry", "words"),
    [
        (SD, "scheduler", {"_class_name": "LCMScheduler"}, "few steps .*undistilled model such as"),
        (SD, "network", {"time_cond_proj_dim": 256}, "few steps"),
        (SD, "network", {"time_cond_proj_dim": None}, ""),
        ("FluxPipeline", "network", {"guidance_embeds": True}, r"prior\.guidance_embedding"),
        ("FluxPipeline", "network", {"guidance_embeds": False}, ""),
        ("Flux2KleinPipeline", "index", {"is_distilled": True}, "FLUX.2-klein-base-4B"),
        ("Flux2KleinPipeline", "index", {"is_distilled": False}, ""),
    ],
)
def test_distilled_models_give_themselves_away(
    pipeline: str, part: str, entry: dict[str, Any], words: str
) -> None:
    told = cfg_trouble(pipeline, ROWS[pipeline].distilled, {**PLAIN, part: entry}, Path("/a/model"))
    assert re.search(words, told) and bool(told) == bool(words)
    assert not told or "choose cfg_scale 1" in told


@pytest.mark.parametrize("name", ["sdxl-turbo", "Z-Image-Turbo", "FLUX.1-schnell", "x_lcm"])
def test_names_tell_of_few_steps(name: str) -> None:
    assert cfg_trouble(SD, (), PLAIN, Path(f"/a/{name}"))
    assert cfg_trouble(SD, (), PLAIN, Path(f"/hub/models--owner--{name}/snapshots/0a1b"))
    for whole in ("Z-Image-De-Turbo", "zimage_deturbo", "turbocharger", "sdxl-base"):
        assert not cfg_trouble(SD, (), PLAIN, Path(f"/turbo/{whole}"))


def test_scales_that_mean_nothing_are_doubted() -> None:
    prior: Any = SimpleNamespace(cfg_trouble="is distilled; choose cfg_scale 1")

    def told(**settings: Any) -> list[str]:
        return doubts(load_config(overrides={"prior": "gaussian", **settings}, prompt="x"), prior)

    scale = "guidance.cfg_scale"
    (found,) = told(**{scale: {"initial": 50, "final": 7.5}})
    assert found.startswith(
        "stages.0: guidance.cfg_scale is 50 to 7.5, but the model of prior 'gaus"
    )
    assert (
        not told(**{scale: 1}) and not told(**{scale: 0}) and not told(guidance="score-difference")
    )
    assert len(told(guidance={"name": "sum", "parts": ["sds", "classifier-score"]})) == 1
    prior.cfg_trouble = ""
    assert not told(**{scale: 50})


def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny("PRXPipeline", tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs ftfy: pip install 'dream3d\[models\]'"):
        pipeline_row(tmp_path)
