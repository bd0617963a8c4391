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
            "generalisation_gap": statistics.generalisation_gap(per_subject),
            "detection_by_size": none,
            "false_detections": none,
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


def test_a_study_without_any_lesion_or_gap_still_speaks():
    table = scores(dice=[0.0, 0.0, 0.0], siamese=[0.0, 0.0, 0.0])
    lesions = pd.DataFrame(columns=["kind", "split", "loss", "seed", "subject", "volume_mm3", "found"])
    detection = statistics.detection_by_size(lesions)
    false = statistics.false_detections(lesions, table)
    assert findings.small_lesions(detection, false, "external") == [] and (false.per_scan == 0).all()
    assert findings.detection_caption(detection, "external") == "No lesion to find."
