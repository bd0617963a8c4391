"""Uncertainty: means with bootstrap intervals, paired comparisons, Holm's correction, intraclass correlation.

A study samples two factors: subjects and trainings (seeds). All seeds of a loss segment the same subjects, so the
bootstrap resamples subjects and, jointly for all of them, seeds (bootstrap for crossed factors, Owen 2007,
doi:10.1214/07-AOAS122; D-018). All losses of one seed start from the same weights and see the same batches, so losses
are compared within (subject, seed).
"""

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import statsmodels.formula.api as formulas
from scipy import stats
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

RESAMPLES = 9999
LEAST_SUBJECTS = 3  # an interval from fewer would be meaningless


def spread(values: np.ndarray, weights: np.ndarray | None = None, minus: np.ndarray | None = None) -> dict:
    """A mean over subjects and seeds with its SD and 95 % bootstrap interval.

    Parameters
    ----------
    values
        Array (subjects, seeds); NaN where undefined.
    weights
        Array of the same shape for a weighted mean over all values, such as numbers of lesions for a detection rate.
        Without weights, a subject's seeds are averaged first and all subjects count equally.
    minus
        Array (other subjects, seeds): the mean of `values` minus the mean of `minus` is estimated.

    Returns
    -------
    dict
        `mean`; `sd` over subjects after averaging seeds (n - 1; NaN for one subject or with `minus`); `low` and `high`
        of the BCa interval (Efron 1987, doi:10.1080/01621459.1987.10478410), NaN with fewer than three subjects;
        `subjects`, the number with a value. All but `subjects` are NaN if no value is defined.
    """
    pooled = weights is not None
    groups = [_weighted(values, weights)] + ([] if minus is None else [_weighted(minus)])
    counts = [len(group) for group, _ in groups]
    nothing = {"mean": np.nan, "sd": np.nan, "low": np.nan, "high": np.nan, "subjects": counts[0]}
    if not all(counts):
        return nothing
    seeds = values.shape[1]

    def estimate(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        *rows, columns = drawn if seeds > 1 else (*drawn, np.zeros((*drawn[0].shape[:-1], 1), int))
        means = [_mean(*group, row, columns, pooled) for group, row in zip(groups, rows, strict=True)]
        return means[0] if len(means) == 1 else means[0] - means[1]

    estimated = nothing | interval(counts, seeds, estimate)
    if minus is None and counts[0] > 1:
        group, group_weights = groups[0]
        estimated["sd"] = float(((group * group_weights).sum(axis=1) / group_weights.sum(axis=1)).std(ddof=1))
    return estimated


def _weighted(values: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Values with NaN replaced by 0, and weights, 0 where a value is undefined; only subjects with a value."""
    weights = np.ones_like(values, dtype=float) if weights is None else weights.astype(float)
    weights = np.where(np.isnan(values), 0, weights)
    known = weights.any(axis=1)
    return np.nan_to_num(values)[known], weights[known]


def _mean(values: np.ndarray, weights: np.ndarray, rows: np.ndarray, columns: np.ndarray, pooled: bool) -> np.ndarray:
    """The mean over drawn subjects (rows) and seeds (columns) per resample; seeds are averaged first unless
    `pooled`."""
    place = (rows[..., :, None], columns[..., None, :])  # (resample, subject, seed)
    sums, sizes = (values[place] * weights[place]).sum(axis=-1), weights[place].sum(axis=-1)
    if not pooled:
        sums = np.divide(sums, sizes, out=np.zeros_like(sums), where=sizes > 0)
        sizes = (sizes > 0).astype(float)
    return sums.sum(axis=-1) / sizes.sum(axis=-1)


def interval(subjects: list[int], seeds: int, estimate: Callable, batch: int | None = None) -> dict:
    """An estimate from all data (`mean`) and its 95 % bootstrap interval (`low`, `high`; NaN with too few subjects).

    `estimate` takes drawn indices, an array (…, drawn) for each group of subjects and, with several seeds, one for
    seeds; it returns estimates (…). At most `batch` resamples are passed at once.
    """
    samples = [np.arange(count) for count in subjects] + ([np.arange(seeds)] if seeds > 1 else [])
    mean = float(estimate(*samples))
    estimated = {"mean": mean, "low": np.nan, "high": np.nan}
    if min(subjects) < LEAST_SUBJECTS or np.isnan(mean):
        return estimated
    with np.errstate(invalid="ignore"), warnings.catch_warnings():  # a resample of seeds may have no defined value
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        drawn = stats.bootstrap(samples, estimate, n_resamples=RESAMPLES, batch=batch, rng=np.random.default_rng(0))
    low, high = drawn.confidence_interval
    if np.isnan(low + high):  # BCa is undefined if leaving one out changes nothing: use percentiles
        low, high = np.nanpercentile(drawn.bootstrap_distribution, [2.5, 97.5])
    return estimated | {"low": float(low), "high": float(high)}


def wide(table: pd.DataFrame, column: str) -> np.ndarray:
    """A column of a table as an array (subjects, seeds), NaN for missing rows."""
    return table.pivot(index="subject", columns="seed", values=column).to_numpy(dtype=float)


def paired(per_subject: pd.DataFrame, split: str, metric: str, first: str, second: str) -> dict:
    """The difference `first` minus `second` on the same subjects and seeds of a split.

    Returns
    -------
    dict
        `difference` (mean), its 95 % interval `low` and `high`, `subjects` for which both have a value, `effect_size`
        (Cohen's d of the paired differences: mean / SD over subjects), `share_above` (fraction of subjects for which
        `first` is larger, ties count half), and `p` of the paired permutation test of the mean (exact up to 13
        subjects, otherwise 9,999 random sign changes), NaN with fewer than three subjects. Seeds are averaged before
        SD, fraction and test.
    """
    rows = per_subject[per_subject.split == split]
    both = rows[rows.loss == first].merge(rows[rows.loss == second], on=["subject", "seed"], suffixes=("", "_second"))
    both["gap"] = both[metric] - both[f"{metric}_second"]
    estimated = spread(wide(both, "gap"))
    gaps = both.groupby("subject").gap.mean().dropna().to_numpy()
    row = {"difference": estimated["mean"], **{key: estimated[key] for key in ("low", "high", "subjects")}}
    row |= {"effect_size": np.nan, "p": np.nan}
    row["share_above"] = float(((gaps > 0) + 0.5 * (gaps == 0)).mean()) if len(gaps) else np.nan
    if len(gaps) >= LEAST_SUBJECTS:
        row["effect_size"] = float(gaps.mean() / gaps.std(ddof=1)) if np.ptp(gaps) else np.nan
        test = stats.permutation_test(
            (gaps,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=np.random.default_rng(0)
        )
        row["p"] = float(test.pvalue)
    return row


def holm(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `p_holm`: `p` corrected by Holm's method (Holm 1979, Scand J Stat 6:65); NaN is not in the
    family."""
    tested, corrected = table.p.notna(), np.full(len(table), np.nan)
    if tested.any():
        corrected[tested] = multipletests(table.p[tested], method="holm")[1]
    return table.assign(p_holm=corrected)


def intraclass_correlation(measures: np.ndarray) -> float:
    """ICC(2,1) of (subjects, raters): two-way random effects, single measures, absolute agreement.

    NaN with fewer than three subjects or if all values are equal. Shrout and Fleiss 1979,
    doi:10.1037/0033-2909.86.2.420.
    """
    subjects, raters = measures.shape
    if subjects < LEAST_SUBJECTS or np.ptp(measures) == 0:
        return float("nan")
    long = pd.DataFrame(measures).melt(ignore_index=False, var_name="rater").reset_index(names="subject")
    squares = anova_lm(formulas.ols("value ~ C(subject) + C(rater)", long).fit()).mean_sq
    between, rater, error = squares["C(subject)"], squares["C(rater)"], squares["Residual"]
    return float((between - error) / (between + (raters - 1) * error + raters * (rater - error) / subjects))


def bounds(estimated: dict) -> dict:
    """`low` and `high` of a result of `spread` or `interval`."""
    return {"low": estimated["low"], "high": estimated["high"]}
