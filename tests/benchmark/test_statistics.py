"""Statistics: known means, intervals that cover, pairing, and planted relations between score and quality."""

import math

import numpy as np
import pytest

from realfill.benchmark.records import Record, Results, Run
from realfill.benchmark.statistics import (
    best_by,
    case_means,
    compare,
    completion_frame,
    estimate,
    keep_highest_scores,
    nested,
    rank_correlation,
    ranking_gain,
    study_runs,
)


def make_record(case="a", method="m", fit_seed=0, seed=0, score=None, **metrics):
    image = f"cases/{case}/{method}/fit{fit_seed}/seed{seed}.png"
    return Record(case=case, method=method, fit_seed=fit_seed, seed=seed, score=score, metrics=metrics, image=image)


def make_run(values, scores=None, *, metric="psnr", **names):
    pairs = zip(values, scores or [None] * len(values), strict=True)
    return [make_record(seed=i, score=s, **{metric: v}, **names) for i, (v, s) in enumerate(pairs)]


def rows_of(records, method="m"):
    frame = completion_frame(Results(records=tuple(records), runs=()))
    return frame[frame["method"] == method]


def mean_of(rows, metric="psnr"):
    return estimate(nested(rows, metric))


def top_of(rows, metric="psnr"):
    return mean_of(rows[rows["is_top"]], metric)


def best_of(rows, metric="psnr"):
    return mean_of(best_by(rows, metric), metric)


def test_each_scene_counts_once_however_many_completions_it_has():
    mean = mean_of(rows_of([*make_run([10.0], case="a"), *make_run([20.0, 30.0, 40.0], case="b")]))
    assert mean.mean == pytest.approx(20) and (mean.num_cases, mean.num_values) == (2, 4)
    assert mean.low == pytest.approx(10) and 20 < mean.high <= 40


def test_each_fit_seed_counts_once_in_its_scene():
    rows = rows_of([*make_run([10.0]), *make_run([20.0, 30.0], fit_seed=1)])
    assert case_means(nested(rows, "psnr")) == {"a": pytest.approx(17.5)}
    assert mean_of(rows).mean == pytest.approx(17.5)


def test_mean_top_ranked_and_best_of_a_run():
    rows = rows_of([*make_run([10.0, 30.0, 20.0], [1, 2, 7], case="a"), *make_run([5.0, 4.0], [3, 3], case="b")])
    assert mean_of(rows).mean == pytest.approx((20 + 4.5) / 2)
    assert top_of(rows).mean == pytest.approx((20 + 5) / 2)  # for equal scores, the lower seed
    assert best_of(rows).mean == pytest.approx((30 + 5) / 2)


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [("psnr", [1.0, 3.0], 3), ("lpips", [0.2, 0.6], 0.2), ("detail", [0.2, 1.1, 1.5], 1.1)],
)
def test_best_follows_the_direction_of_the_metric(metric, values, best):
    assert best_of(rows_of(make_run(values, metric=metric)), metric).mean == pytest.approx(best)


def test_a_single_completion_is_top_and_best_and_has_no_interval():
    rows = rows_of(make_run([12.0]))
    for value in (mean_of(rows), top_of(rows), best_of(rows)):
        assert value.mean == 12 and value.low is None and value.high is None


def test_unranked_runs_of_several_completions_have_no_top():
    assert top_of(rows_of(make_run([1.0, 2.0]))) is None


def test_the_interval_of_a_single_scene_covers_its_seeds():
    mean = mean_of(rows_of(make_run([10.0, 12.0, 14.0])))
    assert 10 <= mean.low < 12 < mean.high <= 14 and mean.num_cases == 1


def test_missing_and_nan_figures_are_left_out():
    rows = rows_of([*make_run([10.0, 20.0]), make_record(case="b", seed=0), make_record(case="c", psnr=math.nan)])
    assert (mean_of(rows).num_values, mean_of(rows).num_cases) == (2, 1)


