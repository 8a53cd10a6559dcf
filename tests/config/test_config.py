"""Configs: defaults, precedence, illegal values, settings, and JSON."""

import dataclasses
import json
import math
from typing import get_args

import pytest

from realfill import FitConfig, RankConfig, SampleConfig, WindowConfig
from realfill.config import FitSettings, RankSettings, SampleSettings, ScoreBy, WindowSettings

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
    (FitConfig, "latent_cache_size", -1),
    (FitConfig, "latent_cache_uses", 0),
    (SampleConfig, "preset", "quick"),
    (SampleConfig, "num_samples", 0),
    (SampleConfig, "seed", -1),
    (SampleConfig, "scheduler", "DDPM"),
    (SampleConfig, "num_inference_steps", 0),
    (SampleConfig, "num_inference_steps", 1001),
    (SampleConfig, "guidance_scale", -0.5),
    (SampleConfig, "batch_size", 0),
    (WindowConfig, "context", 0.9),
    (WindowConfig, "join_windows", 0.9),
    (WindowConfig, "num_stages", 0),
    (FitConfig, "seed", 2**63),
    (SampleConfig, "seed", 99999999999999999999),
    (SampleConfig, "tile_overlap", -1),
    (SampleConfig, "blend", "feather"),
    (RankConfig, "matcher", "orb"),
    (RankConfig, "score_by", "colour"),
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
    (WindowConfig, "context", math.inf),
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
    (SampleConfig, {"num_samples": 1, "guidance_scale": 0, "scheduler": "dpm++", "blend": "cut"}),
    (WindowConfig, {"context": 1, "join_windows": 1, "num_stages": 1}),
    (RankConfig, {"matcher": "sift", "max_size_px": 64, "min_confidence": 0, "max_ratio": 1}),
]


@pytest.mark.parametrize(("config", "values"), [(FitConfig(), PAPER_FIT), (SampleConfig(), PAPER_SAMPLE)])
def test_the_defaults_are_those_of_the_paper(config, values):
    resolved = config.resolve({})
    assert {name: getattr(resolved, name) for name in values} == values
    assert (RankConfig().resolve({}).score_by, RankConfig().resolve({}).matcher) == ("keypoints", "loftr")


CONFIGS = {
    FitConfig: FitSettings, SampleConfig: SampleSettings, RankConfig: RankSettings, WindowConfig: WindowSettings,
}  # fmt: skip


def test_settings_declare_a_final_type_for_every_open_field():
    for config, settings in CONFIGS.items():
        open_fields = {field.name for field in dataclasses.fields(config) if "fallback" in field.metadata}
        assert set(vars(settings)["__annotations__"]) == open_fields
        assert type(config().resolve({})) is settings
        for name in open_fields:
            with pytest.raises(ValueError, match=f"{config.__name__}.{name} is None; legal: "):
                dataclasses.replace(config().resolve({}), **{name: None})


def test_an_open_field_is_none_until_it_is_resolved():
    for config in (FitConfig(), SampleConfig(), RankConfig(), WindowConfig()):
        for field in dataclasses.fields(config):
            if "fallback" in field.metadata:
                assert getattr(config, field.name) is None, field.name
                assert getattr(config.resolve({}), field.name) == field.metadata["fallback"], field.name
        assert any("fallback" in field.metadata for field in dataclasses.fields(config))


def test_the_card_wins_over_the_paper_and_a_given_value_over_the_card():
    card = {"num_steps": 300, "batch_size": 4, "crop_scale": [0.5, 2.0]}
    resolved = FitConfig(num_steps=7).resolve(card)
    assert (resolved.num_steps, resolved.batch_size, resolved.lora_rank) == (7, 4, 8)
    assert resolved.crop_scale == (0.5, 2.0)


