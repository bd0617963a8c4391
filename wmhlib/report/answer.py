"""The first answers on the front page: which loss is best, how certain this is, for which lesions and scans, and the
limits.
Input: the tables of `wmhlib.evaluation`. Output: sentences, and the scoreboard as rows for the template. Every loss is
compared with the Siamese loss; a difference is significant by the rule of `wmhlib.report.findings` (D-019).
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from wmhlib.evaluation.froc import RATES
from wmhlib.evaluation.lesions import SMALL_MM3
from wmhlib.evaluation.names import ALL_SPLITS, UNTRAINED, colour, in_words, of_losses, shown, title, with_interval
from wmhlib.evaluation.published import DATASETS, paper_tables
from wmhlib.losses import LOSSES
from wmhlib.metrics import METRICS
from wmhlib.report.findings import attainable, holds, name_in_sentence, p_in_words
from wmhlib.settings import Training
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


def false_positives(tables: dict[str, pd.DataFrame], split: str, losses: Iterable[str] | None = None) -> str:
    """The range of false positives per scan at the threshold 0.5 of all losses or of these, such as `4 to 11`; empty without
    a loss."""
    rows = of_losses(tables["false_detections"], split)
    per_scan = rows.per_scan if losses is None else rows.per_scan[rows.loss.isin(list(losses))]
    return _range(per_scan, ".0f" if per_scan.min() >= 1 else ".1f")


def _range(values: pd.Series, number: str) -> str:
    """The lowest and highest value, `4 to 11`, or one if they read the same; empty if there is none."""
    values = values.dropna()
    ends = [f"{end:{number}}" for end in (values.min(), values.max())] if len(values) else []
    return " to ".join(dict.fromkeys(ends))


def _compared(tables: dict[str, pd.DataFrame], split: str) -> set[str]:
    """The losses that are compared with one another, without variants of one; all if none are."""
    pairs = tables["comparisons"][tables["comparisons"].split == split]
    return {*pairs.loss, *pairs.against} or set(of_losses(tables["summary"], split).loss)


def unseen_is_synthetic(study: Study, cohort: pd.DataFrame, summary: pd.DataFrame) -> bool:
    """Whether all scans of the split that the front page reports are synthetic."""
    return all(map(study.is_synthetic, cohort.flair[cohort.split == unseen_split(summary)]))


def one_kind(study: Study, cohort: pd.DataFrame) -> bool:
    """Whether holdout and external scans are both synthetic or both real."""
    unseen = cohort.flair[cohort.split.isin(["holdout", "external"])]
    return len(set(map(study.is_synthetic, unseen))) < 2


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


def verdicts(tables: dict[str, pd.DataFrame], alike: bool = True) -> list[str]:
    """For each of `QUESTIONS`, the range of the losses' means and the significant differences from the loss they are
    compared with; then `carries_over`, if holdout and external scans are `alike` (`one_kind`), and `against_paper`."""
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
        if key == "dice":
            own = tables["own_thresholds"]
            own = own.dice_own[(own.split == unseen_split(tables["summary"])) & own.loss.isin(values.index)].astype(
                float
            )
            means += f"; at each loss's own threshold {_range(own, number)}" if own.notna().any() else ""
        sentences.append(f"{QUESTIONS[key][0]}: {what} ({means}).")
    return sentences + (carries_over(tables) if alike else []) + against_paper(tables)


def carries_over(tables: dict[str, pd.DataFrame]) -> list[str]:
    """How mean Dice changes from the holdout scans of the training centres to scans of other centres, in one sentence; none
    if the study lacks either. Variants of a loss are left out."""
    gap = tables["generalisation_gap"]
    rows = gap[(gap.metric == "dice") & gap.loss.isin(_compared(tables, "external") - set(UNTRAINED))]
    rows = rows.dropna(subset="gap").set_index("loss")
    if not len(rows):
        return []
    first = "siamese" if "siamese" in rows.index else rows.index[0]
    lead, others = rows.loc[first], -rows.gap.drop(first)
    interval = f" [{-lead.high:+.2f}, {-lead.low:+.2f}]" if np.isfinite(lead.low) else ""
    there = "the holdout scans of the training centres"
    if not interval:
        verdict = f"too few scans to test how Dice changes from {there}"
    elif lead.low > 0 or lead.high < 0:
        verdict = f"Dice is {'lower' if lead.gap > 0 else 'higher'} than on {there}"
    else:
        verdict = f"no change of Dice from {there} is shown"
    centres = tables["centres"].centre[tables["centres"].split == "external"].nunique()
    text = f"Unseen centre{'s' * (centres > 1)}: {verdict} ({_listed([first])} {-lead.gap:+.2f}{interval}"
    if len(others):
        text += f"; the other loss{'es' * (len(others) > 1)} {_range(others, '+.2f')}"
    return [f"{text}). These are different subjects, whose scans may be easier or harder."]


def against_paper(tables: dict[str, pd.DataFrame]) -> list[str]:
    """Where the paper and this study place the Siamese loss among the losses of the paper's Table 1, in one sentence; none if the
    study lacks one of them, or a mean is undefined."""
    split, paper = unseen_split(tables["summary"]), paper_tables()
    paper = paper[(paper.table == 1) & (paper.dataset == DATASETS[split])].set_index("loss")
    here = of_losses(tables["summary"], split).set_index("loss")
    losses = [loss for loss in paper.index if loss in LOSSES]
    columns = {metric: f"{metric}_mean" for metric in ("dice", "lesion_recall")}
    if not set(losses) <= set(here.index) or here.loc[losses, list(columns.values())].isna().any(axis=None):
        return []
    parts = []
    for metric, column in columns.items():
        ranks = [
            int(table.loc[losses, column].rank(ascending=False, method="min")["siamese"]) for table in (paper, here)
        ]
        values = [shown(metric, table[column]["siamese"]) for table in (paper, here)]
        parts.append(
            f"{name_in_sentence(metric)} {values[0]}, rank {ranks[0]} of {len(losses)} (here {values[1]}, rank {ranks[1]})"
        )
    return [
        f"The paper's result for the Siamese loss, on its own {split} scans: {in_words(parts)}. Ranks are those of means, here "
        "at the threshold 0.5, and are not tested."
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
    else:
        text = f"{where}, {'; '.join(differences)}."
    topics = in_words([question[0].lower() + question[1:] for question in open_questions], "or")
    if against and not differences:
        text = f"{where}, no loss differs significantly from {against} in {topics}."
        text += "" if _can_differ(tables, split) else f" {TOO_FEW}"
    elif differences and open_questions:
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
            who = "the losses detect" if len(values) > 1 else f"{_listed([values.index[0]])} detects"
            return f" Of {SMALL}, {who} {_range(values, '.0%')} at equal false positives."
    return ""


SPELT_OUT = {"avd_pct": "volume error (AVD)", "hd95_mm": "distance of outlines (HD95)"}
"""Metrics whose names are abbreviations, in the headline."""


def _at_one_half(tables: dict[str, pd.DataFrame], split: str) -> str:
    """The metrics other than Dice in which a loss differs significantly from the Siamese loss, with the range of false
    positives, as a sentence."""
    comparisons, rates = tables["comparisons"], false_positives(tables, split, _compared(tables, split))
    tested = comparisons[(comparisons.split == split) & comparisons.metric.isin(set(METRICS) - {"dice"})]
    significant = tested[[holds(row) for row in tested.itertuples()]]
    if not len(significant):
        return ""
    metrics = [
        SPELT_OUT.get(metric, name_in_sentence(metric).split(" (")[0])  # without the unit
        for metric in METRICS
        if metric in set(significant.metric)
    ]
    why = f", where some losses mark more than others ({rates} false positives per scan)" if " to " in rates else ""
    against = _listed([significant.against.iloc[0]])
    return f" At the threshold 0.5{why}, losses differ significantly from {against} in {in_words(metrics)}."


def _singular(does: str) -> str:
    """A verb phrase of `QUESTIONS` in the singular."""
    verb, rest = does.split(" ", 1)
    return f"{verb}s {rest}"


NOTE = (
    "At the threshold 0.5, some losses mark more voxels than others. At equal false positives, a component of the mask detects "
    "a lesion only where at least a tenth of it lies in lesions; lesion recall needs one voxel. The last row has the range of a "
    "column's bars."
)

TOO_FEW = "With so few scans, no difference could reach significance."


def _can_differ(tables: dict[str, pd.DataFrame], split: str) -> bool:
    """Whether a difference from the loss that the others are compared with could be significant."""
    pairs = tables["comparisons"][tables["comparisons"].split == split]
    return bool(pairs.p.notna().any()) and attainable(pairs.loss.nunique(), int(pairs.subjects.max()))


def scoreboard(tables: dict[str, pd.DataFrame], losses: list[str]) -> dict:
    """Losses by metrics on the unseen scans, for the template.

    Returns
    -------
    dict
        `columns`, pairs of title and whether higher is better; `scales`, the range of each column's bars; `rows`, each
        with `label`, `colour` and `cells`; `split`, `measures` (what each loss measures), `rates` and `note` in words. A cell has
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
    words = {"split": unseen_scans(tables), "measures": measured, "note": NOTE}
    words["rates"] = in_words([str(rate) for rate in RATES])
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
        shown_mean, interval = with_interval(text, mean, lowest, highest)
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
"""Training steps of the paper, of 8 slices each (3.2.2)."""


