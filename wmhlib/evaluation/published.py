"""Table 1 with published results for comparison: the paper, the challenge's leaderboard, human observers.

Input: the summary of `per_subject.csv`. Output: `table1.csv`, and its readable form. Published rows are transcribed,
with their sources, in `published_values/*.csv`. They were measured on other scans and serve only for orientation.
"""

import functools
from pathlib import Path

import numpy as np
import pandas as pd

from wmhlib.evaluation.names import measured_in, shown, title, with_interval

FOLDER = Path(__file__).parent / "published_values"

DATASETS = {"holdout": "MICCAI holdout", "external": "CAIN"}
"""The paper's data set that corresponds to each split."""


def paper_tables() -> pd.DataFrame:
    """The paper's Tables 1 and 2, as printed. The first line of each file in `FOLDER` names its source."""
    return pd.read_csv(FOLDER / "paper_tables.csv", comment="#")


def leaderboard() -> pd.DataFrame:
    """Sixteen of the challenge's 57 final results: `position, team, rank_score` and the five means."""
    return pd.read_csv(FOLDER / "leaderboard.csv", comment="#")


def observers() -> pd.DataFrame:
    """Agreement of human observers: `pair` (first scored against second) and the five means."""
    return pd.read_csv(FOLDER / "observers.csv", comment="#")


def rank_score(means: pd.DataFrame) -> pd.Series:
    """The challenge's rank score of rows with the five `<metric>_mean`: 0 for the best team, 1 for the worst.

    Each metric is scaled linearly between the leaderboard's best and worst team and clipped to 0-1, and the five are
    averaged (Kuijf et al. 2019, doi:10.1109/TMI.2019.2905770, section II-F). The score is approximate, because the
    published means are rounded, and comparable only on the challenge's test scans. NaN if a metric is missing.
    """
    teams, places = leaderboard(), []
    for metric, entry in measured_in(means).items():
        if f"{metric}_mean" not in teams:
            continue  # a metric that the challenge does not rank
        worst, best = teams[f"{metric}_mean"].agg(["min", "max"] if entry.higher_is_better else ["max", "min"])
        places.append(((means[f"{metric}_mean"] - best) / (worst - best)).clip(0, 1))
    return sum(places) / len(places)


def _beside_paper(own: pd.DataFrame, number: int) -> list[pd.DataFrame]:
    """Per data set, this study's rows, then those of the paper's table with this number."""
    paper, parts = paper_tables(), []
    for split, dataset in DATASETS.items():
        rows = own[own.split == split].rename(columns={"split": "dataset"})
        if len(rows):
            published = paper[(paper.table == number) & (paper.dataset == dataset)].drop(columns="table")
            parts += [rows.assign(source="this study", label=rows.loss.map(title)), published.assign(source="paper")]
    return parts


def _joined(parts: list[pd.DataFrame], own: pd.DataFrame) -> pd.DataFrame:
    table = pd.concat([part.dropna(axis=1, how="all") for part in parts], ignore_index=True)
    table["rank_score_approximate"] = rank_score(table)
    columns = ["dataset", "source", "loss", "label", "subjects", "seeds"]
    columns += [name for name in own.columns if name not in (*columns, "split")]
    return table.reindex(columns=[*columns, "rank_score_approximate"])


def table1(own: pd.DataFrame) -> pd.DataFrame:
    """Table 1 of the paper for this study: per data set, this study's rows and the paper's, then observers and teams.

    `own` is the output of `wmhlib.evaluation.tables.summary` per split.

    Columns: `dataset, source, loss, label, subjects, seeds`, then `<metric>_mean, _sd, _low, _high, _undefined`, and
    `rank_score_approximate`.
    """
    people, teams = observers(), leaderboard()
    people = people.assign(
        dataset="WMH Challenge training",
        source="observers",
        loss="",
        label=people.pair.str.replace(r"O(\d) vs O(\d)", r"observer \1 against \2", regex=True),
    )
    places = teams.position.map("{:d} of 57: ".format) + teams.team
    teams = teams.assign(dataset="WMH Challenge test", source="leaderboard", loss="", label=places)
    return _joined([*_beside_paper(own, 1), people, teams], own)


def table2(own: pd.DataFrame, kinds: dict[str, str]) -> pd.DataFrame:
    """Table 2 of the paper for this study: the Siamese loss, frozen and in the min-max game, with all their variants.

    `kinds` maps the study's entries to their losses. Columns as `table1`; no rows without a min-max game.
    """
    losses = [name for name, kind in kinds.items() if kind in ("siamese", "siamese_minmax")]
    played = "siamese_minmax" in kinds.values()
    return _joined(_beside_paper(own[own.loss.isin(losses)], 2), own) if played else table1(own).iloc[:0]


def readable(table: pd.DataFrame, teams: int = 3) -> pd.DataFrame:
    """Table 1 for readers: mean ± SD, 95 % interval in brackets, and the number of undefined values; of the
    leaderboard, the first `teams`."""

    def cell(row: pd.Series, metric: str) -> str:
        mean, sd, low, high = (row[f"{metric}_{part}"] for part in ("mean", "sd", "low", "high"))
        text, interval = with_interval(functools.partial(shown, metric), mean, low, high)
        if np.isfinite(sd):
            text += f"\u00a0±\u00a0{shown(metric, sd)}"
        text += interval
        if row[f"{metric}_undefined"] > 0:
            text += f" ({row[f'{metric}_undefined']:.0f} undefined)"
        return text

    rows = table.drop(index=table.index[table.source == "leaderboard"][teams:])
    lines = [
        {"Data": row.dataset, "Source": row.source, "Masks by": row.label}
        | {"Subjects": f"{row.subjects:.0f}" if np.isfinite(row.subjects) else "—"}
        | {f"{m.title} {'↑' if m.higher_is_better else '↓'}": cell(row, key) for key, m in measured_in(table).items()}
        | {
            "Challenge rank ≈ ↓": f"{row.rank_score_approximate:.2f}"
            if np.isfinite(row.rank_score_approximate)
            else "—"
        }
        for _, row in rows.iterrows()
    ]
    return pd.DataFrame(lines).set_index(["Data", "Source", "Masks by"]) if lines else pd.DataFrame()