def test_presets_scale_the_defaults_of_the_base_model_and_paper_ignores_them():
    card = {"num_steps": 700, "num_warmup_steps": 20, "latent_cache_size": 0, "learning_rate": 1e-3}
    fast, draft, paper = (FitConfig(preset=name).resolve(card) for name in ("fast", "draft", "paper"))
    assert (fast.num_steps, fast.num_warmup_steps, fast.latent_cache_size, fast.learning_rate) == (175, 5, 0, 1e-3)
    assert (draft.num_steps, draft.num_warmup_steps) == (70, 2)
    assert paper == dataclasses.replace(FitConfig().resolve({}), preset="paper")
    assert FitConfig(preset="fast").resolve({}).num_steps == 500
    assert FitConfig(preset="fast").resolve({}).latent_cache_size == 512


def test_a_given_value_wins_over_a_preset():
    assert FitConfig(preset="fast", num_steps=2000, latent_cache_size=0).resolve({"num_steps": 700}).num_steps == 2000
    assert SampleConfig(preset="draft", scheduler="ddpm").resolve({}).scheduler == "ddpm"
    assert SampleConfig(preset="draft").resolve({"stage_steps": (40, 8)}).stage_steps == (12, 8)


def test_sampling_presets_use_a_solver_for_few_steps_and_fewer_samples():
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
    ("given", "num_stages", "guided"),
    [
        ({}, 1, False), ({"guidance_scale": 2.0}, 1, True), ({"stage_guidance": (2.0,)}, 2, True),
        ({"stage_guidance": (2.0,)}, 1, False),
        ({"guidance_scale": 2.0, "guidance_from": "negative_prompt"}, 1, False),
    ],
)  # fmt: skip
def test_guidance_from_the_base_counts_only_in_stages_with_a_guidance_scale(given, num_stages, guided):
    settings = SampleConfig(**{"guidance_from": "base", **given}).resolve({})
    assert settings.is_guided_from_base(num_stages) == guided


@pytest.mark.parametrize(
    ("given", "card", "score_by"),
    [
        ({}, {}, "keypoints"), ({}, {"score_by": "warped_references"}, "warped_references"),
        ({"matcher": "sift"}, {"score_by": "warped_references"}, "keypoints"),
        ({"matcher": "sift", "score_by": "warped_references"}, {}, "warped_references"),
    ],
)  # fmt: skip
def test_a_given_matcher_implies_keypoints(given, card, score_by):
    assert RankConfig(**given).resolve(card).score_by == score_by


def test_a_resolved_preset_is_not_applied_again():
    once = FitConfig(preset="fast").resolve({"num_steps": 700})
    assert once.resolve({"num_steps": 700}) == once
    assert FitSettings.from_dict(json.loads(json.dumps(once.to_dict()))) == once


def test_an_explicit_zero_wins_over_the_card():
    assert FitConfig(mask_dropout=0).resolve({"mask_dropout": 0.3}).mask_dropout == 0


def test_resolving_again_changes_nothing():
    once = WindowConfig(num_stages=3).resolve({"context": 2.0})
    assert once.resolve({"context": 9.0, "num_stages": 5}) == once


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
def test_an_illegal_value_is_refused_with_its_name_and_what_is_legal(kind, name, value):
    with pytest.raises(ValueError) as caught:
        kind(**{name: value})
    assert str(caught.value).startswith(f"{kind.__name__}.{name} is {value!r}; legal: ")


@pytest.mark.parametrize(("kind", "values"), LEGAL)
def test_legal_values_are_kept(kind, values):
    config = kind(**values)
    assert {name: getattr(config, name) for name in values} == values


def test_gradient_accumulation_must_divide_the_batch_size_of_the_card_too():
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


def test_a_stage_cannot_take_more_steps_than_the_noise_schedule_has():
    config = SampleConfig(stage_steps=(40, 600))
    with pytest.raises(ValueError, match=r"stage_steps is \(40, 600\); legal: .*at most 1000"):
        config.resolve({"stage_strength": (0.9, 0.5)})
    assert config.resolve({"stage_strength": (0.5, 0.9)}).stage(2) == (600, 1.0, 0.9)


def test_scores_by_keypoints_use_a_matcher():
    names = get_args(ScoreBy)
    uses = {name: RankConfig(score_by=name).resolve({}).uses_matcher for name in names}
    assert uses == {"keypoints": True, "verified_keypoints": True, "warped_references": False, "composite": False}
