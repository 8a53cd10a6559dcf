"""The study of mutants: each changes one place of its module, and a fault is told from what is none."""

import sys

import pytest
from geometry_mutations import MUTANTS, Mutant, find_killer, order

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")


def test_every_mutant_is_code_and_has_tests():
    for area, mutants in MUTANTS.items():
        for mutant in mutants:
            compile(mutant.source(), mutant.path, "exec")
            tests = order(mutant, area)
            assert len(tests) >= 3 and all(test.is_file() for test in tests)


def test_text_that_a_module_does_not_hold_is_an_error():
    with pytest.raises(ValueError, match="occurs 0 times"):
        Mutant("ranking.scores", "nothing", "no such text", "").source()


def test_a_fault_is_noticed_and_what_is_none_is_not(tmp_path):
    test = tmp_path / "test_decibels.py"
    test.write_text(
        "from realfill.ranking.scores import decibels\n\n\ndef test_it():\n    assert abs(decibels(255.0**2)) < 1e-9\n"
        "    assert abs(decibels(255.0**2 / 10) - 10) < 1e-9\n"
    )
    fault = Mutant("ranking.scores", "twice as many decibels", "return 10 * math.log10", "return 20 * math.log10")
    assert find_killer(fault, [test]).endswith("test_decibels.py::test_it")
    harmless = Mutant(
        "ranking.scores", "another order", "10 * math.log10(255**2 / max(", "10 * math.log10(255**2 / max("
    )
    assert find_killer(harmless, [test]) == ""
