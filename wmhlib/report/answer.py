"""What the front page answers first: which loss, how sure, on which lesions, on which scans; and what the study cannot say.

Input: the tables of `wmhlib.evaluation`. Output: sentences, and the scoreboard as rows for the template. A lead counts as shown by
the rule of `wmhlib.report.findings` (D-019); every loss is compared with the Siamese one.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from wmhlib.evaluation.froc import RATES
from wmhlib.evaluation.lesions import SMALL_MM3
from wmhlib.evaluation.names import UNTRAINED, colour, shown, title
from wmhlib.metrics import METRICS
from wmhlib.report.findings import holds

UNSEEN = {"external": "scans of an unseen centre", "holdout": "held-out scans of the training centres"}

COLUMNS = ("dice", "lesion_recall", "lesion_f1", "hd95_mm", "avd_pct")
"""Metrics of the scoreboard, before the two at equal false positives."""

SMALL = f"lesions below {SMALL_MM3:g} mm³"

QUESTIONS = {
    "dice": ("Overlap (Dice)", "overlap better with the reference"),
    "all": ("Lesions found at equal false positives", "find more lesions at equal false positives"),
    "small": (
        f"{SMALL[0].upper()}{SMALL[1:]} found at equal false positives",
        f"find more {SMALL} at equal false positives",
    ),
}
"""What is asked of the losses: as a heading, and as what one does better than another."""


def unseen_split(summary: pd.DataFrame) -> str:
    """The split that the front page speaks of: external where there is one."""
    return "external" if (summary.split == "external").any() else "holdout"


def _own(table: pd.DataFrame, split: str) -> pd.DataFrame:
    return table[(table.split == split) & ~table.loss.isin(UNTRAINED)]


def _asked(tables: dict[str, pd.DataFrame]) -> Iterator[tuple[str, pd.Series, pd.DataFrame]]:
    """Of each of `QUESTIONS`: the figure of every loss that is compared, highest first, and the comparisons with one loss."""
    split, scores = unseen_split(tables["summary"]), tables["froc_scores"]
    for key in QUESTIONS:
        if key == "dice":
            values = _own(tables["summary"], split).set_index("loss").dice_mean
            pairs = tables["comparisons"][tables["comparisons"].metric == "dice"]
        else:
            values = _own(scores[scores.lesions == key], split).set_index("loss").score
            pairs = tables["froc_comparisons"][tables["froc_comparisons"].lesions == key]
        pairs = pairs[pairs.split == split]
        compared = {*pairs.loss, *pairs.against} or set(values.index)
        values = values[values.index.isin(compared)].dropna().sort_values(ascending=False, kind="stable")
        if len(values):
            yield key, values, pairs


def _listed(losses: Sequence[str]) -> str:
    names = [title(loss) for loss in losses]
    words = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return f"the {words} loss{'es' * (len(names) > 1)}"


def verdicts(tables: dict[str, pd.DataFrame]) -> list[str]:
    """A sentence on each of `QUESTIONS`: who leads, and what is shown against the loss that all are compared with."""
    sentences = []
    for key, values, pairs in _asked(tables):
        text = f"{QUESTIONS[key][0]}: {', '.join(f'{title(loss)} {value:.2f}' for loss, value in values.items())}."
        tested = pairs[pairs.p.notna()]
        if not len(tested):
            sentences.append(f"{text} Too few subjects, or too few losses, to compare them.")
            continue
        against = title(tested.against.iloc[0])
        parts = [
            f"{title(row.loss)} {row.difference:+.2f} [{row.low:+.2f}, {row.high:+.2f}]"
            for _, row in tested.iterrows()
            if holds(row)
        ]
        said = f"Shown against {against}: {'; '.join(parts)}." if parts else f"No difference from {against} is shown."
        sentences.append(f"{text} {said}")
    return sentences


def headline(tables: dict[str, pd.DataFrame], seeds: int) -> str:
    """The answer in two or three sentences, with its certainty."""
    said, open_questions, against = [], [], ""
    for key, values, pairs in _asked(tables):
        tested, does = pairs[pairs.p.notna()], QUESTIONS[key][1]
        if not len(tested) or len(values) < 2:
            continue
        against = _listed([tested.against.iloc[0]])
        shown_ones = tested[tested.apply(holds, axis=1)]
        better, worse = (list(shown_ones.loss[sign * shown_ones.difference > 0]) for sign in (1, -1))
        if better:
            said.append(f"{_listed(better)} {does if len(better) > 1 else _singular(does)} than {against}")
        if worse:
            said.append(f"{against} {_singular(does)} than {_listed(worse)}")
        if not better and not worse:
            open_questions.append(QUESTIONS[key][0])
    split = unseen_split(tables["summary"])
    where = f"On {UNSEEN[split]}"
    if not against:
        best = next(iter(_asked(tables)), None)
        lead = (
            f"{_listed([best[1].index[0]])} has the highest mean Dice ({best[1].iloc[0]:.2f})"
            if best
            else "nothing was measured"
        )
        text = f"{where}, {lead}; losses were not compared."
    elif said:
        text = f"{where}, {'; '.join(said)}."
    else:
        text = f"{where}, no loss is shown to do better or worse than {against}, in overlap or in lesions found at equal false positives."
    if said and open_questions:
        text += f" No difference is shown in {' or '.join(each[0].lower() + each[1:] for each in open_questions)}."
    few = "one training a loss: another seed may change the order" if seeds == 1 else f"{seeds} trainings a loss"
    return f"{text} This rests on {int(_own(tables['summary'], split).subjects.max())} scans and {few}."


def _singular(does: str) -> str:
    verb, rest = does.split(" ", 1)
    return f"{verb}s {rest}"


NOTE = (
    "Means over scans, in bold the best as far as shown, which may be chance; each bar is the 95 % interval of its mean, all bars of "
    "a column on one scale. Dice to AVD are at a threshold of one half, where losses do not mark equally much; HD95 is the 95th "
    "percentile of the distance between outlines, AVD the absolute difference in volume. A loss's own threshold is chosen on the "
    "validation scans. Found at equal FP: the fraction of lesions found, averaged over thresholds with {}, {}, {}, {} and {} false "
    "positives (FP) a scan."
)


def scoreboard(tables: dict[str, pd.DataFrame], losses: list[str]) -> dict:
    """The losses by metrics on the unseen scans, for the template: `columns` (title, arrow) and `rows`, each with `label`,
    `colour` and `cells` (text, interval, and in per cent of the column's span `at`, `low`, `high`; the best marked)."""
    split = unseen_split(tables["summary"])
    summary = _own(tables["summary"], split).set_index("loss")
    names = [loss for loss in losses if loss in summary.index]
    columns, cells = [], {name: [] for name in names}
    for metric in COLUMNS:
        entry = METRICS[metric]
        columns.append((entry.title, entry.higher_is_better))
        parts = summary.loc[names, [f"{metric}_{end}" for end in ("mean", "low", "high")]]
        _add_cells(cells, parts, lambda value, metric=metric: shown(metric, value), entry.higher_is_better)
    own = tables["own_thresholds"]
    if (own.split == split).any():
        columns.append(("Dice at own threshold", True))
        parts = own[own.split == split].set_index("loss").reindex(names)[["dice_own", "low", "high"]]
        _add_cells(cells, parts.astype(float), "{:.2f}".format, True)
    for kind in ("all", "small"):
        scores = tables["froc_scores"]
        own = _own(scores[scores.lesions == kind], split).set_index("loss").reindex(names)[["score", "low", "high"]]
        columns.append(("Found at equal FP" + (f", below {SMALL_MM3:g} mm³" if kind == "small" else ""), True))
        _add_cells(cells, own, "{:.0%}".format, True)
    rows = [{"label": title(name), "colour": colour(name), "cells": cells[name]} for name in names]
    return {"columns": columns, "rows": rows, "split": UNSEEN[split], "note": NOTE.format(*map(str, RATES))}


def headline_table(tables: dict[str, pd.DataFrame], losses: list[str]) -> pd.DataFrame:
    """The scoreboard for a notebook: one row per metric, one column per loss; means with 95 % intervals, ★ the best."""
    board = scoreboard(tables, losses)
    metrics = [f"{name} {'↑' if higher else '↓'}" for name, higher in board["columns"]]
    columns = {
        row["label"]: [cell["text"] + cell["interval"] + " ★" * cell["best"] for cell in row["cells"]]
        for row in board["rows"]
    }
    return pd.DataFrame(columns, index=pd.Index(metrics, name="Metric"))


def _add_cells(cells: dict[str, list], parts: pd.DataFrame, text, higher_is_better: bool) -> None:
    values = parts.to_numpy(float)
    finite = values[np.isfinite(values)]
    low, span = (finite.min(), max(np.ptp(finite), 1e-9)) if len(finite) else (0, 1)
    means = values[:, 0]
    best = (np.nanmax(means) if higher_is_better else np.nanmin(means)) if np.isfinite(means).any() else np.nan
    shown_best = text(best) if np.isfinite(best) else ""
    for name, (mean, lowest, highest) in zip(parts.index, values, strict=True):
        if not np.isfinite(mean):
            cells[name].append({"text": "—", "interval": "", "best": False, "at": None, "low": None, "high": None})
            continue
        ends = [100 * (end - low) / span if np.isfinite(end) else None for end in (mean, lowest, highest)]
        cells[name].append(
            {"text": text(mean), "best": text(mean) == shown_best, "at": ends[0], "low": ends[1], "high": ends[2]}
            | {"interval": f" [{text(lowest)}, {text(highest)}]" if np.isfinite(lowest) else ""}
        )


def about(cohort: pd.DataFrame, synthetic: bool, seeds: int) -> str:
    """What every page says at its top: which scans, how many subjects and trainings, and what they therefore cannot say.

    `synthetic`: the study's own folder holds scans that were drawn, not made by a scanner; external folders hold real ones.
    """
    counts = cohort[cohort.split != ""].groupby("split", sort=False).size()
    parts = ", ".join(
        f"{counts[split]} {split}" for split in ("training", "validation", "holdout", "external") if split in counts
    )
    trainings = f"{seeds} training{'s' if seeds > 1 else ''} a loss"
    if synthetic:
        return f"Synthetic scans: {parts}; {trainings}. They show how the study works, and say nothing about patients."
    return f"Scans of {cohort.centre.nunique()} centres: {parts}; {trainings}."


def cannot_say(tables: dict[str, pd.DataFrame], seeds: int, synthetic: bool) -> list[str]:
    """What a reader might conclude and may not."""
    split = unseen_split(tables["summary"])
    subjects, centres = int(_own(tables["summary"], split).subjects.max()), tables["centres"]
    own = centres[centres.split == split].centre.nunique()
    sentences = []
    if synthetic:
        sentences.append("How the losses do on patients: these scans were drawn.")
    if seeds == 1:
        sentences.append("How much of a difference is the luck of a training: each loss was trained once.")
    sentences.append(
        f"How the losses do elsewhere: {subjects} scans of {own} centre{'s' if own > 1 else ''} were tested, and the intervals draw "
        "from these."
    )
    sentences.append(
        "Which of two losses is better where neither is the Siamese one: each was compared with that one alone."
    )
    return sentences
