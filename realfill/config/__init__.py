"""The settings of an experiment, each with its unit, its legal values and the source of its default.

A field that is left ``None`` is filled in this order: the preset; the base model's card; the paper (RealFill, Tang et
al., SIGGRAPH 2024) or, where the paper says nothing, a value of ours. The last one stands beside the field, as
``auto(...)``. Adapters and completions store the final values. The machine (device, precision of the
weights, folders, progress) is not part of the experiment and belongs in keyword arguments.
"""

from realfill.config.adapt import AdaptConfig, AdaptPreset, AdaptSettings
from realfill.config.engine import CLASSICAL_ENGINES, PLAIN_ENGINES, EngineName
from realfill.config.fit import (
    MAX_FIT_REFERENCES,
    MAX_REFERENCES,
    FitConfig,
    FitSettings,
    LrScheduler,
    MaskShape,
    Precision,
    Preset,
    Quantization,
    TrainableName,
)
from realfill.config.geometry import CamerasBy, GeometryConfig, GeometrySettings
from realfill.config.rank import MatcherName, RankConfig, RankSettings, ScoreBy
from realfill.config.sample import Blend, GuidanceFrom, SampleConfig, SampleSettings, Scheduler
from realfill.config.window import ReferenceViews, WindowConfig, WindowSettings

__all__ = [
    "CLASSICAL_ENGINES", "MAX_FIT_REFERENCES", "MAX_REFERENCES", "PLAIN_ENGINES", "AdaptConfig", "AdaptPreset",
    "AdaptSettings", "Blend", "CamerasBy", "EngineName", "FitConfig", "FitSettings", "GeometryConfig",
    "GeometrySettings", "GuidanceFrom", "LrScheduler", "MaskShape", "MatcherName", "Precision", "Preset",
    "Quantization", "RankConfig", "RankSettings", "ReferenceViews", "SampleConfig", "SampleSettings", "Scheduler",
    "ScoreBy", "TrainableName", "WindowConfig", "WindowSettings",
]  # fmt: skip
