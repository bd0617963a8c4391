"""The tables for figures and sentences, worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from conftest import scores

from wmhlib.evaluation import names, statistics, tables


@pytest.fixture(autouse=True)
def quick_statistics(monkeypatch):
    """A tenth of the study's resamples, and no full garbage collection, which statsmodels does for every correction."""
    monkeypatch.setattr(statistics, "RESAMPLES", 999)
    monkeypatch.setattr("gc.collect", lambda: 0)


def test_mean_sd_and_count_by_hand():
    row = tables.summary(scores(dice=[0.2, 0.4, 0.6])).iloc[0]
    assert (row.subjects, row.seeds, row.dice_mean) == (3, 1, pytest.approx(0.4))
    assert row.dice_sd == pytest.approx(0.2) and 0.2 <= row.dice_low < 0.4 < row.dice_high <= 0.6


def test_seeds_are_averaged_within_a_subject():
    table = pd.concat([scores(dice=[0.2, 0.4, 0.6]), scores(dice=[0.4, 0.4, 0.4]).assign(seed=2)])
    row = tables.summary(table).iloc[0]
    assert (row.subjects, row.seeds) == (3, 2) and row.dice_sd == pytest.approx(np.std([0.3, 0.4, 0.5], ddof=1))


def test_undefined_values_are_left_out_and_counted():
    table = scores(dice=[0.0, 0.5, 0.5])
    table.loc[0, "hd95_mm"] = np.nan
    row = tables.summary(table).iloc[0]
    assert row.hd95_mm_mean == 5 and row.hd95_mm_undefined == 1


def test_holms_correction_is_for_the_losses_of_one_figure():
    table = scores(
        dice=[0.1, 0.2, 0.2, 0.3, 0.1, 0.2],
        tversky=[0.5, 0.4, 0.6, 0.4, 0.6, 0.5],
        siamese=[0.5, 0.5, 0.5, 0.5, 0.5, 0.5],
    )
    found = tables.comparisons(table).set_index(["metric", "loss"])
    assert found.p["dice", "dice"] == pytest.approx(2 / 64) and found.p_holm["dice", "dice"] == pytest.approx(4 / 64)
    assert found.p_holm["dice", "tversky"] == pytest.approx(found.p["dice", "tversky"])


def test_nothing_is_compared_without_the_siamese_loss():
    assert tables.comparisons(scores(dice=[0.1, 0.2, 0.3])).empty


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
    row = tables.volume_agreement(pd.DataFrame(rows)).iloc[0]
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
    found = tables.detection_by_size(table).set_index("size")
    assert found.detected["below 10 mm³"] == pytest.approx(1 / 3) and found.lesions["below 10 mm³"] == 3
    assert found.detected["10 to 30 mm³"] == 1 and len(found) == 2


def test_a_scan_without_false_detections_counts_as_none():
    table = lesions([("dice", "1", "false detection", 500.0, None), ("dice", "1", "false detection", 1500.0, None)])
    row = tables.false_detections(table, scores(dice=[0.5, 0.5, 0.5, 0.5])).iloc[0]
    assert row.per_scan == pytest.approx(0.5) and row.volume_ml == pytest.approx(0.5)


def test_the_gap_is_holdout_less_external():
    both = pd.concat([scores(dice=[0.8, 0.7, 0.9]).assign(split="holdout"), scores(dice=[0.5, 0.6, 0.4, 0.5])])
    found = tables.generalisation_gap(both).set_index("metric").loc["dice"]
    assert found.gap == pytest.approx(0.3) and 0 < found.low < 0.3 < found.high


def test_a_centre_in_both_data_sets_is_two_rows():
    both = pd.concat([scores(dice=[0.9, 0.9, 0.9]).assign(split="holdout"), scores(dice=[0.1, 0.1, 0.1])])
    found = tables.summary(both, by_centre=True).set_index(["split", "centre"]).dice_mean
    assert found.to_dict() == {("holdout", "C"): pytest.approx(0.9), ("external", "C"): pytest.approx(0.1)}


def test_a_variant_of_a_loss_is_named_by_its_entry_and_comes_after_the_losses():
    table = scores(siamese_1_tap=[0.5, 0.6, 0.7], siamese=[0.5, 0.6, 0.7], dice=[0.5, 0.6, 0.7])
    assert names.present(table) == ["dice", "siamese", "siamese_1_tap"]
    assert names.title("siamese_1_tap") == "Siamese 1 tap" and names.colour("siamese_1_tap").startswith("#")
    assert names.colour("siamese_1_tap") != names.colour("siamese")
