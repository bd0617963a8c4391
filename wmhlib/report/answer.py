"""The first answers on the front page: which loss is best, how certain this is, for which lesions and scans, and the
limits.
Input: the tables of `wmhlib.evaluation`. Output: sentences, and the scoreboard as rows for the template. Every loss is
compared with the Siamese loss; a difference is significant by the rule of `wmhlib.report.findings` (D-019).
"""

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from wmhlib.evaluation.froc import RATES
from wmhlib.evaluation.lesions import SMALL_MM3
from wmhlib.evaluation.names import ALL_SPLITS, UNTRAINED, colour, in_words, of_losses, shown, title
from wmhlib.evaluation.published import DATASETS, paper_tables
from wmhlib.losses import LOSSES
from wmhlib.metrics import METRICS
from wmhlib.report.findings import holds, name_in_sentence, p_in_words
from wmhlib.study import Study

COLUMNS = ("dice", "lesion_recall", "lesion_f1", "hd95_mm", "avd_pct")
"""Metrics of the scoreboard, to the left of those at other thresholds."""

SMALL = f"lesions below {SMALL_MM3:g} mm³"

QUESTIONS = {
    "dice": ("Overlap (Dice)", "overlap better with the reference"),
    "all": (
        "Fraction of lesions detected at equal false positives",
        "detect more lesions at the same number of false positives per scan",
    ),
    "small": (
        f"Fraction of {SMALL} detected at equal false positives",
        f"detect more {SMALL} at the same number of false positives per scan",
    ),
}
"""The questions on the losses: as a heading, and as the verb phrase for the better loss, in the plural."""


def unseen_split(summary: pd.DataFrame) -> str:
    """The split that the front page reports: external if the study has one, otherwise holdout."""
    return "external" if (summary.split == "external").any() else "holdout"


def unseen_scans(tables: dict[str, pd.DataFrame]) -> str:
    """The scans that the front page reports, in words."""
    centres = tables["centres"]
    external = centres.centre[centres.split == "external"].nunique()
    if unseen_split(tables["summary"]) == "holdout":
        return "holdout scans of the training centres"
    return f"scans from {_not_in_training(external)}"


def _not_in_training(centres: int) -> str:
    return f"{'a centre' if centres == 1 else f'{centres} centres'} not used in training"


def false_positives(tables: dict[str, pd.DataFrame], split: str) -> str:
    """The range of the losses' false positives per scan at the threshold 0.5, such as `4 to 11`; empty without a loss."""
    per_scan = of_losses(tables["false_detections"], split).per_scan
    return f"{per_scan.min():.0f} to {per_scan.max():.0f}" if len(per_scan) else ""


def unseen_is_synthetic(study: Study, cohort: pd.DataFrame, summary: pd.DataFrame) -> bool:
    """Whether all scans of the split that the front page reports are synthetic."""
    return all(map(study.is_synthetic, cohort.flair[cohort.split == unseen_split(summary)]))


def _asked(tables: dict[str, pd.DataFrame]) -> Iterator[tuple[str, pd.Series, pd.DataFrame]]:
    """For each of `QUESTIONS`: its key, the value of every loss compared, highest first, and the comparisons in this
    split."""
    split, scores = unseen_split(tables["summary"]), tables["froc_scores"]
    for key in QUESTIONS:
        if key == "dice":
            values = of_losses(tables["summary"], split).set_index("loss").dice_mean
            pairs = tables["comparisons"][tables["comparisons"].metric == "dice"]
        else:
            values = of_losses(scores[scores.lesions == key], split).set_index("loss").score
            pairs = tables["froc_comparisons"][tables["froc_comparisons"].lesions == key]
        pairs = pairs[pairs.split == split]
        compared = {*pairs.loss, *pairs.against} or set(values.index)
        values = values[values.index.isin(compared)].dropna().sort_values(ascending=False, kind="stable")
        if len(values):
            yield key, values, pairs


