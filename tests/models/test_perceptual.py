"""Learned metrics, with tiny random networks of the same classes and stand-ins for packages; their errors."""

import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import make_photo
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel

from realfill.benchmark.metrics import METRICS
from realfill.errors import BaseModelError, MissingDependencyError
from realfill.models import perceptual
from realfill.models.perceptual import load_metric
from realfill.models.quiet import quiet

TRUTH, OTHER = make_photo(48, 64), make_photo(48, 64, 1)
HOLE = np.zeros((48, 64), bool)
HOLE[10:30, 20:50] = True
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def tiny_dino(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny-dino")
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        config = ViTConfig(**SMALL, image_size=32, patch_size=8)
        ViTModel(config, add_pooling_layer=False).save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    """A complete CLIP model with its text part, as on the hub."""
    directory = tmp_path_factory.mktemp("tiny-clip")
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        vision = {**SMALL, "image_size": 32, "patch_size": 8, "projection_dim": 16}
        text = {**SMALL, "vocab_size": 64, "max_position_embeddings": 16, "projection_dim": 16}
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
        CLIPModel(config).save_pretrained(directory)
    return str(directory)


@pytest.fixture(params=["dino", "clip"])
def tiny(request, monkeypatch):
    """The name of a metric, and the tiny repository that it loads."""
    directory = request.getfixturevalue(f"tiny_{request.param}")
    monkeypatch.setattr(perceptual, f"_{request.param.upper()}", directory)
    return request.param, directory


def squeeze(image, mean, deviation):
    """Prepare an image for the networks with PIL and numpy alone."""
    small = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC)) / 255
    return torch.from_numpy(((small - mean) / deviation).transpose(2, 0, 1)[None]).float()


def test_the_repositories_are_the_documented_ones():
    assert perceptual._DINO == "facebook/dino-vits16"
    assert perceptual._CLIP == "openai/clip-vit-base-patch32"


def test_whole_image_similarity_is_1_for_equal_images_and_less_for_others(tiny):
    measure = load_metric(tiny[0], "cpu")
    assert measure(TRUTH, TRUTH, HOLE) == pytest.approx(1, abs=1e-6)
    assert -1 <= measure(OTHER, TRUTH, HOLE) < 1 - 1e-4
    assert measure(OTHER, TRUTH, HOLE) == pytest.approx(measure(TRUTH, OTHER, HOLE), abs=1e-6)
    assert measure(OTHER, TRUTH, HOLE) == measure(OTHER, TRUTH, ~HOLE)


def test_dino_is_the_cosine_of_class_tokens(tiny_dino, monkeypatch):
    monkeypatch.setattr(perceptual, "_DINO", tiny_dino)
    with quiet(), torch.no_grad():
        model = ViTModel.from_pretrained(tiny_dino, add_pooling_layer=False).eval()
        a, b = (
            model(squeeze(i, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])).last_hidden_state[0, 0]
            for i in (OTHER, TRUTH)
        )
    expected = float(F.cosine_similarity(a, b, dim=0))
    assert load_metric("dino", "cpu")(OTHER, TRUTH, HOLE) == pytest.approx(expected, abs=1e-5)


def test_clip_is_the_cosine_of_projected_embeddings(tiny_clip, monkeypatch):
    monkeypatch.setattr(perceptual, "_CLIP", tiny_clip)
    mean, deviation = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    with quiet(), torch.no_grad():
        model = CLIPModel.from_pretrained(tiny_clip).eval()
        a, b = (
            model.visual_projection(model.vision_model(pixel_values=squeeze(i, mean, deviation)).pooler_output)[0]
            for i in (OTHER, TRUTH)
        )
    expected = float(F.cosine_similarity(a, b, dim=0))
    assert load_metric("clip", "cpu")(OTHER, TRUTH, HOLE) == pytest.approx(expected, abs=1e-5)


def test_loading_is_silent_and_does_not_change_the_random_state(tiny, capfd, caplog):
    before = torch.random.get_rng_state()
    load_metric(tiny[0], "cpu")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert "MISSING" not in capfd.readouterr().err + caplog.text


@pytest.mark.parametrize("cached", [True, False])
def test_the_network_is_used_only_for_weights_that_are_not_on_this_machine(cached, tiny_dino, monkeypatch):
    asked, original = [], ViTModel.from_pretrained

    def from_pretrained(repository, *, local_files_only=False, **options):
        asked.append((repository, local_files_only))
        if local_files_only and not cached:
            raise OSError("not in the cache")
        return original(tiny_dino, **options)

    monkeypatch.setattr(ViTModel, "from_pretrained", from_pretrained)
    load_metric("dino", "cpu")
    assert asked == [("facebook/dino-vits16", True), ("facebook/dino-vits16", False)][: 1 if cached else 2]


def test_the_error_for_unavailable_weights_says_what_to_do(tiny, tmp_path, monkeypatch):
    name = tiny[0]
    monkeypatch.setattr(perceptual, f"_{name.upper()}", str(tmp_path / "nowhere"))
    with pytest.raises(BaseModelError, match=rf"(?s)metric '{name}' \(.*nowhere.*Connect once .* leave the metric out"):
        load_metric(name, "cpu")


