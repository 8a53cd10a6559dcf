"""Planted walkers and painted people: what the studies measure is what they say."""

import numpy as np
import pytest
from painted_people import PaintsPeople
from planted_instances import astronaut, plant
from planted_walkers import grown, psnr, walk

PLACE = np.random.default_rng(0).integers(0, 200, (16, 22, 3)).astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)


@pytest.mark.parametrize(("kind", "moves"), [("walks", True), ("poses", False)])
def test_people_walk_or_pose_in_every_view(kind, moves):
    walked = walk("noise", PLACE, kind)
    middles = [np.nonzero(person)[1].mean() for person in (walked.target.outline, *walked.people)]
    assert (np.ptp(middles) > 0.3 * PLACE.shape[1]) == moves
    assert (walked.target.photo[walked.target.opacity == 0] == PLACE[walked.target.opacity == 0]).all()
    assert all((view != PLACE).any() for view in walked.references)  # the camera moves


def test_the_psnr_is_that_of_the_place_where_the_person_was():
    walked = walk("noise", PLACE, "poses")
    image = walked.target.behind.copy()
    image[walked.target.opacity == 0] = 0  # has no influence
    assert psnr(image, walked) > 90
    changed = np.where(walked.target.opacity[..., None] > 0, image ^ 1, image)
    assert psnr(changed, walked) == pytest.approx(48.13, abs=0.01)


def test_the_stand_in_paints_somebody_for_two_of_three_seeds_and_only_in_the_hole():
    case = plant(PLACE, *astronaut(), 0.8, 0.5)
    hole = grown(case.outline)
    results = PaintsPeople(case).fill(case.photo, hole, range(6))
    assert [bool((r != results[2]).any()) for r in results] == [True, True, False, True, True, False]
    assert all((r[~hole] == case.photo[~hole]).all() for r in results)
