"""A caption for every figure and for Table 1, computed from the study's tables."""

import numpy as np
import pandas as pd

from wmhlib.evaluation import records
from wmhlib.evaluation.names import UNTRAINED, measured_in, present, title
from wmhlib.report.findings import WHERE
from wmhlib.study import Study


def table1_caption(study: Study, tables: dict[str, pd.DataFrame]) -> str:
    """What a reader must know to read Table 1: subjects, seeds, weights, the rule for undefined figures, the ceiling."""
    counts = tables["summary"].groupby("split", sort=False).subjects.max()
    return (
        f"Study {study.name}: {' and '.join(f'{count} {split}' for split, count in counts.items())} subjects, "
        f"{len(study.config.seeds)} seed(s) a loss. Mean ± SD over subjects, seeds averaged first; in brackets the 95 % "
        f"bootstrap interval of the mean over subjects and seeds; ★ the best mean. {undefined(tables['summary'])} "
        f"{ceiling(records.ceilings(study))} "
        "The rank score (0 best, 1 worst of the challenge's teams) is approximate, and compares only for scans of the "
        "challenge." + "".join(f" {network}: {origin['source']}." for network, origin in records.origins(study).items())
    )


def undefined(table: pd.DataFrame) -> str:
    """The rule for undefined figures, and how many there are."""
    count = int(table[[f"{metric}_undefined" for metric in measured_in(table)]].to_numpy().sum())
    return (
        "An undefined figure (no boundary, hence no distance, where a mask is empty) is left out of its mean and counted "
        f"beside it ({count} here); a figure with any such case gets no star."
    )


def ceiling(ceilings: pd.DataFrame) -> str:
    """What repeating the reference slices would reach in the study's own view, per data set, from `ceilings.csv`."""
    parts = [
        f"{some.dice.mean():.2f} on {WHERE[split]} ({some.dice.min():.2f} to {some.dice.max():.2f})"
        for split, some in ceilings[ceilings.split.isin(WHERE)].groupby("split", sort=False)
    ]
    return (
        "Bringing a reference to the network's slices and back costs Dice by itself: a network that repeated its reference "
        f"slices would reach {' and '.join(parts)} (mean, lowest to highest; notebook 2)."
    )


def without_lesions(loads: pd.DataFrame) -> str:
    """Which subjects' references hold no lesion and what follows (D-020), from `lesion_loads.csv`; empty where all do."""
    names = loads.subject[loads.lesions == 0]
    if names.empty:
        return ""
    return (
        f"No lesion in the reference of {', '.join(names)}: any WMH drawn there gives Dice and F1 of 0, none leaves them "
        "undefined as AVD, recall and distance are in either case, and undefined figures are left out of the means and "
        "counted; a logarithmic axis of volumes does not show these subjects."
    )


def slopes_caption(table: pd.DataFrame, comparison: pd.DataFrame, split: str) -> str:
    """Of the paired slopes: on how many subjects each loss lies above the Siamese one."""
    here = comparison[(comparison.split == split) & (comparison.metric == "dice")]
    parts = [f"{title(row.loss)} {row.share_above:.0%}" for row in here.itertuples() if np.isfinite(row.share_above)]
    text = f"Each line is one of {table[table.split == split].subjects.max():.0f} subjects, seeds averaged; the thick one is the mean."
    if parts:
        text += f" Share of subjects with a higher Dice than under Siamese (ties count half): {', '.join(parts)}."
    return text


def detection_caption(detection: pd.DataFrame, split: str) -> str:
    """Of detection by size: where the losses lie furthest apart."""
    here = detection[(detection.split == split) & ~detection.loss.isin(UNTRAINED)]
    if not len(here):
        return "No lesion to find."
    by_size = here.pivot(index=["from_mm3", "size"], columns="loss", values="detected")
    enough = by_size[by_size.index.isin(_often(here))] if len(_often(here)) else by_size
    gaps_by_size = enough.max(axis=1) - enough.min(axis=1)
    apart = gaps_by_size.idxmax()
    row = by_size.loc[apart]
    if not gaps_by_size[apart] > 0:
        return "All losses find the same lesions, at every size. Bars are 95 % intervals; n counts lesions."
    return (
        f"The losses lie furthest apart for lesions {_of_size(apart[1])}: {title(row.idxmax())} finds {row.max():.0%}, "
        f"{title(row.idxmin())} {row.min():.0%}. Bars are 95 % intervals; n counts lesions."
    )


def _often(detection: pd.DataFrame) -> list[tuple]:
    """The size bins with at least ten lesions: rates of fewer jump."""
    some = detection[detection.lesions >= 10]
    return list(zip(some.from_mm3, some["size"], strict=True))


def _of_size(name: str) -> str:
    return name if name.startswith("below") else f"of {name}"


def agreement_caption(agreement: pd.DataFrame, split: str) -> str:
    """Of volume agreement: bias, limits and ICC of every loss."""
    parts = []
    for row in agreement[(agreement.split == split) & ~agreement.loss.isin(UNTRAINED)].itertuples():
        known = []
        if np.isfinite(row.lower_limit_ml):
            known.append(f"limits {row.lower_limit_ml:+.1f} to {row.upper_limit_ml:+.1f}")
        if np.isfinite(row.icc):
            known.append(f"ICC {row.icc:.2f}")
        parts.append(f"{title(row.loss)} {row.bias_ml:+.1f} ml" + (f" ({', '.join(known)})" if known else ""))
    return f"Bias, predicted less reference: {'; '.join(parts)}. Dashed: bias; dotted: 95 % limits of agreement."


def centres_caption(centres: pd.DataFrame) -> str:
    """Of the breakdown by centre: the centre and loss that do worst."""
    here = centres[~centres.loss.isin(UNTRAINED) & centres.dice_mean.notna()]
    bars = "Bars are 95 % intervals, absent below three subjects."
    if not len(here):
        return bars
    worst = here.loc[here.dice_mean.idxmin()]
    where = f"{worst.centre} ({worst.split}, {worst.subjects} subject(s))"
    return f"Lowest mean Dice: {title(worst.loss)} at {where}, {worst.dice_mean:.2f}. {bars}"


def gap_caption(gap: pd.DataFrame) -> str:
    """Of the generalisation gap in Dice: whose interval excludes zero, and on which side."""
    here = gap[(gap.metric == "dice") & ~gap.loss.isin(UNTRAINED)]
    worse, better = (
        [title(row.loss) for row in here.itertuples() if clear(row)]
        for clear in (lambda row: row.low > 0, lambda row: row.high < 0)
    )
    text = "Right of zero a loss does worse on the external subjects than on the held-out ones. "
    parts = [f"the interval lies right of zero for {', '.join(worse)}"] * bool(worse)
    parts += [f"{'' if worse else 'the interval lies '}left of zero for {', '.join(better)}"] * bool(better)
    return text + f"In Dice, {' and '.join(parts) if parts else 'no interval excludes zero'}."


def density_caption(per_subject: pd.DataFrame, split: str) -> str:
    """Of Figure 5: how many masks are empty or hold twice the volume."""
    here = per_subject[(per_subject.split == split) & ~per_subject.loss.isin(UNTRAINED)]
    empty = here[here.predicted_density_pct == 0].groupby("loss").size()
    double = here[here.avd_pct >= 100].groupby("loss").size()
    parts = [
        f"{title(loss)} {empty.get(loss, 0)} empty, {double.get(loss, 0)} at 100 % or more" for loss in present(here)
    ]
    return f"Masks ({'; '.join(parts)})."
