"""The table of losses by metrics on the front page and in notebook 05.

Input: the tables of `wmhlib.evaluation`. Output: `scoreboard`, for the page's template, and `headline_table`, for a notebook.
"""

import functools
import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd

from wmhlib.evaluation.froc import RATES
from wmhlib.evaluation.lesions import SMALL_MM3
from wmhlib.evaluation.names import colour, in_words, of_losses, shown, title, with_interval
from wmhlib.losses import LOSSES
from wmhlib.metrics import METRICS
from wmhlib.report.answer import unseen_split
from wmhlib.report.findings import significant

COLUMNS = ("dice", "lesion_recall", "lesion_f1", "hd95_mm", "avd_pct")
"""Metrics of the scoreboard, to the left of those at other thresholds."""

NOTE = (
    "At the threshold 0.5, some losses mark more voxels than others. At equal false positives, a component of the mask detects "
    "a lesion only where at least a tenth of it lies in lesions; lesion recall needs one voxel. The last row has the range of a "
    "column's bars."
)


def scoreboard(tables: dict[str, pd.DataFrame], losses: list[str]) -> dict:
    """Losses by metrics on the unseen scans, for the template.

    Returns
    -------
    dict
        `columns`, each with its group, title and whether higher is better; `groups`, pairs of a group and its number of
        columns; `scales`, the range of each column's bars; `rows`, each with `label`, `colour` and `cells`; `measures` (what each
        loss measures), `rates`, `significant` (what is marked) and `note` in words. A cell has
        `text`, `interval`, `differs` (`better` or `worse` if it differs significantly from the loss that the others are
        compared with, else empty), and `at`, `low` and `high`: mean and interval in per cent of the column's range, None where
        undefined.
    """
    split = unseen_split(tables["summary"])
    summary = of_losses(tables["summary"], split).set_index("loss")
    names = [loss for loss in losses if loss in summary.index]
    columns, scales, cells = [], [], {name: [] for name in names}

    def add(
        group: str,
        heading: str,
        parts: pd.DataFrame,
        text: Callable[[float], str],
        pairs: pd.DataFrame,
        higher_is_better: bool = True,
    ) -> None:
        columns.append((group, heading, higher_is_better))
        scales.append(_add_cells(cells, parts, text, differing(pairs[pairs.split == split], higher_is_better)))

    for metric in COLUMNS:
        entry, ends = METRICS[metric], [f"{metric}_{end}" for end in ("mean", "low", "high")]
        pairs = tables["comparisons"][tables["comparisons"].metric == metric]
        add(
            "Threshold 0.5",
            entry.title,
            summary.loc[names, ends],
            functools.partial(shown, metric),
            pairs,
            entry.higher_is_better,
        )
    own = tables["own_thresholds"]
    if (own.split == split).any():
        parts = own[own.split == split].set_index("loss").reindex(names)[["dice_own", "low", "high"]]
        add("Own threshold", "Dice", parts.astype(float), "{:.2f}".format, tables["comparisons"][:0])  # not tested
    for kind, which in ("all", "all lesions"), ("small", f"below {SMALL_MM3:g} mm³"):
        scores = tables["froc_scores"][tables["froc_scores"].lesions == kind]
        parts = of_losses(scores, split).set_index("loss").reindex(names)[["score", "low", "high"]]
        pairs = tables["froc_comparisons"][tables["froc_comparisons"].lesions == kind]
        add("Lesions detected at equal false positives", which, parts, "{:.0%}".format, pairs)
    rows = [{"label": title(name), "colour": colour(name), "cells": cells[name]} for name in names]
    measured = [f"{title(name)}: {LOSSES[name].measures}" for name in names if name in LOSSES and LOSSES[name].measures]
    marked = any(cell["differs"] for row in rows for cell in row["cells"])
    words = {"measures": measured, "note": NOTE, "significant": _significant(tables["comparisons"], split, marked)}
    words["rates"] = in_words([str(rate) for rate in RATES])
    groups = [(group, len(list(own))) for group, own in itertools.groupby(group for group, *_ in columns)]
    return {"columns": columns, "groups": groups, "scales": scales, "rows": rows} | words


def _significant(comparisons: pd.DataFrame, split: str, marked: bool) -> str:
    """What the words in the cells mean, or why there are none."""
    if not comparisons.p[comparisons.split == split].notna().any():
        return "Losses were not compared."
    if not marked:
        return "No difference from the Siamese loss is significant."
    return (
        "Better and worse: significantly different from the Siamese loss, by paired differences per scan, which can be "
        "significant where bars overlap, and the reverse."
    )


def differing(pairs: pd.DataFrame, higher_is_better: bool = True) -> dict[str, str]:
    """`better` or `worse` for every loss that differs significantly in these comparisons."""
    return {
        row.loss: "better" if (row.difference > 0) == higher_is_better else "worse"
        for row in significant(pairs).itertuples()
    }


def headline_table(tables: dict[str, pd.DataFrame], losses: list[str]) -> pd.DataFrame:
    """The scoreboard for a notebook: one row per metric, one column per loss; means with 95 % intervals, and what differs
    significantly."""
    board = scoreboard(tables, losses)
    metrics = [(group, f"{name} {'↑' if higher else '↓'}") for group, name, higher in board["columns"]]
    columns = {
        row["label"]: [f"{cell['text']}{cell['interval']} {cell['differs']}".rstrip() for cell in row["cells"]]
        for row in board["rows"]
    }
    return pd.DataFrame(columns, index=pd.MultiIndex.from_tuples(metrics, names=["Masks at", "Metric"]))


def _add_cells(cells: dict[str, list], parts: pd.DataFrame, text, differs: dict[str, str]) -> str:
    """Append one column of the scoreboard; `parts` has a row per loss with mean, low and high, `text` formats a mean,
    `differs` has the losses that are better or worse. Returns the range of the column's bars."""
    values = parts.to_numpy(float)
    finite = values[np.isfinite(values)]
    low, span = (finite.min(), max(np.ptp(finite), 1e-9)) if len(finite) else (0, 1)
    for name, (mean, lowest, highest) in zip(parts.index, values, strict=True):
        at, left, right = (
            100 * (end - low) / span if np.isfinite(mean) and np.isfinite(end) else None
            for end in (mean, lowest, highest)
        )
        shown_mean, interval = with_interval(text, mean, lowest, highest)
        cell = {"text": shown_mean, "interval": interval, "differs": differs.get(name, "")}
        cells[name].append(cell | {"at": at, "low": left, "high": right})
    return f"{text(finite.min())} to {text(finite.max())}" if len(finite) else ""