def test_incomplete_weights_are_refused(tiny, tmp_path, monkeypatch):
    name, directory = tiny
    with quiet():
        (CLIPModel if name == "clip" else ViTModel).from_pretrained(
            directory, **({} if name == "clip" else {"add_pooling_layer": False})
        ).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    key = next(k for k in weights if "position_embedding" in k and "text" not in k)
    del weights[key]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr(perceptual, f"_{name.upper()}", str(tmp_path))
    with pytest.raises(BaseModelError, match=rf"metric '{name}' .* are incomplete, because .*position_embedding"):
        load_metric(name, "cpu")


class StandInLPIPS(torch.nn.Module):
    """STAND-IN for lpips.LPIPS, whose package needs torchvision; it has the same arguments, shapes and ranges."""

    def __init__(self, **options):
        super().__init__()
        print("Setting up")
        assert options == {"net": "vgg", "version": "0.1", "spatial": True, "verbose": False}
        self.scale = torch.nn.Parameter(torch.ones(1) + 0 * torch.rand(1))

    def forward(self, in0, in1, normalize=False):
        assert normalize and not self.training
        for tensor in (in0, in1):
            assert tensor.dtype == torch.float32 and tensor.min() >= 0 and 0.5 < tensor.max() <= 1
        return self.scale * (in0 - in1).abs().mean(dim=1, keepdim=True)


def stand_in_dreamsim(asked):
    """STAND-IN for dreamsim.dreamsim; it records its arguments and has the same shapes."""

    def dreamsim(*, pretrained, device, cache_dir):
        print("Using cached")
        asked.update(pretrained=pretrained, device=device, cache_dir=cache_dir)

        def prepare(image):
            assert isinstance(image, Image.Image) and image.size == (64, 48) and image.mode == "RGB"
            return torch.from_numpy(np.asarray(image.resize((8, 8))) / 255).permute(2, 0, 1)[None]

        return (lambda a, b: 1 - F.cosine_similarity(a.flatten(1), b.flatten(1))), prepare

    return dreamsim


def install(monkeypatch, name, **members):
    module = types.ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


def test_lpips_is_the_mean_of_its_map_over_the_hole(monkeypatch, capsys):
    install(monkeypatch, "lpips", LPIPS=StandInLPIPS)
    before = torch.random.get_rng_state()
    measure = load_metric("lpips", "cpu")
    assert torch.equal(torch.random.get_rng_state(), before)
    expected = np.abs(OTHER.astype(float) - TRUTH)[HOLE].mean() / 255
    assert measure(OTHER, TRUTH, HOLE) == pytest.approx(expected, abs=1e-6)
    assert measure(np.where(HOLE[:, :, None], TRUTH, OTHER), TRUTH, HOLE) == 0
    assert capsys.readouterr().out == ""


def test_dreamsim_is_the_distance_of_the_package(monkeypatch, tmp_path, capsys):
    asked = {}
    install(monkeypatch, "dreamsim", dreamsim=stand_in_dreamsim(asked))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    measure = load_metric("dreamsim", torch.device("cpu"))
    assert asked == {"pretrained": True, "device": "cpu", "cache_dir": str(tmp_path / "hub" / "dreamsim")}
    assert (tmp_path / "hub").is_dir()  # the package itself creates only the last folder
    assert measure(TRUTH, TRUTH, HOLE) == pytest.approx(0, abs=1e-6)
    assert measure(OTHER, TRUTH, HOLE) > 1e-3
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["lpips", "dreamsim"])
def test_the_error_for_a_missing_package_says_how_to_install_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=rf"metric '{name}' .*pip install {name}") as caught:
        load_metric(name, "cpu")
    assert isinstance(caught.value, ImportError)


@pytest.mark.parametrize("name", ["lpips", "dreamsim"])
def test_a_package_that_fails_to_import_counts_as_missing(name, monkeypatch, tmp_path):
    (tmp_path / f"{name}.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(
        MissingDependencyError, match=r"RuntimeError: operator torchvision::nms .* a torchvision that matches"
    ):
        load_metric(name, "cpu")


@pytest.mark.parametrize("name", ["lpips", "dreamsim"])
def test_the_error_for_unavailable_weights_of_a_package_says_what_to_do(name, monkeypatch, tmp_path):
    def offline(**_):
        raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>\nand more")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    install(monkeypatch, name, LPIPS=offline, dreamsim=offline)
    with pytest.raises(BaseModelError, match=rf"metric '{name}' .*OSError: <urlopen error .*\)\. Connect once"):
        load_metric(name, "cpu")


def test_the_error_for_an_unknown_metric_lists_the_legal_ones():
    with pytest.raises(ValueError, match="'fid'; legal: lpips, dreamsim, dino, clip"):
        load_metric("fid", "cpu")


def test_every_metric_that_needs_weights_can_be_loaded(monkeypatch):
    learned = [n for n, m in METRICS.items() if m.needs_weights]
    for name in learned:
        monkeypatch.setattr(perceptual, f"load_{name}", lambda device, name=name: (name, device))
        assert load_metric(name, "cpu") == (name, torch.device("cpu"))
