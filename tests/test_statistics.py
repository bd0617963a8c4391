"""Means, intervals and tests, compared with values worked out by hand and with SciPy."""

import numpy as np
import pandas as pd
import pytest
from conftest import scores
from scipy import stats

from wmhlib.evaluation import statistics


def test_intervals_of_few_or_equal_values():
    assert np.isnan(statistics.spread(np.array([[0.1], [0.2]]))["low"])
    same = statistics.spread(np.full((3, 2), 0.3))
    assert (same["low"], same["high"], same["sd"]) == (pytest.approx(0.3),) * 2 + (pytest.approx(0, abs=1e-12),)


def test_an_interval_of_one_seed_is_scipys_own():
    values = np.random.default_rng(3).normal(0.6, 0.1, 12)
    expected = stats.bootstrap((values,), np.mean, n_resamples=9999, rng=np.random.default_rng(0)).confidence_interval
    found = statistics.spread(values[:, np.newaxis])
    assert (found["low"], found["high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_seeds_that_disagree_widen_the_interval():
    """Subjects alike and seeds apart: an interval over subjects alone would have no width."""
    apart = statistics.spread(np.array([[0.4, 0.5, 0.6]] * 5))
    assert apart["low"] < 0.45 < 0.55 < apart["high"] and apart["sd"] == pytest.approx(0, abs=1e-12)


def test_undefined_values_are_left_out_of_a_mean():
    seeds = np.array([[np.nan, np.nan], [1, np.nan], [3, 5], [2, 2]])
    assert statistics.spread(seeds)["mean"] == pytest.approx(7 / 3), "seeds first, then subjects"
    assert np.isnan(statistics.spread(np.full((4, 2), np.nan))["mean"])


def test_a_weighted_mean_counts_lesions_not_subjects():
    rates, lesions = np.array([[1.0], [0.0], [0.5]]), np.array([[2.0], [6.0], [2.0]])
    assert statistics.spread(rates, weights=lesions)["mean"] == pytest.approx(0.3)


def test_paired_differences_by_hand():
    both = scores(dice=[0.2, 0.3, 0.4, 0.5], siamese=[0.3, 0.5, 0.5, 0.9])
    row = statistics.paired(both, "external", "dice", "dice", "siamese")
    gaps = np.array([-0.1, -0.2, -0.1, -0.4])
    assert row["difference"] == pytest.approx(-0.2) and row["subjects"] == 4 and row["share_above"] == 0
    assert row["effect_size"] == pytest.approx(gaps.mean() / gaps.std(ddof=1))
    assert row["p"] == pytest.approx(2 / 16), "two of the sixteen sign changes are as extreme"


def test_intraclass_correlation_of_shrout_and_fleiss():
    """Their table 2: six targets, four judges; ICC(2,1) is 0.29 in table 4."""
    judged = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
    assert statistics.intraclass_correlation(judged) == pytest.approx(0.2898, abs=1e-4)


def test_holms_correction_leaves_out_what_was_not_tested():
    found = statistics.holm(pd.DataFrame({"p": [0.01, np.nan, 0.04]}))
    assert found.p_holm[0] == pytest.approx(0.02) and found.p_holm[2] == pytest.approx(0.04)
    assert np.isnan(found.p_holm[1])
