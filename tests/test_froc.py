"""Curves and scores at equal false positives, worked out by hand."""

import re

import numpy as np
import pandas as pd
import pytest

from wmhlib.evaluation import froc, statistics
from wmhlib.report import figures, findings

CUTS = (0.1, 0.5, 0.9)


@pytest.fixture(autouse=True)
def quick_statistics(monkeypatch):
    """A tenth of the study's resamples, for a score is dear to compute; no full garbage collection at every
    correction."""
    for module in (froc, statistics):
        monkeypatch.setattr(module, "RESAMPLES", 999)
    monkeypatch.setattr("gc.collect", lambda: 0)


def points(split: str = "external", **losses: list) -> pd.DataFrame:
    """Of each loss a list of subjects: (lesions, found at each cut, false detections at each cut), the loosest cut
    first."""
    rows = [
        {"loss": loss, "seed": 1, "split": split, "centre": "C", "subject": str(number), "threshold": cut}
        | {"lesions": lesions, "found": hits, "false_detections": wrong, "small_lesions": 0, "small_found": 0}
        for loss, subjects in losses.items()
        for number, (lesions, found, false) in enumerate(subjects)
        for cut, hits, wrong in zip(CUTS, found, false, strict=True)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=1)  # the order of the rows says nothing


def score(*subjects: tuple) -> float:
    return float(froc.score(froc.counts(points(dice=list(subjects)), "all")))


def test_the_score_by_hand():
    """From 1 false detection with 5 of 10 found straight to 4 with 8: 0.5, 0.6, 0.8, and no more at 8 and 16."""
    assert froc.RATES == (1, 2, 4, 8, 16)
    assert score((10, [8, 8, 5], [4, 4, 1])) == pytest.approx((0.5 + 0.6 + 0.8 + 0.8 + 0.8) / 5)


def test_below_the_strictest_cut_a_curve_falls_to_the_origin():
    assert score((10, [8, 8, 8], [16, 16, 16])) == pytest.approx(0.8 * np.mean([1, 2, 4, 8, 16]) / 16)


def test_a_looser_cut_that_finds_less_is_not_taken():
    """Where detections run together into one that is mostly no lesion, less is found: the stricter cut can be had
    instead."""
    assert score((10, [6, 8, 5], [9, 4, 1])) == score((10, [8, 8, 5], [9, 4, 1]))


def test_lesions_count_not_subjects():
    assert score((30, [30, 30, 30], [0, 0, 0]), (10, [0, 0, 0], [0, 0, 0])) == pytest.approx(0.75)


def test_no_lesions_no_score():
    table = points(dice=[(5, [5, 4, 3], [9, 4, 1])] * 3, siamese=[(5, [5, 4, 3], [9, 4, 1])] * 3)
    scores = froc.scores(table).set_index(["lesions", "loss"])
    assert np.isnan(scores.score["small", "dice"]) and scores.score["all", "dice"] > 0
    compared = froc.comparisons(table, {"dice": "dice", "siamese": "siamese"}).set_index("lesions")
    assert np.isnan(compared.p["small"]) and compared.difference["all"] == 0 and compared.p["all"] == 1


def test_a_loss_that_only_marks_more_is_not_better():
    """Two losses with the same curve, but at different points for the threshold 0.5, have the same score."""
    bold, shy = [(10, [8, 8, 6], [4, 4, 1])] * 4, [(10, [8, 6, 3], [4, 1, 0.5])] * 4
    table = points(siamese=bold, dice=shy)
    at_half = froc.curves(table).query("threshold == 0.5 and lesions == 'all'").set_index("loss")
    assert at_half.recall.to_dict() == {"dice": 0.6, "siamese": 0.8}
    row = froc.comparisons(table, {"dice": "dice", "siamese": "siamese"}).query("lesions == 'all'").iloc[0]
    assert row.loss == "dice" and row.difference == pytest.approx(0, abs=1e-12)


