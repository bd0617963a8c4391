import numpy as np
import pandas as pd
from conftest import scores

from wmhlib import findings, statistics


def found(per_subject: pd.DataFrame) -> list[str]:
    """The findings of a table of subjects, with no lesion recorded."""
    none = pd.DataFrame(columns=["split", "loss", "from_mm3", "detected", "lesions", "per_scan"])
    return findings.findings(
        {
            "summary": statistics.summary(per_subject),
            "comparisons": statistics.comparisons(per_subject),
            "ablations": statistics.ablations(per_subject, {}),
            "generalisation_gap": statistics.generalisation_gap(per_subject),
            "detection_by_size": none,
            "false_detections": none,
            "froc_scores": none.assign(lesions=None, score=None),
            "froc_comparisons": none.assign(against=None),
        }
    )


CLOSE = {"dice": [0.2, 0.6, 0.4, 0.5, 0.3, 0.4, 0.5], "siamese": [0.5, 0.3, 0.5, 0.41, 0.4, 0.3, 0.52]}


def test_losses_that_cannot_be_told_apart_are_said_to_be():
    said = found(scores(**CLOSE))
    assert "Siamese has the highest mean Dice (0.42" in said[0]
    assert any("nothing is significant" in sentence and "(7 subjects)." in sentence for sentence in said)
    assert not any("better than" in sentence for sentence in said)


def test_a_clear_difference_is_given_with_its_interval_and_p():
    said = found(scores(dice=[0.2, 0.3, 0.4, 0.5, 0.2, 0.3, 0.4], siamese=[0.5, 0.6, 0.7, 0.81, 0.5, 0.6, 0.7]))
    assert any("Siamese loss is better than Dice loss in Dice by 0.30 (0.30 to 0.31, p = 0.016)" in one for one in said)
    assert not any("nothing is significant" in sentence for sentence in said)


def test_a_siamese_loss_that_is_worse_is_said_to_be():
    table = scores(dice=[0.5] * 7, siamese=[0.5] * 7)
    table.loc[table.loss == "siamese", "avd_pct"] = [40, 50, 60, 55, 45, 50, 51]
    assert any("Siamese loss is worse than Dice loss in AVD (%) by 40.1" in one for one in found(table))


def test_too_few_subjects_for_any_difference_are_named():
    assert "with so few no difference could" in " ".join(found(scores(dice=[0.1, 0.2, 0.3], siamese=[0.7, 0.8, 0.9])))
    assert "too few to compare" in " ".join(found(scores(dice=[0.1, 0.2], siamese=[0.7, 0.8])))


def test_a_loss_that_the_threshold_beats_is_named():
    said = found(scores(dice=[0.2, 0.3, 0.4], siamese=[0.5, 0.6, 0.7], global_threshold=[0.4, 0.4, 0.5]))
    assert any(sentence.endswith("reaches a Dice of 0.43; not better than it: Dice.") for sentence in said)


def test_small_lesions_are_weighed_by_their_number():
    detection = pd.DataFrame(
        [("external", loss, low, size, count, share) for loss, low, size, count, share in (
            ("dice", 0.0, "a", 30, 0.1), ("dice", 10.0, "b", 10, 0.5), ("siamese", 0.0, "a", 30, 0.5),
            ("siamese", 10.0, "b", 10, 0.9), ("siamese", 30.0, "c", 10, 1.0))],
        columns=["split", "loss", "from_mm3", "size", "lesions", "detected"],
    )  # fmt: skip
    false = pd.DataFrame({"split": "external", "loss": ["dice", "siamese"], "per_scan": [2.0, 7.0]})
    text = findings.small_lesions(detection, false, "external")[0]
    assert "Siamese finds 60% (with 7.0 false detections a scan), Dice 20% (2.0)" in text
    caption = findings.detection_caption(detection, "external")
    assert "furthest apart for lesions of a" in caption or "furthest apart for lesions of b" in caption


def test_captions_do_without_what_is_not_there():
    table = scores(dice=[0.5, 0.6], siamese=[0.6, 0.7])
    assert "2 subjects" in findings.slopes_caption(statistics.summary(table), statistics.comparisons(table), "external")
    assert "0 empty, 0 at 100 %" in findings.density_caption(table, "external")
    assert "no interval excludes zero" in findings.gap_caption(pd.DataFrame(columns=["metric", "loss", "low"]))
    assert "Lowest mean Dice: Dice at C (external, 2 subject(s)), 0.55" in findings.centres_caption(
        statistics.summary(table, by_centre=True)
    )


def test_equal_losses_share_the_lead_and_find_the_same_lesions():
    said = found(scores(dice=[0.5, 0.5, 0.5], siamese=[0.5, 0.5, 0.5]))
    assert "Dice and Siamese share the highest mean Dice (0.50)." in said[0]
    rows = [("external", loss, 0.0, "below 10 mm³", 20, 0.4) for loss in ("dice", "siamese")]
    detection = pd.DataFrame(rows, columns=["split", "loss", "from_mm3", "size", "lesions", "detected"])
    assert findings.detection_caption(detection, "external").startswith("All losses find the same lesions")


def test_no_loss_is_called_best_by_a_mean_that_leaves_subjects_out():
    table = scores(dice=[0.5, 0.5, 0.5], siamese=[0.5, 0.5, 0.1])
    table.loc[0, "dice"] = np.nan
    assert (
        found(table)[0] == "On the external subjects, Dice is undefined for 1 masks, so no loss is called best in it."
    )


def test_a_tiny_p_is_not_called_zero():
    table = scores(dice=[0.2 + 0.01 * n for n in range(20)], siamese=[0.6 + 0.01 * n for n in range(20)])
    assert any("p < 0.001" in sentence for sentence in found(table))


