"""Summary tables with uncertainty: all numbers shown in figures, sentences and Table 1.

Input: `per_subject.csv`, `per_lesion.csv` and `volumes.csv`, one row per (loss, seed, subject) or lesion. Output:
summary tables. Undefined values (an empty mask has no boundary, hence no distance) are left out of means, and a column
has their number.
"""

import itertools

import pandas as pd
from scipy import stats

from wmhlib.evaluation.lesions import SIZE_EDGES_MM3, SIZES
from wmhlib.evaluation.names import OBSERVERS, SPLITS, UNTRAINED, measured_in, present
from wmhlib.evaluation.statistics import bounds, holm, intraclass_correlation, paired, spread, wide


def over_seeds(per_subject: pd.DataFrame) -> pd.DataFrame:
    """One row per (split, loss, centre, subject): every metric averaged over the seeds for which it is defined."""
    keys = ["split", "loss", "centre", "subject"]
    return per_subject.drop(columns="seed").groupby(keys, sort=False).mean(numeric_only=True).reset_index()


def summary(per_subject: pd.DataFrame, by_centre: bool = False) -> pd.DataFrame:
    """Mean, SD and 95 % interval of every metric per split, loss and, if `by_centre`, centre.

    Returns
    -------
    DataFrame
        `split, loss, subjects, seeds` (and `centre`), and per metric `_mean, _sd, _low, _high, _undefined` (the number
        of subject-seed pairs without a value).
    """
    keys = ["split", "centre"] if by_centre else ["split"]
    rows = []
    for split in (split for split in SPLITS if split in set(per_subject.split)):
        for place, in_place in per_subject[per_subject.split == split].groupby(keys):
            for loss in present(in_place):
                scans = in_place[in_place.loss == loss]
                row = dict(zip(keys, place, strict=True)) | {"loss": loss}
                row |= {"subjects": scans.subject.nunique(), "seeds": scans.seed.nunique()}
                for metric in measured_in(per_subject):
                    estimated = spread(wide(scans, metric))
                    row |= {f"{metric}_{name}": estimated[name] for name in ("mean", "sd", "low", "high")}
                    row[f"{metric}_undefined"] = int(scans[metric].isna().sum())
                rows.append(row)
    return pd.DataFrame(rows)


def comparisons(
    per_subject: pd.DataFrame, against: str = "siamese", kinds: dict[str, str] | None = None
) -> pd.DataFrame:
    """Every other loss minus the Siamese loss (`against`), per metric: `comparisons.csv`.

    `kinds` maps the study's entries to their losses; variants of a loss are compared in `ablations`.

    Returns
    -------
    DataFrame
        `split, metric, loss, against`, the columns of `paired`, and `p_holm`: p corrected by Holm's method for the
        losses compared in one metric and split (D-019). Empty if the study did not train `against`.
    """
    variants = {name for name, kind in (kinds or {}).items() if name != kind}
    losses = [loss for loss in present(per_subject) if loss not in (against, *UNTRAINED, *variants)]
    return _compared(per_subject, dict.fromkeys(losses, against))


def ablations(per_subject: pd.DataFrame, kinds: dict[str, str]) -> pd.DataFrame:
    """Every variant minus the entry with its loss's own name, per metric: `ablations.csv`.

    Columns as `comparisons`; Holm's correction covers all variants of the study.
    """
    return _compared(per_subject, {name: kind for name, kind in kinds.items() if name != kind})


def _compared(per_subject: pd.DataFrame, against: dict[str, str]) -> pd.DataFrame:
    """`paired` of each loss with the one it maps to, with Holm's correction over all losses in one metric and split."""
    tables = []
    for split, metric in itertools.product(SPLITS, measured_in(per_subject)):
        in_split = per_subject[per_subject.split == split]
        pairs = [(loss, base) for loss, base in against.items() if {loss, base} <= set(in_split.loss)]
        if not pairs:
            continue
        table = pd.DataFrame(
            {"split": split, "metric": metric, "loss": loss, "against": base}
            | paired(in_split, split, metric, loss, base)
            for loss, base in pairs
        )
        tables.append(holm(table))
    columns = "split metric loss against difference low high subjects effect_size p share_above p_holm"
    return pd.concat(tables, ignore_index=True) if tables else _table([], columns)


