"""Erasing: pixels outside of the mask stay, the result names its engine, strangers stay out, a rest is filled again."""

import cv2
import numpy as np
import pytest
from helpers import make_photo
from PIL import ExifTags, Image

from realfill import FitConfig, erase, erase_selected, mask_from
from realfill.config.selection import EraseConfig, SelectionConfig
from realfill.errors import BaseModelError, RealFillWarning, SceneError, StoppedError
from realfill.io.metadata import read_provenance
from realfill.pipeline.strangers import find_strangers
from realfill.segmentation.instances import Instance, Instances

SIZE = (96, 128)


class RedDetector:
    """Finds what is pure red, as a person; so planted people can be found for sure."""

    name, side_px, segments = "red", 0, False

    def find(self, image, *, lowest):
        red = ((image[..., 0] > 200) & (image[..., 1:].max(axis=2) < 60)).astype(np.uint8)
        count, labels = cv2.connectedComponents(red)
        parts = [labels == n for n in range(1, count)]
        return [Instance.of_mask(p, name="person", score=0.9, detector="red") for p in parts if p.sum() > 8]


class Paint:
    """An engine that fills with a colour, and remembers what it was given."""

    def __init__(self, *colours):
        self.colours, self.calls = colours, []

    def fill(self, image, hole, seeds, *, on_step=None):
        self.calls.append((image.copy(), hole.copy()))
        colour = self.colours[min(len(self.calls), len(self.colours)) - 1]
        return [np.where(hole[..., None], np.uint8(colour), image) for _ in seeds]


def with_people(image, *boxes):
    image = image.copy()
    for top, left, bottom, right in boxes:
        image[top:bottom, left:right] = (255, 0, 0)
    return image


@pytest.fixture
def place():
    return np.minimum(make_photo(*SIZE, 3), 190)


@pytest.fixture
def photo(place):
    return with_people(place, (20, 30, 60, 45), (30, 90, 50, 100))


def found(photo):
    instances = RedDetector().find(photo, lowest=0.5)
    return Instances.ordered(instances, size=SIZE, detector="red", threshold=0.5)


def test_pixels_outside_of_the_mask_stay_and_those_inside_do_not_matter(photo):
    reading = mask_from(found(photo))
    result = erase(photo, reading, engine="telea")
    assert (result.image[~reading.mask] == photo[~reading.mask]).all()
    other = photo.copy()
    other[reading.mask] = 99
    assert (erase(other, reading, engine="telea").image == result.image).all()
    assert result.engine == "telea" and result.mask_source == reading.source
    assert "filled by telea" in repr(result)


def test_the_engine_that_can_run_here_is_chosen_and_named(photo):
    assert erase(photo, mask_from(found(photo)), local_files_only=True).engine == "telea"


def test_one_stays_and_the_other_goes(photo, place):
    selection = SelectionConfig(keep_largest=True)
    result = erase_selected(photo, selection, EraseConfig(engine="telea"), detector=RedDetector())
    assert (result.image[20:60, 30:45] == (255, 0, 0)).all()
    assert (result.image[30:50, 90:100] != (255, 0, 0)).any(axis=2).all()
    by_place = erase_selected(
        photo, SelectionConfig(keep_at=("35,30",)), EraseConfig(engine="telea"), detector=RedDetector()
    )
    assert (by_place.image == result.image).all()
    assert result.rest_px == 0 and result.num_passes == 1


def test_numbers_that_do_not_exist_are_named_as_their_option(photo):
    for option in ("keep", "only"):
        with pytest.raises(ValueError, match=rf"SelectionConfig.{option} names the instance 9; legal: from 0 to 1"):
            erase_selected(photo, SelectionConfig(**{option: (9,)}), detector=RedDetector())


def test_a_mask_of_the_whole_photo_or_of_no_pixel_is_refused(photo, tmp_path):
    Image.new("L", SIZE[::-1], 0).save(tmp_path / "black.png")
    with pytest.raises(SceneError, match="the mask marks no pixel; legal: white"):
        erase_selected(photo, SelectionConfig(mask=tmp_path / "black.png"))
    with pytest.raises(SceneError, match="the mask covers the whole photo"):
        erase_selected(photo, SelectionConfig(fill_box=("0,0,128,96",)))


