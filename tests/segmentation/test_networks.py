"""Networks of transformers: the outlines follow the network's own logits, at the photo's size."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_networks import (
    NAMES,
    build_detr,
    build_eomt,
    build_mask2former,
    build_rf_detr,
    build_rt_detr,
    build_sam2,
)

from realfill.errors import BaseModelError
from realfill.segmentation.decoding import Queries, decode
from realfill.segmentation.detection import find_instances, load_detector
from realfill.segmentation.preprocessing import Preprocessing
from realfill.segmentation.tiles import find_in_tiles, tiles_of


@pytest.fixture(scope="module")
def photo():
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(0, 256, (9, 13, 3)), np.ones((10, 10, 1))).astype(np.uint8)[:83, :121]


@pytest.fixture(scope="module")
def mask2former(tmp_path_factory):
    return load_detector(build_mask2former(tmp_path_factory.mktemp("m2f")), device="cpu", local_files_only=True)


def test_outlines_are_the_logits_resized_bilinearly_and_then_thresholded(mask2former, photo):
    found = mask2former.find(photo, lowest=0.0)
    pixels, _ = mask2former.preprocessing.prepare(photo)
    with torch.inference_mode():
        logits = mask2former.network(pixel_values=pixels).masks_queries_logits
    expected = F.interpolate(logits, size=photo.shape[:2], mode="bilinear", align_corners=False)[0] > 0
    masks = [mask.numpy() for mask in expected if mask.any()]
    assert found
    for instance in found:
        assert any((instance.mask == mask).all() for mask in masks)


def test_scores_and_names_are_those_of_the_network(mask2former, photo):
    found = mask2former.find(photo, lowest=0.0)
    pixels, _ = mask2former.preprocessing.prepare(photo)
    with torch.inference_mode():
        outputs = mask2former.network(pixel_values=pixels)
    shares = outputs.class_queries_logits[0].softmax(-1)[:, :-1].max(-1)
    inside = outputs.masks_queries_logits[0] > 0
    means = [
        float(m[i].sigmoid().mean()) if i.any() else 0.0
        for m, i in zip(outputs.masks_queries_logits[0], inside, strict=True)
    ]
    expected = {round(float(s) * m, 4): NAMES[int(label)] for s, label, m in zip(*shares, means, strict=True)}
    assert all(expected[round(i.score, 4)] == i.name for i in found)


def answers(detector, photo):
    """Ask the network itself: its outputs, and the size and shares of its input that shows the photo."""
    pixels, shares = detector.preprocessing.prepare(photo)
    with torch.inference_mode():
        return detector.network(pixel_values=pixels), [
            round(n * s) for n, s in zip(pixels.shape[2:], shares, strict=True)
        ]


def resized(logits, photo, shown, input_px):
    """Resize logits to the photo as a whole photo's, by cutting off what pads the input first."""
    at_input = F.interpolate(logits[None], size=(input_px, input_px), mode="bilinear", align_corners=False)
    cut = at_input[..., : shown[0], : shown[1]]
    return (F.interpolate(cut, size=photo.shape[:2], mode="bilinear", align_corners=False)[0] > 0).numpy()


def test_rf_detr_outlines_and_scores_are_those_of_its_logits(tmp_path, photo):
    rf_detr = load_detector(build_rf_detr(tmp_path), device="cpu", local_files_only=True)
    outputs, _ = answers(rf_detr, photo)
    masks = F.interpolate(outputs.pred_masks, size=photo.shape[:2], mode="bilinear", align_corners=False)[0] > 0
    scores, labels = outputs.logits[0].sigmoid().max(-1)
    expected = [
        (round(float(score), 4), NAMES[int(label)], mask.numpy())
        for score, label, mask in zip(scores, labels, masks, strict=True) if mask.any()
    ]  # fmt: skip
    found = rf_detr.find(photo, lowest=0.0)
    assert found
    for instance in found:
        assert any(
            (score, name) == (round(instance.score, 4), instance.name) and (instance.mask == mask).all()
            for score, name, mask in expected
        )


def test_eomt_outlines_are_its_logits_without_the_padding(tmp_path, photo):
    eomt = load_detector(build_eomt(tmp_path), device="cpu", local_files_only=True)
    outputs, shown = answers(eomt, photo)
    expected = resized(outputs.masks_queries_logits[0], photo, shown, 64)
    found = eomt.find(photo, lowest=0.0)
    assert found
    for instance in found:
        assert max((instance.mask == mask).mean() for mask in expected) > 0.97  # rounding of the padding apart


