"""Uncertainty: means with bootstrap intervals, paired comparisons, Holm's correction, intraclass correlation.

Two things are sampled in a study: subjects, and trainings (seeds). All seeds of a loss segment the same subjects, so an
interval draws subjects and, for all of them together, seeds (the bootstrap for crossed factors of Owen 2007,
doi:10.1214/07-AOAS122; D-018). Every loss of one seed starts from the same weights and sees the same batches, so losses are
compared within (subject, seed).
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
    """Values without NaN and their weights, 0 where a value is undefined; of the subjects that have a value."""
    weights = np.ones_like(values, dtype=float) if weights is None else weights.astype(float)
    weights = np.where(np.isnan(values), 0, weights)
    known = weights.any(axis=1)
    return np.nan_to_num(values)[known], weights[known]


def _mean(values: np.ndarray, weights: np.ndarray, rows: np.ndarray, columns: np.ndarray, pooled: bool) -> np.ndarray:
    """The mean of drawn subjects (rows) and seeds (columns), one per resample; a subject's seeds first, unless `pooled`."""
    place = (rows[..., :, None], columns[..., None, :])  # (resample, subject, seed)
    sums, sizes = (values[place] * weights[place]).sum(axis=-1), weights[place].sum(axis=-1)
    if not pooled:
        sums = np.divide(sums, sizes, out=np.zeros_like(sums), where=sizes > 0)
        sizes = (sizes > 0).astype(float)
    return sums.sum(axis=-1) / sizes.sum(axis=-1)


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


def wide(table: pd.DataFrame, column: str) -> np.ndarray:
    """A column of a table as (subjects, seeds), NaN where there is no row."""
    return table.pivot(index="subject", columns="seed", values=column).to_numpy(dtype=float)


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


def holm(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `p_holm`, its `p` corrected by Holm's method; NaN stays out of the family."""
    tested, corrected = table.p.notna(), np.full(len(table), np.nan)
    if tested.any():
        corrected[tested] = multipletests(table.p[tested], method="holm")[1]
    return table.assign(p_holm=corrected)


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


def bounds(found: dict) -> dict:
    """`low` and `high` of what `spread` or `interval` found."""
    return {"low": found["low"], "high": found["high"]}
