"""Findings of the report name the right losses and numbers, and make no unsupported claims."""

import numpy as np
import pandas as pd
import pytest
from conftest import says, scores

from wmhlib.evaluation import game, statistics, tables
from wmhlib.report import findings

PLAYED = {"loss": "siamese_minmax", "seed": 1}
"""The training of a row of `minmax.csv`."""


@pytest.fixture(autouse=True)
def quick_statistics(monkeypatch):
    """A tenth of the study's resamples, and no full garbage collection, which statsmodels does for every correction."""
    monkeypatch.setattr(statistics, "RESAMPLES", 999)
    monkeypatch.setattr("gc.collect", lambda: 0)


def found(per_subject: pd.DataFrame) -> list[str]:
    """The findings of a table of subjects, with no lesion recorded."""
    none = pd.DataFrame(columns=["split", "loss", "from_mm3", "detected", "lesions", "per_scan"])
    return findings.findings(
        {
            "summary": tables.summary(per_subject),
            "comparisons": tables.comparisons(per_subject),
            "ablations": tables.ablations(per_subject, {}),
            "generalisation_gap": tables.generalisation_gap(per_subject),
            "detection_by_size": none,
            "false_detections": none,
            "froc_scores": none.assign(lesions=None, score=None),
            "froc_comparisons": none.assign(against=None),
        }
    )


CLOSE = {"dice": [0.2, 0.6, 0.4, 0.5, 0.3, 0.4, 0.5], "siamese": [0.5, 0.3, 0.5, 0.41, 0.4, 0.3, 0.52]}
APART = {"dice": [0.2, 0.3, 0.4, 0.5, 0.2, 0.3, 0.4], "siamese": [0.5, 0.6, 0.7, 0.81, 0.5, 0.6, 0.7]}


def test_losses_that_cannot_be_told_apart_are_said_to_be():
    said = found(scores(**CLOSE))
    assert says(said[0], "Siamese", "Dice", "0.42", "Dice", "0.41")
    assert says(said, "no difference", "Siamese", "Dice", "7")
    assert not any("better" in sentence for sentence in said)


def test_a_clear_difference_is_given_with_its_interval_and_p():
    said = found(scores(**APART))
    assert says(said, "Siamese", "better", "Dice", "0.30", "0.30", "0.31", "0.016")
    assert not any("no difference" in sentence for sentence in said)


def test_a_siamese_loss_that_is_worse_is_said_to_be():
    table = scores(dice=[0.5] * 7, siamese=[0.5] * 7)
    table.loc[table.loss == "siamese", "avd_pct"] = [40, 50, 60, 55, 45, 50, 51]
    said = found(table)
    assert says(said, "Siamese", "worse", "Dice", "AVD", "40.1") and not any("better" in one for one in said)


def test_too_few_subjects_for_any_difference_are_named():
    three = found(scores(dice=[0.1, 0.2, 0.3], siamese=[0.7, 0.8, 0.9]))
    assert says(three, "3", "few")
    assert says(found(scores(dice=[0.1, 0.2], siamese=[0.7, 0.8])), "2", "few")
    assert not says(found(scores(**CLOSE)), "few"), "seven can tell two losses apart"


def test_a_loss_that_the_threshold_beats_is_named():
    said = found(scores(dice=[0.2, 0.3, 0.4], siamese=[0.5, 0.6, 0.7], global_threshold=[0.4, 0.4, 0.5]))
    (sentence,) = (one for one in said if "threshold" in one)
    assert says(sentence, "Dice", "0.43", "not", "Dice") and "Siamese" not in sentence


def test_small_lesions_are_weighed_by_their_number():
    detection = pd.DataFrame(
        [("external", loss, low, size, count, share) for loss, low, size, count, share in (
            ("dice", 0.0, "a", 30, 0.1), ("dice", 10.0, "b", 10, 0.5), ("siamese", 0.0, "a", 30, 0.5),
            ("siamese", 10.0, "b", 10, 0.9), ("siamese", 30.0, "c", 10, 1.0))],
        columns=["split", "loss", "from_mm3", "size", "lesions", "detected"],
    )  # fmt: skip
    false = pd.DataFrame({"split": "external", "loss": ["dice", "siamese"], "per_scan": [2.0, 7.0]})
    (text,) = findings.small_lesions(detection, false, "external")
    assert says(text, "Siamese", "60", "7.0", "Dice", "20", "2.0")


def test_equal_losses_share_the_lead():
    said = found(scores(dice=[0.5, 0.5, 0.5], siamese=[0.5, 0.5, 0.5]))
    assert says(said[0], "Dice", "Siamese", "share", "0.50")


def test_no_loss_is_called_best_by_a_mean_that_leaves_subjects_out():
    table = scores(dice=[0.5, 0.5, 0.5], siamese=[0.5, 0.5, 0.1])
    table.loc[0, "dice"] = np.nan
    said = found(table)
    assert says(said[0], "Dice", "1") and "Siamese" not in said[0] and "0.5" not in said[0]


