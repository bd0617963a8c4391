import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import scores
from scipy import stats

from wmhlib import statistics
from wmhlib.figures import COLOURS
from wmhlib.study import ROOT


def test_mean_sd_and_count_by_hand():
    row = statistics.summary(scores(dice=[0.2, 0.4, 0.6])).iloc[0]
    assert (row.subjects, row.seeds, row.dice_mean) == (3, 1, pytest.approx(0.4))
    assert row.dice_sd == pytest.approx(0.2) and 0.2 <= row.dice_low < 0.4 < row.dice_high <= 0.6


def test_seeds_are_averaged_within_a_subject():
    table = pd.concat([scores(dice=[0.2, 0.4, 0.6]), scores(dice=[0.4, 0.4, 0.4]).assign(seed=2)])
    row = statistics.summary(table).iloc[0]
    assert (row.subjects, row.seeds) == (3, 2) and row.dice_sd == pytest.approx(np.std([0.3, 0.4, 0.5], ddof=1))


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


def test_undefined_values_are_left_out_and_counted():
    table = scores(dice=[0.0, 0.5, 0.5])
    table.loc[0, "hd95_mm"] = np.nan
    row = statistics.summary(table).iloc[0]
    assert row.hd95_mm_mean == 5 and row.hd95_mm_undefined == 1
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


def test_holms_correction_is_for_the_losses_of_one_figure():
    table = scores(
        dice=[0.1, 0.2, 0.2, 0.3, 0.1, 0.2],
        tversky=[0.5, 0.4, 0.6, 0.4, 0.6, 0.5],
        siamese=[0.5, 0.5, 0.5, 0.5, 0.5, 0.5],
    )
    found = statistics.comparisons(table).set_index(["metric", "loss"])
    assert found.p["dice", "dice"] == pytest.approx(2 / 64) and found.p_holm["dice", "dice"] == pytest.approx(4 / 64)
    assert found.p_holm["dice", "tversky"] == pytest.approx(found.p["dice", "tversky"])


def test_nothing_is_compared_without_the_siamese_loss():
    assert statistics.comparisons(scores(dice=[0.1, 0.2, 0.3])).empty


def test_intraclass_correlation_of_shrout_and_fleiss():
    """Their table 2: six targets, four judges; ICC(2,1) is 0.29 in table 4."""
    judged = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
    assert statistics.intraclass_correlation(judged) == pytest.approx(0.2898, abs=1e-4)


def test_volume_agreement_by_hand():
    rows = [
        {
            "loss": "dice",
            "seed": 1,
            "split": "external",
            "centre": "C",
            "subject": name,
            "reference_ml": r,
            "predicted_ml": p,
        }
        for name, r, p in (("a", 1.0, 2.0), ("b", 5.0, 5.0), ("c", 9.0, 11.0))
    ]
    row = statistics.volume_agreement(pd.DataFrame(rows)).iloc[0]
    assert row.bias_ml == pytest.approx(1) and row.upper_limit_ml == pytest.approx(1 + 1.959964)


def lesions(rows: list[tuple]) -> pd.DataFrame:
    """Per-lesion rows of (loss, subject, kind, volume, found)."""
    columns = ["loss", "subject", "kind", "volume_mm3", "found"]
    return pd.DataFrame(rows, columns=columns).assign(seed=1, split="external", centre="C")


def test_detection_by_size_by_hand():
    table = lesions(
        [("dice", "0", "reference", 5.0, True), ("dice", "0", "reference", 9.9, False), ("dice", "1", "reference", 5.0, False),
         ("dice", "1", "reference", 10.0, True), ("dice", "1", "false detection", 5.0, None)]
    )  # fmt: skip
    found = statistics.detection_by_size(table).set_index("size")
    assert found.detected["below 10 mm³"] == pytest.approx(1 / 3) and found.lesions["below 10 mm³"] == 3
    assert found.detected["10 to 30 mm³"] == 1 and len(found) == 2


def test_a_scan_without_false_detections_counts_as_none():
    table = lesions([("dice", "1", "false detection", 500.0, None), ("dice", "1", "false detection", 1500.0, None)])
    row = statistics.false_detections(table, scores(dice=[0.5, 0.5, 0.5, 0.5])).iloc[0]
    assert row.per_scan == pytest.approx(0.5) and row.volume_ml == pytest.approx(0.5)


def test_the_gap_is_holdout_less_external():
    both = pd.concat([scores(dice=[0.8, 0.7, 0.9]).assign(split="holdout"), scores(dice=[0.5, 0.6, 0.4, 0.5])])
    found = statistics.generalisation_gap(both).set_index("metric").loc["dice"]
    assert found.gap == pytest.approx(0.3) and 0 < found.low < 0.3 < found.high


def test_a_centre_in_both_data_sets_is_two_rows():
    both = pd.concat([scores(dice=[0.9, 0.9, 0.9]).assign(split="holdout"), scores(dice=[0.1, 0.1, 0.1])])
    found = statistics.summary(both, by_centre=True).set_index(["split", "centre"]).dice_mean
    assert found.to_dict() == {("holdout", "C"): pytest.approx(0.9), ("external", "C"): pytest.approx(0.1)}


def test_what_the_schema_can_train_has_a_name_and_a_colour():
    schema = yaml.safe_load((ROOT / "config" / "schema.yaml").read_text())
    assert set(schema["$defs"]["recipe"]["properties"]["loss"]["enum"]) <= set(statistics.LOSSES) & set(COLOURS)


def test_a_variant_of_a_loss_is_named_by_its_entry_and_comes_after_the_losses():
    table = scores(siamese_1_tap=[0.5, 0.6, 0.7], siamese=[0.5, 0.6, 0.7], dice=[0.5, 0.6, 0.7])
    assert statistics.present(table) == ["dice", "siamese", "siamese_1_tap"]
    assert statistics.LOSSES["siamese_1_tap"] == "Siamese 1 tap" and COLOURS["siamese_1_tap"].startswith("#")
