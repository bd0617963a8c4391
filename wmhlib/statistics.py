"""Tables with their spread, and the sentences that follow from them.

In flows `per_subject.csv`, one row per (loss, seed, subject); out flow summary tables. Subjects, not scans or seeds,
are what a study samples: figures of one subject are averaged over seeds first, and mean, SD and interval are taken
over subjects. A distance that is undefined (an empty mask has no boundary) is left out of its mean and counted in a
column of its own.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

METRICS = {
    "dice": ("Dice", True),
    "hd95_mm": ("HD95 (mm)", False),
    "avd_pct": ("AVD (%)", False),
    "lesion_recall": ("Lesion recall", True),
    "lesion_f1": ("Lesion F1", True),
}
"""The challenge's five figures: the name a reader sees, and whether more is better."""

LOSSES = {
    "dice": "Dice",
    "tversky": "Tversky",
    "generalized_dice": "Generalized Dice",
    "siamese": "Siamese",
    "siamese_minmax": "Siamese min-max",
    "global_threshold": "Global threshold",
}
"""Names a reader sees, in the order every table and legend keeps."""

DATASETS = {"holdout": "MICCAI holdout", "external": "CAIN"}
"""The paper's data set that stands where ours does."""

RESAMPLES = 9999


def over_seeds(per_subject: pd.DataFrame) -> pd.DataFrame:
    """One row per (split, loss, subject): every figure averaged over the seeds where it is defined."""
    keys = ["split", "loss", "centre", "subject"]
    figures = [*METRICS, "positive_class_density_pct", "predicted_density_pct"]
    return per_subject.groupby(keys, sort=False)[figures].mean().reset_index()


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of a mean (BCa; Efron 1987, doi:10.1080/01621459.1987.10478410).

    NaN for fewer than three values: an interval from two subjects would only pretend. Equal values give themselves.
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if len(values) < 3:
        return float("nan"), float("nan")
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = stats.bootstrap((values,), np.mean, n_resamples=RESAMPLES, rng=np.random.default_rng(0))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def summary(per_subject: pd.DataFrame) -> pd.DataFrame:
    """Mean, SD and 95 % interval of every figure, per split and loss, over subjects.

    Returns
    -------
    DataFrame
        `split, loss, subjects, seeds`, and per metric `_mean, _sd, _low, _high, _undefined` (subject-seed pairs
        without a value). SD is the sample's (n - 1), NaN for one subject.
    """
    subjects = over_seeds(per_subject)
    rows = []
    for split in DATASETS:
        for loss in LOSSES:
            some = subjects[(subjects.split == split) & (subjects.loss == loss)]
            every = per_subject[(per_subject.split == split) & (per_subject.loss == loss)]
            if not len(some):
                continue
            row = {"split": split, "loss": loss, "subjects": len(some), "seeds": every.seed.nunique()}
            for metric in METRICS:
                low, high = interval(some[metric])
                row |= {
                    f"{metric}_mean": some[metric].mean(),
                    f"{metric}_sd": some[metric].std(),
                    f"{metric}_low": low,
                    f"{metric}_high": high,
                    f"{metric}_undefined": int(every[metric].isna().sum()),
                }
            rows.append(row)
    return pd.DataFrame(rows)


def paper_tables() -> pd.DataFrame:
    """The paper's Tables 1 and 2, as printed; the first line of the file names the source."""
    return pd.read_csv(Path(__file__).parent / "context" / "paper_tables.csv", comment="#")


