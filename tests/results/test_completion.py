"""A completion in the file format of its target: exact outside the hole; and parts that are redone."""

import zipfile
from dataclasses import replace
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest
from helpers import make_photo, make_profile
from PIL import Image

from realfill import Completion, Completions, Scene
from realfill.errors import OutputError, RealFillWarning, SceneError
from realfill.io.images import read_image, read_photo
from realfill.io.metadata import read_provenance
from realfill.results.evidence import CORRECTED, INVENTED, PHOTOGRAPHED, Evidence
from realfill.results.pictures import evidence_colours

SIZE = (48, 60)
HOLE = np.zeros(SIZE, bool)
HOLE[10:30, 15:40] = True
PART = np.zeros(SIZE, bool)
PART[12:20, 20:30] = True
FILL = make_photo(*SIZE, seed=5)
MADE = {"realfill": "1", "base": "tiny", "sample": {"num_samples": 1}}
KINDS = ["rgb", "rgb 16", "grey", "grey 16", "alpha", "alpha 16", "turned", "wide", "wide 16", "wide grey", "palette"]


def write_target(folder, kind):
    """Write a target of SIZE; return its path and the values that its file holds, upright: (H, W, C)."""
    path = folder / ("target.tif" if kind == "wide 16" else "target.png")
    photo, rng = make_photo(*SIZE), np.random.default_rng(1)
    options = {"icc_profile": make_profile(grey="grey" in kind)} if "wide" in kind else {}
    if "16" in kind:
        channels = 1 if "grey" in kind else 4 if "alpha" in kind else 3
        stored = rng.integers(0, 65536, (*SIZE, channels)).astype(np.uint16)
        if options:
            import tifffile

            tifffile.imwrite(path, stored, photometric="rgb", iccprofile=options["icc_profile"], metadata=None)
        else:
            cv2.imwrite(str(path), stored[:, :, {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]])
        return path, stored
    stored = photo[:, :, :1] if "grey" in kind else photo
    if kind == "alpha":
        stored = np.dstack([photo, rng.integers(1, 255, SIZE, np.uint8)])
    image = Image.fromarray(stored.squeeze())
    if kind == "turned":
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
        image = Image.fromarray(np.rot90(stored).copy())
    if kind == "palette":
        image = image.quantize(50)
        stored = np.array(image.convert("RGB"))
    image.save(path, **options)
    return path, stored