@pytest.mark.parametrize("build", [build_rt_detr, build_detr])
def test_boxes_scores_and_names_are_those_of_the_network(tmp_path, photo, build):
    detector = load_detector(build(tmp_path), device="cpu", local_files_only=True)
    outputs, _ = answers(detector, photo)
    logits = outputs.logits[0]
    shares = logits.softmax(-1)[:, :-1] if build is build_detr else logits.sigmoid()
    scores, labels = shares.max(-1)
    size = np.array(photo.shape[:2])
    boxes = {}
    for score, label, (x, y, width, height) in zip(scores, labels, outputs.pred_boxes[0].tolist(), strict=True):
        low, high = (np.clip((y - n * height, x - n * width), 0, 1) * size for n in (0.5, -0.5))
        boxes[round(float(score), 4)] = (NAMES[int(label)], low, high)
    found = detector.find(photo, lowest=0.0)
    assert found
    for instance in found:
        name, low, high = boxes[round(instance.score, 4)]
        top, left, bottom, right = instance.box
        assert instance.name == name
        assert (np.array([top, left]) >= low.round()).all() and (np.array([bottom, right]) <= high.round()).all()


def test_sam_outlines_are_the_best_of_its_three_answers(tmp_path, photo):
    sam = load_detector(build_sam2(tmp_path), device="cpu", local_files_only=True)
    pixels, _ = sam.preprocessing.prepare(photo)
    height, width = photo.shape[:2]
    box = torch.tensor([[[10 * 128 / width, 20 * 128 / height, 90 * 128 / width, 70 * 128 / height]]])
    with torch.inference_mode():
        outputs = sam.network(pixel_values=pixels, input_boxes=box)
    best = outputs.iou_scores[0, 0].argmax()
    logits = outputs.pred_masks[:, 0, best][None]
    expected = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)[0, 0] > 0
    (only,) = find_instances(photo, detector=sam, boxes=[(20, 10, 70, 90)])
    assert (only.mask == expected.numpy()).all()


def test_overlapping_instances_keep_their_own_pixels(photo):
    logits = torch.full((2, 8, 12), -5.0)
    logits[0, 2:6, 1:8] = 5
    logits[1, 3:7, 5:11] = 5
    queries = Queries(scores=torch.tensor([0.9, 0.8]), labels=torch.tensor([0, 0]), mask_logits=logits)
    first, second = decode(queries, photo, names=NAMES, lowest=0.5, shares=(1, 1), detector="test")
    assert first.overlap_px(second) == (first.mask & second.mask).sum() > 0


def test_the_same_outline_twice_counts_once(photo):
    logits = torch.full((2, 8, 12), -5.0)
    logits[:, 2:6, 1:8] = 5
    queries = Queries(scores=torch.tensor([0.7, 0.8]), labels=torch.tensor([0, 0]), mask_logits=logits)
    (only,) = decode(queries, photo, names=NAMES, lowest=0.5, shares=(1, 1), detector="test")
    assert only.score == pytest.approx(0.8)


def test_padding_is_no_part_of_the_photo(tmp_path, photo):
    eomt = load_detector(build_eomt(tmp_path), device="cpu", local_files_only=True)
    pixels, shares = eomt.preprocessing.prepare(photo)
    assert pixels.shape == (1, 3, 64, 64)
    assert shares == (pytest.approx(44 / 64), 1)
    assert all(i.size == photo.shape[:2] for i in eomt.find(photo, lowest=0.0))
    half = torch.full((1, 16, 16), -5.0)
    half[:, 11:] = 5  # only the padding
    queries = Queries(scores=torch.ones(1), labels=torch.zeros(1), mask_logits=half)
    assert not decode(queries, photo, names=NAMES, lowest=0.5, shares=(11 / 16, 1), detector="test")


