"""Tables with their uncertainty: every number that a figure, a sentence or Table 1 shows.

In flow `per_subject.csv`, `per_lesion.csv` and `volumes.csv`, one row per (loss, seed, subject) or lesion; out flow
summary tables. Two things are sampled in a study: subjects, and trainings (seeds). All seeds of a loss segment the same
subjects, so an interval draws subjects and, for all of them together, seeds (the bootstrap for crossed factors of Owen
2007, doi:10.1214/07-AOAS122; D-018). Every loss of one seed starts from the same weights and sees the same batches, so
losses are compared within (subject, seed).

A figure that is undefined (an empty mask has no boundary, hence no distance) is left out of its mean, and every table
carries the number left out in a column of its own; nothing calls a loss best by a mean that leaves subjects out.
"""

import itertools
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import statsmodels.formula.api as formulas
from scipy import stats
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

from wmhlib.metrics import SMALL_MM3

METRICS = {
    "dice": ("Dice", True),
    "hd95_mm": ("HD95 (mm)", False),
    "avd_pct": ("AVD (%)", False),
    "lesion_recall": ("Lesion recall", True),
    "lesion_f1": ("Lesion F1", True),
}
"""The challenge's five figures: the name a reader sees, and whether more is better. (One
more is ranked where `wmhlib/context/leaderboard.csv` has a column of it.)"""


def shown(metric: str, value: float) -> str:
    """A figure as a reader sees it: lengths and per cents with one digit, shares with two."""
    return f"{value:.{1 if metric in ('hd95_mm', 'avd_pct') else 2}f}"


class _Names(dict):
    def __missing__(self, loss: str) -> str:
        return loss.replace("_", " ").capitalize()


LOSSES = _Names(
    {
        "dice": "Dice",
        "tversky": "Tversky",
        "generalized_dice": "Generalized Dice",
        "siamese": "Siamese",
        "siamese_minmax": "Siamese min-max",
        "global_threshold": "Global threshold",
        "observer_o3": "Observer O3",
        "observer_o4": "Observer O4",
    }
)
"""What makes masks, by the names a reader sees, in the order every table and legend keeps; a configuration's variants of
a loss come after them, by their own names (`siamese_1_tap` reads "Siamese 1 tap")."""

OBSERVERS = ("observer_o3", "observer_o4")
UNTRAINED = ("global_threshold", *OBSERVERS)
"""Rows of a table that no loss trained: the floor and the human ceiling."""

SPLITS = ("holdout", "external")

SIZE_EDGES_MM3 = (0.0, 10.0, SMALL_MM3, 100.0, 300.0, np.inf)
"""Bins of lesion volume, even in ratio (half a decade each). Below 10 mm3 a lesion has one to three of the challenge's
voxels (2.8 to 3.0 mm3); the median lesion of 32 real scans lies between 6 and 118 mm3, so the middle bins hold most."""

RESAMPLES = 9999
LEAST_SUBJECTS = 3  # an interval from fewer would only pretend


def spread(values: np.ndarray, weights: np.ndarray | None = None, minus: np.ndarray | None = None) -> dict:
    """A mean over subjects and seeds with its SD and 95 % bootstrap interval.

    Parameters
    ----------
    values
        (subjects, seeds); NaN where undefined.
    weights
        Of the same shape, for a weighted mean over everything, such as lesions for a detection rate. Without weights,
        a subject's seeds are averaged first and every subject counts the same.
    minus
        (other subjects, seeds): then the mean of `values` less the mean of `minus` is what is estimated.

    Returns
    -------
    dict
        `mean`; `sd` over subjects, seeds averaged first (n - 1; NaN for one subject or with `minus`); `low` and `high`
        of the BCa interval (Efron 1987, doi:10.1080/01621459.1987.10478410), NaN with fewer than three subjects;
        `subjects`, those with a value.
    """
    pooled = weights is not None
    weights = weights.astype(float) if pooled else np.ones_like(values, dtype=float)
    groups = [(values, weights)] + ([] if minus is None else [(minus, np.ones_like(minus, dtype=float))])
    groups = [(v, np.where(np.isnan(v), 0, w)) for v, w in groups]
    groups = [(np.nan_to_num(v), w) for v, w in groups]
    groups = [(v[w.any(axis=1)], w[w.any(axis=1)]) for v, w in groups]  # subjects with a value
    counts = [len(v) for v, _ in groups]
    nothing = {"mean": np.nan, "sd": np.nan, "low": np.nan, "high": np.nan, "subjects": counts[0]}
    if not all(counts):
        return nothing
    seeds = values.shape[1]

    def estimate(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        *rows, columns = drawn if seeds > 1 else (*drawn, np.zeros((*drawn[0].shape[:-1], 1), int))
        means = []
        for (v, w), row in zip(groups, rows, strict=True):
            place = (row[..., :, None], columns[..., None, :])  # (resample, subject, seed)
            sums, sizes = (v[place] * w[place]).sum(axis=-1), w[place].sum(axis=-1)
            if not pooled:  # a subject's seeds are averaged first
                sums, sizes = (
                    np.divide(sums, sizes, out=np.zeros_like(sums), where=sizes > 0),
                    (sizes > 0).astype(float),
                )
            means.append(sums.sum(axis=-1) / sizes.sum(axis=-1))
        return means[0] if len(means) == 1 else means[0] - means[1]

    each = [(v * w).sum(axis=1) / w.sum(axis=1) for v, w in groups]
    found = nothing | interval(counts, seeds, estimate)
    if minus is None and counts[0] > 1:
        found["sd"] = float(each[0].std(ddof=1))
    return found


def interval(subjects: list[int], seeds: int, estimate: Callable, batch: int | None = None) -> dict:
    """`mean`, an estimate from everything, and its 95 % bootstrap interval, `low` and `high`, NaN with too few subjects.

    `estimate` is given drawn places, an array (…, drawn) for each group of subjects and, where there are several seeds, one
    for them; it returns (…) estimates. At most `batch` resamples come at once.
    """
    samples = [np.arange(count) for count in subjects] + ([np.arange(seeds)] if seeds > 1 else [])
    mean = float(estimate(*samples))
    found = {"mean": mean, "low": np.nan, "high": np.nan}
    if min(subjects) < LEAST_SUBJECTS or np.isnan(mean):
        return found
    with np.errstate(invalid="ignore"), warnings.catch_warnings():  # a resample of seeds may hold no value at all
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        drawn = stats.bootstrap(samples, estimate, n_resamples=RESAMPLES, batch=batch, rng=np.random.default_rng(0))
    low, high = drawn.confidence_interval
    if np.isnan(low + high):  # BCa does not exist where leaving one out changes nothing: then the percentiles
        low, high = np.nanpercentile(drawn.bootstrap_distribution, [2.5, 97.5])
    return found | {"low": float(low), "high": float(high)}


def _table(rows: list[dict], columns: str) -> pd.DataFrame:
    """Rows as a table, which has its columns even where there is no row."""
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns.split())


