import numpy as np
import pandas as pd
import pytest
from conftest import SHARED

from wmhlib import statistics


def scores(**dice: list[float]) -> pd.DataFrame:
    """A per-subject table: loss to the Dice of subjects 0, 1, 2 …, external; the other figures constant."""
    rows = [
        {
            "study": "s",
            "loss": loss,
            "seed": 1,
            "split": "external",
            "centre": "C",
            "subject": str(number),
            "dice": value,
        }
        for loss, values in dice.items()
        for number, value in enumerate(values)
    ]
    other = {"hd95_mm": 5.0, "avd_pct": 10.0, "lesion_recall": 0.5, "lesion_f1": 0.5}
    return pd.DataFrame(rows).assign(**other, positive_class_density_pct=0.1, predicted_density_pct=0.1)


def test_mean_sd_and_count_by_hand():
    row = statistics.summary(scores(dice=[0.2, 0.4, 0.6])).iloc[0]
    assert (row.subjects, row.seeds, row.dice_mean) == (3, 1, pytest.approx(0.4))
    assert row.dice_sd == pytest.approx(0.2) and 0.2 <= row.dice_low < 0.4 < row.dice_high <= 0.6


def test_seeds_are_averaged_within_a_subject():
    table = pd.concat([scores(dice=[0.2, 0.4, 0.6]), scores(dice=[0.4, 0.4, 0.4]).assign(seed=2)])
    row = statistics.summary(table).iloc[0]
    assert (row.subjects, row.seeds) == (3, 2) and row.dice_sd == pytest.approx(np.std([0.3, 0.4, 0.5], ddof=1))


def test_undefined_distances_are_counted_not_hidden():
    table = scores(dice=[0.0, 0.5, 0.5])
    table.loc[0, "hd95_mm"] = np.nan
    row = statistics.summary(table).iloc[0]
    assert row.hd95_mm_mean == 5 and row.hd95_mm_undefined == 1
    assert "(1 undefined)" in statistics.readable(statistics.table1(table)).iloc[0]["HD95 (mm) ↓"]


def test_intervals_of_few_or_equal_values():
    assert np.isnan(statistics.interval([0.1, 0.2])).all()
    assert statistics.interval([0.3, 0.3, 0.3]) == (0.3, 0.3)


def test_table_1_has_the_papers_rows_below_ours():
    table = statistics.table1(scores(dice=[0.2, 0.4, 0.6], siamese=[0.5, 0.6, 0.7]))
    assert list(table.source) == ["this study"] * 2 + ["paper"] * 4
    paper = table[(table.source == "paper") & (table.loss == "siamese")].iloc[0]
    assert (paper.dataset, paper.dice_mean, paper.dice_sd) == ("CAIN", 0.52, 0.18)


@pytest.mark.skipif(not (SHARED / "facts").is_dir(), reason="no facts beside the project")
def test_the_papers_figures_are_transcribed_without_a_slip():
    ours, facts = statistics.paper_tables(), pd.read_csv(SHARED / "facts" / "paper_tables.csv")
    numbers = [name for name in facts.columns if name.endswith(("_mean", "_sd"))]
    assert np.array_equal(ours[numbers], facts[numbers], equal_nan=True)
    assert list(ours.dataset) == list(facts.dataset)


def test_findings_say_when_two_losses_cannot_be_told_apart():
    close = statistics.findings(scores(dice=[0.2, 0.6, 0.4, 0.5], siamese=[0.5, 0.3, 0.5, 0.41]))
    assert any("cannot be told apart" in sentence for sentence in close)
    clear = statistics.findings(scores(dice=[0.2, 0.3, 0.4, 0.5], siamese=[0.5, 0.6, 0.71, 0.8]))
    assert "On the unseen centre, Siamese has the highest mean Dice (0.65), 0.30 above Dice" in clear[0]
    assert "above zero" in clear[0]


def test_findings_name_a_loss_that_the_threshold_beats():
    said = statistics.findings(scores(dice=[0.2, 0.3, 0.4], siamese=[0.5, 0.6, 0.7], global_threshold=[0.4, 0.4, 0.5]))
    assert said[-1].endswith("reaches a Dice of 0.43; not better than it: Dice.")
