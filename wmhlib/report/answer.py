"""The first answers on the front page: which loss is best, on which lesions, at another centre, and how sure this is.

Input: the tables of `wmhlib.evaluation`. Output: sentences. Every loss is compared with the Siamese loss; a difference is
significant by the rule of `wmhlib.report.findings` (D-019).
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from wmhlib.evaluation.froc import RATES
from wmhlib.evaluation.lesions import SMALL_MM3
from wmhlib.evaluation.names import ALL_SPLITS, UNTRAINED, in_words, of_losses, shown, title, with_interval
from wmhlib.evaluation.published import DATASETS, paper_tables
from wmhlib.losses import LOSSES
from wmhlib.metrics import METRICS
from wmhlib.report.findings import attainable, holds, name_in_sentence, p_in_words, small_rate
from wmhlib.settings import Training
from wmhlib.study import Study

SMALL = f"lesions below {SMALL_MM3:g} mm³"

QUESTIONS = {
    "dice": ("Overlap (Dice)", "overlap better with the reference", "overlap (Dice {} at the threshold 0.5)"),
    "all": (
        "Fraction of lesions detected at equal false positives",
        "detect more lesions at the same number of false positives per scan",
        "fraction of lesions detected at equal false positives ({})",
    ),
    "small": (
        f"Fraction of {SMALL} detected at equal false positives",
        f"detect more {SMALL} at the same number of false positives per scan",
        f"fraction of {SMALL} detected at equal false positives ({{}})",
    ),
}
"""The questions on the losses: as a heading, as the verb phrase for the better losses, and as a topic with the range of means."""


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


def _range(values: pd.Series, number: str) -> str:
    """The lowest and highest value, `4 to 11`, or one if they read the same; empty if there is none."""
    values = values.dropna()
    ends = [f"{end:{number}}" for end in (values.min(), values.max())] if len(values) else []
    return " to ".join(dict.fromkeys(ends))


def _compared(pairs: pd.DataFrame, losses: Iterable[str]) -> set[str]:
    """The losses in these comparisons, which have no variants of a loss; all `losses` if nothing was compared."""
    return {*pairs.loss, *pairs.against} or set(losses)


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
        values = values[values.index.isin(_compared(pairs, values.index))].dropna()
        if len(values):
            yield key, values.sort_values(ascending=False, kind="stable"), pairs


def _metric_pairs(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The comparisons of metrics at the threshold 0.5 that could be tested, on the scans of the front page."""
    pairs = tables["comparisons"]
    return pairs[(pairs.split == unseen_split(tables["summary"])) & pairs.p.notna()]


def _listed(losses: Sequence[str]) -> str:
    return f"the {in_words([title(loss) for loss in losses])} loss{'es' * (len(losses) > 1)}"


def verdicts(tables: dict[str, pd.DataFrame]) -> list[str]:
    """For each of `QUESTIONS`, the range of the losses' means and the significant differences from the loss they are
    compared with; then `against_paper`."""
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
                if _can_differ(tables)
                else "too few scans for a significant difference"
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
    return sentences + against_paper(tables)


def variants(tables: dict[str, pd.DataFrame]) -> list[str]:
    """A sentence per variant on the metrics in which it differs significantly from its loss."""
    ablations, sentences = tables["ablations"], []
    rows_here = ablations[ablations.split == unseen_split(tables["summary"])]
    for (loss, base), rows in rows_here.groupby(["loss", "against"], sort=False):
        changes = {row.metric: f"{METRICS[row.metric].title} {_change(row)}" for row in rows.itertuples()}
        differences = [changes[row.metric] for row in rows.itertuples() if holds(row)]
        text = f"{title(loss)} minus {title(base)}: {changes['dice']}"
        sentences.append(f"{text}; significant: {', '.join(differences) or 'nothing'}.")
    return sentences


def of_variants(tables: dict[str, pd.DataFrame]) -> str:
    """The change of mean Dice with each variant of a loss, in one sentence per loss; empty without variants."""
    ablations, sentences = tables["ablations"], []
    rows = ablations[(ablations.split == unseen_split(tables["summary"])) & (ablations.metric == "dice")]
    for base, of_base in rows.groupby("against", sort=False):
        parts = [
            f"{title(row.loss)} {_change(row)}{', significant' * holds(row)}"
            for row in of_base.dropna(subset="difference").itertuples()
        ]
        sentences += [f"Change of mean Dice against {title(base)}: {'; '.join(parts)}."] * bool(parts)
    return " ".join(sentences)


