"""Captions of the figures and of Table 1, computed from the study's tables."""

import numpy as np
import pandas as pd

from wmhlib.evaluation import records
from wmhlib.evaluation.names import UNTRAINED, measured_in, of_losses, present, title
from wmhlib.report.findings import WHERE
from wmhlib.study import Study


def table1_caption(study: Study, tables: dict[str, pd.DataFrame]) -> str:
    """The caption of Table 1: subjects, seeds, weights, the rule for undefined metrics, the resampling ceiling."""
    counts = tables["summary"].groupby("split", sort=False).subjects.max()
    seeds = len(study.config.seeds)
    return (
        f"Study {study.name}: {' and '.join(f'{count} {split}' for split, count in counts.items())} subjects, "
        f"{seeds} seed{'s' * (seeds > 1)} per loss. Mean ± SD over subjects, after averaging the seeds; in brackets the 95 % "
        "bootstrap interval of the mean over subjects and seeds. The brightness "
        "threshold needs no training: it marks everything above one brightness, chosen on the training subjects; on scans "
        "of another scanner it can miss all. "
        f"{undefined(tables['summary'])} {ceiling(records.ceilings(study))} The challenge rank (0: best, 1: worst of the "
        "challenge's teams) is approximate and only comparable for scans of the "
        "challenge." + "".join(f" {network}: {origin['source']}." for network, origin in records.origins(study).items())
    )


def undefined(table: pd.DataFrame) -> str:
    """The rule for undefined metrics, and how many values are undefined."""
    count = int(table[[f"{metric}_undefined" for metric in measured_in(table)]].to_numpy().sum())
    return (
        "Undefined values (an empty mask has no boundary, hence no distance) are left out of the mean and counted "
        f"next to it ({count} in this table)."
    )


def ceiling(ceilings: pd.DataFrame) -> str:
    """The Dice of the reference after resampling to the network's slices and back, per data set, from
    `ceilings.csv`."""
    parts = [
        f"{rows.dice.mean():.2f} on {WHERE[split]} ({rows.dice.min():.2f} to {rows.dice.max():.2f})"
        for split, rows in ceilings[ceilings.split.isin(WHERE)].groupby("split", sort=False)
    ]
    return (
        "Resampling to the network's slices and back lowers Dice by itself: a network that reproduced the reference "
        f"slices exactly would reach {' and '.join(parts)} (mean, range in brackets; notebook 2)."
    )


def without_lesions(loads: pd.DataFrame) -> str:
    """The subjects whose reference has no lesion and the consequences (D-020), from `lesion_loads.csv`; empty if there
    is none."""
    names = loads.subject[loads.lesions == 0]
    if names.empty:
        return ""
    return (
        f"The reference of {', '.join(names)} has no lesion. If WMH is predicted there, Dice and F1 are 0, otherwise "
        "they are undefined. AVD, recall and distance are undefined in both cases. Undefined values are left out of "
        "the means and counted. A logarithmic volume axis does not show these subjects."
    )


def slopes_caption(table: pd.DataFrame, comparison: pd.DataFrame, split: str) -> str:
    """Caption of the paired slopes: the fraction of subjects for which each loss exceeds the Siamese loss."""
    compared = comparison[(comparison.split == split) & (comparison.metric == "dice")]
    parts = [
        f"{title(row.loss)} {row.share_above:.0%}" for row in compared.itertuples() if np.isfinite(row.share_above)
    ]
    subjects = table[table.split == split].subjects.max()
    text = f"Each line is one of {subjects:.0f} subjects, averaged over seeds; the thick line is the mean."
    if parts:
        text += f" Fraction of subjects with a higher Dice than with Siamese (ties count half): {', '.join(parts)}."
    return text


def detection_caption(tables: dict[str, pd.DataFrame], split: str) -> str:
    """Caption of detection by size."""
    legend = (
        " Bars: 95 % intervals; n: number of lesions." if (tables["detection_by_size"].split == split).any() else ""
    )
    return widest_gap(tables, split) + legend