def _listed(losses: Sequence[str]) -> str:
    return f"the {in_words([title(loss) for loss in losses])} loss{'es' * (len(losses) > 1)}"


def verdicts(tables: dict[str, pd.DataFrame]) -> list[str]:
    """For each of `QUESTIONS`, the range of the losses' means and the significant differences from the loss they are
    compared with; then `carries_over`."""
    sentences = []
    for key, values, pairs in _asked(tables):
        tested = pairs[pairs.p.notna()]
        number = ".2f" if key == "dice" else ".0%"
        lowest, highest = (f"{title(values.index[end])} {values.iloc[end]:{number}}" for end in (-1, 0))
        means = f"means from {lowest} to {highest}" if len(values) > 1 else f"mean {highest}"
        if len(tested):
            against = _listed([tested.against.iloc[0]])
            parts = [
                f"{title(row.loss)} {row.difference:+.2f} [{row.low:+.2f}, {row.high:+.2f}], {p_in_words(row.p_holm)}"
                for _, row in tested.iterrows()
                if holds(row)
            ]
            what = (
                f"significantly different from {against}: {'; '.join(parts)}"
                if parts
                else f"no significant difference from {against}, smallest {p_in_words(tested.p_holm.min())}"
            )
        else:
            what = "too few subjects or losses for a comparison"
        own = tables["own_thresholds"]
        own = own.dice_own[(own.split == unseen_split(tables["summary"])) & own.loss.isin(values.index)]
        at_own = f"; at each loss's own threshold {own.min():.2f} to {own.max():.2f}" * (key == "dice" and len(own) > 0)
        sentences.append(f"{QUESTIONS[key][0]}: {what} ({means}{at_own}).")
    return sentences + carries_over(tables) + against_paper(tables)


def carries_over(tables: dict[str, pd.DataFrame]) -> list[str]:
    """How mean Dice changes from the holdout scans of the training centres to scans of other centres, in one sentence; none
    if the study lacks either."""
    gap = tables["generalisation_gap"]
    rows = gap[(gap.metric == "dice") & ~gap.loss.isin(UNTRAINED)].dropna(subset="gap").set_index("loss")
    if not len(rows):
        return []
    first = "siamese" if "siamese" in rows.index else rows.index[0]
    lead, others = rows.loc[first], -rows.gap.drop(first)
    interval = f" [{-lead.high:+.2f}, {-lead.low:+.2f}]" if np.isfinite(lead.low) else ""
    verdict = (
        "change"
        if lead.low > 0 or lead.high < 0
        else "no change is shown"
        if np.isfinite(lead.low)
        else "change, untested"
    )
    text = (
        f"Unseen centre: {verdict} from the holdout scans of the training centres (mean Dice with {_listed([first])} "
        f"{-lead.gap:+.2f}{interval}"
    )
    if len(others):
        text += f", with the other loss{'es' * (len(others) > 1)} {others.min():+.2f}"
        text += f" to {others.max():+.2f}" * (len(others) > 1)
    return [f"{text}). These are different subjects, whose scans may be easier or harder."]


def against_paper(tables: dict[str, pd.DataFrame]) -> list[str]:
    """Where the paper and this study place the Siamese loss among the losses of the paper's Table 1, in one sentence; none if the
    study lacks one of them."""
    split, paper = unseen_split(tables["summary"]), paper_tables()
    paper = paper[(paper.table == 1) & (paper.dataset == DATASETS[split])].set_index("loss")
    here = of_losses(tables["summary"], split).set_index("loss")
    losses = [loss for loss in paper.index if loss in LOSSES]
    if not set(losses) <= set(here.index):
        return []
    parts = []
    for metric in ("dice", "lesion_recall"):
        ranks = [int(table.loc[losses, f"{metric}_mean"].rank(ascending=False)["siamese"]) for table in (paper, here)]
        values = [shown(metric, table[f"{metric}_mean"]["siamese"]) for table in (paper, here)]
        parts.append(
            f"{name_in_sentence(metric)} {values[0]}, rank {ranks[0]} of {len(losses)} (here {values[1]}, rank {ranks[1]})"
        )
    return [
        f"The paper's result, on its own {split} scans: {in_words(parts)}, for the Siamese loss at the threshold 0.5."
    ]


