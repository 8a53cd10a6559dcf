"""Settings of erasing: what they say of the sampler."""

import pytest

from realfill.config import SampleConfig
from realfill.config.selection import EraseConfig

GUIDED = {"guidance_from": "foreground", "guidance_scale": 2.0, "stage_guidance": [1.5, 1.0]}  # of an adapter


def test_without_settings_of_the_sampler_the_adapters_hold():
    assert EraseConfig().sample is None


@pytest.mark.parametrize(("scale", "expected"), [(None, (2.0, 1.5)), (3.0, (3.0, 1.5)), (1.0, (1.0, 1.0))])
def test_a_scale_of_1_ends_the_guidance_of_all_stages(scale, expected):
    settings = (EraseConfig(guidance_from="foreground", guidance_scale=scale).sample or SampleConfig()).resolve(GUIDED)
    assert (settings.stage(0)[1], settings.stage(1)[1]) == expected