def test_a_tiny_p_is_not_called_zero(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 9999)  # with fewer no p is that small
    table = scores(dice=[0.2 + 0.01 * n for n in range(20)], siamese=[0.6 + 0.01 * n for n in range(20)])
    assert any("< 0.001" in sentence for sentence in found(table))


def test_a_study_without_any_lesion_still_speaks():
    table = scores(dice=[0.0, 0.0, 0.0], siamese=[0.0, 0.0, 0.0])
    lesions = pd.DataFrame(columns=["kind", "split", "loss", "seed", "subject", "volume_mm3", "found"])
    false = tables.false_detections(lesions, table)
    assert findings.small_lesions(tables.detection_by_size(lesions), false, "external") == []
    assert (false.per_scan == 0).all() and found(table)


def test_a_variant_is_compared_with_the_loss_that_it_varies():
    table = scores(
        dice=[0.3] * 7,
        siamese=APART["dice"],
        siamese_1_tap=APART["siamese"],
        siamese_hard=[*APART["dice"][:-1], 0.41],
    )
    kinds = {"dice": "dice", "siamese": "siamese", "siamese_1_tap": "siamese", "siamese_hard": "siamese"}
    assert set(tables.comparisons(table, kinds=kinds).loss) == {"dice"}
    (said,) = findings.ablations(tables.ablations(table, kinds), "external")
    assert says(said, "2", "Siamese 1 tap", "raises", "0.30", "0.30", "0.31", "0.031", "Siamese", "1")
    assert "Siamese hard" not in said, "nothing is shown of it"
    alike = table.assign(dice=table.loss.map({"dice": 0.3}).fillna(table.dice.iloc[0]))
    (said,) = findings.ablations(tables.ablations(alike, kinds), "external")
    assert says(said, "none", "2") and "raises" not in said


def test_dice_lost_on_the_external_subjects_is_told_least_first():
    gap = pd.DataFrame(
        [("dice", "siamese", 0.25, 0.1, 0.4), ("dice", "dice", 0.05, -0.1, 0.2)],
        columns=["metric", "loss", "gap", "low", "high"],
    )
    (said,) = findings.gaps(gap)
    assert says(said, "Dice", "-0.05", "-0.20", "+0.10", "Siamese", "-0.25", "-0.40", "-0.10")


def test_a_game_is_set_beside_the_frozen_loss():
    games = pd.DataFrame(
        [
            PLAYED | {"steps": 4, "drift_pct": 10.0, "strength_ratio": 3.0, "distance_ratio": 9.0}
            | {"scale_free_ratio": 1.0, "gradient_ratio": 4.0, "density_pct": 2.5, "diverged_at": np.nan},
            {"loss": "siamese", "seed": 1, "steps": 4, "drift_pct": 10.0, "strength_ratio": 1.0, "distance_ratio": 0.5}
            | {"scale_free_ratio": 0.5, "gradient_ratio": 0.001, "density_pct": 2.5, "diverged_at": np.nan},
        ]
    )  # fmt: skip
    table = tables.summary(scores(siamese=[0.5, 0.5, 0.5], siamese_minmax=[0.1, 0.2, 0.3]))
    features, distance, outcome = findings.minmax(games, table, 3.0)
    assert says(features, "4", "10.0", "3.00")
    assert says(distance, "9.00", "0.50", "1.00", "0.50", "4.00", "0.00", "not vanish")
    assert says(outcome, "Siamese min-max", "0.20", "0.50", "2.50", "3.00") and "diverged" not in outcome
    games.loc[0, ["gradient_ratio", "diverged_at"]] = [1e-6, 3]
    _, distance, outcome = findings.minmax(games, table, 3.0)
    assert "vanishes" in distance and says(outcome, "1", "diverged")
    assert findings.minmax(games[games.loss == "siamese"], table, 3.0) == []


def test_what_a_played_game_leaves_can_be_told():
    """The figures of `minmax.csv` are those that the sentences ask for."""
    steps = pd.DataFrame(
        {"step": [1, 2], "generator_gradient_norm": 1.0, "discriminator_gradient_norm": 1.0, "density_pct": 1.0,
         "distance_1": [1.0, 2.0], "strength_1": [1.0, 2.0], "drift": [0.0, 0.1]}
    )  # fmt: skip
    games = pd.DataFrame([PLAYED | game.game(steps), {"loss": "siamese", "seed": 1} | game.game(steps)])
    table = tables.summary(scores(siamese=[0.5, 0.5, 0.5], siamese_minmax=[0.1, 0.2, 0.3]))
    assert says(findings.minmax(games, table, 3.0)[1], "2.00", "0.50")