def wide(table: pd.DataFrame, column: str) -> np.ndarray:
    """A column of a table as (subjects, seeds), NaN where there is no row."""
    return table.pivot(index="subject", columns="seed", values=column).to_numpy(dtype=float)


def present(table: pd.DataFrame) -> list[str]:
    """What made masks in a table with a column `loss`, in the order every table and legend keeps."""
    return sorted(table.loss.unique(), key=lambda loss: list(LOSSES).index(loss) if loss in LOSSES else len(LOSSES))


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
                for metric in METRICS:
                    found = spread(wide(some, metric))
                    row |= {f"{metric}_{name}": found[name] for name in ("mean", "sd", "low", "high")}
                    row[f"{metric}_undefined"] = int(some[metric].isna().sum())
                rows.append(row)
    return pd.DataFrame(rows)


def paired(per_subject: pd.DataFrame, split: str, metric: str, first: str, second: str) -> dict:
    """How much `first` lies above `second` on the same subjects and seeds of a split.

    Returns
    -------
    dict
        `difference` (mean), its 95 % interval `low` and `high`, `subjects` where both have a value, `effect_size`
        (Cohen's d of the paired differences: mean / SD over subjects), `share_above` (of subjects where `first` is
        larger, ties half), and `p` of the paired permutation test of the mean (exact up to 13 subjects, else 9,999
        random sign changes), NaN with fewer than three subjects. Seeds are averaged before SD, share and test.
    """
    here = per_subject[per_subject.split == split]
    both = here[here.loss == first].merge(here[here.loss == second], on=["subject", "seed"], suffixes=("", "_second"))
    both["gap"] = both[metric] - both[f"{metric}_second"]
    found = spread(wide(both, "gap"))
    gaps = both.groupby("subject").gap.mean().dropna().to_numpy()
    row = {"difference": found["mean"], **{key: found[key] for key in ("low", "high", "subjects")}}
    row |= {"effect_size": np.nan, "p": np.nan}
    row["share_above"] = float(((gaps > 0) + 0.5 * (gaps == 0)).mean()) if len(gaps) else np.nan
    if len(gaps) >= LEAST_SUBJECTS:
        row["effect_size"] = float(gaps.mean() / gaps.std(ddof=1)) if np.ptp(gaps) else np.nan
        test = stats.permutation_test(
            (gaps,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=np.random.default_rng(0)
        )
        row["p"] = float(test.pvalue)
    return row


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
    for split, metric in itertools.product(SPLITS, METRICS):
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


def holm(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `p_holm`, its `p` corrected by Holm's method; NaN stays out of the family."""
    tested, corrected = table.p.notna(), np.full(len(table), np.nan)
    if tested.any():
        corrected[tested] = multipletests(table.p[tested], method="holm")[1]
    return table.assign(p_holm=corrected)


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


def intraclass_correlation(measures: np.ndarray) -> float:
    """ICC of (subjects, raters), two-way random, single measures, absolute agreement: ICC(2,1) of Shrout and Fleiss 1979.

    NaN with fewer than three subjects or where nothing varies.
    """
    subjects, raters = measures.shape
    if subjects < LEAST_SUBJECTS or np.ptp(measures) == 0:
        return float("nan")
    long = pd.DataFrame(measures).melt(ignore_index=False, var_name="rater").reset_index(names="subject")
    squares = anova_lm(formulas.ols("value ~ C(subject) + C(rater)", long).fit()).mean_sq
    between, rater, error = squares["C(subject)"], squares["C(rater)"], squares["Residual"]
    return float((between - error) / (between + (raters - 1) * error + raters * (rater - error) / subjects))


def generalisation_gap(per_subject: pd.DataFrame) -> pd.DataFrame:
    """What a loss loses on the external subjects: mean on holdout less mean on external subjects, per metric and loss.

    Returns
    -------
    DataFrame
        `metric, loss, gap, low, high`; empty where the study lacks one of the two splits.
    """
    rows = []
    for metric in METRICS:
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
    """False detections a scan, per split and loss: `split, loss, per_scan, low, high, volume_ml` (their volume a scan)."""
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


def bounds(found: dict) -> dict:
    """`low` and `high` of what `spread` or `interval` found."""
    return {"low": found["low"], "high": found["high"]}