def test_a_point_without_anybody_lists_who_is_there(photo):
    with pytest.raises(ValueError, match=r"keep_at is '5,5', where no instance is; legal: a point on one \(0: person"):
        erase_selected(photo, SelectionConfig(keep_at=("5,5",)), detector=RedDetector())


def test_a_rest_is_filled_again_within_its_box(photo):
    tight = found(photo)[0].mask
    tight[40:] = False  # the mask misses the legs
    engine = Paint((255, 0, 0), (0, 0, 0))
    result = erase(photo, tight, engine=engine, detector=RedDetector(), second_pass=True)
    assert result.num_passes == 2 and result.rest_px == 0
    assert engine.calls[1][1][20:60, 30:45].all()  # now with the legs
    assert (result.image[20:60, 30:45] == 0).all()
    assert result.mask_source.endswith("with the box of a rest")
    assert (result.image[30:50, 90:100] == (255, 0, 0)).all()  # nobody else


def test_a_second_pass_that_does_not_help_changes_nothing(photo):
    tight = found(photo)[0].mask
    tight[40:] = False
    result = erase(photo, tight, engine=Paint((255, 0, 0)), detector=RedDetector(), second_pass=True)
    assert result.num_passes == 1 and result.rest_px == 40 * 15
    assert (result.mask == tight).all()


def test_the_second_pass_leaves_those_who_stay(photo):
    tight = found(photo)[0].mask
    tight[40:] = False
    protected = np.zeros(SIZE, bool)
    protected[50:] = True
    engine = Paint((255, 0, 0), (0, 0, 0))
    erase(photo, tight, engine=engine, detector=RedDetector(), second_pass=True, protected=protected)
    assert not engine.calls[1][1][50:].any() and engine.calls[1][1][40:50, 30:45].all()


def test_the_candidate_without_a_detection_wins(photo):
    class Two:
        def fill(self, image, hole, seeds, *, on_step=None):
            return [np.where(hole[..., None], np.uint8((255, 0, 0) if s == 0 else (9, 9, 9)), image) for s in seeds]

    result = erase(photo, found(photo)[0].mask, engine=Two(), seeds=(0, 7, 9), detector=RedDetector(), second_pass=True)
    assert result.completion.seed == 7 and result.rest_px == 0, "the first, that is the best ranked, of the clean ones"
    assert erase(photo, found(photo)[0].mask, engine=Two(), seeds=(0, 7)).completion.seed == 0


def test_a_painted_person_is_drawn_again_with_other_seeds(photo):
    """The engine paints somebody within the hole, so that a larger mask would not help."""

    class Sometimes:
        def __init__(self, clean):
            self.clean, self.seeds = clean, []

        def fill(self, image, hole, seeds, *, on_step=None):
            self.seeds.append(tuple(seeds))
            painted = with_people(image, (30, 34, 50, 42))
            return [np.where(hole[..., None], 9 if s in self.clean else painted, image).astype(np.uint8) for s in seeds]

    mask = found(photo)[0].mask
    engine = Sometimes({4})
    result = erase(photo, mask, engine=engine, seeds=(0, 2), detector=RedDetector(), second_pass=True)
    assert engine.seeds == [(0, 2), (3, 4, 5, 6)] and result.completion.seed == 4
    assert result.num_passes == 2 and result.rest_px == 0 and (result.mask == mask).all()
    reaching_out = Sometimes({1})
    reaching_out.fill = lambda image, hole, seeds, **_: [
        np.where(hole[..., None], 9 if s == 1 else with_people(image, (50, 34, 62, 42)), image).astype(np.uint8)
        for s in seeds
    ]
    other = with_people(photo, (58, 34, 62, 42))  # what is painted hangs together with something outside of the mask
    result = erase(other, mask, engine=reaching_out, detector=RedDetector(), second_pass=True)
    assert result.completion.seed == 1, "a larger mask alone does not help against a painted person"
    always = erase(photo, mask, engine=Sometimes(()), detector=RedDetector(), second_pass=True)
    assert always.num_passes == 1 and always.rest_px == 20 * 8 and always.completion.seed == 0


