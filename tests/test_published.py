"""Tables 1 and 2 with the results of the paper, the leaderboard and human observers."""

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, scores

from wmhlib.evaluation import published
from wmhlib.evaluation.tables import summary
from wmhlib.metrics import metric


def test_table_1_has_the_papers_rows_below_ours_then_people_and_teams():
    table = published.table1(summary(scores(dice=[0.2, 0.4, 0.6], siamese=[0.5, 0.6, 0.7])))
    assert list(table.source) == ["this study"] * 2 + ["paper"] * 4 + ["observers"] * 3 + ["leaderboard"] * 16
    paper = table[(table.source == "paper") & (table.loss == "siamese")].iloc[0]
    assert (paper.dataset, paper.dice_mean, paper.dice_sd) == ("CAIN", 0.52, 0.18)


def test_table_2_sets_the_game_beside_the_frozen_loss_and_the_paper():
    table = summary(scores(dice=[0.2, 0.4, 0.6], siamese=[0.5, 0.6, 0.7], siamese_minmax=[0.1, 0.2, 0.3]))
    kinds = {"dice": "dice", "siamese": "siamese", "siamese_minmax": "siamese_minmax"}
    found = published.table2(table, kinds)
    assert list(found.loss) == ["siamese", "siamese_minmax", "siamese_minmax"]
    assert found.dice_mean.round(2).tolist() == [0.6, 0.2, 0.26] and found.source.iloc[2] == "paper"
    del kinds["siamese_minmax"]
    assert published.table2(table, kinds).empty and published.readable(published.table2(table, kinds)).empty


def test_the_rank_score_agrees_with_the_published_one_as_far_as_rounding_lets_it():
    teams = published.leaderboard()
    assert np.abs(published.rank_score(teams) - teams.rank_score).max() < 0.003


def test_undefined_figures_are_counted_in_their_cell():
    table = scores(dice=[0.0, 0.5, 0.5], siamese=[0.1, 0.2, 0.3])
    table.loc[0, "hd95_mm"] = np.nan
    shown = published.readable(published.table1(summary(table)))
    assert "(1 undefined)" in shown.iloc[0]["HD95 (mm) ↓"] and "undefined" not in shown.iloc[0]["Dice ↑"]


def test_a_metric_of_your_own_is_shown_and_does_not_change_the_rank_score(registries):
    before = published.rank_score(published.leaderboard())

    @metric("Volume ratio", higher_is_better=True, digits=1)
    def volume_ratio(pair):
        return 1.0

    table = scores(dice=[0.2, 0.4, 0.6]).assign(volume_ratio=[1.0, 2.0, 3.0])
    shown = published.readable(published.table1(summary(table)))
    assert shown.iloc[0]["Volume ratio ↑"].startswith("2.0\u00a0±\u00a01.0")
    assert published.rank_score(published.leaderboard()).equals(before)


@pytest.mark.skipif(not (SHARED / "facts").is_dir(), reason="no facts next to the project")
@pytest.mark.parametrize(
    ("ours", "theirs", "suffix"),
    [
        (published.paper_tables, "paper_tables", ""),
        (published.leaderboard, "wmh2017_leaderboard", "_mean"),
        (published.observers, "observers", "_mean"),
    ],
)
def test_figures_from_elsewhere_are_transcribed_without_a_slip(ours, theirs, suffix):
    facts, table = pd.read_csv(SHARED / "facts" / f"{theirs}.csv"), ours()
    numbers = [name for name in table.select_dtypes("number").columns if name != "table"]
    assert len(numbers) >= 5
    for name in numbers:
        assert np.array_equal(table[name], facts[name.removesuffix(suffix)], equal_nan=True), name
