"""Evidence: the judgement of each pixel, its shares, and its files."""

import numpy as np
import pytest
from composites import make_composite

from realfill.config import GeometryConfig
from realfill.errors import SceneError
from realfill.results.evidence import CORRECTED, INVENTED, KNOWN, PHOTOGRAPHED, Evidence, percentages
from realfill.results.pictures import evidence_colours, evidence_figure

SETTINGS = GeometryConfig(photographed_confidence=0.6, corrected_confidence=0.3).resolve({})


def judge(confidence, source):
    mask = np.array([[False] + [True] * len(confidence)])
    return Evidence.judge(mask, np.array([[1, *confidence]]), np.array([[-1, *source]], np.int16), SETTINGS)


def test_each_threshold_counts_as_reached():
    evidence = judge([0.6, 0.59, 0.3, 0.29, 0.9], [0, 1, 1, 1, -1])
    assert evidence.kind.tolist() == [PHOTOGRAPHED, CORRECTED, CORRECTED, INVENTED, INVENTED]
    assert evidence.source.tolist() == [0, 1, 1, -1, -1]
    assert evidence.kinds.tolist() == [[KNOWN, *evidence.kind]]
    assert evidence.sources.tolist() == [[-1, 0, 1, 1, -1, -1]]
    assert evidence.confidences[0].tolist() == pytest.approx([1, 0.6, 0.59, 0.3, 0.29, 0], abs=1 / 255)
    assert evidence.photographed.tolist() == [[False, True, False, False, False, False]]


def test_shares_sum_to_one_and_name_the_references():
    evidence = judge([0.9, 0.9, 0.9, 0.4, 0.0, 0.1, 0.2, 0.9], [2, 2, 5, 2, -1, 0, 0, 5])
    assert evidence.shares == {"photographed": 0.5, "corrected": 0.125, "invented": 0.375}
    assert evidence.references == {2: 0.25, 5: 0.25}
    assert evidence.coverage == 0.625
    line = "50 % of the hole photographed (references 2 and 5), 13 % corrected, 37 % invented"
    assert evidence.describe() == line.replace("13", "12").replace("37", "38") or evidence.describe() == line


@pytest.mark.parametrize(
    ("confidence", "source", "line"),
    [
        ([0.9, 0.9], [3, 3], "100 % of the hole photographed (reference 3)"),
        ([0.0, 0.0], [-1, -1], "100 % of the hole invented"),
        ([0.9] * 300 + [0.0], [0] * 301, "100 % of the hole photographed (reference 0), under 1 % invented"),
        ([0.9, 0.9, 0.9, 0.4], [0, 1, 2, 0], "75 % of the hole photographed (references 0, 1 and 2), 25 % corrected"),
    ],
)
def test_the_line_leaves_out_what_there_is_not(confidence, source, line):
    assert judge(confidence, source).describe() == line


def test_percentages_sum_to_a_hundred():
    rng = np.random.default_rng(0)
    for _ in range(50):
        shares = rng.dirichlet([1, 1, 1]).tolist()
        whole = percentages(shares)
        assert sum(whole) == 100
        assert all(abs(w - 100 * s) < 1 for w, s in zip(whole, shares, strict=True))


def test_evidence_comes_back_from_its_file(scene, tmp_path):
    found = make_composite(scene)
    evidence = Evidence.judge(scene.mask, found.confidence, found.source, SETTINGS)
    evidence.save(tmp_path / "evidence.npz")
    again = Evidence.load(tmp_path / "evidence.npz", scene.mask)
    for name in ("kind", "source", "confidence"):
        assert (getattr(again, name) == getattr(evidence, name)).all()
    assert Evidence.load(tmp_path / "other.npz", scene.mask) is None
    assert Evidence.load(tmp_path / "evidence.npz", ~scene.mask) is None
    (tmp_path / "evidence.npz").write_bytes(b"not an archive")
    with pytest.raises(SceneError, match="damaged"):
        Evidence.load(tmp_path / "evidence.npz", scene.mask)


def test_the_picture_tells_kinds_and_references_apart(scene):
    found = make_composite(scene)
    evidence = Evidence.judge(scene.mask, found.confidence, found.source, GeometryConfig().resolve({}))
    colours = {tuple(c) for c in evidence_colours(evidence).tolist()}
    assert len(colours) == 4  # two references, corrected, invented
    labels = [text.get_text() for text in evidence_figure(scene.target, evidence).legends[0].get_texts()]
    assert [label.split(":")[0] for label in labels] == [
        "photographed, reference 0", "photographed, reference 1", "corrected", "invented",
    ]  # fmt: skip
