"""The card of a base model: saved beside its weights, with defaults where there is none."""

import json

import pytest

from realfill import FitConfig
from realfill.errors import BaseModelError
from realfill.models.diffusion.card import Card
from realfill.models.diffusion.hub import MINI_DIRECTORY


def test_the_card_of_the_packaged_base_has_defaults_for_the_configs():
    card = Card.load(MINI_DIRECTORY)
    config = FitConfig(base="mini").resolve(card.fit)
    assert card.resolution == 128
    assert config.num_steps == card.fit["num_steps"] != FitConfig().resolve({}).num_steps


def test_a_card_survives_saving_and_loading(tmp_path):
    card = Card(
        resolution=96, masked_image="smooth", masked_latent="any", reads_hints=True, fit={"num_steps": 5},
        about={"data": "none"},
    )  # fmt: skip
    card.save(tmp_path)
    assert Card.load(tmp_path) == card


def test_defaults_for_fits_where_references_show_the_hole_replace_the_others():
    card = Card(fit={"num_steps": 5, "batch_size": 2}, covered_fit={"num_steps": 3})
    assert card.fit_defaults(covered=False) == {"num_steps": 5, "batch_size": 2}
    assert card.fit_defaults(covered=True) == {"num_steps": 3, "batch_size": 2}
    assert card.describe_covered_fit(FitConfig()) == {"num_steps": 3}
    assert card.describe_covered_fit(FitConfig(preset="draft")) == {"num_steps": 1}
    assert card.describe_covered_fit(FitConfig(num_steps=9, batch_size=1)) == {"num_steps": 9}


def test_a_model_without_a_card_is_treated_as_stable_diffusion(tmp_path):
    assert Card.load(tmp_path) == Card(masked_image="grey", masked_latent="nearest")


DAMAGED = (
    "{", "[1]", json.dumps({"unknown": 1}), '{"reads_hints": true}', '{"fit": {"preset": "paper"}}',
    '{"fit": {"trainable": "all"}, "covered_fit": {"quantization": "nf4"}}',
)  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED)
def test_the_error_for_a_damaged_card_names_the_file(tmp_path, content):
    (tmp_path / "card.json").write_text(content)
    with pytest.raises(BaseModelError, match=r"card\.json"):
        Card.load(tmp_path)