def _change(row) -> str:
    """A difference with its interval."""
    text = f"{{:+.{METRICS[row.metric].digits}f}}".format
    return "".join(with_interval(text, row.difference, row.low, row.high)).replace("\u00a0", " ")


def carries_over(tables: dict[str, pd.DataFrame]) -> str:
    """How mean Dice changes from the holdout scans of the training centres to scans of other centres; empty if the study
    lacks either. Variants of a loss are left out."""
    gap, pairs = tables["generalisation_gap"], tables["comparisons"]
    losses = _compared(pairs[pairs.split == "external"], gap.loss) - set(UNTRAINED)
    rows = gap[(gap.metric == "dice") & gap.loss.isin(losses)].dropna(subset="gap").set_index("loss")
    if not len(rows):
        return ""
    first = "siamese" if "siamese" in rows.index else rows.index[0]
    lead, others = rows.loc[first], -rows.gap.drop(first)
    there = "on the holdout scans of the training centres"
    size = f"{abs(lead.gap):.2f} {'lower' if lead.gap > 0 else 'higher'} than {there}"
    text = f"Mean Dice of {_listed([first])} is {size}"
    if not np.isfinite(lead.low):
        text += ", with too few scans for a test"
    else:
        shown_to_differ = lead.low > 0 or lead.high < 0
        text += f" (interval of the change {-lead.high:+.2f} to {-lead.low:+.2f})"
        text = text if shown_to_differ else f"Not known. {text}, which can be chance"
    if len(others):
        text += (
            f"; the other loss{'es' * (len(others) > 1)} change{'s' * (len(others) == 1)} by {_range(others, '+.2f')}"
        )
    return f"{text}. These are different subjects, whose scans may be easier or harder."


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
        parts.append(f"{name_in_sentence(metric)} {values[0]}, rank {ranks[0]} (here {values[1]}, rank {ranks[1]})")
    return [
        f"The paper's result for the Siamese loss, on its own {split} scans: {in_words(parts)}. Ranks are among the "
        f"{len(losses)} losses that the paper compares, by means, here at the threshold 0.5, and are not tested."
    ]


def headline(tables: dict[str, pd.DataFrame], synthetic: bool = False) -> str:
    """Which loss is best, in one or two sentences, with the number of scans and the range of means."""
    differences, open_questions, against = [], [], ""
    for key, values, pairs in _asked(tables):
        tested, (_, does, topic) = pairs[pairs.p.notna()], QUESTIONS[key]
        if not len(tested) or len(values) < 2:
            continue
        against = _listed([tested.against.iloc[0]])
        significant = tested[tested.apply(holds, axis=1)]
        better, worse = (list(significant.loss[sign * significant.difference > 0]) for sign in (1, -1))
        if better:
            differences.append(f"{_listed(better)} {does if len(better) > 1 else _singular(does)} than {against}")
        if worse:
            differences.append(f"{against} {_singular(does)} than {_listed(worse)}")
        if not better and not worse and key != "small":  # those have an answer of their own
            open_questions.append(topic.format(_range(values, ".2f" if key == "dice" else ".0%")))
    scans = int(of_losses(tables["summary"], unseen_split(tables["summary"])).subjects.max())
    where = f"On {scans} {'synthetic ' if synthetic else ''}{unseen_scans(tables)}"
    if not against:
        best = next(iter(_asked(tables)), None)
        lead = (
            f"{_listed([best[1].index[0]])} has the highest mean Dice ({best[1].iloc[0]:.2f})"
            if best
            else "nothing was measured"
        )
        return f"{where}, {lead}; losses were not compared."
    if not differences and not _can_differ(tables):
        return f"{where}, losses cannot be compared. {TOO_FEW} Means: {in_words(open_questions)}."
    text = "; ".join(differences) or f"no loss is shown to be better or worse than {against}"
    topics = in_words(open_questions, "or")
    return f"{where}, {text}." + f" No significant difference in {topics}." * bool(topics)


