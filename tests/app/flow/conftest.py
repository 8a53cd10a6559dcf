"""Fixtures for the flow: a tiny fit on the small scene."""

import pytest

from realfill import RankConfig, SampleConfig
from realfill.app.flow.settings import Settings
from realfill.app.flow.state import Flow


@pytest.fixture
def make_flow(tiny_fit, tmp_path, monkeypatch):
    """Make flows whose fit has three steps; their log goes to the test's folder."""
    monkeypatch.chdir(tmp_path)

    def make(**options):
        sample, rank = SampleConfig(num_samples=2, num_inference_steps=2), RankConfig(matcher="sift")
        return Flow(Settings(fit=tiny_fit, sample=sample, rank=rank, device="cpu"), **options)

    return make


@pytest.fixture
def flow(make_flow, scene):
    """A flow that starts from the small scene."""
    flow = make_flow()
    flow.choice.use_scene(scene)
    return flow
