"""The first answers on the front page: which loss is best, on which lesions, at another centre, and how sure this is.

Input: the tables of `wmhlib.evaluation`. Output: sentences. Every loss is compared with the Siamese loss; a difference is
significant by the rule of `wmhlib.report.findings` (D-019).
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from wmhlib.evaluation.froc import RATES
from wmhlib.evaluation.lesions import SMALL_MM3
from wmhlib.evaluation.names import ALL_SPLITS, UNTRAINED, in_brackets, in_words, of_losses, shown, title
from wmhlib.evaluation.published import DATASETS, paper_tables
from wmhlib.losses import LOSSES
from wmhlib.metrics import METRICS
from wmhlib.report.findings import attainable, holds, name_in_sentence, p_in_words, significant, small_rate
from wmhlib.settings import Training
from wmhlib.study import Study

SMALL = f"lesions below {SMALL_MM3:g} mm³"

QUESTIONS = {
    "dice": (
        "Overlap (Dice)",
        "overlap better with the reference",
        "overlap (Dice {} at the threshold 0.5)",
        "overlap",
    ),
    "all": (
        "Fraction of lesions detected at equal false positives",
        "detect more lesions at the same number of false positives per scan",
        "fraction of lesions detected at equal false positives ({})",
        "lesions detected at equal false positives",
    ),
    "small": (
        f"Fraction of {SMALL} detected at equal false positives",
        f"detect more {SMALL} at the same number of false positives per scan",
        f"fraction of {SMALL} detected at equal false positives ({{}})",
        f"{SMALL} detected at equal false positives",
    ),
}
"""The questions on the losses: as a heading, as the verb phrase for the better losses, as a topic with the range of means, and
as one without."""


def unseen_split(summary: pd.DataFrame) -> str:
    """The split that the front page reports: external if the study has one, otherwise holdout."""
    return "external" if (summary.split == "external").any() else "holdout"


def unseen_scans(tables: dict[str, pd.DataFrame], cohorts: Sequence[pd.DataFrame], synthetic: bool = False) -> str:
    """The scans that the front page reports, in words: how many, whether all are `synthetic`, and of which centres.
    `cohorts` has the cohort of each study in the tables, since every study trains on centres of its own."""
    split = unseen_split(tables["summary"])
    scans = int(of_losses(tables["summary"], split).subjects.max())
    text = f"{scans} {'synthetic ' * synthetic}{'holdout ' * (split == 'holdout')}scan{'s' * (scans > 1)}"
    return f"{text} {'of the training centres' if split == 'holdout' else f'from {_external_centres(cohorts)}'}"


def _external_centres(cohorts: Sequence[pd.DataFrame]) -> str:
    """The centres of external scans, and whether scans of theirs took part in the training of their study."""
    centres, known = set(), set()
    for cohort in cohorts:
        external = set(cohort.centre[cohort.split == "external"])
        centres |= external
        known |= external & set(cohort.centre[cohort.split.isin(["training", "validation"])])
    count = "a centre" if len(centres) == 1 else f"{len(centres)} centres"
    if not known:
        return f"{count} not used in training"
    return (
        f"{count}, {len(known)} of which also took part in the training"
        if len(centres) > 1
        else f"{count} of the training"
    )


def _range(values: pd.Series, number: str) -> str:
    """The lowest and highest value, `4 to 11`, or one if they read the same; empty if there is none."""
    values = values.dropna()
    ends = [f"{end:{number}}" for end in (values.min(), values.max())] if len(values) else []
    return " to ".join(dict.fromkeys(ends))


def _compared(tables: dict[str, pd.DataFrame], pairs: pd.DataFrame, losses: Iterable[str]) -> set[str]:
    """The losses in these comparisons; if nothing was compared, those of `losses` that are no variants, or all."""
    return {*pairs.loss, *pairs.against} or set(losses) - set(tables["ablations"].loss) or set(losses)


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
        values = values[values.index.isin(_compared(tables, pairs, values.index))].dropna()
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
                for row in significant(tested).itertuples()
            ]
            what = (
                f"significantly different from {against}: {'; '.join(parts)}"
                if parts
                else f"no significant difference from {against}, smallest {p_in_words(tested.p_holm.min())}"
                if _can_differ(tables)
                else "too few scans for a significant difference"
            )
        else:
            what = "not compared"
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
    """The significant changes of mean Dice with the variants of a loss, and the range of the others; empty without
    variants."""
    ablations, sentences = tables["ablations"], []
    rows = ablations[(ablations.split == unseen_split(tables["summary"])) & (ablations.metric == "dice")]
    for base, of_base in rows.dropna(subset="difference").groupby("against", sort=False):
        clear = significant(of_base)
        others = of_base.drop(clear.index)
        parts = [f"{title(row.loss)} {_change(row)}" for row in clear.itertuples()]
        if len(others):
            names = (
                in_words([title(name) for name in others.loss], "or") if len(others) < 4 else f"{len(others)} variants"
            )
            known = attainable(rows.loss.nunique(), int(of_base.subjects.max()))
            what = "no significant change with" if known else "too few scans to test a change with"
            parts.append(f"{what} {names} ({_range(others.difference, '+.2f')})")
        sentences.append(f"Mean Dice compared with {title(base)}: {'; '.join(parts)}.")
    return " ".join(sentences)


def _by(row) -> str:
    """A difference."""
    return f"{row.difference:+.{METRICS[row.metric].digits}f}"


def _change(row) -> str:
    """A difference with its interval."""
    text = f"{{:+.{METRICS[row.metric].digits}f}}".format
    return in_brackets(text, row.difference, row.low, row.high)


def carries_over(tables: dict[str, pd.DataFrame]) -> str:
    """How mean Dice changes from the holdout scans of the training centres to scans of other centres; empty if the study
    lacks either. Variants of a loss are left out."""
    gap, pairs = tables["generalisation_gap"], tables["comparisons"]
    losses = _compared(tables, pairs[pairs.split == "external"], gap.loss) - set(UNTRAINED)
    rows = gap[(gap.metric == "dice") & gap.loss.isin(losses)].dropna(subset="gap")
    if not len(rows):
        return ""
    rows = rows.assign(difference=-rows.gap, low=-rows.high, high=-rows.low)
    clear, untested = (rows.low > 0) | (rows.high < 0), rows.low.isna()
    if untested.all():
        text = f"Too few scans for a test: mean Dice changes by {_range(rows.difference, '+.2f')}"
    elif clear.any():
        changes = [f"{title(row.loss)} {_change(row)}" for row in rows[clear].itertuples()]
        text = f"Mean Dice changes from the holdout scans of the training centres: {in_words(changes)}"
        if not clear.all():
            text += f"; with the other losses, no change is shown ({_range(rows.difference[~clear], '+.2f')})"
    else:
        widest = rows.loc[(rows.high - rows.low).idxmax()]
        text = (
            "Not known. Mean Dice changes from the holdout scans of the training centres by "
            f"{_range(rows.difference, '+.2f')}, which can be chance (widest interval: {title(widest.loss)} {_change(widest)})"
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


def headline(tables: dict[str, pd.DataFrame], scans: str) -> str:
    """Which loss is best on `scans` (as `unseen_scans`), in one or two sentences, with the range of means."""
    differences, open_questions, against = [], {}, ""
    for key, values, pairs in _asked(tables):
        tested, (_, does, topic, _) = pairs[pairs.p.notna()], QUESTIONS[key]
        if not len(tested) or len(values) < 2:
            continue
        against = _listed([tested.against.iloc[0]])
        clear = significant(tested)
        better, worse = (list(clear.loss[sign * clear.difference > 0]) for sign in (1, -1))
        if better:
            differences.append(f"{_listed(better)} {does if len(better) > 1 else _singular(does)} than {against}")
        if worse:
            differences.append(f"{against} {_singular(does)} than {_listed(worse)}")
        if not better and not worse and key != "small":  # those have an answer of their own
            open_questions[key] = topic.format(_range(values, ".2f" if key == "dice" else ".0%"))
    if not against:
        return f"On {scans}, {_without_comparison(tables)}."
    if differences:
        topics = in_words(list(open_questions.values()), "or")
        return f"On {scans}, {'; '.join(differences)}." + f" No significant difference in {topics}." * bool(topics)
    means = f" Means: {in_words(list(open_questions.values()))}."
    if not _can_differ(tables):
        return f"On {scans}, losses cannot be compared. {TOO_FEW}{means}"
    topics = in_words([QUESTIONS[key][3] for key in open_questions], "or")
    return f"On {scans}, no difference from {against} is shown in {topics}.{means}"


def _without_comparison(tables: dict[str, pd.DataFrame]) -> str:
    """The headline's statement where losses were not compared."""
    asked = next(iter(_asked(tables)), None)
    if asked is None:
        return "nothing was measured"
    best, dice = _listed([asked[1].index[0]]), asked[1].iloc[0]
    if len(asked[1]) == 1:
        return f"{best} has a mean Dice of {dice:.2f}"
    return f"{best} has the highest mean Dice ({dice:.2f}); losses were not compared"


