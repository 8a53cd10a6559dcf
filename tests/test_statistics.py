"""Statistics of a benchmark: known means, covering intervals, pairing, and planted relations of score and quality."""

import math

import numpy as np
import pytest

from realfill.benchmark.bootstrap import estimate
from realfill.benchmark.records import Record, Results, Run
from realfill.benchmark.statistics import (
    filter_study,
    paired_differences,
    rank_correlation,
    ranking_gain,
    scene_means,
    summarize,
)


def make_record(case="a", method="m", fit_seed=0, seed=0, score=None, **metrics):
    image = f"cases/{case}/{method}/fit{fit_seed}/seed{seed}.png"
    return Record(
        case=case, method=method, fit_seed=fit_seed, seed=seed, score=score, metrics=metrics, image=image
    )  # fmt: skip


def make_results(records, **rest):
    keys = dict.fromkeys((r.case, r.method, r.fit_seed) for r in records)
    runs = tuple(Run(case=c, method=m, fit_seed=f) for c, m, f in keys)
    return Results(records=tuple(records), runs=rest.pop("runs", runs), **rest)


def make_run(values, scores=None, *, metric="psnr", **names):
    pairs = zip(values, scores or [None] * len(values), strict=True)
    return [make_record(seed=i, score=s, **{metric: v}, **names) for i, (v, s) in enumerate(pairs)]


def test_each_scene_counts_once_however_many_completions_it_has():
    results = make_results([*make_run([10.0], case="a"), *make_run([20.0, 30.0, 40.0], case="b")])
    mean = summarize(results)["m"]["psnr"].mean
    assert mean.mean == pytest.approx(20) and (mean.num_cases, mean.num_values) == (2, 4)
    assert mean.low == pytest.approx(10) and 20 < mean.high <= 40


def test_each_fit_seed_counts_once_in_its_scene():
    results = make_results([*make_run([10.0]), *make_run([20.0, 30.0], fit_seed=1)])
    assert scene_means(results, "m", "psnr") == {"a": pytest.approx(17.5)}
    assert summarize(results)["m"]["psnr"].mean.mean == pytest.approx(17.5)


def test_top_ranked_best_and_mean_of_a_run():
    runs = [*make_run([10.0, 30.0, 20.0], [1, 2, 7], case="a"), *make_run([5.0, 4.0], [3, 3], case="b")]
    summary = summarize(make_results(runs))["m"]["psnr"]
    assert summary.mean.mean == pytest.approx((20 + 4.5) / 2)
    assert summary.top.mean == pytest.approx((20 + 5) / 2)  # of equal scores, the lower seed
    assert summary.best.mean == pytest.approx((30 + 5) / 2)


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [("psnr", [1.0, 3.0], 3), ("lpips", [0.2, 0.6], 0.2), ("detail", [0.2, 1.1, 1.5], 1.1)],
)
def test_best_follows_the_metrics_direction(metric, values, best):
    assert summarize(make_results(make_run(values, metric=metric)))["m"][metric].best.mean == pytest.approx(best)


def test_one_deterministic_completion_is_its_own_top_and_has_no_interval():
    summary = summarize(make_results(make_run([12.0])))["m"]["psnr"]
    for found in (summary.mean, summary.top, summary.best):
        assert found.mean == 12 and found.low is None and found.high is None


def test_unranked_runs_of_several_have_no_top():
    assert summarize(make_results(make_run([1.0, 2.0])))["m"]["psnr"].top is None


def test_one_scene_gets_an_interval_over_its_seeds():
    found = summarize(make_results(make_run([10.0, 12.0, 14.0])))["m"]["psnr"].mean
    assert 10 <= found.low < 12 < found.high <= 14 and found.num_cases == 1


def test_failed_runs_and_missing_figures_are_left_out_and_counted():
    records = [*make_run([10.0, 20.0]), make_record(case="b", seed=0), make_record(case="c", psnr=math.nan)]
    runs = (Run(case="a", method="m", fit_seed=0), Run(case="a", method="gone", fit_seed=0, error="no weights"))
    found = summarize(make_results(records, runs=runs))
    assert found["gone"] == {}
    assert (found["m"]["psnr"].mean.num_values, found["m"]["psnr"].mean.num_cases) == (2, 1)