def test_methods_and_cases_include_those_whose_runs_failed():
    runs = (Run(case="a", method="gone", fit_seed=0, error="no weights"), Run(case="a", method="m", fit_seed=0))
    results = Results(records=(*make_run([1.0]), make_record(case="b")), runs=runs)
    assert results.methods == ["gone", "m"] and results.cases == ["a", "b"]


def test_infinite_psnr_counts_as_the_ceiling_and_other_infinities_are_left_out():
    records = [make_record(seed=0, psnr=math.inf, detail=math.inf), make_record(seed=1, psnr=20.0, detail=1.0)]
    rows = rows_of(records)
    assert mean_of(rows).mean == pytest.approx(60) and math.isfinite(mean_of(rows).high)
    assert mean_of(rows, "detail").mean == 1 and mean_of(rows, "detail").num_values == 1


def test_intervals_cover_the_true_mean_about_as_often_as_they_promise(monkeypatch):
    monkeypatch.setattr("realfill.benchmark.statistics.NUM_DRAWS", 300)
    generator = np.random.default_rng(1)
    covered = 0
    for i in range(100):
        cases = 5 + generator.normal(size=(20, 1, 1)) + 0.5 * generator.normal(size=(20, 2, 1))
        values = cases + generator.normal(size=(20, 2, 4))
        mean = estimate({str(c): v.tolist() for c, v in enumerate(values)}, seed=i)
        covered += mean.low <= 5 <= mean.high
    assert 88 <= covered <= 100


def test_the_interval_over_plain_cases_has_the_width_of_the_standard_error():
    values = np.random.default_rng(0).normal(size=40)
    mean = estimate({str(i): [[v]] for i, v in enumerate(values)})
    expected = 2 * 1.96 * values.std() / math.sqrt(40)
    assert mean.high - mean.low == pytest.approx(expected, rel=0.1)
    assert mean.mean == pytest.approx(values.mean())


def test_intervals_draw_fit_seeds_as_clusters():
    values = np.random.default_rng(0).normal(size=40)
    clusters = estimate({"a": [[v] * 8 for v in values]})
    assert clusters.high - clusters.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(40), rel=0.1)
    within = estimate({"a": [values.tolist()] * 2})  # the draws of values within runs have the same width over sqrt(2)
    assert within.high - within.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(80), rel=0.1)


def test_the_same_seed_gives_the_same_interval():
    values = {"a": [[1.0, 2.0], [3.0]], "b": [[4.0, 7.0, 5.0]]}
    assert estimate(values) == estimate(values) != estimate(values, seed=1)


def test_uneven_runs_of_equal_values_have_an_interval_of_no_width():
    mean = estimate({"a": [[5.0], [5.0, 5.0, 5.0]], "b": [[5.0, 5.0]]})
    assert (mean.mean, mean.low, mean.high) == (5, 5, 5)


@pytest.mark.parametrize(
    ("metric", "a", "b"),
    [("psnr", [21.0, 23.0], [20.0, 20.0]), ("lpips", [0.1, 0.2], [0.4, 0.4]), ("detail", [0.9, 1.2], [2.0, 0.4])],
)
def test_a_paired_difference_is_above_0_if_the_first_method_is_better(metric, a, b):
    first = rows_of([r for i, v in enumerate(a) for r in make_run([v], metric=metric, case=str(i))])
    second = rows_of([r for i, v in enumerate(b) for r in make_run([v], metric=metric, case=str(i))])
    forward, backward = compare(first, second, metric), compare(second, first, metric)
    assert forward.estimate.low > 0 and forward.num_better == 2
    assert backward.estimate.mean == pytest.approx(-forward.estimate.mean) and backward.num_better == 0