def headline(tables: dict[str, pd.DataFrame], seeds: int, synthetic: bool = False) -> str:
    """The answer in two or three sentences, with the number of scans and trainings behind it."""
    differences, open_questions, against = [], [], ""
    for key, values, pairs in _asked(tables):
        tested, does = pairs[pairs.p.notna()], QUESTIONS[key][1]
        if not len(tested) or len(values) < 2:
            continue
        against = _listed([tested.against.iloc[0]])
        significant = tested[tested.apply(holds, axis=1)]
        better, worse = (list(significant.loss[sign * significant.difference > 0]) for sign in (1, -1))
        if better:
            differences.append(f"{_listed(better)} {does if len(better) > 1 else _singular(does)} than {against}")
        if worse:
            differences.append(f"{against} {_singular(does)} than {_listed(worse)}")
        if not better and not worse:
            open_questions.append(QUESTIONS[key][0])
    split = unseen_split(tables["summary"])
    where = f"On {'synthetic ' if synthetic else ''}{unseen_scans(tables)}"
    if not against:
        best = next(iter(_asked(tables)), None)
        lead = (
            f"{_listed([best[1].index[0]])} has the highest mean Dice ({best[1].iloc[0]:.2f})"
            if best
            else "nothing was measured"
        )
        text = f"{where}, {lead}; losses were not compared."
    elif differences:
        text = f"{where}, {'; '.join(differences)}."
    else:
        text = (
            f"{where}, no loss differs significantly from {against}, neither in overlap nor in the fraction of lesions "
            "detected at the same number of false positives per scan."
        )
    if differences and open_questions:
        topics = " or ".join(question[0].lower() + question[1:] for question in open_questions)
        text += f" No significant difference in {topics}."
    text += _of_small(tables) + _at_one_half(tables, split)
    trainings = (
        "one training per loss: another seed may change the order" if seeds == 1 else f"{seeds} trainings per loss"
    )
    return f"{text} This rests on {int(of_losses(tables['summary'], split).subjects.max())} scans and {trainings}."


def _of_small(tables: dict[str, pd.DataFrame]) -> str:
    """The fraction of small lesions that the losses detect at equal false positives, as a sentence; empty if undefined."""
    for key, values, _ in _asked(tables):
        if key == "small":
            ends = sorted({f"{value:.0%}" for value in (values.min(), values.max())}, key=lambda text: float(text[:-1]))
            who = "the losses detect" if len(values) > 1 else f"{_listed([values.index[0]])} detects"
            return f" Of {SMALL}, {who} {' to '.join(ends)} at equal false positives."
    return ""


SPELT_OUT = {"avd_pct": "volume error (AVD)", "hd95_mm": "distance of outlines (HD95)"}
"""Metrics whose names are abbreviations, in the headline."""


def _at_one_half(tables: dict[str, pd.DataFrame], split: str) -> str:
    """The metrics other than Dice in which a loss differs significantly from the Siamese loss, with the range of false
    positives, as a sentence."""
    comparisons, rates = tables["comparisons"], false_positives(tables, split)
    tested = comparisons[(comparisons.split == split) & comparisons.metric.isin(set(METRICS) - {"dice"})]
    significant = tested[[holds(row) for row in tested.itertuples()]]
    if not len(significant):
        return ""
    metrics = [
        SPELT_OUT.get(metric, name_in_sentence(metric).split(" (")[0])  # without the unit
        for metric in METRICS
        if metric in set(significant.metric)
    ]
    why = f", where some losses mark more than others ({rates} false positives per scan)" if rates else ""
    against = _listed([significant.against.iloc[0]])
    return f" At the threshold 0.5{why}, losses differ significantly from {against} in {in_words(metrics)}, as the table shows."