def test_gaps_on_either_side_of_zero_are_named():
    rows = [("dice", "dice", 0.3, 0.1, 0.5), ("dice", "siamese", -0.3, -0.5, -0.1)]
    gap = pd.DataFrame(rows, columns=["metric", "loss", "gap", "low", "high"])
    said = findings.gap_caption(gap)
    assert said.endswith("the interval lies right of zero for Dice and left of zero for Siamese.")


def test_one_subject_has_a_bias_and_no_limits():
    volumes = pd.DataFrame(
        {"loss": "dice", "seed": 1, "split": "external", "subject": ["a"], "reference_ml": 1.0, "predicted_ml": 3.0}
    )
    said = findings.agreement_caption(statistics.volume_agreement(volumes), "external")
    assert "Dice +2.0 ml. Dashed" in said and "nan" not in said


def test_references_without_lesions_are_named():
    loads = pd.DataFrame({"subject": ["1", "2", "3"], "lesions": [0, 4, 0]})
    assert findings.without_lesions(loads).startswith("No lesion in the reference of 1, 3: ")
    assert findings.without_lesions(loads[1:2]) == ""


def test_a_study_without_any_lesion_or_gap_still_speaks():
    table = scores(dice=[0.0, 0.0, 0.0], siamese=[0.0, 0.0, 0.0])
    lesions = pd.DataFrame(columns=["kind", "split", "loss", "seed", "subject", "volume_mm3", "found"])
    detection = statistics.detection_by_size(lesions)
    false = statistics.false_detections(lesions, table)
    assert findings.small_lesions(detection, false, "external") == [] and (false.per_scan == 0).all()
    assert findings.detection_caption(detection, "external") == "No lesion to find."


def test_a_variant_is_compared_with_the_loss_that_it_varies():
    table = scores(
        dice=[0.3] * 7,
        siamese=[0.2, 0.3, 0.4, 0.5, 0.2, 0.3, 0.4],
        siamese_1_tap=[0.5, 0.6, 0.7, 0.81, 0.5, 0.6, 0.7],
        siamese_hard=[0.2, 0.3, 0.4, 0.5, 0.2, 0.3, 0.41],
    )
    kinds = {"dice": "dice", "siamese": "siamese", "siamese_1_tap": "siamese", "siamese_hard": "siamese"}
    assert set(statistics.comparisons(table, kinds=kinds).loss) == {"dice"}
    said = findings.ablations(statistics.ablations(table, kinds), "external")
    assert said == [
        "On the external subjects, of 2 variants: Siamese 1 tap raises Dice by 0.30 (0.30 to 0.31, p = 0.031) against "
        "Siamese; of the other 1 nothing is shown."
    ]
    alike = table.assign(dice=table.loss.map({"dice": 0.3}).fillna(table.dice.iloc[0]))
    assert "none of the 2 variants is shown" in findings.ablations(statistics.ablations(alike, kinds), "external")[0]


def diary(strength: list[float], distance: list[float], gradient: list[float]) -> pd.DataFrame:
    """Four steps, of which the first and the last were looked at."""
    return pd.DataFrame(
        {
            "step": [1, 2, 3, 4],
            "generator_gradient_norm": gradient,
            "discriminator_gradient_norm": np.nan,
            "density_pct": [1.0, np.nan, np.nan, 2.5],
            "reference_density_pct": [3.0, np.nan, np.nan, 3.0],
            "distance_1": [distance[0] / 2, np.nan, np.nan, distance[1] / 2],
            "strength_1": [1.0, np.nan, np.nan, 1.0],
            "distance_2": [distance[0] / 2, np.nan, np.nan, distance[1] / 2],
            "strength_2": [strength[0], np.nan, np.nan, strength[1]],
            "drift": [0.0, np.nan, np.nan, 0.1],
        }
    )


def test_a_game_that_only_turns_the_volume_up_is_seen_through():
    played = findings.game(diary(strength=[2, 6], distance=[10, 90], gradient=[1, 2, 3, 4]))
    assert (played["strength_ratio"], played["distance_ratio"], played["scale_free_ratio"]) == (3, 9, 1)
    assert (played["drift_pct"], played["gradient_ratio"], played["density_pct"], played["steps"]) == (10, 4, 2.5, 4)
    frozen = findings.game(diary(strength=[2, 2], distance=[10, 5], gradient=[1, 1, 1, 0.001]))
    games = pd.DataFrame([{"loss": "siamese_minmax", "seed": 1} | played, {"loss": "siamese", "seed": 1} | frozen])
    table = statistics.summary(scores(siamese=[0.5, 0.5, 0.5], siamese_minmax=[0.1, 0.2, 0.3]))
    said = findings.minmax(games, table, 3.0)
    assert len(said) == 3 and "moves VGG19's filters by 10.0 %" in said[0] and "become 3.00 times as strong" in said[0]
    assert "9.00 times what it was with the game and 0.50 times without" in said[1] and "does not vanish" in said[1]
    assert "0.20 on the external subjects (0.50 frozen); at its last look 2.50 %" in said[2]
    games.loc[0, ["gradient_ratio", "diverged_at"]] = [1e-6, 3]
    assert "1 training(s) diverged." in findings.minmax(games, table, 3.0)[2]
    assert "in the game it vanishes" in findings.minmax(games, table, 3.0)[1]
    assert findings.minmax(games[games.loss == "siamese"], table, 3.0) == []


def test_the_ceiling_is_told_per_data_set():
    table = pd.DataFrame({"split": ["training", "holdout", "external", "external"], "dice": [0.1, 0.9, 0.7, 0.8]})
    said = findings.ceiling(table)
    assert "0.90 on the held-out subjects (0.90 to 0.90) and 0.75 on the external subjects (0.70 to 0.80)" in said