def test_a_network_for_boxes_gets_outlines_within_them(tmp_path, photo):
    detr = load_detector(build_detr(tmp_path), device="cpu", local_files_only=True)
    assert all(i.size == photo.shape[:2] for i in detr.find(photo, lowest=0.0))
    queries = Queries(scores=torch.tensor([0.9]), labels=torch.tensor([1]), boxes=torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
    (only,) = decode(queries, photo, names=NAMES, lowest=0.5, shares=(1, 1), detector="test")
    assert only.name == "backpack"
    top, left, bottom, right = only.box
    assert top >= 20 and left >= 29 and bottom <= 63 and right <= 92


def test_a_click_and_a_box_reach_sam_in_the_pixels_of_its_input(tmp_path, photo, monkeypatch):
    sam = load_detector(build_sam2(tmp_path), device="cpu", local_files_only=True)
    (only,) = find_instances(photo, detector=sam, clicks=[(60, 40)])
    assert only.size == photo.shape[:2] and only.detector == sam.name
    seen = []
    monkeypatch.setattr(sam.network, "forward", lambda **k: seen.append(k) or pytest.fail("enough"))
    for marks in ({"clicks": [(60.5, 41.5)]}, {"boxes": [(0, 0, 83, 121)]}):
        with pytest.raises(pytest.fail.Exception):
            find_instances(photo, detector=sam, **marks)
    assert seen[0]["input_points"].flatten().tolist() == pytest.approx([64, 64])
    assert seen[1]["input_boxes"].flatten().tolist() == pytest.approx([0, 0, 128, 128])
    with pytest.raises(BaseModelError, match="finds nothing by itself"):
        find_instances(photo, detector=sam)


@pytest.mark.parametrize(
    ("values", "model_type", "size", "shape"),
    [
        ({"size": {"shortest_edge": 800, "longest_edge": 1333}}, "mask2former", (900, 1600), (736, 1344)),
        ({"size": {"height": 640, "width": 640}, "do_normalize": False}, "rt_detr", (900, 1600), (640, 640)),
        ({"size": {"height": 384, "width": 384}}, "mask2former", (100, 200), (384, 384)),
        ({}, "detr", (480, 640), (800, 1056)),
    ],
)
def test_the_input_has_the_size_that_the_network_was_trained_for(values, model_type, size, shape):
    pixels, shares = Preprocessing.of_files(values, model_type, None).prepare(np.full((*size, 3), 255, np.uint8))
    assert pixels.shape[2:] == shape
    assert shares == (1, 1)
    expected = 1.0 if values.get("do_normalize") is False else (1 - 0.485) / 0.229
    assert float(pixels[0, 0, 5, 5]) == pytest.approx(expected, abs=1e-4)


def test_what_is_no_detector_is_refused(tmp_path, tiny_sd):
    with pytest.raises(
        BaseModelError, match="is no detector that needs only a photo, but CLIPTextModel; legal: mask2former"
    ):
        load_detector(f"{tiny_sd}/text_encoder", local_files_only=True)
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        load_detector(str(tmp_path / "nowhere"), local_files_only=True)


def test_the_threshold_falls_in_steps_until_somebody_is_found_and_not_below_a_quarter(photo):
    class Fixed:
        name, side_px, segments = "fixed", 0, False

        def __init__(self, *scores):
            self.scores = scores

        def find(self, image, *, lowest):
            masks = [np.eye(*image.shape[:2], k=10 * n, dtype=bool) for n in range(len(self.scores))]
            queries = zip(masks, self.scores, strict=True)
            from realfill.segmentation.instances import Instance

            return [Instance.of_mask(m, name="person", score=s, detector="fixed") for m, s in queries if s >= lowest]

    def used(*scores, **options):
        found = find_instances(photo, detector=Fixed(*scores), **options)
        return found.threshold, len(found)

    assert used(0.9, 0.45) == (0.5, 1)
    assert used(0.45, 0.35) == (0.4, 1)
    assert used(0.26) == (0.25, 1)
    assert used(0.2) == (0.25, 0)
    assert used(0.2, threshold=0.1) == (0.1, 1)
    assert used(0.9, classes=("dog",)) == (0.25, 1)
    with pytest.raises(ValueError, match="threshold is 2"):
        used(0.9, threshold=2)


def test_a_large_photo_is_searched_in_tiles_for_small_people():
    from realfill.segmentation.instances import Instance

    photo = np.zeros((400, 600, 3), np.uint8)
    photo[50:70, 500:510] = 255  # small
    photo[100:380, 20:200] = 128  # large
    seen = []

    def find(part):
        seen.append(part.shape[:2])
        small = part[:, :, 0] == 255
        masks = [part[:, :, 0] == 128, *([small] if max(part.shape[:2]) <= 200 else [])]
        return [Instance.of_mask(m, name="person", score=1.0, detector="test") for m in masks if m.any()]

    found = find_in_tiles(find, photo, side_px=200)
    assert sorted(i.box for i in found) == [(50, 500, 70, 510), (100, 20, 380, 200)]
    assert seen[0] == (400, 600) and set(seen[1:]) == {(200, 200)}
    assert len(find_in_tiles(find, photo, side_px=0)) == 1


def test_tiles_cover_the_photo_and_overlap():
    tiles = tiles_of((400, 610), 200)
    covered = np.zeros((400, 610), int)
    for top, left, bottom, right in tiles:
        covered[top:bottom, left:right] += 1
        assert (bottom - top, right - left) == (200, 200)
    assert covered.min() == 1 and covered.max() > 1
    assert len(tiles_of((20_000, 30_000), 200)) <= 36