def _singular(does: str) -> str:
    """A verb phrase of `QUESTIONS` in the singular."""
    verb, rest = does.split(" ", 1)
    return f"{verb}s {rest}"


NOTE = (
    "The columns Dice to AVD use the threshold 0.5, at which some losses mark more voxels than others. HD95 is the 95th "
    "percentile of the distance between the outlines, AVD the absolute volume difference. A loss's own threshold is the "
    "one with the highest mean Dice on the validation scans. Lesions detected at equal false positives: the fraction of "
    "lesions detected if the thresholds are chosen so that every loss has the same number of false positives per scan; "
    "the mean over {}, {}, {}, {} and {} of them. For this, a component of the mask detects a lesion only where at least a "
    "tenth of it lies in lesions; lesion recall needs one voxel. The last row has the range of a column's bars."
)


def scoreboard(tables: dict[str, pd.DataFrame], losses: list[str]) -> dict:
    """Losses by metrics on the unseen scans, for the template.

    Returns
    -------
    dict
        `columns`, pairs of title and whether higher is better; `scales`, the range of each column's bars; `rows`, each
        with `label`, `colour` and `cells`; `split`, `measures` (what each loss measures) and `note` in words. A cell has
        `text`, `interval`, `differs` (`better` or `worse` if it differs significantly from the loss that the others are
        compared with, else empty), and `at`, `low` and `high`: mean and interval in per cent of the column's range, None where
        undefined.
    """
    split = unseen_split(tables["summary"])
    summary = of_losses(tables["summary"], split).set_index("loss")
    names = [loss for loss in losses if loss in summary.index]
    columns, scales, cells = [], [], {name: [] for name in names}

    def add(
        heading: str,
        parts: pd.DataFrame,
        text: Callable[[float], str],
        pairs: pd.DataFrame,
        higher_is_better: bool = True,
    ) -> None:
        columns.append((heading, higher_is_better))
        scales.append(_add_cells(cells, parts, text, differing(pairs[pairs.split == split], higher_is_better)))

    for metric in COLUMNS:
        entry, ends = METRICS[metric], [f"{metric}_{end}" for end in ("mean", "low", "high")]
        pairs = tables["comparisons"][tables["comparisons"].metric == metric]
        add(entry.title, summary.loc[names, ends], functools.partial(shown, metric), pairs, entry.higher_is_better)
    own = tables["own_thresholds"]
    if (own.split == split).any():
        parts = own[own.split == split].set_index("loss").reindex(names)[["dice_own", "low", "high"]]
        add("Dice at own threshold", parts.astype(float), "{:.2f}".format, tables["comparisons"][:0])  # not tested
    for kind, which in ("all", ""), ("small", f", below {SMALL_MM3:g} mm³"):
        scores = tables["froc_scores"][tables["froc_scores"].lesions == kind]
        parts = of_losses(scores, split).set_index("loss").reindex(names)[["score", "low", "high"]]
        pairs = tables["froc_comparisons"][tables["froc_comparisons"].lesions == kind]
        add(f"Lesions detected at equal false positives{which}", parts, "{:.0%}".format, pairs)
    rows = [{"label": title(name), "colour": colour(name), "cells": cells[name]} for name in names]
    measured = [f"{title(name)}: {LOSSES[name].measures}" for name in names if name in LOSSES and LOSSES[name].measures]
    words = {"split": unseen_scans(tables), "measures": measured, "note": NOTE.format(*map(str, RATES))}
    return {"columns": columns, "scales": scales, "rows": rows} | words


def differing(pairs: pd.DataFrame, higher_is_better: bool = True) -> dict[str, str]:
    """`better` or `worse` for every loss that differs significantly in these comparisons."""
    return {
        row.loss: "better" if (row.difference > 0) == higher_is_better else "worse"
        for row in pairs.itertuples()
        if holds(row)
    }