def test_outlines_grow_more_where_references_show_what_is_behind(place):
    photo = with_people(place, (10, 30, 70, 60))
    for references, radius in (([], 2), ([place], 3)):
        config = EraseConfig(engine="telea", second_pass=False)
        result = erase_selected(photo, SelectionConfig(), config, references=references, detector=RedDetector())
        assert f"grown by {radius} px" in result.mask_source
        assert result.mask[40, 30 - radius] and not result.mask[40, 29 - radius]


def test_strangers_are_hidden_with_a_margin(place):
    (hidden,) = find_strangers([with_people(place, (10, 30, 70, 60))], ("person",), RedDetector())
    assert hidden.count == 1 and hidden.mask[8:72, 30:60].all() and hidden.mask[40, 27:63].all()  # 5 % of 60 pixels
    assert not hidden.mask[:, :26].any() and not hidden.mask[75:].any()
    (nobody,) = find_strangers([place], ("person",), RedDetector())
    assert nobody.mask is None and nobody.count == 0
    whole = np.zeros((*SIZE, 3), np.uint8)
    whole[..., 0] = 255
    with pytest.warns(RealFillWarning, match="nothing is hidden in reference 0: .*cover"):
        (all_of_it,) = find_strangers([whole], ("person",), RedDetector())
    assert all_of_it.mask is None and all_of_it.count == 0


def test_with_people_walking_through_the_place_wins(place, with_composites):
    """The same view several times: everybody goes, and nobody of another photo comes."""
    views = [with_people(place, box) for box in [(20, 30, 60, 45), (24, 38, 64, 52), (20, 24, 58, 33)]]
    reading = mask_from(found(views[0]))
    result = erase(views[0], reading, references=views[1:], engine="composite", detector=RedDetector())
    assert result.num_strangers == (1, 1) and result.engine.startswith("composite")
    error = np.abs(result.image[reading.mask].astype(int) - place[reading.mask]).mean()
    assert error < 12
    assert not (result.image[reading.mask] == (255, 0, 0)).all(axis=1).any()
    hidden = result.completion.scene.reference_masks
    assert hidden[0][24:64, 38:52].all() and not hidden[0][:, :30].any()


def test_a_fit_needs_references_and_an_engine_has_to_exist(photo):
    for engine in ("fit", "composite"):
        with pytest.raises(SceneError, match=f"'{engine}' needs references"):
            erase(photo, found(photo)[0].mask, engine=engine)
    with pytest.raises(ValueError, match="there is no engine 'magic'; legal: composite, fit, smooth, telea"):
        erase(photo, found(photo)[0].mask, engine="magic")
    with pytest.raises(ValueError, match="seeds is empty"):
        erase(photo, found(photo)[0].mask, seeds=())


def test_options_without_an_effect_are_refused(photo, place):
    mask = found(photo)[0].mask
    for engine, name in (
        (None, "no engine is named, and the one that is chosen"),
        ("composite", "the engine 'composite'"),
        ("fit", "the engine 'fit'"),
        ("telea", "the engine 'telea'"),
        (Paint((0, 0, 0)), "the given engine"),
    ):
        with pytest.raises(ValueError, match=f"weights is 'big.pt', but {name} takes none; legal: .*lama, migan, base"):
            erase(photo, mask, [place], engine=engine, weights="big.pt")
    for engine in (None, "composite", "telea"):
        with pytest.raises(
            ValueError, match=r"config holds settings of a fit, .*legal: the engine 'fit', or no config"
        ):
            erase(photo, mask, [place], engine=engine, config=FitConfig(base="mini"))
    with pytest.raises(ValueError, match=r"seeds is \(3, 7\), .*legal: seeds that count up by 1, such as 3, 4"):
        erase(photo, mask, [place], engine="fit", seeds=(3, 7))


def test_the_trust_in_weights_reaches_the_engine(photo, monkeypatch):
    asked = []

    def load(name, **options):
        asked.append((name, options["weights"], options["trust_weights"]))
        return Paint((0, 0, 0))

    monkeypatch.setattr("realfill.pipeline.erasing_engines.load_engine", load)
    selection = SelectionConfig(fill_box=("5,5,15,15",))
    for trust in (False, True):
        erase_selected(photo, selection, EraseConfig(engine="lama", weights="big.pt", trust_weights=trust))
    assert asked == [("lama", "big.pt", False), ("lama", "big.pt", True)]


