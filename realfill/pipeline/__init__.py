"""The jobs, each as the order of its steps; only modules of this folder know it. The steps themselves are elsewhere."""

from realfill.pipeline.completing import complete, variants
from realfill.pipeline.erasing import erase, erase_selected
from realfill.pipeline.evidence import examine
from realfill.pipeline.fitting import check_ready, fit
from realfill.pipeline.plain import fill

__all__ = ["check_ready", "complete", "erase", "erase_selected", "examine", "fill", "fit", "variants"]
