"""Options of the benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from realfill.config import MAX_REFERENCES
from realfill.config.base import Config

MethodName = Literal[
    "realfill",
    "realfill_plain",
    "base",
    "base_plain",
    "prompt",
    "smooth",
    "telea",
    "shiftmap",
    "completion",
    "lama",
    "migan",
    "stitching",
    "composite",
    "paint_by_example",
    "dreambooth",
    "klein",
    "klein_warped",
    "klein_both",
    "klein_fit",
    "klein_fit_plain",
]
MetricName = Literal[
    "psnr", "ssim", "gmsd", "detail", "native_detail", "seam", "delta_e", "lpips", "dreamsim", "dino", "clip"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig(Config):
    """The methods and metrics of a benchmark (paper, section 4.1)."""

    methods: tuple[MethodName, ...] = ("realfill", "base", "telea", "shiftmap", "stitching")
    """Methods to run. ``realfill``, or else the first one, is compared with each of the others, scene by scene.
    ``base`` is the base model without a fit; both start from the composite, and ``realfill_plain`` and ``base_plain``
    fill the whole hole by the model. ``prompt`` is ``base_plain`` with the case's prompt. ``smooth``, ``telea``,
    ``shiftmap``, ``stitching`` and ``composite`` need no weights, and those of ``completion`` are packaged; ``lama``,
    ``migan``, ``paint_by_example``, ``dreambooth`` and those of ``klein`` need their own. ``klein`` is the model alone,
    with the references as conditioning; ``klein_warped`` sees them warped to the target view instead, and
    ``klein_both`` sees both. ``klein_fit`` starts from the composite, as ``realfill`` does, and ``klein_fit_plain``
    does not."""
    metrics: tuple[MetricName, ...] = get_args(MetricName)
    """Metrics to measure. The results name those whose weights or packages are not available."""
    fit_seeds: int = 1
    """Number of fits of each case, with seeds from 0."""
    num_references: tuple[int, ...] = ()
    """Run each method that uses references once for each of these numbers, with the first references of a case. Empty:
    once, with all references. Paper's supplement: 1 to 5."""
    completion: str | None = None
    """File or folder of the weights for ``completion``, which realfill train-completion wrote. None: the
    packaged ones."""
    lama: str | None = None
    """TorchScript file of the weights for ``lama``. None: the published one, downloaded once."""
    migan: str | None = None
    """TorchScript file of the weights for ``migan``. None: the published one, downloaded once."""
    paint_by_example: str = "Fantasy-Studio/Paint-by-Example"
    """Hub id or directory of the weights for ``paint_by_example``."""
    dreambooth: str = "sd2"
    """Text-to-image model for ``dreambooth``: ``sd2``, ``sd15``, a hub id or a directory."""
    klein: str = "klein"
    """Base model of ``klein``, which completes without a fit; the methods of ``klein_fit`` sample with it too."""
    klein_base: str = "klein-base"
    """Base model on which ``klein_fit`` and ``klein_fit_plain`` are fitted."""

    def __post_init__(self) -> None:
        self._check_types()
        self._check_at_least(1, "fit_seeds")
        self._check("methods", self.methods and len(set(self.methods)) == len(self.methods), "different methods")
        self._check("metrics", self.metrics and len(set(self.metrics)) == len(self.metrics), "different metrics")
        legal = set(self.num_references) <= set(range(1, MAX_REFERENCES + 1))
        legal = legal and len(set(self.num_references)) == len(self.num_references)
        self._check("num_references", legal, f"different numbers from 1 to {MAX_REFERENCES}")
