"""Captions name the right losses, subjects and numbers, also for sparse data."""

import re

import numpy as np
import pandas as pd
import pytest
from conftest import says, scores

from wmhlib.evaluation import statistics, tables
from wmhlib.report import captions
from wmhlib.running.files import write_json, write_table
from wmhlib.study import open_study


@pytest.fixture(autouse=True)
def quick_statistics(monkeypatch):
    """A tenth of the study's resamples, and no full garbage collection, which statsmodels does for every correction."""
    monkeypatch.setattr(statistics, "RESAMPLES", 999)
    monkeypatch.setattr("gc.collect", lambda: 0)


def by_size(detection: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables with this detection by size; Dice has 4 and Siamese 5 false positives per scan."""
    false = pd.DataFrame({"split": "external", "loss": ["dice", "siamese"], "per_scan": [4.0, 5.0]})
    return {"detection_by_size": detection, "false_detections": false}


def test_slopes_say_on_how_many_subjects_a_loss_lies_above():
    table = scores(dice=[0.5, 0.6, 0.9], siamese=[0.6, 0.7, 0.8])
    text = captions.slopes_caption(tables.summary(table), tables.comparisons(table), "external")
    assert says(text, "3", "Dice", "33")


def test_captions_do_without_what_is_not_there():
    table = scores(dice=[0.5, 0.6], siamese=[0.6, 0.7])
    assert says(captions.slopes_caption(tables.summary(table), tables.comparisons(table), "external"), "2 subjects")
    centres = tables.summary(table, by_centre=True)
    assert says(captions.centres_caption(centres), "Dice", "C", "external", "2", "0.55")
    assert "nan" not in captions.centres_caption(centres.assign(dice_mean=np.nan))
    none = captions.gap_caption(pd.DataFrame(columns=["metric", "loss", "low"]))
    assert "no interval" in none and "left" not in none
    lesions = pd.DataFrame(columns=["kind", "split", "loss", "seed", "subject", "volume_mm3", "found"])
    assert "%" not in captions.detection_caption(by_size(tables.detection_by_size(lesions)), "external")


def test_empty_masks_and_doubled_volumes_are_counted():
    table = scores(dice=[0.5, 0.6, 0.7], siamese=[0.6, 0.7, 0.8])
    assert says(captions.density_caption(table, "external"), "Dice", "0", "0", "Siamese", "0", "0")
    table.loc[table.loss == "dice", "predicted_density_pct"] = [0, 0, 0.1]
    table.loc[table.loss == "siamese", "avd_pct"] = [100, 250, 99]
    assert says(captions.density_caption(table, "external"), "Dice", "2", "0", "Siamese", "0", "2")


def test_the_size_where_losses_lie_furthest_apart_is_named():
    columns = ["split", "loss", "from_mm3", "size", "lesions", "detected"]
    rows = [("external", "dice", 0.0, "below 10 mm³", 30, 0.1), ("external", "siamese", 0.0, "below 10 mm³", 30, 0.6)]
    rows += [
        ("external", "dice", 10.0, "10 to 30 mm³", 20, 0.5),
        ("external", "siamese", 10.0, "10 to 30 mm³", 20, 0.9),
    ]
    rows += [
        ("external", "dice", 30.0, "30 to 100 mm³", 1, 0.0),
        ("external", "siamese", 30.0, "30 to 100 mm³", 1, 1.0),
    ]
    text = captions.detection_caption(by_size(pd.DataFrame(rows, columns=columns)), "external")
    assert says(text, "below 10 mm³", "Siamese", "60", "5", "Dice", "10", "4"), "rates of fewer than ten lesions jump"


def test_losses_that_find_the_same_lesions_are_not_set_apart():
    rows = [("external", loss, 0.0, "below 10 mm³", 20, 0.4) for loss in ("dice", "siamese")]
    detection = pd.DataFrame(rows, columns=["split", "loss", "from_mm3", "size", "lesions", "detected"])
    text = captions.detection_caption(by_size(detection), "external")
    assert "same" in text and "Dice" not in text and "Siamese" not in text


def test_gaps_on_either_side_of_zero_are_named():
    rows = [("dice", "dice", 0.3, 0.1, 0.5), ("dice", "siamese", -0.3, -0.5, -0.1), ("dice", "tversky", 0.0, -0.1, 0.1)]
    text = captions.gap_caption(pd.DataFrame(rows, columns=["metric", "loss", "gap", "low", "high"]))
    assert says(text, "right of zero", "Dice", "left of zero", "Siamese") and "Tversky" not in text


def test_one_subject_has_a_bias_and_no_limits():
    volumes = pd.DataFrame(
        {"loss": "dice", "seed": 1, "split": "external", "subject": ["a"], "reference_ml": 1.0, "predicted_ml": 3.0}
    )
    text = captions.agreement_caption(tables.volume_agreement(volumes), "external")
    assert says(text, "Dice", "+2.0 ml") and "nan" not in text and "ICC" not in text


def test_references_without_lesions_are_named():
    loads = pd.DataFrame({"subject": ["1", "2", "3"], "lesions": [0, 4, 0]})
    text = captions.without_lesions(loads)
    assert says(text, "1", "3") and not says(text, "2")
    assert captions.without_lesions(loads[1:2]) == ""


CEILINGS = pd.DataFrame({"split": ["training", "holdout", "external", "external"], "dice": [0.1, 0.9, 0.7, 0.8]})


def test_the_ceiling_is_told_per_data_set():
    text = captions.ceiling(CEILINGS)
    assert says(text, "0.90", "holdout", "0.90", "0.90", "0.75", "external", "0.70", "0.80") and "0.1" not in text


def test_undefined_figures_are_counted():
    table = scores(dice=[0.5, 0.5, 0.5], siamese=[0.5, 0.5, 0.5])
    table.loc[:1, "hd95_mm"] = np.nan
    assert says(captions.undefined(tables.summary(table)), "2")


def test_table_1_says_who_was_scored_and_where_the_features_came_from(settings, write_config, tmp_path, monkeypatch):
    monkeypatch.setattr("wmhlib.study.ROOT", tmp_path)
    study = open_study(write_config(settings | {"seeds": [1, 2]}))
    write_table(study.tables / "ceilings.csv", CEILINGS)
    write_json(study.features / "origins.json", {"vgg19": {"weights": "imagenet", "source": "a file of mine"}})
    table = pd.concat([scores(dice=[0.5, 0.6, 0.7]), scores(dice=[0.5, 0.6]).assign(split="holdout")])
    text = captions.table1_caption(study, {"summary": tables.summary(table)})
    assert study.name in text and {"2 holdout", "3 external", "2 seeds"} <= set(re.findall(r"\d \w+", text))
    assert "vgg19: a file of mine" in text and "0.75" in text