def volume_agreement(volumes: pd.DataFrame) -> pd.DataFrame:
    """Agreement of predicted and reference lesion volume (Bland-Altman, intraclass correlation) per split and loss.

    Returns
    -------
    DataFrame
        `split, loss, subjects`; `bias_ml` (predicted minus reference) with its interval; `lower_limit_ml` and
        `upper_limit_ml`, the 95 % limits of agreement (Bland and Altman 1986, doi:10.1016/S0140-6736(86)90837-8);
        `icc`, for single measures and absolute agreement (Shrout and Fleiss 1979, doi:10.1037/0033-2909.86.2.420, case
        2). For limits and ICC, a subject's volumes are averaged over seeds.
    """
    rows = []
    for split in SPLITS:
        in_split = volumes[volumes.split == split]
        for loss in present(in_split):
            scans = in_split[in_split.loss == loss].assign(gap=lambda table: table.predicted_ml - table.reference_ml)
            bias = spread(wide(scans, "gap"))
            subjects = scans.groupby("subject")[["reference_ml", "predicted_ml", "gap"]].mean()
            limits = subjects.gap.mean() + subjects.gap.std() * stats.norm.ppf([0.025, 0.975])
            rows.append(
                {"split": split, "loss": loss, "subjects": len(subjects), "bias_ml": bias["mean"]}
                | {"bias_low_ml": bias["low"], "bias_high_ml": bias["high"]}
                | {"lower_limit_ml": limits[0], "upper_limit_ml": limits[1]}
                | {"icc": intraclass_correlation(subjects[["reference_ml", "predicted_ml"]].to_numpy())}
            )
    return pd.DataFrame(rows)


def generalisation_gap(per_subject: pd.DataFrame) -> pd.DataFrame:
    """Mean on the holdout minus mean on the external subjects, per metric and loss.

    Returns
    -------
    DataFrame
        `metric, loss, gap, low, high`; empty if the study lacks one of the two splits.
    """
    rows = []
    for metric in measured_in(per_subject):
        for loss in present(per_subject[~per_subject.loss.isin(OBSERVERS)]):
            parts = [per_subject[(per_subject.loss == loss) & (per_subject.split == split)] for split in SPLITS]
            if all(len(part) for part in parts):
                gap = spread(wide(parts[0], metric), minus=wide(parts[1], metric))
                rows.append({"metric": metric, "loss": loss, "gap": gap["mean"]} | bounds(gap))
    return _table(rows, "metric loss gap low high")


def detection_by_size(per_lesion: pd.DataFrame) -> pd.DataFrame:
    """Fraction of reference lesions detected by lesion volume (`SIZE_EDGES_MM3`), per split and loss.

    Returns
    -------
    DataFrame
        `split, loss, size` (in words), `from_mm3`, `lesions` (number in the references), `detected` (fraction over all
        seeds) and its interval `low, high` over subjects and seeds. Bins without lesions have no row.
    """
    lesions = per_lesion[per_lesion.kind == "reference"]
    lesions = lesions.assign(
        found=lesions.found.astype(bool), bin=pd.cut(lesions.volume_mm3, SIZE_EDGES_MM3, right=False, labels=False)
    )
    rows = []
    for split in SPLITS:
        in_split = lesions[lesions.split == split]
        for loss in present(in_split):
            for number, (low, size) in enumerate(SIZES.items()):
                in_bin = in_split[(in_split.loss == loss) & (in_split.bin == number)]
                if not len(in_bin):
                    continue
                counts = in_bin.groupby(["subject", "seed"]).found.agg(["mean", "size"]).astype(float).reset_index()
                detected = spread(wide(counts, "mean"), weights=wide(counts, "size"))
                rows.append(
                    {"split": split, "loss": loss, "size": size, "from_mm3": low}
                    | {"lesions": len(in_bin) // in_bin.seed.nunique(), "detected": detected["mean"]}
                    | bounds(detected)
                )
    return _table(rows, "split loss size from_mm3 lesions detected low high")


def false_detections(per_lesion: pd.DataFrame, per_subject: pd.DataFrame) -> pd.DataFrame:
    """False positives per split and loss: `split, loss, per_scan, low, high, volume_ml` (their mean volume per
    scan)."""
    keys = ["split", "loss", "seed", "subject"]
    false = per_lesion[per_lesion.kind == "false detection"]
    per_scan = false.groupby(keys).volume_mm3.agg(["size", "sum"]).reset_index()
    scans = per_subject[keys].merge(per_scan, how="left", on=keys).fillna({"size": 0, "sum": 0})
    rows = []
    for split in SPLITS:
        in_split = scans[scans.split == split]
        for loss in present(in_split):
            of_loss = in_split[in_split.loss == loss]
            number = spread(wide(of_loss, "size"))
            rows.append(
                {"split": split, "loss": loss, "per_scan": number["mean"]}
                | bounds(number)
                | {"volume_ml": float(of_loss["sum"].mean() / 1000)}
            )
    return pd.DataFrame(rows)


def _table(rows: list[dict], columns: str) -> pd.DataFrame:
    """Rows as a table that has its columns even without rows."""
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns.split())
