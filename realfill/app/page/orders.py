"""What a visitor may order. Each raises ``RealFillError`` or ``ValueError`` with a sentence if it cannot be done."""

from __future__ import annotations

from realfill.app.page.uploads import take_example
from realfill.app.page.visit import RefusedError, Visit
from realfill.app.page.visits import Visits

MAX_STEPS = 20_000
MAX_SAMPLES = 16


def quick(visits: Visits, visit: Visit) -> None:
    """Order a quick result by the engine that the visitor has chosen."""
    visits.unload_others(visit)
    visit.flow.quick(visit.engine)


def fit(visits: Visits, visit: Visit, num_steps: int | None, num_samples: int) -> None:
    """Order a fit.

    Args:
        visits: all visits.
        visit: the visit.
        num_steps: optimizer steps; ``None``: the base model's default.
        num_samples: number of results.
    """
    if num_steps is not None and not 1 <= num_steps <= MAX_STEPS:
        raise RefusedError(f"the number of steps is {num_steps}; legal: from 1 to {MAX_STEPS}")
    _set(visits, visit, num_steps, num_samples)
    visit.flow.fit(samples_if_stopped=True)


def redo(visits: Visits, visit: Visit, num_samples: int) -> None:
    """Order the marked part of a result again."""
    if visit.part is None:
        raise RefusedError("mark the part of the chosen result first, with the brush or a box")
    number, place, part = visit.part
    _set(visits, visit, visit.flow.settings.fit.num_steps, num_samples)
    visit.flow.redo(visit.result(number, place), place, part)


def find_people(visits: Visits, visit: Visit) -> None:
    """Order the people in the target, numbered."""
    visits.unload_others(visit)
    visit.flow.find_people()


def example(visits: Visits, visit: Visit) -> None:
    """Make the demo's scene the photos of a visit, at once."""
    visit.require_idle()
    visits.require_room(visit)
    take_example(visit)


def _set(visits: Visits, visit: Visit, num_steps: int | None, num_samples: int) -> None:
    if not 1 <= num_samples <= MAX_SAMPLES:
        raise RefusedError(f"the number of results is {num_samples}; legal: from 1 to {MAX_SAMPLES}")
    visits.unload_others(visit)
    own = visits.settings.fit
    visit.flow.settings = visits.settings.changed(
        base=own.base, preset=own.preset, num_steps=num_steps, num_samples=num_samples
    )