def widest_gap(tables: dict[str, pd.DataFrame], split: str) -> str:
    """The lesion size at which the losses differ most in the fraction detected, in one sentence."""
    trained, false = of_losses(tables["detection_by_size"], split), of_losses(tables["false_detections"], split)
    if not len(trained):
        return "The references have no lesions."
    by_size = trained.pivot(index=["from_mm3", "size"], columns="loss", values="detected")
    enough = by_size[by_size.index.isin(_often(trained))] if len(_often(trained)) else by_size
    gaps_by_size = enough.max(axis=1) - enough.min(axis=1)
    widest = gaps_by_size.idxmax()
    row = by_size.loc[widest]
    if not gaps_by_size[widest] > 0:
        return "All losses detect the same fraction of lesions at every size."
    count = int(trained.lesions[trained["size"] == widest[1]].max())
    per_scan = false.set_index("loss").per_scan
    most, fewest = (f"{row[loss]:.0%} with {per_scan[loss]:.0f}" for loss in (row.idxmax(), row.idxmin()))
    return (
        f"The losses differ most for the {count} lesions {_of_size(widest[1])}: {title(row.idxmax())} detects {most} false "
        f"positives per scan, {title(row.idxmin())} {fewest} (not tested)."
    )


def _often(detection: pd.DataFrame) -> list[tuple]:
    """The size bins with at least ten lesions; with fewer, the fraction is unstable."""
    frequent = detection[detection.lesions >= 10]
    return list(zip(frequent.from_mm3, frequent["size"], strict=True))


def _of_size(name: str) -> str:
    return name if name.startswith("below") else f"of {name}"


def agreement_caption(agreement: pd.DataFrame, split: str) -> str:
    """Caption of volume agreement: bias, limits of agreement and ICC of every loss."""
    parts = []
    for row in of_losses(agreement, split).itertuples():
        details = []
        if np.isfinite(row.lower_limit_ml):
            details.append(f"limits {row.lower_limit_ml:+.1f} to {row.upper_limit_ml:+.1f}")
        if np.isfinite(row.icc):
            details.append(f"ICC {row.icc:.2f}")
        parts.append(f"{title(row.loss)} {row.bias_ml:+.1f} ml" + (f" ({', '.join(details)})" if details else ""))
    return f"Bias (predicted minus reference): {'; '.join(parts)}. Dashed: bias; dotted: 95 % limits of agreement."


def centres_caption(centres: pd.DataFrame) -> str:
    """Caption of the results by centre: the centre and loss with the lowest mean Dice."""
    trained = centres[~centres.loss.isin(UNTRAINED) & centres.dice_mean.notna()]
    bars = "Bars are 95 % intervals, drawn for three or more subjects."
    if not len(trained):
        return bars
    worst = trained.loc[trained.dice_mean.idxmin()]
    where = f"{worst.centre} ({worst.split}, {worst.subjects} subject(s))"
    return f"Lowest mean Dice: {title(worst.loss)} at {where}, {worst.dice_mean:.2f}. {bars}"


def gap_caption(gap: pd.DataFrame) -> str:
    """Caption of the generalisation gap: the losses whose interval in Dice excludes zero, and on which side."""
    dice_gaps = gap[(gap.metric == "dice") & ~gap.loss.isin(UNTRAINED)]
    worse, better = (
        [title(row.loss) for row in dice_gaps.itertuples() if clear(row)]
        for clear in (lambda row: row.low > 0, lambda row: row.high < 0)
    )
    text = "To the right of zero, a loss performs worse on the external subjects than on the holdout subjects. "
    parts = [f"the interval lies right of zero for {', '.join(worse)}"] * bool(worse)
    parts += [f"{'' if worse else 'the interval lies '}left of zero for {', '.join(better)}"] * bool(better)
    return text + f"In Dice, {' and '.join(parts) if parts else 'no interval excludes zero'}."


def density_caption(per_subject: pd.DataFrame, split: str) -> str:
    """Caption of Figure 5: how many masks are empty or have an absolute volume difference of 100 % or more."""
    trained = of_losses(per_subject, split)
    empty = trained[trained.predicted_density_pct == 0].groupby("loss").size()
    double = trained[trained.avd_pct >= 100].groupby("loss").size()
    parts = [
        f"{title(loss)} {empty.get(loss, 0)} empty, {double.get(loss, 0)} at 100 % or more" for loss in present(trained)
    ]
    return f"Number of masks: {'; '.join(parts)}."
