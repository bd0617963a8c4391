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
    assert findings.gap_caption(pd.DataFrame(columns=["metric", "loss", "low"])).endswith("No interval excludes zero.")
    assert np.isfinite(len(findings.centres_caption(statistics.summary(table, by="centre"))))
