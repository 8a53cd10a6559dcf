"""Configs: defaults, which value wins, what is refused, and the way to JSON and back."""

import dataclasses
import json
import math

import pytest

from realfill import FitConfig, RankConfig, SampleConfig

PAPER_FIT = {
    "num_steps": 2000,
    "batch_size": 16,
    "learning_rate": 2e-4,
    "text_encoder_learning_rate": 4e-5,
    "lora_rank": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.1,
    "prompt_dropout": 0.1,
    "mask_dropout": 0.1,
    "visible_weight": 1,
    "noise_bias": 1,
    "lr_scheduler": "constant",
    "trainable": "lora",
}
PAPER_SAMPLE = {"num_samples": 64, "num_inference_steps": 200, "guidance_scale": 1, "scheduler": "ddpm"}

ILLEGAL = [
    (FitConfig, "base", ""),
    (FitConfig, "base", "  "),
    (FitConfig, "seed", -1),
    (FitConfig, "num_steps", 0),
    (FitConfig, "num_steps", 2.5),
    (FitConfig, "num_steps", True),
    (FitConfig, "batch_size", "16"),
    (FitConfig, "gradient_accumulation_steps", 0),
    (FitConfig, "mixed_precision", "fp8"),
    (FitConfig, "trainable", "some"),
    (FitConfig, "learning_rate", -1e-4),
    (FitConfig, "learning_rate", math.nan),
    (FitConfig, "learning_rate", True),
    (FitConfig, "gradient_checkpointing", "yes"),
    (FitConfig, "text_encoder_learning_rate", "4e-5"),
    (FitConfig, "weight_decay", -0.1),
    (FitConfig, "lr_scheduler", "step"),
    (FitConfig, "adam_beta2", 1.5),
    (FitConfig, "num_warmup_steps", -1),
    (FitConfig, "max_grad_norm", 0),
    (FitConfig, "ema_decay", 1),
    (FitConfig, "lora_rank", 0),
    (FitConfig, "lora_alpha", 0),
    (FitConfig, "lora_targets", ()),
    (FitConfig, "lora_dropout", 1.0),
    (FitConfig, "prompt_dropout", -0.1),
    (FitConfig, "mask_dropout", 1.1),
    (FitConfig, "target_share", 2),
    (FitConfig, "crop_scale", (1.4, 0.7)),
    (FitConfig, "crop_scale", (0.7, 1.0, 1.4)),
    (FitConfig, "num_rectangles", (0, 4)),
    (FitConfig, "rectangle_size", (0.2, 1.1)),
    (FitConfig, "hole_margin_px", -8),
    (FitConfig, "visible_weight", -1),
    (FitConfig, "noise_bias", 0),
    (FitConfig, "checkpoint_every", 0),
    (FitConfig, "preset", "slow"),
    (FitConfig, "time_budget_s", 0),
    (FitConfig, "bank_size", -1),
    (FitConfig, "bank_uses", 0),
    (SampleConfig, "preset", "quick"),
    (SampleConfig, "num_samples", 0),
    (SampleConfig, "seed", -1),
    (SampleConfig, "scheduler", "DDPM"),
    (SampleConfig, "num_inference_steps", 0),
    (SampleConfig, "num_inference_steps", 1001),
    (SampleConfig, "guidance_scale", -0.5),
    (SampleConfig, "batch_size", 0),
    (SampleConfig, "context", 0.9),
    (SampleConfig, "tile_overlap", -1),
    (SampleConfig, "blend", "feather"),
    (RankConfig, "matcher", "orb"),
    (RankConfig, "max_size_px", 63),
    (RankConfig, "min_confidence", 1.2),
    (RankConfig, "max_ratio", -0.1),
]
ILLEGAL_TYPES = [
    (FitConfig, "noise_bias", "1"),
    (FitConfig, "max_grad_norm", "1"),
    (FitConfig, "crop_scale", 1.0),
    (FitConfig, "crop_scale", ("0.7", "1.4")),
    (FitConfig, "num_rectangles", (1.5, 2.5)),
    (FitConfig, "lora_targets", "to_q"),
    (FitConfig, "prompt", 7),
    (FitConfig, "learning_rate", math.inf),
    (SampleConfig, "context", math.inf),
]
NEVER_NONE = [
    (FitConfig, "base", None),
    (FitConfig, "seed", None),
    (FitConfig, "checkpoint_every", None),
    (SampleConfig, "seed", None),
    (SampleConfig, "tile_overlap", None),
    (SampleConfig, "blend", None),
]
LEGAL = [
    (FitConfig, {"num_steps": 1, "batch_size": 1, "lora_rank": 1, "checkpoint_every": 1}),
    (FitConfig, {"learning_rate": 0, "text_encoder_learning_rate": 0.0, "ema_decay": 0.999, "lora_dropout": 0}),
    (FitConfig, {"prompt_dropout": 1, "mask_dropout": 1.0, "target_share": 0, "visible_weight": 0}),
    (FitConfig, {"crop_scale": (1, 1), "num_rectangles": (1, 1), "rectangle_size": (0.5, 1)}),
    (FitConfig, {"batch_size": 16, "gradient_accumulation_steps": 8, "mixed_precision": "bf16"}),
    (SampleConfig, {"num_samples": 1, "guidance_scale": 0, "context": 1, "scheduler": "dpm++", "blend": "cut"}),
    (RankConfig, {"matcher": "sift", "max_size_px": 64, "min_confidence": 0, "max_ratio": 1}),
]