def test_seeds_are_scored_apart_however_they_are_calibrated():
    """Two trainings with the same curve at shifted thresholds: averaging at equal thresholds would distort it."""
    one = points(dice=[(10, [8, 8, 6], [4, 4, 1])] * 4)
    two = points(dice=[(10, [8, 6, 3], [4, 1, 0.5])] * 4).assign(seed=2)
    both = pd.concat([one, two])
    alone = froc.scores(one).query("lesions == 'all'").score.iloc[0]
    row = froc.scores(both).query("lesions == 'all'").iloc[0]
    assert row.score == pytest.approx(alone) and row.low <= row.score <= row.high
    rival = pd.concat([both, both.assign(loss="siamese")])
    row = froc.comparisons(rival, {"dice": "dice", "siamese": "siamese"}).query("lesions == 'all'").iloc[0]
    assert row.difference == row.low == row.high == 0 and row.p == 1


def test_seeds_that_disagree_widen_the_interval():
    strong, weak = [(10, [9, 8, 6], [8, 4, 1])] * 5, [(10, [5, 3, 2], [8, 4, 1])] * 5
    row = (
        froc.scores(pd.concat([points(dice=strong), points(dice=weak).assign(seed=2)]))
        .query("lesions == 'all'")
        .iloc[0]
    )
    assert row.low < row.score - 0.05 and row.high > row.score + 0.05


def test_holms_correction_is_for_the_losses_on_the_same_lesions():
    strong, weak = [(10, [9, 8, 6], [8, 4, 1])] * 7, [(10, [5, 3, 2], [8, 4, 1])] * 7
    table = points(siamese=strong, dice=weak, tversky=weak)
    found = froc.comparisons(table, {name: name for name in ("siamese", "dice", "tversky")})
    assert (found.query("lesions == 'all'").p_holm == 2 * 2 / 2**7).all()


def test_a_difference_in_every_subject_is_shown_and_said():
    better, worse = (
        [(10, [9, k, 5], [8, 4, 1]) for k in (8, 9, 8, 9, 8, 9, 8)],
        [(10, [5, 4, 3], [8, 4, k]) for k in (1, 2) * 3 + (1,)],
    )
    kinds = {"dice": "dice", "siamese": "siamese", "siamese_1_tap": "siamese"}
    table = points(siamese=better, dice=worse, siamese_1_tap=worse)
    scores, compared = froc.scores(table), froc.comparisons(table, kinds)
    row = compared.query("lesions == 'all'").iloc[0]
    assert set(compared.loss) == {"dice"}, "a variant is no rival"
    assert row.p == row.p_holm == pytest.approx(2 / 2**7) and row.low < row.difference < row.high < 0
    (text,) = findings.equal_rates(scores, compared, "external")
    said = re.findall(r"\d[\d.]*\d|Siamese 1 tap|Siamese|Dice|fewer|more", text)
    ends = [f"{-100 * end:.1f}" for end in (row.high, row.low)]
    shares, difference = ["Siamese", "75", "Dice", "39"], ["Dice", "36.5", "fewer", "Siamese", *ends, "0.016"]
    assert said[-len(shares + difference) :] == shares + difference, text
    assert "Siamese 1 tap" not in said, "a variant is not named: it is not compared"
    assert "30" not in said, "there are no small lesions"


def test_what_is_not_shown_is_not_said_to_be():
    table = points(siamese=[(10, [9, 8, 5], [8, 4, 1])] * 4, dice=[(10, [9, 8, 5], [8, 4, 1])] * 4)
    kinds = {"dice": "dice", "siamese": "siamese"}
    (text,) = findings.equal_rates(froc.scores(table), froc.comparisons(table, kinds), "external")
    assert "no significant difference" in text and "points" not in text and "p =" not in text
    alone = points(dice=[(10, [9, 8, 5], [8, 4, 1])] * 4)
    assert froc.comparisons(alone, kinds).empty
    (text,) = findings.equal_rates(froc.scores(alone), froc.comparisons(alone, kinds), "external")
    assert "Siamese" not in text and "difference" not in text


def test_the_figure_marks_the_threshold_at_one_half():
    figure = figures.froc(froc.curves(points(dice=[(10, [9, 8, 5], [8, 4, 1])] * 3)), "external")
    line = figure.data[0]
    sizes = dict(zip(line.x, line.marker.size, strict=True))
    assert list(sizes) == [1, 4, 8] and sizes[4] > sizes[1] == sizes[8]
    flooded = froc.curves(points(dice=[(10, [0, 8, 5], [2, 4, 1])] * 3))
    assert list(figures.froc(flooded, "external").data[0].x) == [1, 4], (
        "a threshold that detects less than a stricter one is not drawn"
    )