def cannot_say(
    tables: dict[str, pd.DataFrame], seeds: int, synthetic: bool, trainings: Iterable[Training]
) -> list[str]:
    """Conclusions that the study does not support, one sentence each; `trainings` are the settings of its losses."""
    split = unseen_split(tables["summary"])
    subjects, centres = int(of_losses(tables["summary"], split).subjects.max()), tables["centres"]
    own = centres[centres.split == split].centre.nunique()
    sentences = []
    if synthetic:
        sentences.append("How the losses perform on scans of patients: these scans are synthetic.")
    short = {
        (training.epochs * training.steps_per_epoch, training.batch_size)
        for training in trainings
        if not training.start
    }
    if short and max(short)[0] < PAPER_STEPS:
        steps, batch = max(short)
        sentences.append(
            f"How the losses perform after the paper's training: here a network takes {steps:,} steps of {batch} slices, in the "
            f"paper {PAPER_STEPS:,} of 8."
        )
    if seeds == 1:
        sentences.append("How much of a difference is due to chance in training: each loss was trained once.")
    sentences.append(
        f"How the losses perform at other centres: {subjects} scans from {own} centre{'s' if own > 1 else ''} were "
        "tested, and the intervals resample only these."
    )
    pairs = tables["comparisons"][tables["comparisons"].split == split]
    if pairs.p.notna().any():
        how = (
            f"with {subjects} scans, only large differences reach significance (a paired test with Holm's correction, and an "
            "interval without zero)."
        )
        sentences.append(f"Whether losses are equal: {how if _can_differ(tables, split) else TOO_FEW.lower()}")
    if pairs.loss.nunique() > 1:
        against = _listed([pairs.against.iloc[0]])
        sentences.append(f"Which of two other losses is better: each loss was compared with {against} only.")
    return sentences