def test_pairing_removes_the_levels_of_scenes_and_ignores_scenes_of_one_method():
    levels = np.linspace(10, 40, 12)
    first = [r for i, v in enumerate(levels) for r in make_run([v + 1 + 0.1 * (i % 3)], case=str(i))]
    first = rows_of([*first, *make_run([1000.0], case="only first")])
    second = rows_of([r for i, v in enumerate(levels) for r in make_run([v], case=str(i))])
    difference = compare(first, second, "psnr")
    assert difference.estimate.mean == pytest.approx(1.1)
    assert difference.estimate.num_cases == len(difference.per_case) == 12
    assert difference.estimate.high - difference.estimate.low < 0.2
    assert compare(first, second[:0], "psnr") is None


def test_filtering_by_a_score_that_follows_quality_raises_the_mean_and_a_wrong_score_lowers_it():
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]

    def means(scores):
        rows = rows_of(make_run(values, scores))
        return [mean_of(keep_highest_scores(rows, share)).mean for share in (0, 0.25, 0.5, 0.75)]

    assert means(values) == pytest.approx([4.5, 5.5, 6.5, 7.5])
    assert means(values[::-1]) == pytest.approx([4.5, 3.5, 2.5, 1.5])
    assert mean_of(keep_highest_scores(rows_of(make_run(values)), 0.5)) is None  # unranked


def test_filtering_drops_whole_completions_and_never_all():
    rows = rows_of([*make_run([1.0, 2.0, 3.0], [1, 2, 3]), *make_run([50.0], [9], case="single")])
    means = [mean_of(keep_highest_scores(rows, share)).mean for share in (0.25, 0.5, 0.99)]
    assert means == pytest.approx([2, 2.5, 3])
    with pytest.raises(ValueError, match="legal"):
        keep_highest_scores(rows, 1.0)


@pytest.mark.parametrize("metric", ["psnr", "lpips", "detail"])
def test_planted_rank_correlation_follows_quality(metric):
    values = [0.1, 0.3, 0.2, 0.7]
    sign = -1 if metric == "lpips" else 1
    scores = [sign * math.exp(v) for v in values]
    rows = rows_of(record for case in "ab" for record in make_run(values, scores, metric=metric, case=case))
    reverse = rows_of(make_run(values, [-s for s in scores], metric=metric))
    study = study_runs(rows, metric, rank_correlation)
    assert study.estimate.mean == pytest.approx(1) and study.estimate.num_values == 2
    assert study_runs(reverse, metric, rank_correlation).estimate.mean == pytest.approx(-1)


def test_equal_scores_share_their_mean_rank():
    study = study_runs(rows_of(make_run([1.0, 2.0, 3.0, 4.0], [1, 5, 5, 9])), "psnr", rank_correlation)
    assert study.estimate.mean == pytest.approx(np.corrcoef([1, 2, 3, 4], [1, 2.5, 2.5, 4])[0, 1])


@pytest.mark.parametrize("figure", [rank_correlation, ranking_gain])
def test_runs_of_constant_score_or_quality_are_excluded_and_counted(figure):
    records = [
        *make_run([1.0, 2.0], [4, 4], case="a"), *make_run([1.0, 2.0], [4, 5], case="b"),
        *make_run([0.1, 0.1, 0.1], [1, 2, 3], case="c"), *make_run([3.0], [1], case="single"),
    ]  # fmt: skip
    study = study_runs(rows_of(records), "psnr", figure)
    assert study.estimate.mean == pytest.approx(1) and study.estimate.num_values == 1 and study.num_excluded == 2
    alone = study_runs(rows_of(records[:2]), "psnr", figure)
    assert alone.estimate is None and alone.num_excluded == 1


def test_ranking_gain_is_the_share_of_the_possible_gain():
    values = [1.0, 2.0, 6.0]  # mean 3, best 6

    def gain(scores, metric="psnr"):
        return study_runs(rows_of(make_run(values, scores, metric=metric)), metric, ranking_gain).estimate.mean

    assert gain([1, 2, 3]) == pytest.approx(1)
    assert gain([1, 3, 2]) == pytest.approx(-1 / 3)
    assert gain([3, 2, 1], "lpips") == pytest.approx(1)