@pytest.mark.parametrize(("config", "values"), [(FitConfig(), PAPER_FIT), (SampleConfig(), PAPER_SAMPLE)])
def test_defaults_are_the_papers(config, values):
    resolved = config.resolve({})
    assert {name: getattr(resolved, name) for name in values} == values
    assert RankConfig().resolve({}).matcher == "loftr"


def test_a_field_with_a_paper_value_is_open_until_resolved():
    for config in (FitConfig(), SampleConfig(), RankConfig()):
        for field in dataclasses.fields(config):
            if "fallback" in field.metadata:
                assert getattr(config, field.name) is None, field.name
                assert getattr(config.resolve({}), field.name) == field.metadata["fallback"], field.name
        assert any("fallback" in field.metadata for field in dataclasses.fields(config))


def test_card_wins_over_paper_and_explicit_over_card():
    card = {"num_steps": 300, "batch_size": 4, "crop_scale": [0.5, 2.0]}
    resolved = FitConfig(num_steps=7).resolve(card)
    assert (resolved.num_steps, resolved.batch_size, resolved.lora_rank) == (7, 4, 8)
    assert resolved.crop_scale == (0.5, 2.0)


def test_a_preset_scales_the_bases_own_recipe_and_the_papers_passes_it_over():
    card = {"num_steps": 700, "num_warmup_steps": 20, "bank_size": 0, "learning_rate": 1e-3}
    fast, draft, paper = (FitConfig(preset=name).resolve(card) for name in ("fast", "draft", "paper"))
    assert (fast.num_steps, fast.num_warmup_steps, fast.bank_size, fast.learning_rate) == (175, 5, 0, 1e-3)
    assert (draft.num_steps, draft.num_warmup_steps) == (70, 2)
    assert paper == dataclasses.replace(FitConfig().resolve({}), preset="paper")
    assert FitConfig(preset="fast").resolve({}).num_steps == 500
    assert FitConfig(preset="fast").resolve({}).bank_size == 512


def test_what_is_given_wins_over_a_preset():
    assert FitConfig(preset="fast", num_steps=2000, bank_size=0).resolve({"num_steps": 700}).num_steps == 2000
    assert SampleConfig(preset="draft", scheduler="ddpm").resolve({}).scheduler == "ddpm"