def table1(per_subject: pd.DataFrame) -> pd.DataFrame:
    """Table 1 of the paper for this study, with the paper's own rows below each data set's.

    Columns: `dataset, source, loss, label, subjects, seeds`, then `<metric>_mean, _sd, _low, _high, _undefined`.
    """
    own, paper = summary(per_subject), paper_tables()
    parts = []
    for split, dataset in DATASETS.items():
        here = own[own.split == split].rename(columns={"split": "dataset"})
        if len(here):
            there = paper[(paper.table == 1) & (paper.dataset == dataset)].drop(columns="table")
            parts += [here.assign(source="this study", label=here.loss.map(LOSSES)), there.assign(source="paper")]
    columns = ["dataset", "source", "loss", "label", "subjects", "seeds"]
    table = pd.concat([part.dropna(axis=1, how="all") for part in parts], ignore_index=True)
    return table.reindex(columns=columns + [name for name in own.columns if name not in (*columns, "split")])


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Table 1 as a reader sees it: mean ± SD with the 95 % interval below, undefined distances counted."""

    def cell(row: pd.Series, metric: str) -> str:
        digits = 1 if metric in ("hd95_mm", "avd_pct") else 2
        text = f"{row[f'{metric}_mean']:.{digits}f}"
        if np.isfinite(row[f"{metric}_sd"]):
            text += f" ± {row[f'{metric}_sd']:.{digits}f}"
        if np.isfinite(row[f"{metric}_low"]):
            text += f" [{row[f'{metric}_low']:.{digits}f}, {row[f'{metric}_high']:.{digits}f}]"
        if row[f"{metric}_undefined"] > 0:
            text += f" ({int(row[f'{metric}_undefined'])} undefined)"
        return text

    lines = [
        {"Data": row.dataset, "Source": row.source, "Trained with": row.label}
        | {"Subjects": f"{row.subjects:.0f}" if np.isfinite(row.subjects) else "—"}
        | {f"{name} {'↑' if better else '↓'}": cell(row, metric) for metric, (name, better) in METRICS.items()}
        for _, row in table.iterrows()
    ]
    return pd.DataFrame(lines)


def paired_difference(per_subject: pd.DataFrame, split: str, metric: str, first: str, second: str) -> dict:
    """Mean difference `first - second` over the subjects of a split, each compared with itself.

    Returns
    -------
    dict
        `difference`, its 95 % interval `low` and `high`, and `subjects`, those where both have a value.
    """
    subjects = over_seeds(per_subject[per_subject.split == split])
    wide = subjects.pivot(index="subject", columns="loss", values=metric)
    gaps = (wide[first] - wide[second]).dropna()
    low, high = interval(gaps)
    return {"difference": float(gaps.mean()), "low": low, "high": high, "subjects": len(gaps)}


def findings(per_subject: pd.DataFrame) -> list[str]:
    """What the study found, in sentences computed from its table, so that they stay true for any data."""
    own = summary(per_subject)
    where = {"holdout": "On held-out subjects of the training centres", "external": "On the unseen centre"}
    sentences = []
    for split in DATASETS:
        here = own[(own.split == split) & (own.loss != "global_threshold")].set_index("loss")
        for metric in ("dice", "lesion_recall") if len(here) else ():
            name = METRICS[metric][0]
            order = here[f"{metric}_mean"].sort_values(ascending=False)
            best = order.index[0]
            text = f"{where[split]}, {LOSSES[best]} has the highest mean {name} ({order.iloc[0]:.2f})"
            if len(order) > 1:
                gap = paired_difference(per_subject, split, metric, best, order.index[1])
                text += f", {gap['difference']:.2f} above {LOSSES[order.index[1]]}"
                if np.isnan(gap["low"]):
                    text += f"; {gap['subjects']} subject(s) are too few to say how sure that is"
                elif gap["low"] > 0:
                    text += f" (95 % interval {gap['low']:.2f} to {gap['high']:.2f}: above zero)"
                else:
                    text += f" (95 % interval {gap['low']:.2f} to {gap['high']:.2f}: the two cannot be told apart)"
            sentences.append(text + ".")
        if "global_threshold" in set(own[own.split == split].loss) and len(here):
            floor = own[(own.split == split) & (own.loss == "global_threshold")].dice_mean.iloc[0]
            below = [LOSSES[loss] for loss in here.index[here.dice_mean <= floor]]
            text = f"{where[split]}, the tuned global threshold reaches a Dice of {floor:.2f}"
            sentences.append(
                f"{text}; not better than it: {', '.join(below)}." if below else f"{text}; every loss beats it."
            )
    return sentences
