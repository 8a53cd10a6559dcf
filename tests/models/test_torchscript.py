"""LaMa and MI-GAN from TorchScript files: stand-ins of their signatures, and every way in which a file is wrong."""

import hashlib
import warnings
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from realfill.errors import BaseModelError
from realfill.models.feedforward import torchscript
from realfill.models.feedforward.torchscript import load_scripted

CPU = torch.device("cpu")


class LamaLike(torch.nn.Module):
    """Fills the hole with the mean of the known pixels; needs sides that are multiples of 8."""

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert image.shape[2] % 8 == 0 and image.shape[3] % 8 == 0
        known = 1 - mask
        mean = (image * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True)
        return image * known + mean * mask


class MiganLike(torch.nn.Module):
    """Fills the hole with white and returns the rest as it is, in [-1, 1]; needs 512 x 512 pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1:] == torch.Size([4, 512, 512])
        mask = 0.5 - x[:, :1]
        return x[:, 1:] * (1 - mask) + mask


class CountsTo255(torch.nn.Module):
    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return image * 255


class Halves(torch.nn.Module):
    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return image[:, :, ::2]


class Two(torch.nn.Module):
    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return image, mask


def save_script(module, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    kinds = {"lama": LamaLike, "migan": MiganLike, "255": CountsTo255, "halves": Halves, "two": Two}
    return {name: save_script(kind(), folder / f"{name}.pt") for name, kind in kinds.items()}


def draw(height, width):
    image, hole = torch.full((1, 3, height, width), 0.25), torch.zeros(1, 1, height, width) > 0
    image[..., : width // 2] = 0.75
    hole[..., height // 4 : height // 2, width // 4 : width // 2] = True
    return image, hole


@pytest.mark.parametrize("size", [(64, 64), (101, 77), (20, 30), (3, 5)])
def test_lama_is_called_with_rgb_and_a_mask_at_multiples_of_eight(files, size):
    network = load_scripted("lama", files["lama"], device=CPU, trust=True)
    image, hole = draw(*size)
    prediction = network.predict(image, hole)
    assert prediction.shape == image.shape
    assert torch.equal(prediction[~hole.expand_as(image)], image[~hole.expand_as(image)])
    if hole.any():
        assert ((prediction > 0.25) & (prediction < 0.75))[hole.expand_as(image)].all()
        assert torch.equal(prediction, network.predict(image.masked_fill(hole, 1), hole))


@pytest.mark.parametrize("size", [(64, 64), (512, 512), (40, 700)])
def test_migan_is_called_with_mask_and_image_at_512_pixels_and_larger_images_are_shrunk(files, size):
    network = load_scripted("migan", files["migan"], device=CPU, trust=True)
    image, hole = draw(*size)
    prediction = network.predict(image, hole)
    assert prediction.shape == image.shape
    assert prediction[hole.expand_as(image)].min() > (0.99 if max(size) <= 512 else 0.9)
    far = prediction[..., -5:, -5:]
    assert (far - 0.25).abs().max() < 1e-5


def test_only_a_file_of_known_hash_is_loaded_unless_the_caller_trusts_it(files, monkeypatch):
    loads = []
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: loads.append(a) or LamaLike())
    with pytest.raises(BaseModelError, match=r"has the MD5 \w{32}, and the published file has e3aa4aaa.*trust_weights"):
        load_scripted("lama", files["lama"], device=CPU)
    assert not loads, "the file was loaded before its hash was compared"
    load_scripted("lama", files["lama"], device=CPU, trust=True)
    md5 = hashlib.md5(files["lama"].read_bytes()).hexdigest()
    monkeypatch.setattr(torchscript, "RELEASES", {"lama": replace(torchscript.RELEASES["lama"], md5=md5)})
    load_scripted("lama", files["lama"], device=CPU)
    assert len(loads) == 2


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("lama", "migan", "not of 'lama', because the call fails"),
        ("migan", "lama", "not of 'migan', because the call fails"),
        ("lama", "255", "values range from .* instead of 0 to 1"),
        ("lama", "halves", r"it returns torch.Size\(\[1, 3, 32, 64\]\)"),
        ("lama", "two", "it returns tuple"),
    ],
)
def test_a_file_of_another_signature_is_refused_when_it_is_loaded(files, name, kind, words):
    with pytest.raises(BaseModelError, match=words):
        load_scripted(name, files[kind], device=CPU, trust=True)


def test_a_file_that_is_missing_or_no_torchscript_is_refused(tmp_path):
    with pytest.raises(BaseModelError, match="there is no file"):
        load_scripted("lama", tmp_path / "missing.pt", device=CPU)
    (tmp_path / "photo.pt").write_bytes(b"a photo")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "checkpoint.pt")
    for name in ("photo.pt", "checkpoint.pt"):
        with pytest.raises(BaseModelError, match="is no TorchScript file"):
            load_scripted("lama", tmp_path / name, device=CPU, trust=True)


@pytest.fixture
def hub(tmp_path, files, monkeypatch):
    """A download that copies the stand-in of LaMa, whose hash is the published one; returns the requests."""
    requests = []
    md5 = hashlib.md5(files["lama"].read_bytes()).hexdigest()

    def download(url, path, progress):
        requests.append(url)
        if "unreachable" in url:
            raise URLError("no network")
        Path(path).write_bytes(b"a changed file" if "changed" in url else files["lama"].read_bytes())

    release = replace(torchscript.RELEASES["lama"], md5=md5, megabytes=0)
    monkeypatch.setattr(torchscript, "RELEASES", {"lama": release})
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return requests


def offer(monkeypatch, *urls):
    release = torchscript.RELEASES["lama"]
    monkeypatch.setattr(torchscript, "RELEASES", {"lama": replace(release, urls=urls)})


def test_a_file_is_downloaded_once_from_the_first_source_with_the_right_hash(hub, tmp_path, monkeypatch):
    urls = ("https://unreachable/a.pt", "https://changed/a.pt", "https://good/a.pt")
    offer(monkeypatch, *urls)
    load_scripted("lama", device=CPU)
    load_scripted("lama", device=CPU, local_files_only=True)
    assert hub == list(urls)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["big-lama.pt"]


def test_a_failed_download_names_the_reasons_and_leaves_no_file(hub, tmp_path, monkeypatch):
    offer(monkeypatch, "https://unreachable/a.pt", "https://changed/a.pt")
    with pytest.raises(BaseModelError, match=r"no network.*has the MD5 .* instead of"):
        load_scripted("lama", device=CPU)
    assert list((tmp_path / "checkpoints").iterdir()) == []
    with pytest.raises(BaseModelError, match="not on this machine, and offline"):
        load_scripted("lama", device=CPU, local_files_only=True)
    assert len(hub) == 2


def test_the_published_files_are_those_that_other_programs_use():
    lama, migan = torchscript.RELEASES["lama"], torchscript.RELEASES["migan"]
    assert (lama.file_name, lama.md5) == ("big-lama.pt", "e3aa4aaa15225a33ec84f9f4bc47e500")
    assert all(url.startswith("https://") and url.endswith(r.file_name) for r in (lama, migan) for url in r.urls)
