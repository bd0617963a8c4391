"""Answers on the front page: which loss is significantly better, what is not significant, and for which scans."""

import numpy as np
import pandas as pd
import pytest
from conftest import scores

from wmhlib.evaluation import statistics
from wmhlib.evaluation import tables as tabulated
from wmhlib.report import answer, scoreboard
from wmhlib.settings import Training

APART = {"dice": [0.2, 0.3, 0.4, 0.5, 0.2, 0.3, 0.4], "siamese": [0.5, 0.6, 0.7, 0.81, 0.5, 0.6, 0.7]}
SCHEDULE = {"batch_size": 4, "batch_norm_batches": 0, "learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999}
SHORT = Training(epochs=2, steps_per_epoch=100, **SCHEDULE)
SCANS = "7 scans from a centre not used in training"
CLOSE = {"dice": [0.2, 0.6, 0.4, 0.5, 0.3, 0.4, 0.5], "siamese": [0.5, 0.3, 0.5, 0.41, 0.4, 0.3, 0.52]}


@pytest.fixture(autouse=True)
def quick_statistics(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 999)
    monkeypatch.setattr("gc.collect", lambda: 0)


def study(small: float = np.nan, **dice) -> dict[str, pd.DataFrame]:
    """Tables of losses with this Dice by subject; Dice finds `small` more of the small lesions, shown unless it is
    NaN."""
    per_subject = scores(**dice)
    split = per_subject.split.iloc[0]
    rows = [(split, kind, loss, 0.5, 0.4, 0.6) for kind in ("all", "small") for loss in dice]
    froc = pd.DataFrame(rows, columns=["split", "lesions", "loss", "score", "low", "high"])
    pairs = pd.DataFrame(
        {"split": split, "lesions": ["all", "small"], "loss": "dice", "against": "siamese", "difference": [0.0, small]}
    ).assign(low=[-0.1, 0.05], high=[0.1, 0.2], p=[0.9, 0.9 if np.isnan(small) else 0.01])
    return {
        "summary": tabulated.summary(per_subject),
        "comparisons": tabulated.comparisons(per_subject),
        "own_thresholds": pd.DataFrame(columns=["split", "loss", "dice_own", "low", "high"]),
        "froc_scores": froc,
        "froc_comparisons": pairs.assign(p_holm=pairs.p),
        "ablations": pd.DataFrame(
            columns=["split", "metric", "loss", "against", "difference", "low", "high", "p_holm", "subjects"]
        ),
        "detection_by_size": pd.DataFrame(
            [(split, loss, 10.0, 9, 0.3 + place / 10) for place, loss in enumerate(dice)],
            columns=["split", "loss", "from_mm3", "lesions", "detected"],
        ),
        "froc_by_size": pd.DataFrame(
            [
                (split, loss, size, low, 40, detected + place / 10)
                for place, loss in enumerate(dice)
                for low, size, detected in ((10.0, "10 to 30 mm³", 0.1), (30.0, "30 to 100 mm³", 0.4))
            ],
            columns=["split", "loss", "size", "from_mm3", "lesions", "detected"],
        ),
        "centres": pd.DataFrame({"split": [split], "centre": ["a"]}),
        "false_detections": pd.DataFrame({"split": split, "loss": list(dice), "per_scan": range(4, 4 + len(dice))}),
        "generalisation_gap": pd.DataFrame(columns=["metric", "loss", "gap", "low", "high"]),
    }


def test_the_headline_says_who_is_shown_to_be_better():
    said = answer.headline(study(**APART), SCANS)
    assert "On 7 scans from a centre" in said
    assert "the Siamese loss overlaps better with the reference than the Dice loss" in said
    assert "lesions detected at equal false positives (50%)" in said.partition("No significant difference")[2]
    assert "below 30 mm³" not in said, "they have an answer of their own unless a loss is better"
    assert "the Dice loss detects more lesions below 30 mm³" in answer.headline(study(small=0.12, **APART), SCANS)


def test_the_headline_says_so_where_nothing_is_shown():
    said = answer.headline(study(**CLOSE), SCANS)
    assert said.startswith(
        f"On {SCANS}, no difference from the Siamese loss is shown in overlap or lesions detected at equal"
    )
    assert "overlaps" not in said and "at the threshold 0.5)" in said
    assert answer.TOO_FEW not in said
    few = {loss: dice[:5] for loss, dice in CLOSE.items()}
    tables = study(**few)
    untested = tables["comparisons"].assign(p=np.nan, p_holm=np.nan)
    assert answer.TOO_FEW in answer.headline(tables, SCANS) and "cannot be compared" in answer.headline(tables, SCANS)
    assert "too few scans" in answer.verdicts(tables)[0] and "p =" not in answer.verdicts(tables)[0]
    assert answer.TOO_FEW.lower() in str(answer.cannot_say(tables, 1, False, [SHORT]))
    said = answer.headline(tables | {"comparisons": untested}, SCANS)
    assert "Means: fraction of lesions" in said and "Dice" not in said


def test_metrics_that_differ_at_one_half_are_told_with_their_direction():
    tables = study(tversky=CLOSE["dice"], **CLOSE)
    pair = tables["comparisons"].iloc[[0]].assign(difference=0.2, low=0.1, high=0.3, p=0.01, p_holm=0.02)
    others = [
        pair.assign(metric="lesion_recall"),
        pair.assign(metric="lesion_recall", loss="tversky", difference=-0.1, low=-0.2, high=-0.05),
        pair.assign(metric="avd_pct"),
        pair.assign(metric="hd95_mm", p_holm=0.2),
    ]
    said = answer.at_one_half(tables | {"comparisons": pd.concat([tables["comparisons"], *others])})
    assert said.startswith("False positives per scan: 4 (Tversky) to 6 (Siamese). ")
    assert "Volume error (AVD), in %: Dice +0.2 is worse than Siamese (10.0)." in said
    assert "Lesion recall: Dice +0.20 is better, Tversky -0.10 is worse than Siamese (0.50)." in said
    assert "HD95" not in said and answer.at_one_half(tables) == ""


def test_the_answer_on_lesions_goes_by_size_at_equal_false_positives():
    tables = study(**APART)
    said = answer.on_which_lesions(tables)
    assert said == (
        "Detected at equal false positives (averaged over 1, 2, 4, 8 and 16 per scan), lowest to highest loss: "
        "50% of lesions below 30 mm³ and 40% to 50% of those of 30–100 mm³. At the threshold 0.5, where one "
        "voxel of overlap counts, 30% to 40% of those below 30 mm³ are detected."
    )
    rare = tables["froc_scores"].assign(score=0.2)
    said = answer.on_which_lesions(tables | {"froc_scores": rare})
    assert " Too few of the 40 lesions below 30 mm³ are detected to compare losses on them." in said
    differ = study(small=0.12, **APART)
    assert "Too few" not in answer.on_which_lesions(differ | {"froc_scores": rare}), "a difference is shown"
    large = tables["froc_scores"].query("lesions == 'all'")
    said = answer.on_which_lesions(tables | {"froc_scores": large})
    assert said.endswith("lowest to highest loss: 40% to 50% of those of 30–100 mm³."), (
        "no small lesion in the references"
    )
    assert answer.on_which_lesions(tables | {"froc_scores": large[:0]}) == ""


def test_certainty_counts_trainings_scans_and_what_is_not_excluded():
    said = answer.certainty(study(**CLOSE), 1, [SHORT])
    assert (
        said.startswith("Not sure. Each loss was trained once, and another seed")
        and "200 training steps, in the paper 10,000" in said
    )
    reach = study(**CLOSE)["comparisons"].query("metric == 'dice'")[["low", "high"]].abs().max(axis=None)
    assert (
        f"7 scans were tested, so a difference in Dice from the Siamese loss can be as large as {reach:.2f} (95 %"
        in said
    )
    said = answer.certainty(study(**APART), 3, [SHORT.model_copy(update={"start": "bundled"})])
    assert said.startswith("Each loss was trained 3 times. 7 scans were tested") and "steps" not in said


def test_one_loss_alone_is_not_called_better():
    tables = study(dice=[0.4, 0.5, 0.6, 0.5])
    none = tables["froc_comparisons"][:0]
    said = answer.headline(tables | {"froc_comparisons": none, "comparisons": tables["comparisons"][:0]}, SCANS)
    assert said.endswith("the Dice loss has a mean Dice of 0.50.")
    several = study(dice=[0.4, 0.5, 0.6, 0.5], tversky=[0.6, 0.6, 0.7, 0.5])
    said = answer.headline(several | {"froc_comparisons": none, "comparisons": none.assign(metric="")}, SCANS)
    assert said.endswith("the Tversky loss has the highest mean Dice (0.60); losses were not compared.")
    variant = pd.DataFrame({"loss": ["tversky"], "against": "dice"})
    said = answer.headline(
        several | {"froc_comparisons": none, "comparisons": none.assign(metric=""), "ablations": variant}, SCANS
    )
    assert said.endswith("the Dice loss has a mean Dice of 0.50."), "a variant is not one of the losses"


def test_each_question_has_its_figures_and_what_is_shown():
    overlap, everything, small = answer.verdicts(study(small=0.12, **APART))
    assert "means from Dice 0.33 to Siamese 0.63" in overlap
    assert "Dice -0.3" in overlap and "Dice +0.12 [+0.05, +0.20], p = 0.0" in small
    assert "no significant difference from the Siamese loss, smallest p = 0." in everything


def test_variants_are_told_with_their_change_of_dice():
    tables = study(**APART)
    split, columns = tables["summary"].split.iloc[0], tables["ablations"].columns
    rows = [
        (split, "dice", "wider", "dice", 0.1, 0.05, 0.2, 0.01, 9),
        (split, "dice", "slower", "dice", 0.0, -0.1, 0.1, 1.0, 9),
    ]
    table = pd.DataFrame(rows, columns=columns)
    said = answer.answers(tables | {"ablations": table}, 1, [SHORT])["What do the variants change?"]
    assert (
        said == "Mean Dice compared with Dice: Wider +0.10 [+0.05, +0.20]; no significant change with Slower (+0.00)."
    )
    said = answer.of_variants(tables | {"ablations": table[1:].assign(subjects=3)})
    assert said == "Mean Dice compared with Dice: too few scans to test a change with Slower (+0.00)."


def test_the_change_to_an_unseen_centre_is_an_answer():
    rows = [
        ("dice", "dice", 0.1, 0.01, 0.2),
        ("dice", "siamese", -0.05, -0.1, 0.02),
        ("dice", "global_threshold", 0.4, 0, 1),
    ]
    gap = pd.DataFrame(rows, columns=["metric", "loss", "gap", "low", "high"])
    said = answer.carries_over(study(**APART) | {"generalisation_gap": gap})
    assert said.startswith(
        "Mean Dice changes from the holdout scans of the training centres: Dice -0.10 [-0.20, -0.01]; with the"
    )
    assert "other losses, no change is shown (+0.05)" in said
    question = "At another centre?"
    assert answer.answers(study(**APART) | {"generalisation_gap": gap}, 1, [SHORT])[question] == said
    both = study(**APART) | {"generalisation_gap": gap}
    both["summary"] = pd.concat([both["summary"], both["summary"].assign(split="holdout")])
    unlike = answer.answers(both, 1, [SHORT], alike=False)[question]
    assert unlike == "Not measured: holdout and external scans are not both synthetic or both real."
    assert "there are no holdout scans" in answer.answers(study(**APART), 1, [SHORT])[question]
    holdout = study(**APART)
    for name in ("summary", "comparisons", "froc_scores", "froc_comparisons", "froc_by_size", "detection_by_size"):
        holdout[name] = holdout[name].assign(split="holdout")
    assert "no external scan" in answer.answers(holdout, 1, [SHORT])[question]
    said = answer.carries_over(study(**APART) | {"generalisation_gap": gap.assign(low=-0.3)})
    assert said.startswith(
        "Not known. Mean Dice changes from the holdout scans of the training centres by -0.10 to +0.05, which"
    )
    assert "(widest interval: Dice -0.10 [-0.20, +0.30])" in said
    said = answer.carries_over(study(**APART) | {"generalisation_gap": gap.assign(low=np.nan, high=np.nan)})
    assert said.startswith("Too few scans for a test: mean Dice changes by -0.10 to +0.05.")


def test_the_papers_result_is_a_finding_where_the_study_has_its_losses():
    tables = study(tversky=APART["dice"], generalized_dice=APART["dice"], **APART)
    *_, said = answer.verdicts(tables)
    assert "Dice 0.52, rank 1 (here 0.63, rank 1)" in said
    assert "lesion recall 0.75, rank 1 (here 0.50, rank 1)" in said, "of a tie"
    assert "among the 4 losses" in said
    assert not answer.against_paper(study(**APART))
    undefined = tables["summary"].assign(lesion_recall_mean=np.nan)
    assert not answer.against_paper(tables | {"summary": undefined})
    ahead = {"dice": APART["siamese"], "siamese": APART["dice"]}
    holdout = study(tversky=APART["siamese"], generalized_dice=APART["siamese"], **ahead)
    holdout["summary"] = holdout["summary"].assign(split="holdout")
    [said] = answer.against_paper(holdout)
    assert "Dice 0.79, rank 2 (here 0.33, rank 4)" in said


def test_the_scoreboard_marks_significant_differences_and_keeps_intervals_on_one_scale():
    board = scoreboard.scoreboard(study(small=0.12, **APART), ["dice", "siamese"])
    assert [row["label"] for row in board["rows"]] == ["Dice", "Siamese"] and len(board["columns"]) == 7
    first = [row["cells"][0] for row in board["rows"]]
    assert [cell["differs"] for cell in first] == ["worse", ""]
    assert [cell["differs"] for cell in board["rows"][0]["cells"][-2:]] == ["", "better"]
    assert min(cell["low"] for cell in first) == pytest.approx(0) and max(
        cell["high"] for cell in first
    ) == pytest.approx(100)
    assert all(cell["low"] <= cell["at"] <= cell["high"] for cell in first)
    assert len(board["scales"]) == 7 and board["scales"][-1].endswith("%") and board["scales"][0].count(" to ") == 1
    assert [line.split(":")[0] for line in board["measures"]] == ["Dice", "Siamese"]
    assert board["groups"] == [("Threshold 0.5", 5), ("Lesions detected at equal false positives", 2)]
    assert board["significant"].startswith("Better and worse")
    none = scoreboard.scoreboard(study(**CLOSE), ["dice", "siamese"])
    assert none["significant"] == "No difference from the Siamese loss is significant."
    alone = study(dice=[0.4, 0.5, 0.6, 0.5])
    alone["comparisons"] = study(**CLOSE)["comparisons"].assign(p=np.nan)
    assert scoreboard.scoreboard(alone, ["dice"])["significant"] == "Losses were not compared."


def test_the_headline_table_has_a_column_per_loss_with_intervals_and_differences():
    table = scoreboard.headline_table(study(**APART), ["dice", "siamese"])
    assert list(table.columns) == ["Dice", "Siamese"] and len(table) == 7
    assert table.loc[("Threshold 0.5", "Dice ↑"), "Siamese"].startswith("0.63 [") and table.loc[
        ("Threshold 0.5", "Dice ↑"), "Siamese"
    ].endswith("]")
    assert (
        table.loc[("Threshold 0.5", "Dice ↑"), "Dice"].endswith("] worse")
        and table.loc[("Lesions detected at equal false positives", "all lesions ↑"), "Dice"] == "50% [40%,\u00a060%]"
    )


def test_the_scoreboard_has_the_dice_at_own_thresholds_where_subjects_validate():
    tables = study(**APART)
    split = tables["summary"].split.iloc[0]
    rows = [(split, "dice", 0.4, 0.3, 0.5), (split, "siamese", 0.7, 0.6, 0.8)]
    own = pd.DataFrame(rows, columns=["split", "loss", "dice_own", "low", "high"])
    board = scoreboard.scoreboard(tables | {"own_thresholds": own}, ["dice", "siamese"])
    place = [group for group, *_ in board["columns"]].index("Own threshold")
    assert [row["cells"][place]["text"] for row in board["rows"]] == ["0.40", "0.70"]


def test_a_centre_that_took_part_in_the_training_is_not_called_unseen():
    rows = [("training", "a"), ("training", "b"), ("external", "a"), ("external", "c")]
    cohort = pd.DataFrame(rows, columns=["split", "centre"])
    tables = study(**APART)
    assert answer.unseen_scans(tables, [cohort]) == "7 scans from 2 centres, 1 of which also took part in the training"
    assert (
        answer.unseen_scans(tables, [cohort[:3]], synthetic=True) == "7 synthetic scans from a centre of the training"
    )
    new = cohort.iloc[[1, 2, 3]]
    assert answer.unseen_scans(tables, [new]) == "7 scans from 2 centres not used in training"
    each = [cohort.iloc[[1, 2]], cohort.iloc[[0, 3]]]
    assert answer.unseen_scans(tables, each) == "7 scans from 2 centres not used in training", (
        "of studies that leave one out"
    )
    tables["summary"] = tables["summary"].assign(split="holdout", subjects=1)
    assert answer.unseen_scans(tables, [cohort]) == "1 holdout scan of the training centres"


def test_a_page_says_on_which_scans_it_rests():
    cohort = pd.DataFrame({"split": ["training", "training", "external", ""], "centre": list("aabc")})
    drawn = answer.about(cohort, cohort.split != "none", seeds=1)
    assert drawn.startswith(
        "Trained on 2 synthetic scans; tested on 1 synthetic scan from a centre not used in training; 1 training per loss."
    )
    assert "not how well the losses perform in patients" in drawn
    real = answer.about(cohort, cohort.split == "none", seeds=3)
    assert "ynthetic" not in real and "Trained on 2 real scans" in real and "3 trainings per loss" in real
    both = answer.about(cohort, pd.Series([True, False, False, True]), seeds=1)
    assert "Trained on 1 synthetic and 1 real scans; tested on 1 real scan from" in both and "patients" not in both
    limits = answer.cannot_say(study(**APART), 1, True, [SHORT])
    assert "200 steps of 4 slices, in the paper 10,000 of 8" in str(limits)
    assert "only large differences" in str(limits) and "two other losses" not in str(limits)
    assert "two other losses" in str(answer.cannot_say(study(tversky=APART["dice"], **APART), 1, True, [SHORT]))
    for settings in (SHORT.model_copy(update={"start": "bundled"}), SHORT.model_copy(update={"epochs": 100})):
        assert "steps" not in str(answer.cannot_say(study(**APART), 1, True, [settings]))
    assert any("synthetic" in sentence for sentence in limits) and any("once" in sentence for sentence in limits)
    assert len(answer.cannot_say(study(**APART), 2, False, [SHORT])) == len(limits) - 2
