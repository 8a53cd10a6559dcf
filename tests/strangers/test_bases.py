"""A base model from a stranger runs no code, is read from safetensors alone, and is no larger than its files."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from realfill.errors import BaseModelError
from realfill.models.diffusion.card import Card
from realfill.models.diffusion.families import load_family
from realfill.models.diffusion.hub import origin, revision


@pytest.fixture
def base(tiny_sd, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_sd, tmp_path / "base"))


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refusal(base) -> str:
    with pytest.raises(BaseModelError) as caught:
        load_family(str(base), local_files_only=True)
    return str(caught.value)


@pytest.mark.parametrize(
    ("file", "values", "reason"),
    [
        ("model_index.json", {"_class_name": ["evil", "Pipeline"]}, "_class_name is ['evil', 'Pipeline']; legal"),
        ("model_index.json", {"_class_name": "DiffusionPipeline"}, "_class_name is 'DiffusionPipeline'; legal"),
        ("model_index.json", {"unet": ["evil", "Net"]}, "unet is ['evil', 'Net']; legal: a class of diffusers"),
        ("model_index.json", {"vae": ["diffusers", "UNet2DModel"]}, "the class of vae is 'UNet2DModel'; legal"),
        ("model_index.json", {"scheduler": ["diffusers", "logging"]}, "the class of scheduler is 'logging'"),
        ("model_index.json", {"extra": ["subprocess", "Popen"]}, "extra is ['subprocess', 'Popen']; legal"),
        ("model_index.json", {"custom_pipeline": "someone/pipeline"}, "it has 'custom_pipeline'"),
        ("unet/config.json", {"_class_name": "Net"}, "the class of unet is 'Net'"),
        ("unet/config.json", {"auto_map": {"AutoModel": "evil.Net"}}, "unet/config.json: it has 'auto_map'"),
        ("text_encoder/config.json", {"attn_implementation": "someone/kernel"}, "attn_implementation is 'someone/"),
        ("text_encoder/config.json", {"quantization_config": {"a": 1}}, "it has 'quantization_config'"),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}, "it has 'auto_map'"),
        ("text_encoder/config.json", {"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000; legal: up to 512"),
        ("text_encoder/config.json", {"max_position_embeddings": 2**31}, "max_position_embeddings is 2147483648"),
        ("unet/config.json", {"block_out_channels": [2**31] * 2}, "block_out_channels is 2147483648; legal"),
    ],
)
def test_what_a_base_may_not_say(base, file, values, reason):
    change(base / file, **values)
    assert reason in refusal(base)


def test_code_beside_the_weights_is_not_run(base, tmp_path):
    for folder in (base, base / "unet"):
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Net: pass\n")
    change(base / "model_index.json", unet=["evil", "Net"])
    refusal(base)
    assert not (tmp_path / "ran").exists()
    assert "evil" not in sys.modules


def test_a_pickle_is_not_read(base, tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    for weights in base.glob("*/*.safetensors"):
        torch.save({"weights": Attack()}, weights.with_suffix(".bin"))
        weights.unlink()
    text = refusal(base)
    assert not (tmp_path / "ran").exists()
    assert "the weights of unet" in text and "safetensors only" in text


def test_a_pickle_beside_the_weights_has_no_influence(base, tmp_path):
    for weights in base.glob("*/*.safetensors"):
        weights.with_suffix(".bin").write_bytes(b"\x80\x04cos\nsystem\n.")
    assert load_family(str(base), local_files_only=True).fingerprint


def test_an_index_of_weights_reads_no_file_outside(base):
    index = {"metadata": {}, "weight_map": {"conv_in.weight": "../../secret.safetensors"}}
    (base / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert "weight_map names other files than those in its folder" in refusal(base)


@pytest.mark.parametrize(
    "values",
    [
        {"sample": {"base": "someone/model"}}, {"fit": {"base": "someone/model"}}, {"resolution": "x"},
        {"resolution": 0}, {"masked_image": "purple"}, {"about": 1}, {"fit": [1]}, {"sample": {"a": 1}},
        {"fit": {"learning_rate": 10**400}},
    ],
)  # fmt: skip
def test_what_a_card_may_not_say(tmp_path, values):
    (tmp_path / "card.json").write_text(json.dumps(values))
    with pytest.raises(BaseModelError, match=r"card\.json' is damaged or from another version"):
        Card.load(tmp_path)


def test_the_revision_and_hashes_of_a_download_are_known(base, tmp_path, monkeypatch):
    snapshot = tmp_path / "models--someone--model" / "snapshots" / "0123abc"
    shutil.copytree(base, snapshot)
    found = origin(str(snapshot))
    assert (found["repository"], found["revision"]) == ("someone/model", "0123abc")
    assert len(found["files"]["unet/diffusion_pytorch_model.safetensors"]) == 64
    assert revision(str(snapshot)) == "0123abc"
    assert (origin(str(base)), revision(str(base)), origin("someone/absent")) == ({}, None, {})