def answers(
    tables: dict[str, pd.DataFrame], seeds: int, trainings: Iterable[Training], alike: bool = True
) -> dict[str, str]:
    """What a reader asks after the `headline`, with the answers; a question without one is left out. Another centre is
    compared only if holdout and external scans are `alike` (`one_kind`); `trainings` as in `cannot_say`."""
    no_gap = "Not measured: there are no holdout scans of the training centres to compare with."
    unlike = "Not measured: holdout scans are synthetic, external ones are not, or the reverse."
    every = {
        "What differs at the threshold 0.5?": at_one_half(tables),
        "What do the variants change?": of_variants(tables),
        "On which lesions?": on_which_lesions(tables),
        "At another centre?": (carries_over(tables) or no_gap) if alike else unlike,
        "How sure is this?": certainty(tables, seeds, trainings),
    }
    return {question: text for question, text in every.items() if text}


FEW_DETECTED = 0.1
"""If every loss detects a smaller fraction of small lesions, the page says that too few are detected to compare losses."""


def on_which_lesions(tables: dict[str, pd.DataFrame]) -> str:
    """The fraction of lesions that the losses detect at equal false positives, by size; empty without lesions."""
    split = unseen_split(tables["summary"])
    small = next((values for key, values, _ in _asked(tables) if key == "small"), None)
    if small is None:
        return ""
    rows = of_losses(tables["froc_by_size"], split)
    rows = rows[rows.loss.isin(small.index) & (rows.from_mm3 >= SMALL_MM3)].sort_values("from_mm3")
    ranges = [f"{_range(small, '.0%')} of {SMALL}"]
    ranges += [
        f"{_range(of_size.detected, '.0%')} of those of {of_size['size'].iloc[0].replace(' to ', '–')}"
        for _, of_size in rows.groupby("from_mm3")
    ]
    who = "the losses detect" if len(small) > 1 else f"{_listed([small.index[0]])} detects"
    text = f"At {RATES[0]} to {RATES[-1]} false positives per scan, {who} {in_words(ranges)}."
    if len(small) > 1 and small.max() < FEW_DETECTED:
        text += f" Too few {SMALL} are detected there to compare losses on them"
        at_half = small_rate(tables["detection_by_size"], split).reindex(small.index)
        text += f"; at the threshold 0.5, it is {_range(at_half, '.0%')}." if at_half.notna().any() else "."
    return text


SPELT_OUT = {"avd_pct": "Volume error (AVD)", "hd95_mm": "Distance of outlines (HD95)"}
"""Metrics whose names are abbreviations."""


def at_one_half(tables: dict[str, pd.DataFrame]) -> str:
    """For each metric other than Dice in which a loss differs significantly from the Siamese loss, which losses are better and
    worse, with the false positives of all; empty if there is none."""
    split, pairs = unseen_split(tables["summary"]), _metric_pairs(tables)
    means, sentences = of_losses(tables["summary"], split).set_index("loss"), []
    for metric in (name for name in METRICS if name != "dice"):
        rows = pairs[pairs.metric == metric]
        rows = rows[[holds(row) for row in rows.itertuples()]]
        if not len(rows):
            continue
        own = {loss: f"{title(loss)} {shown(metric, mean)}" for loss, mean in means[f"{metric}_mean"].items()}
        ahead = (rows.difference > 0) == METRICS[metric].higher_is_better
        sides = [
            f"{in_words([own[loss] for loss in losses])} {'is' if len(losses) == 1 else 'are'} {how}"
            for how, losses in (("better", list(rows.loss[ahead])), ("worse", list(rows.loss[~ahead])))
            if losses
        ]
        heading, _, unit = METRICS[metric].title.partition(" (")
        heading = SPELT_OUT.get(metric, heading) + f", in {unit.rstrip(')')}" * bool(unit)
        sentences.append(f"{heading}: {', '.join(sides)} than {own[rows.against.iloc[0]]}.")
    if not sentences:
        return ""
    false = tables["false_detections"]
    false = false[(false.split == split) & false.loss.isin(_compared(pairs, means.index))].set_index("loss").per_scan
    number = ".0f" if false.min() >= 1 else ".1f"
    lead = ""
    if len(false) and f"{false.min():{number}}" != f"{false.max():{number}}":
        fewest, most = (f"{false[loss]:{number}} ({title(loss)})" for loss in (false.idxmin(), false.idxmax()))
        lead = f"How much a loss marks: from {fewest} to {most} false positives per scan. "
    return lead + " ".join(sentences)