def answers(
    tables: dict[str, pd.DataFrame], seeds: int, trainings: Iterable[Training], alike: bool = True
) -> dict[str, str]:
    """What a reader asks after the `headline`, with the answers; a question without one is left out. Another centre is
    compared only if holdout and external scans are `alike` (`one_kind`); `trainings` as in `cannot_say`."""
    missing = {"holdout", "external"} - set(tables["summary"].split)
    reasons = {
        "holdout": "there are no holdout scans of the training centres",
        "external": "no external scan was tested",
    }
    reason = reasons[max(missing)] if missing else "holdout and external scans are not both synthetic or both real"
    every = {
        "What differs at the threshold 0.5?": at_one_half(tables),
        "What do the variants change?": of_variants(tables),
        "On which lesions?": on_which_lesions(tables),
        "At another centre?": (carries_over(tables) if alike else "") or f"Not measured: {reason}.",
        "How sure is this?": certainty(tables, seeds, trainings),
    }
    return {question: text for question, text in every.items() if text}


FEW_DETECTED = 10
"""If every loss detects fewer small lesions, the page says that these are too few to compare losses."""


def on_which_lesions(tables: dict[str, pd.DataFrame]) -> str:
    """The fraction of lesions that the losses detect at equal false positives, by size; empty without lesions."""
    split, asked = unseen_split(tables["summary"]), {key: (values, pairs) for key, values, pairs in _asked(tables)}
    if "all" not in asked:
        return ""
    rows = of_losses(tables["froc_by_size"], split)
    rows = rows[rows.loss.isin(asked["all"][0].index)].sort_values("from_mm3")
    ranges = [
        f"{_range(of_size.detected, '.0%')} of those of {of_size['size'].iloc[0].replace(' to ', '–')}"
        for _, of_size in rows[rows.from_mm3 >= SMALL_MM3].groupby("from_mm3")
    ]
    several = ", lowest to highest loss" if len(asked["all"][0]) > 1 else ""
    rates, text = in_words([str(rate) for rate in RATES]), ""
    if "small" in asked:
        small, pairs = asked["small"]
        ranges.insert(0, f"{_range(small, '.0%')} of {SMALL}")
        count = rows[rows.from_mm3 < SMALL_MM3].drop_duplicates("from_mm3").lesions.sum()
        few = len(small) > 1 and small.max() * count < FEW_DETECTED and significant(pairs).empty
        if few:
            text = f" Too few of the {count} {SMALL} are detected to compare losses on them."
        at_half = small_rate(tables["detection_by_size"], split).reindex(small.index)
        if at_half.notna().any():
            half = f"{_range(at_half, '.0%')} of those below {SMALL_MM3:g} mm³"
            text += f" At the threshold 0.5, where one voxel of overlap counts, {half} are detected."
    lead = f"Detected at equal false positives (averaged over {rates} per scan){several}: "
    return f"{lead}{in_words(ranges)}.{text}" if ranges else ""