def test_infinite_psnr_counts_as_the_ceiling_and_other_infinities_not_at_all():
    records = [make_record(seed=0, psnr=math.inf, detail=math.inf), make_record(seed=1, psnr=20.0, detail=1.0)]
    found = summarize(make_results(records))["m"]
    assert found["psnr"].mean.mean == pytest.approx(60) and math.isfinite(found["psnr"].mean.high)
    assert found["detail"].mean.mean == 1 and found["detail"].mean.num_values == 1


def test_intervals_cover_the_true_mean_about_as_often_as_they_say():
    generator = np.random.default_rng(1)
    covered = 0
    for i in range(100):
        cases = 5 + generator.normal(size=(20, 1, 1)) + 0.5 * generator.normal(size=(20, 2, 1))
        values = cases + generator.normal(size=(20, 2, 4))
        found = estimate({str(c): v.tolist() for c, v in enumerate(values)}, seed=i, num_draws=300)
        covered += found.low <= 5 <= found.high
    assert 88 <= covered <= 100


def test_interval_of_plain_cases_is_as_wide_as_the_standard_error_says():
    values = np.random.default_rng(0).normal(size=40)
    found = estimate({str(i): [[v]] for i, v in enumerate(values)})
    expected = 2 * 1.96 * values.std() / math.sqrt(40)
    assert found.high - found.low == pytest.approx(expected, rel=0.1)
    assert found.mean == pytest.approx(values.mean())


def test_same_seed_same_interval_in_any_chunks(monkeypatch):
    values = {"a": [[1.0, 2.0], [3.0]], "b": [[4.0, 7.0, 5.0]]}
    assert estimate(values) == estimate(values) != estimate(values, seed=1)
    whole = estimate(values)
    monkeypatch.setattr("realfill.benchmark.bootstrap._MAX_CELLS", 200)
    parts = estimate(values)
    assert parts.mean == whole.mean and parts.low == pytest.approx(whole.low, abs=0.3)


def test_padding_of_uneven_runs_never_enters_a_draw():
    found = estimate({"a": [[5.0], [5.0, 5.0, 5.0]], "b": [[5.0, 5.0]]})
    assert (found.mean, found.low, found.high) == (5, 5, 5)


@pytest.mark.parametrize(
    ("metric", "a", "b"), [("psnr", [21.0, 23.0], [20.0, 20.0]), ("lpips", [0.1, 0.2], [0.4, 0.4]),
                           ("detail", [0.9, 1.2], [2.0, 0.4])]
)  # fmt: skip
def test_paired_difference_is_above_0_where_the_first_is_better(metric, a, b):
    records = [
        *(r for i, v in enumerate(a) for r in make_run([v], metric=metric, case=str(i), method="a")),
        *(r for i, v in enumerate(b) for r in make_run([v], metric=metric, case=str(i), method="b")),
    ]
    found = paired_differences(make_results(records), "a", "b")[metric]
    back = paired_differences(make_results(records), "b", "a")[metric]
    assert found.estimate.low > 0 and found.num_better == 2
    assert back.estimate.mean == pytest.approx(-found.estimate.mean) and back.num_better == 0


def test_pairing_takes_out_what_scenes_share_and_leaves_out_what_one_lacks():
    levels = np.linspace(10, 40, 12)
    records = [r for i, v in enumerate(levels) for r in make_run([v + 1 + 0.1 * (i % 3)], case=str(i), method="a")]
    records += [r for i, v in enumerate(levels) for r in make_run([v], case=str(i), method="b")]
    records += make_run([1000.0], case="only a", method="a")
    results = make_results(records)
    found = paired_differences(results, "a", "b")["psnr"]
    assert found.estimate.mean == pytest.approx(1.1) and found.estimate.num_cases == len(found.per_case) == 12
    assert found.estimate.high - found.estimate.low < 0.2
    assert paired_differences(results, "a", "nobody") == {}