def test_another_detector_finds_strangers_where_sam2_outlines_the_box(photo, place, monkeypatch):
    class OnlyOutlines(RedDetector):
        segments = True

        def find(self, image, *, lowest):
            raise BaseModelError("finds nothing by itself")

        def outline(self, image, *, box=None, click=None):
            return found(image)[0]

    monkeypatch.setattr("realfill.pipeline.erasing.load_detector", lambda name, **_: {"auto": RedDetector()}[name])
    others = [with_people(place, (24, 38, 64, 52)), place]
    selection, config = SelectionConfig(box=("28,18,47,62",), detector="sam2"), EraseConfig(engine=None)
    result = erase_selected(photo, selection, config, references=others, detector=OnlyOutlines(), progress=False)
    assert result.num_strangers == (1, 0) and result.mask[20:60, 30:45].all()


def test_a_second_pass_that_is_stopped_keeps_the_first_result(photo):
    class StoppedLater(Paint):
        num_asked = 0

        def fill(self, image, hole, seeds, *, on_step=None):
            self.num_asked += 1
            return [] if self.calls else super().fill(image, hole, seeds, on_step=on_step)

    tight = found(photo)[0].mask
    tight[40:] = False
    engine = StoppedLater((255, 0, 0))
    result = erase(photo, tight, engine=engine, detector=RedDetector(), second_pass=True)
    assert result.num_passes == 1 and result.rest_px == 40 * 15 and (result.mask == tight).all()
    assert engine.num_asked == 2  # no third pass begins


def test_an_engine_that_is_stopped_leaves_nothing(photo):
    class Stopped:
        def fill(self, image, hole, seeds, *, on_step=None):
            return []

    with pytest.raises(StoppedError):
        erase(photo, found(photo)[0].mask, engine=Stopped())


def test_the_file_says_what_filled_it_and_no_place_on_request(photo, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (1.0, 2.0, 3.0)}
    Image.fromarray(photo).save(tmp_path / "in.png", exif=exif)
    mask = found(photo)[0].mask
    for strip, place in ((False, True), (True, False)):
        path = tmp_path / f"{strip}.png"
        erase(tmp_path / "in.png", mask, engine="telea", strip_location=strip).save(path)
        with Image.open(path) as image:
            written = image.getexif()
            assert written[ExifTags.Base.Make] == "Camera"
            assert bool(written.get_ifd(ExifTags.IFD.GPSInfo)) == place
    assert read_provenance(path)["engine"] == "telea"
    data = path.read_bytes()
    assert b"algorithmicallyEnhanced" in data and b"by inpainting without a model (telea)" in data


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box": ("1,2,3",)}, "box is '1,2,3'; legal: left,top,right,bottom in pixels"),
        ({"click": ("a,b",)}, "click is 'a,b'; legal: x,y in pixels"),
        ({"polygon": ("1,2,3,4",)}, "polygon is '1,2,3,4'; legal: x,y,x,y,x,y"),
    ],
)
def test_numbers_in_another_form_are_refused(photo, options, message):
    with pytest.raises(ValueError, match=message):
        erase_selected(photo, SelectionConfig(**options), detector=RedDetector())


def test_a_selection_is_by_hand_or_by_number():
    with pytest.raises(ValueError, match="legal: one of the two"):
        SelectionConfig(box=("1,2,3,4",), keep=(0,))
    with pytest.raises(ValueError, match="grow_px is -1"):
        SelectionConfig(grow_px=-1)


def test_masks_by_hand_are_joined_and_what_stays_is_taken_away(photo, tmp_path):
    stays = np.zeros(SIZE, np.uint8)
    stays[:, :10] = 255
    Image.fromarray(stays).save(tmp_path / "stays.png")
    selection = SelectionConfig(
        fill_box=("5,5,15,15",), polygon=("20,20,29,20,29,29,20,29",), colour="red", without=tmp_path / "stays.png"
    )
    result = erase_selected(photo, selection, EraseConfig(engine="smooth"))
    expected = (photo == (255, 0, 0)).all(axis=2)
    expected[5:15, 10:15] = True
    expected[20:30, 20:30] = True
    assert (result.mask == expected).all()