def certainty(tables: dict[str, pd.DataFrame], seeds: int, trainings: Iterable[Training]) -> str:
    """What the answers rest on: trainings, scans, the largest difference in Dice that is not excluded, and the length of
    training."""
    split = unseen_split(tables["summary"])
    scans = int(of_losses(tables["summary"], split).subjects.max())
    pairs = _metric_pairs(tables)
    pairs = pairs[pairs.metric == "dice"]
    unsure = pairs[[not holds(row) for row in pairs.itertuples()]]
    text = (
        "Not sure. Each loss was trained once, and another seed may change the order."
        if seeds == 1
        else f"Each loss was trained {'twice' if seeds == 2 else f'{seeds} times'}."
    )
    text += f" {scans} scans were tested"
    reach = np.abs(unsure[["low", "high"]].to_numpy(float))
    if len(unsure) and np.isfinite(reach).any():
        against = _listed([unsure.against.iloc[0]])
        text += f", so a difference in Dice of up to {np.nanmax(reach):.2f} from {against} is not "
        text += "excluded (95 % interval, threshold 0.5)"
    if short := _shorter(trainings):
        text += f". A network took {short[0]:,} training steps, in the paper {PAPER_STEPS:,}"
    return f"{text}."


def _singular(does: str) -> str:
    """A verb phrase of `QUESTIONS` in the singular."""
    verb, rest = does.split(" ", 1)
    return f"{verb}s {rest}"


TOO_FEW = "With so few scans, no difference could reach significance."


def _can_differ(tables: dict[str, pd.DataFrame]) -> bool:
    """Whether a difference from the loss that the others are compared with could be significant."""
    pairs = _metric_pairs(tables)
    return bool(len(pairs)) and attainable(pairs.loss.nunique(), int(pairs.subjects.max()))


ROLE = {
    "training": "trained on {}",
    "validation": "epoch and threshold chosen on {}",
    "holdout": "tested on {} of the training centres",
    "external": "tested on {} from {}",
}
"""What the scans of a split are for, in the line at the top of every page."""


def about(cohort: pd.DataFrame, synthetic: pd.Series, seeds: int) -> str:
    """The line at the top of every page: what was trained and tested on which scans, how often, and which are synthetic
    (`synthetic`, a bool per row of the cohort)."""
    parts = []
    for split in (split for split in ALL_SPLITS if (cohort.split == split).any()):
        drawn = synthetic[cohort.split == split]
        counts = {"synthetic": drawn.sum(), "real": (~drawn).sum()}
        scans = (
            " and ".join(f"{count} {kind}" for kind, count in counts.items() if count)
            + f" scan{'s' * (len(drawn) > 1)}"
        )
        centres = cohort.centre[cohort.split == split].nunique()
        parts.append(ROLE[split].format(scans, _not_in_training(centres)))
    text = "; ".join(parts)
    text = f"{text[0].upper()}{text[1:]}; {seeds} training{'s' if seeds > 1 else ''} per loss."
    only = synthetic[cohort.split != ""].all()
    return (
        f"{text} Synthetic scans show how the study works, not how well the losses perform in patients."
        if only
        else text
    )


PAPER_STEPS = 10_000
"""Training steps of the paper, of 8 slices each (3.2.2)."""


def _shorter(trainings: Iterable[Training]) -> tuple[int, int] | None:
    """Steps and batch size of the longest training from random weights, if it is shorter than the paper's; otherwise None."""
    fresh = {
        (training.epochs * training.steps_per_epoch, training.batch_size)
        for training in trainings
        if not training.start
    }
    return max(fresh) if fresh and max(fresh)[0] < PAPER_STEPS else None


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
    if short := _shorter(trainings):
        sentences.append(
            f"How the losses perform after the paper's training: here a network takes {short[0]:,} steps of {short[1]} "
            f"slices, in the paper {PAPER_STEPS:,} of 8."
        )
    if seeds == 1:
        sentences.append("How much of a difference is due to chance in training: each loss was trained once.")
    sentences.append(
        f"How the losses perform at other centres: {subjects} scans from {own} centre{'s' if own > 1 else ''} were "
        "tested, and the intervals resample only these."
    )
    pairs = _metric_pairs(tables)
    if len(pairs):
        how = (
            f"with {subjects} scans, only large differences reach significance (a paired test with Holm's correction, and an "
            "interval without zero)."
        )
        sentences.append(f"Whether losses are equal: {how if _can_differ(tables) else TOO_FEW.lower()}")
    if pairs.loss.nunique() > 1:
        against = _listed([pairs.against.iloc[0]])
        sentences.append(f"Which of two other losses is better: each loss was compared with {against} only.")
    return sentences