@pytest.mark.filterwarnings("ignore:.* transparent outside of the mask:realfill.errors.RealFillWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_completion_equals_the_file_of_its_target_outside_the_hole(kind, suffix, tmp_path):
    path, stored = write_target(tmp_path, kind)
    scene = Scene([], path, HOLE)
    wide = FILL.astype(np.uint16) * 257 + 3
    completion = Completion.from_image(wide if "16" in kind else FILL, scene, 7, provenance=MADE)
    written = tmp_path / f"out.{suffix}"
    completion.save(written)
    read = read_photo(written)
    values = read.pixels if read.alpha is None else np.dstack([read.pixels, read.alpha])
    assert values.dtype == stored.dtype and values.shape == stored.shape
    assert np.array_equal(values[~HOLE], stored[~HOLE])
    assert (read.icc_profile is not None) == ("wide" in kind)
    assert read.alpha is None or (read.alpha[HOLE] == np.iinfo(read.alpha.dtype).max).all()
    image, _ = read_image(written)
    assert np.array_equal(image, completion.image) and np.array_equal(image[~HOLE], scene.target[~HOLE])
    expected = FILL if "grey" not in kind else cv2.cvtColor(FILL, cv2.COLOR_RGB2GRAY)[:, :, None]
    error = np.abs(image.astype(int) - expected)[HOLE].mean()
    assert error < (6 if "wide grey" in kind else 1), error  # luminance differs a little from luma
    again = Completion.load(written, scene)
    assert np.array_equal(again.filled, completion.filled) and (again.seed, again.provenance) == (7, MADE)


def test_16_bit_targets_get_16_bit_samples(tmp_path):
    target = np.random.default_rng(0).integers(0, 65536, (*SIZE, 3)).astype(np.uint16)
    scene = Scene([], target, HOLE)
    sample = np.random.default_rng(1).integers(0, 65536, (*SIZE, 3)).astype(np.uint16)
    completion = Completion.from_image(sample, scene, 0)
    assert np.array_equal(completion.photo.pixels, np.where(HOLE[:, :, None], sample, target))
    assert completion.image.dtype == np.uint8


@pytest.mark.parametrize("mode", ["CMYK", "LAB", "float"])
def test_colour_spaces_that_cannot_be_written_become_8_bit_srgb(mode, tmp_path):
    path = tmp_path / "target.tif"
    if mode == "float":
        cv2.imwrite(str(path), (make_photo(*SIZE) / 255).astype(np.float32)[:, :, ::-1])
    else:
        image = Image.fromarray(make_photo(*SIZE))
        (image.convert("CMYK") if mode == "CMYK" else Image.frombytes("LAB", SIZE[::-1], image.tobytes())).save(path)
    scene = Scene([], path, HOLE)
    completion = Completion.from_image(FILL, scene, 0, provenance=MADE)
    completion.save(tmp_path / "a.tif")
    read = read_photo(tmp_path / "a.tif")
    assert read.pixels.dtype == np.uint8 and read.icc_profile is None
    assert np.array_equal(read.pixels, np.where(HOLE[:, :, None], FILL, scene.target))


def test_transparent_pixels_of_the_hole_become_opaque(tmp_path):
    target = np.dstack([make_photo(*SIZE), np.where(HOLE, 0, 255).astype(np.uint8)])
    completion = Completion.from_image(FILL, Scene([], target), 0)
    completion.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "RGB"


def test_pixels_under_the_hole_are_in_no_image_file(tmp_path):
    photo = make_photo(*SIZE)
    other = np.where(HOLE[:, :, None], make_photo(*SIZE, seed=9), photo)
    for name, target in (("a", photo), ("b", other)):
        completion = Completion.from_image(FILL, Scene([], target, HOLE), 0)
        completion.save(tmp_path / f"{name}.png")
        completion.save_patch(tmp_path / f"{name}_patch.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a_patch.png").read_bytes() == (tmp_path / "b_patch.png").read_bytes()


def test_a_blanked_scene_holds_no_pixels_under_its_hole():
    scene = Scene([], make_photo(*SIZE).astype(np.uint16) * 257, HOLE).blanked()
    assert not scene.original.pixels[HOLE].any() and not scene.target[HOLE].any()
    assert scene.original.pixels[~HOLE].any()


@pytest.mark.parametrize("kind", ["rgb", "rgb 16", "grey"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_patch_holds_only_the_generated_pixels(kind, suffix, tmp_path):
    path, _ = write_target(tmp_path, kind)
    completion = Completion.from_image(FILL, Scene([], path, HOLE), 0, provenance=MADE)
    completion.save_patch(tmp_path / f"p.{suffix}")
    patch = read_photo(tmp_path / f"p.{suffix}")
    assert np.array_equal(patch.alpha > 0, HOLE) and not patch.pixels[~HOLE].any()
    assert np.array_equal(patch.pixels[HOLE], completion.filled)
    with pytest.raises(OutputError, match="exists"):
        completion.save_patch(tmp_path / f"p.{suffix}")
    with pytest.raises(ValueError, match=r"p\.jpg.*legal: .*transparent"):
        completion.save_patch(tmp_path / "p.jpg")


def test_layers_compose_to_the_completion(tmp_path):
    scene = Scene([], make_photo(*SIZE).astype(np.uint16) * 257, HOLE)
    completion = Completion.from_image(FILL, scene, 3)
    completion.save(tmp_path / "a.ora")
    with zipfile.ZipFile(tmp_path / "a.ora") as archive:
        archive.extractall(tmp_path)
        assert b'x="15" y="10"' in archive.read("stack.xml") and b'name="original"' in archive.read("stack.xml")
    patch, base = (read_photo(tmp_path / "data" / f"layer{i}.png").pixels for i in (0, 1))
    assert np.array_equal(base, scene.original.pixels) and patch.shape == (20, 25, 3)
    base[10:30, 15:40] = patch
    assert np.array_equal(base, completion.photo.pixels)
    assert np.array_equal(read_photo(tmp_path / "mergedimage.png").pixels, completion.photo.pixels)


def with_evidence(scene):
    """Make a completion of a hole that references 0 and 2 show, of which one part is corrected and one invented."""
    kind = np.repeat([PHOTOGRAPHED, PHOTOGRAPHED, CORRECTED, INVENTED], 125).astype(np.uint8)
    source = np.repeat([0, 2, 2, -1], 125).astype(np.int16)
    evidence = Evidence(mask=HOLE, kind=kind, source=source, confidence=np.full(500, 90, np.uint8))
    return replace(Completion.from_image(FILL, scene, 3), evidence=evidence)


def read_layers(path):
    """Read the layers of an OpenRaster file, topmost first: each its entry in the index, and its picture."""
    with zipfile.ZipFile(path) as archive:
        entries = ET.fromstring(archive.read("stack.xml")).iter("layer")
        layers = [(entry.attrib, archive.read(entry.attrib["src"])) for entry in entries]
    for number, (entry, data) in enumerate(layers):
        stored = path.with_name(f"{number}.png")
        stored.write_bytes(data)
        yield entry, read_photo(stored)


@pytest.mark.parametrize("kind", ["rgb", "rgb 16", "grey", "wide"])
def test_the_evidence_is_a_hidden_layer_above_the_target(kind, tmp_path):
    path, _ = write_target(tmp_path, kind)
    completion = with_evidence(Scene([], path, HOLE))
    completion.save(tmp_path / "a.ora")
    (made, patch), (entry, shown), (original, base) = read_layers(tmp_path / "a.ora")
    assert (made["visibility"], entry["visibility"], original["visibility"]) == ("visible", "hidden", "visible")
    assert entry["name"] == f"evidence: {completion.evidence.describe()}" and (entry["x"], entry["y"]) == ("0", "0")
    assert shown.alpha.shape == SIZE and np.array_equal(shown.alpha > 0, HOLE)
    colours, expected = shown.srgb()[HOLE].astype(int), evidence_colours(completion.evidence).astype(int)
    assert np.abs(colours - expected).mean(axis=0).max() < 1
    assert len(np.unique(expected, axis=0)) == 4
    assert np.array_equal(patch.pixels.reshape(completion.filled.shape), completion.filled)
    assert np.array_equal(base.pixels, completion.scene.original.pixels)


def test_a_file_of_several_completions_holds_their_evidence_once(tmp_path):
    scene = Scene([], make_photo(*SIZE), HOLE)
    first = with_evidence(scene)
    Completions(items=(first, replace(first, seed=9)), scene=scene).save(tmp_path / "out", layers=True)
    names = [(entry["name"], entry["visibility"]) for entry, _ in read_layers(tmp_path / "out" / "layers.ora")]
    line = f"evidence: {first.evidence.describe()}"
    assert names == [("seed 3", "visible"), ("seed 9", "hidden"), (line, "hidden"), ("original", "visible")]


def test_a_jpeg_says_that_it_is_lossy_and_is_loaded_with_exact_known_pixels(tmp_path):
    smooth = cv2.GaussianBlur(make_photo(*SIZE), (0, 0), 3)
    scene = Scene([], smooth, HOLE)
    completion = Completion.from_image(FILL, scene, 3, provenance=MADE)
    completion.save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as stored:
        assert stored.format == "JPEG" and b"stored lossily" in stored.info["xmp"]
    assert np.abs(read_image(tmp_path / "a.jpg")[0].astype(int) - completion.image).mean() < 3
    loaded = Completion.load(tmp_path / "a.jpg", scene)
    assert np.array_equal(loaded.image[~HOLE], smooth[~HOLE])
    with pytest.raises(SceneError, match="of another target"):
        Completion.load(tmp_path / "a.jpg", Scene([], 255 - smooth, HOLE))


def test_an_image_without_metadata_is_not_loaded(tmp_path):
    Image.fromarray(make_photo(*SIZE)).save(tmp_path / "a.png")
    with pytest.raises(SceneError, match=r"a\.png' has no metadata of a completion"):
        Completion.load(tmp_path / "a.png", Scene([], make_photo(*SIZE), HOLE))


@pytest.mark.parametrize("file_format", ["png", "tiff", "jpeg"])
@pytest.mark.parametrize("layers", [False, True])
def test_a_folder_of_any_format_is_loaded_and_replaced(file_format, layers, tmp_path):
    scene = Scene([], cv2.GaussianBlur(make_photo(*SIZE), (0, 0), 3), HOLE)
    items = tuple(Completion.from_image(make_photo(*SIZE, s), scene, s, provenance=MADE) for s in (4, 2))
    completions = Completions(items=items, scene=scene)
    completions.save(tmp_path, file_format="png", layers=True)
    completions.save(tmp_path, file_format=file_format, layers=layers, overwrite=True)
    suffix = {"png": "png", "tiff": "tif", "jpeg": "jpg"}[file_format]
    names = {f"00_seed4.{suffix}", f"01_seed2.{suffix}", "scores.json", "contact_sheet.png"}
    if layers:
        patch = "tif" if file_format == "tiff" else "png"
        names |= {f"00_seed4_patch.{patch}", f"01_seed2_patch.{patch}", "layers.ora"}
    assert {p.name for p in tmp_path.iterdir()} == names
    loaded = Completions.load(tmp_path, scene)
    for one, two in zip(loaded, completions, strict=True):
        assert np.abs(one.image.astype(int) - two.image).mean() < (2 if file_format == "jpeg" else 1e-9)
    if layers:
        with zipfile.ZipFile(tmp_path / "layers.ora") as archive:
            stack = archive.read("stack.xml").decode()
        assert stack.index("seed 4") < stack.index("seed 2") < stack.index("original")
        assert stack.count('"visible"') == 2 and stack.count('"hidden"') == 1


def test_redoing_a_part_changes_no_other_pixels(tmp_path):
    target = np.random.default_rng(0).integers(0, 65536, (*SIZE, 3)).astype(np.uint16)
    scene = Scene([make_photo(40, 40)], target, HOLE)
    first = Completion.from_image(FILL, scene, 3, provenance=MADE)
    again = first.redo(PART)
    assert np.array_equal(again.mask, PART) and again.references is scene.references
    assert np.array_equal(again.target, first.image)
    second = Completion.from_image(255 - FILL, again, 8)
    assert np.array_equal(second.photo.pixels[~PART], first.photo.pixels[~PART])
    assert (second.photo.pixels[PART] != first.photo.pixels[PART]).any()
    assert again.history["redo"] == {"seed": 3, "num_pixels": 80, "provenance": MADE}


@pytest.mark.parametrize("through_file", [False, True])
def test_the_history_of_redone_parts_does_not_nest(tmp_path, through_file):
    scene = Scene([], make_photo(*SIZE), HOLE)
    completion = Completion.from_image(FILL, scene, 3, provenance=MADE)
    for seed in (4, 5, 6):
        again = completion.redo(PART)
        provenance = {**MADE, "scene": dict(again.history)}
        completion = Completion.from_image(FILL, again, seed, provenance=provenance)
        if through_file:
            completion.save(tmp_path / f"{seed}.png")
            completion = Completion.load(tmp_path / f"{seed}.png", scene)
    assert again.history["redo"]["provenance"].items() >= MADE.items() and again.history["redo"]["seed"] == 5
    assert "scene" not in again.history["redo"]["provenance"]
    assert [part["seed"] for part in again.history["redo"]["before"]] == [4, 3]


def test_a_part_is_limited_to_the_hole():
    scene = Scene([], make_photo(*SIZE), HOLE)
    completion = Completion.from_image(FILL, scene, 3)
    larger = PART.copy()
    larger[:14, :20] = True
    with pytest.warns(
        RealFillWarning, match=r"\d+ pixels of the part's mask lie outside the hole and are not changed"
    ) as caught:
        again = completion.redo(larger)
    assert np.array_equal(again.mask, larger & HOLE) and caught[0].filename == __file__
    with pytest.raises(SceneError, match="no pixel of the part's mask lies in the hole"):
        completion.redo(~HOLE)
    with pytest.raises(SceneError, match="mask of the part is 48 x 60 pixels, and the target is 60 x 48"):
        completion.redo(PART.T)


def test_another_part_is_redone_within_the_first_hole():
    scene = Scene([], make_photo(*SIZE), HOLE)
    second = Completion.from_image(255 - FILL, Completion.from_image(FILL, scene, 3).redo(PART), 4)
    other = np.roll(PART, 9, axis=0) & HOLE & ~PART
    with pytest.raises(SceneError, match="no pixel"):
        second.redo(other)
    assert np.array_equal(second.redo(other, scene).mask, other)


def test_a_redone_completion_loads_with_the_first_scene(tmp_path):
    scene = Scene([], make_photo(*SIZE), HOLE)
    second = Completion.from_image(255 - FILL, Completion.from_image(FILL, scene, 3).redo(PART), 4, provenance=MADE)
    second.save(tmp_path / "a.png")
    assert np.array_equal(Completion.load(tmp_path / "a.png", scene).image, second.image)
    assert read_provenance(tmp_path / "a.png")["seed"] == 4


def test_a_redone_part_of_a_grown_hole_is_loaded(tmp_path):
    grown = Scene([], make_photo(*SIZE), HOLE).dilated(4)
    again = Completion.from_image(FILL, grown, 3).redo(grown.mask)
    second = Completion.from_image(255 - FILL, again, 4, provenance={**MADE, "scene": dict(again.history)})
    second.save(tmp_path / "a.png")
    assert np.array_equal(Completion.load(tmp_path / "a.png", grown).image, second.image)
    with pytest.raises(SceneError, match="of another target"):
        Completion.load(tmp_path / "a.png", Scene([], make_photo(*SIZE), HOLE))


@pytest.mark.parametrize("quality", [5, 30, 95])
def test_a_jpeg_of_a_noisy_target_is_loaded_at_any_quality(quality, tmp_path):
    noise = np.random.default_rng(0).normal(0, 20, (*SIZE, 3))
    noisy = (make_photo(*SIZE) + noise).clip(0, 255).astype(np.uint8)
    Completion.from_image(FILL, Scene([], noisy, HOLE), 3).save(tmp_path / "made.jpg", quality=quality)
    assert Completion.load(tmp_path / "made.jpg", Scene([], noisy, HOLE)).seed == 3
    with pytest.raises(SceneError, match="another target"):
        Completion.load(tmp_path / "made.jpg", Scene([], make_photo(*SIZE, seed=8), HOLE))


def test_a_jpeg_of_a_target_with_few_or_no_known_pixels_is_loaded(tmp_path):
    inside = np.zeros(SIZE, bool)
    inside[4:-4, 4:-4] = True
    photo = np.where(inside[:, :, None], np.uint8(0), make_photo(*SIZE))
    for name, scene in (("none", Scene.canvas(SIZE)), ("frame", Scene([], photo, inside))):
        Completion.from_image(np.full((*SIZE, 3), 255, np.uint8), scene, 3).save(tmp_path / f"{name}.jpg")
        assert Completion.load(tmp_path / f"{name}.jpg", scene).seed == 3
    with pytest.raises(SceneError, match="another target"):
        Completion.load(
            tmp_path / "frame.jpg", Scene([], np.where(inside[:, :, None], 0, 255 - photo).astype(np.uint8), inside)
        )


@pytest.mark.filterwarnings("ignore:.* transparent outside of the mask:realfill.errors.RealFillWarning")
def test_a_jpeg_of_a_transparent_target_warns(tmp_path):
    stored = np.dstack([make_photo(*SIZE), np.full(SIZE, 255, np.uint8)])
    stored[:5, :, 3] = 0
    completion = Completion.from_image(FILL, Scene([], Image.fromarray(stored), HOLE), 3)
    with pytest.warns(RealFillWarning, match="cannot be transparent"):
        completion.save(tmp_path / "made.jpg")


def test_metadata_distinguish_images_generated_wholly_and_partly(tmp_path):
    for name, scene in (("whole", Scene.canvas(SIZE)), ("part", Scene([], make_photo(*SIZE), HOLE))):
        completion = Completion.from_image(FILL, scene, 3, provenance=MADE)
        completion.save(tmp_path / f"{name}.png")
        written = (tmp_path / f"{name}.png").read_bytes()
        assert (b"This image was made by" in written) == (name == "whole")
        assert (b"digitalsourcetype/trainedAlgorithmicMedia" in written) == (name == "whole")
        assert (b"digitalsourcetype/compositeWithTrainedAlgorithmicMedia" in written) == (name == "part")