def headline_table(tables: dict[str, pd.DataFrame], losses: list[str]) -> pd.DataFrame:
    """The scoreboard for a notebook: one row per metric, one column per loss; means with 95 % intervals, and what differs
    significantly."""
    board = scoreboard(tables, losses)
    metrics = [f"{name} {'↑' if higher else '↓'}" for name, higher in board["columns"]]
    columns = {
        row["label"]: [f"{cell['text']}{cell['interval']} {cell['differs']}".rstrip() for cell in row["cells"]]
        for row in board["rows"]
    }
    return pd.DataFrame(columns, index=pd.Index(metrics, name="Metric"))


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
        interval = f" [{text(lowest)},\u00a0{text(highest)}]" if np.isfinite(mean) and np.isfinite(lowest) else ""
        shown_mean = text(mean) if np.isfinite(mean) else "—"
        cell = {"text": shown_mean, "interval": interval, "differs": differs.get(name, "")}
        cells[name].append(cell | {"at": at, "low": left, "high": right})
    return f"{text(finite.min())} to {text(finite.max())}" if len(finite) else ""


def about(cohort: pd.DataFrame, synthetic: pd.Series, seeds: int) -> str:
    """The line at the top of every page: which scans, how many subjects and trainings, and which scans are synthetic
    (`synthetic`, a bool per row of the cohort)."""

    def counted(scans: pd.DataFrame) -> str:
        counts = scans[scans.split != ""].groupby("split", sort=False).size()
        parts = [f"{counts[split]} {split}" for split in ALL_SPLITS if split in counts]
        centres = scans.centre[scans.split == "external"].nunique()
        return ", ".join(parts) + f" from {_not_in_training(centres)}" * ("external" in counts)

    drawn, real = cohort[synthetic], cohort[~synthetic]
    scans = [f"synthetic scans ({counted(drawn)})"] if len(drawn) else []
    if len(real):
        centres = real.centre.nunique()
        kind = "real scans" if len(drawn) else "scans"
        scans.append(f"{kind} from {centres} centre{'s' if centres > 1 else ''} ({counted(real)})")
    text = f"{' and '.join(scans)}, {seeds} training run{'s' if seeds > 1 else ''} per loss."
    text = text[0].upper() + text[1:]
    return text if len(real) else f"{text} They show how the study works, not how well the losses perform in patients."


PAPER_STEPS = 10_000
"""Training steps of the paper (section 3)."""


def cannot_say(tables: dict[str, pd.DataFrame], seeds: int, synthetic: bool, training: dict) -> list[str]:
    """Conclusions that the study does not support, one sentence each; `training` as in a configuration."""
    split = unseen_split(tables["summary"])
    subjects, centres = int(of_losses(tables["summary"], split).subjects.max()), tables["centres"]
    own = centres[centres.split == split].centre.nunique()
    sentences = []
    if synthetic:
        sentences.append("How the losses perform on scans of patients: these scans are synthetic.")
    steps = training["epochs"] * training["steps_per_epoch"]
    if steps < PAPER_STEPS and not training.get("start"):
        sentences.append(
            f"How the losses perform after full training: here each network takes {steps:,} steps, in the paper {PAPER_STEPS:,}. "
            "Metrics are therefore far below published ones."
        )
    if seeds == 1:
        sentences.append("How much of a difference is due to chance in training: each loss was trained once.")
    sentences.append(
        f"How the losses perform at other centres: {subjects} scans from {own} centre{'s' if own > 1 else ''} were "
        "tested, and the intervals resample only these."
    )
    if tables["comparisons"].p.notna().any():
        sentences.append(
            f"Whether losses are equal: with {subjects} scans, only large differences reach significance (a paired test with "
            "Holm's correction, and an interval without zero)."
        )
    if of_losses(tables["summary"], split).loss.nunique() > 2:
        sentences.append(
            "Which of two losses is better if neither is the Siamese loss: each loss was compared with the Siamese loss "
            "only."
        )
    return sentences
