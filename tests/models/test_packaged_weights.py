"""Packaged weights: those of the completion network load, and licence and attribution are beside all of them."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from skimage import data

from realfill import models
from realfill.filling.engines import load_engine
from realfill.models.diffusion.card import Card
from realfill.models.diffusion.hub import MINI_DIRECTORY
from realfill.models.feedforward.completion import PACKAGED_WEIGHTS

ATTRIBUTION = Path(models.__file__).with_name("attribution.tsv")
HOLDOUT = Path(__file__).parents[2] / "examples" / "holdout.txt"


@pytest.fixture(scope="module")
def photos():
    """The rows of the list of photos."""
    with ATTRIBUTION.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_the_packaged_network_is_small_and_far_closer_to_a_photo_than_its_mean_colour():
    assert PACKAGED_WEIGHTS.stat().st_size < 4e6
    photo, hole = data.astronaut()[::2, ::2], np.zeros((256, 256), bool)
    hole[112:144, 112:144] = True
    (image,) = load_engine("completion", device="cpu", blend="cut").fill(photo, hole, [0])
    truth = photo[hole].astype(float)
    of_network, of_mean = (np.abs(guess - truth).mean() for guess in (image[hole], photo[~hole].mean(axis=0)))
    assert of_network < 0.75 * of_mean


def test_the_card_of_the_packaged_network_says_how_it_was_trained():
    with safe_open(PACKAGED_WEIGHTS, "pt") as file:
        about = json.loads(file.metadata()["card"])["about"]
    assert 0 < about["steps"] <= about["of_steps"] and about["phase"] == "both", "all three phases"


@pytest.mark.parametrize("folder", [PACKAGED_WEIGHTS.parent, MINI_DIRECTORY], ids=["completion", "mini"])
def test_the_licence_of_the_weights_names_the_list_of_photos(folder):
    text = (folder / "LICENSE.txt").read_text(encoding="utf-8")
    assert "Apache License" in text and "realfill/models/attribution.tsv" in text
    assert all(kind in text for kind in ("CC0", "public domain", "CC BY"))


def test_the_card_of_mini_says_what_it_learnt_from(photos):
    about = Card.load(MINI_DIRECTORY).about
    assert about["data"].startswith(f"{len(photos)} photos") and about["terms"].startswith("Apache License")
    assert Path(models.__file__).parents[2] / about["attribution"] == ATTRIBUTION
    *parts, total = about["samples"].values()
    assert sum(parts) == total >= 2_000_000


def test_every_photo_has_an_author_a_free_licence_and_a_source(photos):
    assert [photo["file"] for photo in photos] == sorted({photo["file"] for photo in photos})
    for photo in photos:
        assert photo["author"].strip(), photo
        assert re.fullmatch(r"CC0-1\.0|Public-Domain|CC-BY-(2\.0|2\.5|3\.0|4\.0)", photo["licence"]), photo
        assert photo["url"].startswith("https://"), photo
        assert None not in photo and None not in photo.values(), photo


def test_photos_that_are_kept_out_are_not_in_the_list(photos):
    held_out = {line for line in HOLDOUT.read_text(encoding="utf-8").splitlines() if not line.startswith("#")}
    assert len(photos) > len(held_out) > 0
    assert not held_out & {photo["file"] for photo in photos}
