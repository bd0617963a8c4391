"""What the notebooks say of their own tables."""

import numpy as np
import pandas as pd
from conftest import says

from wmhlib.report import summaries

FAULTS = ["perfect", "one pixel too thin", "one pixel too wide", "nothing", "everything"]


def test_only_faults_that_changed_are_named():
    costs = pd.DataFrame({"before": [0, 0.5, 0.25, 1, 4], "after": [0, 0.5, 0.75, 1, 4]}, FAULTS)
    text = summaries.changed_costs(costs, "features: random")
    assert "*one pixel too wide* costs 0.75 of an empty mask instead of 0.25" in text and "(Features: random.)" in text
    assert "thin" not in text and "nothing" not in text
    assert "no faulty mask" in summaries.changed_costs(costs[["before", "before"]].set_axis(["a", "b"], axis=1))


def test_what_losses_reward_follows_from_the_table():
    judged = pd.DataFrame({"Dice": [0, 0.5, 0.25, 1, 0.9], "Siamese": [0, 0.2, 0.6, 1, 7]}, FAULTS)
    text = summaries.networks(judged, 1234, {"vgg19": {"weights": "random"}}, 0.004)
    assert "1,234 weights" in text and "vgg19 has random weights" in text
    assert "costs more than an empty one under Siamese." in text
    assert "Dice prefers a mask that is too wide" in text
    assert "0.40 % of" in text.replace("0.40%", "0.40 %") and "0.19 there, that of the perfect mask 0.07" in text


def test_a_training_says_whether_it_was_too_short_or_too_long():
    history = pd.DataFrame(
        {"epoch": [1, 2, 3], "dice": [0.1, 0.5, 0.7], "validation_dice": [0.2, 0.6, 0.5], "kept": [True, True, False]}
    )
    text = summaries.training(history, "Dice")
    assert (
        "from 0.10 in the first epoch to 0.70" in text and "0.60, in epoch 2 of 3" in text and "fallen to 0.50" in text
    )
    longer = summaries.training(history[:2], "Dice")
    assert "a longer training may do better" in longer and "fallen" not in longer
    assert "validation" not in summaries.training(history.assign(validation_dice=float("nan")), "Dice")


def test_the_players_moves_are_summed_up():
    table = pd.DataFrame(
        {
            "player": ["start", "discriminator", "generator", "discriminator", "generator"],
            "content_loss": [10, 11, 5.5, 11, 5.5],
        }
    )
    text = summaries.moves(table)
    assert "discriminator changed the content loss by +55.00 %" in text and "generator by -50.00 %" in text
    assert "after 4 moves it was 0.55 times" in text


def test_a_cohort_is_told_by_its_centres_and_loads():
    loads = pd.DataFrame(
        [("a", "training", 2, 4.0, 20.0, 0.1), ("a", "holdout", 2, 6.0, 30.0, 0.3), ("<b", "external", 1, 12.4, 610.0, 0.2)],
        columns=["centre", "split", "lesions", "volume_ml", "median_lesion_mm3", "positive_class_density_pct"],
    )  # fmt: skip
    said = summaries.cohort(loads)
    assert says(said, "3", "1", "training", "1", "external", "0.2", "99.80", "5 ml at a", "12 ml at &lt;b", "30 mm³")
    none = summaries.cohort(loads.assign(lesions=0, volume_ml=0.0, median_lesion_mm3=np.nan, split="training"))
    assert "nan" not in none and "external" not in none and "median load" not in none


def test_what_slices_cost_is_told_by_the_centres():
    ceilings = pd.DataFrame({"centre": ["a", "a", "b", "b"], "dice": [0.9, 0.8, 0.75, np.nan]})
    index = pd.DataFrame({"lesion_density_pct": [0.0, 0.0, 0.4, 0.6]})
    assert says(summaries.preparation(ceilings, index, 96), "96", "0.75", "b", "0.85", "a", "0.75", "4", "50%", "0.5 %")
    said = summaries.preparation(ceilings.assign(dice=np.nan), index * 0, 96)
    assert says(said, "4", "0%") and "nan" not in said


def test_segmented_scans_are_told_with_those_to_doubt():
    table = pd.DataFrame(
        [("done", 3, 2.0, ""), ("done", 5, 14.2, "dark"), ("done", 0, 0.0, ""), ("failed", pd.NA, np.nan, np.nan)],
        columns=["status", "lesions", "volume_ml", "warnings"],
    ).astype({"lesions": "Int64"})
    assert says(summaries.segmented(table), "3 of 4", "2 ml", "3 lesions", "0 to 14 ml", "Empty masks: 1", "warning: 1")
    assert "none" in summaries.segmented(table[:1]) and summaries.segmented(table[3:]) == "0 of 1 scans have a mask."
