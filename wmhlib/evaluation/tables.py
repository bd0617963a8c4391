"""Tables with their uncertainty: every number that a figure, a sentence or Table 1 shows.

Input: `per_subject.csv`, `per_lesion.csv` and `volumes.csv`, one row per (loss, seed, subject) or lesion. Output: summary
tables. A metric that is undefined (an empty mask has no boundary, hence no distance) is left out of its mean, and every
table has the number left out in a column of its own.
"""

import itertools

import numpy as np
import pandas as pd
from scipy import stats

from wmhlib.evaluation.lesions import SMALL_MM3
from wmhlib.evaluation.names import OBSERVERS, SPLITS, UNTRAINED, measured_in, present
from wmhlib.evaluation.statistics import bounds, holm, intraclass_correlation, paired, spread, wide

SIZE_EDGES_MM3 = (0.0, 10.0, SMALL_MM3, 100.0, 300.0, np.inf)
"""Bins of lesion volume, even in ratio (half a decade each). Below 10 mm3 a lesion has one to three of the challenge's
voxels (2.8 to 3.0 mm3); the median lesion of 32 real scans lies between 6 and 118 mm3, so the middle bins hold most."""


def over_seeds(per_subject: pd.DataFrame) -> pd.DataFrame:
    """One row per (split, loss, centre, subject): every figure averaged over the seeds where it is defined."""
    keys = ["split", "loss", "centre", "subject"]
    return per_subject.drop(columns="seed").groupby(keys, sort=False).mean(numeric_only=True).reset_index()


def summary(per_subject: pd.DataFrame, by_centre: bool = False) -> pd.DataFrame:
    """Mean, SD and 95 % interval of every figure, per split (and centre, if asked) and loss.

    Returns
    -------
    DataFrame
        `split, loss, subjects, seeds` (and `centre`), and per metric `_mean, _sd, _low, _high, _undefined` (subject-seed
        pairs without a value).
    """
    keys = ["split", "centre"] if by_centre else ["split"]
    rows = []
    for split in (split for split in SPLITS if split in set(per_subject.split)):
        for place, here in per_subject[per_subject.split == split].groupby(keys):
            for loss in present(here):
                some = here[here.loss == loss]
                row = dict(zip(keys, place, strict=True)) | {"loss": loss}
                row |= {"subjects": some.subject.nunique(), "seeds": some.seed.nunique()}
                for metric in measured_in(per_subject):
                    found = spread(wide(some, metric))
                    row |= {f"{metric}_{name}": found[name] for name in ("mean", "sd", "low", "high")}
                    row[f"{metric}_undefined"] = int(some[metric].isna().sum())
                rows.append(row)
    return pd.DataFrame(rows)


def comparisons(
    per_subject: pd.DataFrame, against: str = "siamese", kinds: dict[str, str] | None = None
) -> pd.DataFrame:
    """Every other loss less the Siamese one (`against`), figure by figure: `comparisons.csv`.

    `kinds` maps the study's entries to the loss each of them is; variants of a loss are left to `ablations`.

    Returns
    -------
    DataFrame
        `split, metric, loss, against`, the columns of `paired`, and `p_holm`: p corrected by Holm's method for the
        losses compared in one figure of one split (D-019). Empty where the study did not train `against`.
    """
    variants = {name for name, kind in (kinds or {}).items() if name != kind}
    losses = [loss for loss in present(per_subject) if loss not in (against, *UNTRAINED, *variants)]
    return _compared(per_subject, dict.fromkeys(losses, against))


def ablations(per_subject: pd.DataFrame, kinds: dict[str, str]) -> pd.DataFrame:
    """Every variant less the entry that carries its loss's own name, figure by figure: `ablations.csv`.

    Columns as `comparisons`; Holm's correction is over all variants of the study.
    """
    return _compared(per_subject, {name: kind for name, kind in kinds.items() if name != kind})


def _compared(per_subject: pd.DataFrame, against: dict[str, str]) -> pd.DataFrame:
    """`paired` of each loss with the one it maps to, Holm's correction over all of them in one figure of one split."""
    tables = []
    for split, metric in itertools.product(SPLITS, measured_in(per_subject)):
        here = per_subject[per_subject.split == split]
        pairs = [(loss, base) for loss, base in against.items() if {loss, base} <= set(here.loss)]
        if not pairs:
            continue
        table = pd.DataFrame(
            {"split": split, "metric": metric, "loss": loss, "against": base} | paired(here, split, metric, loss, base)
            for loss, base in pairs
        )
        tables.append(holm(table))
    columns = "split metric loss against difference low high subjects effect_size p share_above p_holm"
    return pd.concat(tables, ignore_index=True) if tables else _table([], columns)