def test_presets_of_sampling_take_a_few_step_solver_and_fewer_samples():
    own = {"num_samples": 8, "scheduler": "ddpm", "num_inference_steps": 12}
    found = {
        (name, bool(card)): (c.num_samples, c.scheduler, c.num_inference_steps)
        for name in ("fast", "draft") for card in ({}, own)
        for c in [SampleConfig(preset=name).resolve(card)]
    }  # fmt: skip
    assert found == {
        ("fast", False): (32, "dpm++", 25), ("fast", True): (4, "ddpm", 12),
        ("draft", False): (8, "dpm++", 12), ("draft", True): (4, "ddpm", 12),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "guided"),
    [
        ({}, False), ({"guidance_scale": 2.0}, True), ({"num_stages": 2, "stage_guidance": (2.0,)}, True),
        ({"num_stages": 1, "stage_guidance": (2.0,)}, False),
        ({"guidance_scale": 2.0, "guidance_from": "negative_prompt"}, False),
    ],
)  # fmt: skip
def test_a_config_tells_whether_any_of_its_stages_is_led_away_from_the_base(given, guided):
    assert SampleConfig(**{"guidance_from": "base", **given}).resolve({}).guided_from_base == guided


def test_a_resolved_preset_is_not_applied_again():
    once = FitConfig(preset="fast").resolve({"num_steps": 700})
    assert once.resolve({"num_steps": 700}) == once
    assert FitConfig.from_dict(json.loads(json.dumps(once.to_dict()))) == once


def test_an_explicit_zero_wins_over_the_card():
    assert FitConfig(mask_dropout=0).resolve({"mask_dropout": 0.3}).mask_dropout == 0


def test_resolving_again_changes_nothing():
    once = SampleConfig(num_samples=3).resolve({"context": 2.0})
    assert once.resolve({"context": 9.0, "num_samples": 5}) == once


def test_resolving_leaves_the_original_open():
    config = FitConfig()
    config.resolve({"num_steps": 5})
    assert config == FitConfig()


def test_unknown_default_is_refused():
    with pytest.raises(ValueError, match=r"FitConfig has no field \['num_stpes'\]"):
        FitConfig().resolve({"num_stpes": 5})


def test_illegal_default_is_refused():
    with pytest.raises(ValueError, match=r"FitConfig\.lora_rank is 0; legal: "):
        FitConfig().resolve({"lora_rank": 0})


@pytest.mark.parametrize(("kind", "name", "value"), [*ILLEGAL, *ILLEGAL_TYPES, *NEVER_NONE])
def test_illegal_value_is_refused_by_name_value_and_what_is_legal(kind, name, value):
    with pytest.raises(ValueError) as caught:
        kind(**{name: value})
    assert str(caught.value).startswith(f"{kind.__name__}.{name} is {value!r}; legal: ")


@pytest.mark.parametrize(("kind", "values"), LEGAL)
def test_legal_value_is_taken_as_it_is(kind, values):
    config = kind(**values)
    assert {name: getattr(config, name) for name in values} == values


def test_accumulation_has_to_divide_the_batch_also_where_the_batch_comes_from_the_card():
    config = FitConfig(gradient_accumulation_steps=3)
    for make in (lambda: FitConfig(batch_size=16, gradient_accumulation_steps=3), lambda: config.resolve({})):
        with pytest.raises(ValueError, match="gradient_accumulation_steps is 3; legal: a divisor of the batch size 16"):
            make()
    assert config.resolve({"batch_size": 6}).batch_size == 6


@pytest.mark.parametrize(
    "config",
    [
        FitConfig(),
        FitConfig(num_steps=5, crop_scale=(0.5, 1.0), lora_targets=("to_q",)).resolve({}),
        SampleConfig(prompt="a photo", blend="cut"),
        RankConfig().resolve({}),
    ],
)
def test_config_survives_json(config):
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FitConfig().seed = 3


def test_stages_that_take_more_steps_than_there_are_noise_levels_are_refused_once_both_numbers_are_known():
    config = SampleConfig(stage_steps=(40, 600))
    with pytest.raises(ValueError, match=r"stage_steps is \(40, 600\); legal: .*at most 1000"):
        config.resolve({"stage_strength": (0.9, 0.5)})
    assert config.resolve({"stage_strength": (0.5, 0.9)}).stage(2) == (600, 1.0, 0.9)
