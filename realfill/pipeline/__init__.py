"""The jobs, each as the order of its steps; only modules of this folder know it. The steps themselves are elsewhere."""

from realfill.pipeline.adapting import adapt
from realfill.pipeline.bound import BoundEngine
from realfill.pipeline.completing import complete, variants
from realfill.pipeline.erasing import erase, erase_selected
from realfill.pipeline.evidence import examine
from realfill.pipeline.fitting import check_ready, fit
from realfill.pipeline.pictures import draw_composite
from realfill.pipeline.plain import fill
from realfill.pipeline.ranking import rank_again
from realfill.pipeline.references import select_references

__all__ = [
    "BoundEngine", "adapt", "check_ready", "complete", "draw_composite", "erase", "erase_selected", "examine", "fill",
    "fit", "rank_again", "select_references", "variants",
]  # fmt: skip