def volume_agreement(volumes: pd.DataFrame) -> pd.DataFrame:
    """How well a loss measures lesion load: Bland-Altman figures and intraclass correlation, per split and loss.

    Returns
    -------
    DataFrame
        `split, loss, subjects`; `bias_ml` (predicted less reference) with its interval; `lower_limit_ml` and
        `upper_limit_ml`, the 95 % limits of agreement (Bland and Altman 1986, doi:10.1016/S0140-6736(86)90837-8); `icc`,
        for single measures and absolute agreement (Shrout and Fleiss 1979, doi:10.1037/0033-2909.86.2.420, case 2).
        Volumes of a subject are averaged over seeds for limits and ICC.
    """
    rows = []
    for split in SPLITS:
        here = volumes[volumes.split == split]
        for loss in present(here):
            some = here[here.loss == loss].assign(gap=lambda table: table.predicted_ml - table.reference_ml)
            found = spread(wide(some, "gap"))
            each = some.groupby("subject")[["reference_ml", "predicted_ml", "gap"]].mean()
            limits = each.gap.mean() + each.gap.std() * stats.norm.ppf([0.025, 0.975])
            rows.append(
                {"split": split, "loss": loss, "subjects": len(each), "bias_ml": found["mean"]}
                | {"bias_low_ml": found["low"], "bias_high_ml": found["high"]}
                | {"lower_limit_ml": limits[0], "upper_limit_ml": limits[1]}
                | {"icc": intraclass_correlation(each[["reference_ml", "predicted_ml"]].to_numpy())}
            )
    return pd.DataFrame(rows)


def generalisation_gap(per_subject: pd.DataFrame) -> pd.DataFrame:
    """What a loss loses on the external subjects: mean on holdout less mean on external subjects, per metric and loss.

    Returns
    -------
    DataFrame
        `metric, loss, gap, low, high`; empty where the study lacks one of the two splits.
    """
    rows = []
    for metric in measured_in(per_subject):
        for loss in present(per_subject[~per_subject.loss.isin(OBSERVERS)]):
            parts = [per_subject[(per_subject.loss == loss) & (per_subject.split == split)] for split in SPLITS]
            if all(len(part) for part in parts):
                found = spread(wide(parts[0], metric), minus=wide(parts[1], metric))
                rows.append({"metric": metric, "loss": loss, "gap": found["mean"]} | bounds(found))
    return _table(rows, "metric loss gap low high")


def detection_by_size(per_lesion: pd.DataFrame) -> pd.DataFrame:
    """Share of reference lesions that a loss finds, by lesion volume (`SIZE_EDGES_MM3`), per split and loss.

    Returns
    -------
    DataFrame
        `split, loss, size` (in words), `from_mm3`, `lesions` (of the references), `detected` (share over all seeds) and
        its interval `low, high` over subjects and seeds.
    """
    lesions = per_lesion[per_lesion.kind == "reference"]
    lesions = lesions.assign(
        found=lesions.found.astype(bool), bin=pd.cut(lesions.volume_mm3, SIZE_EDGES_MM3, right=False, labels=False)
    )
    rows = []
    for split in SPLITS:
        here = lesions[lesions.split == split]
        for loss in present(here):
            for number, (low, high) in enumerate(zip(SIZE_EDGES_MM3, SIZE_EDGES_MM3[1:], strict=False)):
                some = here[(here.loss == loss) & (here.bin == number)]
                if not len(some):
                    continue
                counts = some.groupby(["subject", "seed"]).found.agg(["mean", "size"]).astype(float).reset_index()
                found = spread(wide(counts, "mean"), weights=wide(counts, "size"))
                name = f"{low:g} to {high:g} mm³" if np.isfinite(high) else f"{low:g} mm³ and more"
                rows.append(
                    {"split": split, "loss": loss, "size": name if low else f"below {high:g} mm³", "from_mm3": low}
                    | {"lesions": len(some) // some.seed.nunique(), "detected": found["mean"]}
                    | bounds(found)
                )
    return _table(rows, "split loss size from_mm3 lesions detected low high")


def false_detections(per_lesion: pd.DataFrame, per_subject: pd.DataFrame) -> pd.DataFrame:
    """False positives per scan, by split and loss: `split, loss, per_scan, low, high, volume_ml` (their volume per scan)."""
    keys = ["split", "loss", "seed", "subject"]
    false = per_lesion[per_lesion.kind == "false detection"]
    found = false.groupby(keys).volume_mm3.agg(["size", "sum"]).reset_index()
    scans = per_subject[keys].merge(found, how="left", on=keys).fillna({"size": 0, "sum": 0})
    rows = []
    for split in SPLITS:
        here = scans[scans.split == split]
        for loss in present(here):
            some = here[here.loss == loss]
            number = spread(wide(some, "size"))
            rows.append(
                {"split": split, "loss": loss, "per_scan": number["mean"]}
                | bounds(number)
                | {"volume_ml": float(some["sum"].mean() / 1000)}
            )
    return pd.DataFrame(rows)


def _table(rows: list[dict], columns: str) -> pd.DataFrame:
    """Rows as a table, which has its columns even where there is no row."""
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns.split())