def test_paired_differences_of_top_ranked_completions():
    records = [*make_run([10.0, 30.0], [1, 2], method="a"), *make_run([22.0], method="b")]
    results = make_results(records)
    assert paired_differences(results, "a", "b")["psnr"].estimate.mean == pytest.approx(-2)
    assert paired_differences(results, "a", "b", top_ranked=True)["psnr"].estimate.mean == pytest.approx(8)


def test_filtering_by_a_score_that_knows_raises_the_mean_and_by_a_wrong_one_lowers_it():
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    right = make_run(values, values, method="right")
    wrong = make_run(values, values[::-1], method="wrong")
    found = filter_study(make_results([*right, *wrong, *make_run(values, method="unranked")]))
    assert set(found) == {"right", "wrong"}
    assert [found["right"][s]["psnr"].mean for s in (0, 0.25, 0.5, 0.75)] == pytest.approx([4.5, 5.5, 6.5, 7.5])
    assert [found["wrong"][s]["psnr"].mean for s in (0, 0.25, 0.5, 0.75)] == pytest.approx([4.5, 3.5, 2.5, 1.5])


def test_filtering_drops_whole_completions_and_never_all():
    run = make_run([1.0, 2.0, 3.0], [1, 2, 3])
    found = filter_study(make_results([*run, *make_run([50.0], [9], case="single")]), shares=(0.25, 0.5, 0.99))["m"]
    assert [found[s]["psnr"].mean for s in (0.25, 0.5, 0.99)] == pytest.approx([2, 2.5, 3])
    with pytest.raises(ValueError, match="legal"):
        filter_study(make_results(run), shares=(1.0,))


@pytest.mark.parametrize("metric", ["psnr", "lpips", "detail"])
def test_planted_rank_correlation_follows_quality(metric):
    values = [0.1, 0.3, 0.2, 0.7]
    sign = -1 if metric == "lpips" else 1
    scores = [sign * math.exp(v) for v in values]
    runs = [*make_run(values, scores, metric=metric, case="a"), *make_run(values, scores, metric=metric, case="b")]
    reverse = make_run(values, [-s for s in scores], metric=metric, method="reverse")
    found = rank_correlation(make_results([*runs, *reverse]))
    assert found["m"][metric].estimate.mean == pytest.approx(1) and found["m"][metric].estimate.num_values == 2
    assert found["reverse"][metric].estimate.mean == pytest.approx(-1)


def test_ties_share_their_mean_rank():
    found = rank_correlation(make_results(make_run([1.0, 2.0, 3.0, 4.0], [1, 5, 5, 9])))["m"]["psnr"].estimate
    assert found.mean == pytest.approx(np.corrcoef([1, 2, 3, 4], [1, 2.5, 2.5, 4])[0, 1])


def test_runs_of_constant_score_or_figure_are_excluded_and_counted():
    records = [
        *make_run([1.0, 2.0], [4, 4], case="a"), *make_run([1.0, 2.0], [4, 5], case="b"),
        *make_run([0.1, 0.1, 0.1], [1, 2, 3], case="c"), *make_run([3.0], [1], case="single"),
    ]  # fmt: skip
    for study in (rank_correlation, ranking_gain):
        found = study(make_results(records))["m"]["psnr"]
        assert found.estimate.mean == pytest.approx(1) and found.estimate.num_values == 1 and found.num_excluded == 2
        alone = study(make_results(records[:2]))["m"]["psnr"]
        assert alone.estimate is None and alone.num_excluded == 1


def test_ranking_gain_is_the_share_of_what_choosing_could_gain():
    values = [1.0, 2.0, 6.0]  # mean 3, best 6
    assert ranking_gain(make_results(make_run(values, [1, 2, 3])))["m"]["psnr"].estimate.mean == pytest.approx(1)
    assert ranking_gain(make_results(make_run(values, [1, 3, 2])))["m"]["psnr"].estimate.mean == pytest.approx(-1 / 3)
    lower = make_run(values, [3, 2, 1], metric="lpips")
    assert ranking_gain(make_results(lower))["m"]["lpips"].estimate.mean == pytest.approx(1)


def test_empty_results_have_no_statistics():
    results = make_results([])
    assert summarize(results) == filter_study(results) == rank_correlation(results) == ranking_gain(results) == {}