SPELT_OUT = {"avd_pct": "Volume error (AVD)", "hd95_mm": "Distance of outlines (HD95)"}
"""Metrics whose names are abbreviations."""


def at_one_half(tables: dict[str, pd.DataFrame]) -> str:
    """For each metric other than Dice in which a loss differs significantly from the Siamese loss, which losses are better and
    worse, with the false positives of all; empty if there is none."""
    split, pairs = unseen_split(tables["summary"]), _metric_pairs(tables)
    means, sentences = of_losses(tables["summary"], split).set_index("loss"), []
    for metric in (name for name in METRICS if name != "dice"):
        rows = significant(pairs[pairs.metric == metric])
        if not len(rows):
            continue
        ahead = (rows.difference > 0) == METRICS[metric].higher_is_better
        sides = [
            in_words([f"{title(row.loss)} {_by(row)}" for row in side.itertuples()])
            + f"{' is' if len(side) == 1 else ' are'} {how}"
            for how, side in (("better", rows[ahead]), ("worse", rows[~ahead]))
            if len(side)
        ]
        heading, _, unit = METRICS[metric].title.partition(" (")
        heading = SPELT_OUT.get(metric, heading) + f", in {unit.rstrip(')')}" * bool(unit)
        against = rows.against.iloc[0]
        sentences.append(
            f"{heading}: {', '.join(sides)} than {title(against)} ({shown(metric, means[f'{metric}_mean'][against])})."
        )
    if not sentences:
        return ""
    false = tables["false_detections"]
    false = (
        false[(false.split == split) & false.loss.isin(_compared(tables, pairs, means.index))]
        .set_index("loss")
        .per_scan
    )
    number = ".0f" if false.min() >= 1 else ".1f"
    lead = ""
    if len(false) and f"{false.min():{number}}" != f"{false.max():{number}}":
        fewest, most = (f"{false[loss]:{number}} ({title(loss)})" for loss in (false.idxmin(), false.idxmax()))
        lead = f"False positives per scan: {fewest} to {most}. "
    return lead + " ".join(sentences)


def certainty(tables: dict[str, pd.DataFrame], seeds: int, trainings: Iterable[Training]) -> str:
    """What the answers rest on: trainings, scans, the largest difference in Dice within the intervals, and the length of
    training."""
    scans = int(of_losses(tables["summary"], unseen_split(tables["summary"])).subjects.max())
    text = (
        "Not sure. Each loss was trained once, and another seed may change the result."
        if seeds == 1
        else f"Each loss was trained {'twice' if seeds == 2 else f'{seeds} times'}."
    )
    text += f" {scans} scan{'s were' if scans > 1 else ' was'} tested"
    pairs = _metric_pairs(tables)
    pairs = pairs[pairs.metric == "dice"]
    reach = pairs[["low", "high"]].abs().max(axis=None)
    if np.isfinite(reach):
        against = _listed([pairs.against.iloc[0]])
        text += (
            f", so a difference in Dice from {against} can be as large as {reach:.2f} (95 % intervals, threshold 0.5)"
        )
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
        parts.append(ROLE[split].format(scans, _external_centres([cohort])))
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
