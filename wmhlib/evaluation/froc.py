"""Fraction of lesions detected by number of false positives: free-response ROC (FROC) curves.

A loss that detects more lesions may merely mark more. Input: `operating_points.csv`, what every scan's probabilities detect at
each threshold (`wmhlib.evaluation.lesions.operating_points`). Output: curves (Bunch et al. 1978, J Appl Photogr Eng 4:166) and
one score, the fraction detected, averaged over fixed numbers of false positives per scan, as in the LUNA16 challenge (Setio et
al. 2017, doi:10.1016/j.media.2017.06.015). Fractions are of the lesions of all subjects together, scores are averaged over
seeds. Intervals draw subjects and seeds as everywhere in the study (D-018); D-038 explains the score beside the threshold 0.5.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats

from wmhlib.evaluation.lesions import SMALL_MM3, THRESHOLDS
from wmhlib.evaluation.names import SPLITS, present
from wmhlib.evaluation.statistics import RESAMPLES, bounds, holm, interval
from wmhlib.running.files import read_table, write_table
from wmhlib.study import Study

RATES = (1, 2, 4, 8, 16)
"""False detections a scan at which the share found is read: a scan has dozens of lesions, where a lung scan has few nodules."""

LESIONS = {
    "all": ("all lesions", "lesions", "found"),
    "small": (f"lesions below {SMALL_MM3:g} mm³", "small_lesions", "small_found"),
}
"""Which lesions are to be found: in words, and their columns in `operating_points.csv`."""

BATCH = 100
"""Resamples at once: a resample holds every count of every subject, seed and cut."""


def write_points(
    study: Study, loss: str, seed: int, subjects: pd.DataFrame, tables: list[pd.DataFrame], name: str = "operating"
) -> None:
    """Keep beside the model what each scan's probabilities find (`wmhlib.evaluation.lesions.operating_points`), a table a
    subject: `<name>_points.csv`, `operating` of the unseen scans or `validation`."""
    keys = ["split", "centre", "subject"]
    rows = [
        pd.DataFrame({key: getattr(row, key) for key in keys}, table.index).join(table)
        for row, table in zip(subjects.itertuples(), tables, strict=True)
    ]
    if rows:
        write_table(study.model(loss, seed) / f"{name}_points.csv", pd.concat(rows))


def read_points(study: Study, unseen: pd.DataFrame) -> pd.DataFrame:
    """The operating points of all trainings with their `loss` and `seed`, each of the same scans at the same cuts.

    Raises
    ------
    FileNotFoundError
        A training has none, or of other scans; the message says what to run.
    """
    tables = []
    for loss, seed in study.trainings:
        path = study.model(loss, seed) / "operating_points.csv"
        table = read_table(path) if path.is_file() else None
        complete = table is not None and len(table) == len(THRESHOLDS) * len(unseen) and "overlap_voxels" in table
        if not complete or set(table.subject) != set(unseen.subject):
            what = "No operating points" if table is None else "Operating points of other scans"
            raise FileNotFoundError(f"{what} at {path}: run notebook 04_train with loss={loss} and seed={seed} first.")
        tables.append(_of(table, loss, seed))
    return pd.concat(tables, ignore_index=True)


def read_validation(study: Study) -> pd.DataFrame:
    """The operating points of the validation subjects of all trainings, as `read_points`; no rows where there are none."""
    paths = {own: study.model(*own) / "validation_points.csv" for own in study.trainings}
    tables = [_of(read_table(path), *own) for own, path in paths.items() if path.is_file()]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=VALIDATION)


VALIDATION = [
    "loss",
    "seed",
    "split",
    "centre",
    "subject",
    "threshold",
    "reference_voxels",
    "marked_voxels",
    "overlap_voxels",
]
"""What the table of validation subjects has at least."""


def _of(table: pd.DataFrame, loss: str, seed: int) -> pd.DataFrame:
    table.insert(0, "loss", loss)
    table.insert(1, "seed", seed)
    return table


def counts(points: pd.DataFrame, lesions: str) -> np.ndarray:
    """Lesions, those found and false detections of one loss and split: (subject, seed, cut, 3), in the order of their names."""
    rows = points.sort_values(["subject", "seed", "threshold"])
    shape = rows.subject.nunique(), rows.seed.nunique(), rows.threshold.nunique(), 3
    _, every, found = LESIONS[lesions]
    return rows[[every, found, "false_detections"]].to_numpy(dtype=float).reshape(shape)


def _counts_by_loss(points: pd.DataFrame) -> Iterator[tuple[dict, dict[str, np.ndarray]]]:
    """Of every split and kind of lesions: which (`split, lesions`), and the `counts` of each loss."""
    for split, lesions in itertools.product(SPLITS, LESIONS):
        here = points[points.split == split]
        yield (
            {"split": split, "lesions": lesions},
            {loss: counts(here[here.loss == loss], lesions) for loss in present(here)},
        )


def score(drawn: np.ndarray) -> np.ndarray:
    """The mean over `RATES` of the share found, from `counts` (…, subject, seed, cut, 3), seed by seed; NaN without lesions.

    Between two cuts the curve is a straight line; below the strictest one it falls to the origin. It never falls with more
    false detections, since the stricter cut could be had instead.
    """
    mean = drawn.mean(axis=-4)  # (…, seed, cut, 3)
    found = np.empty(mean.shape[:-2])
    for place in np.ndindex(found.shape):
        lesions, hits, false = mean[place].T
        order = np.lexsort((hits, false))
        best = np.maximum.accumulate(hits[order])
        at_rates = np.interp(RATES, np.append(0, false[order]), np.append(0, best))
        found[place] = at_rates.mean() / lesions[0] if lesions[0] else np.nan
    return found.mean(axis=-1)


def curves(points: pd.DataFrame) -> pd.DataFrame:
    """The operating point of every cut: `split, lesions, loss, threshold, false_detections` (a scan), `recall`."""
    tables, thresholds = [], np.sort(points.threshold.unique())
    for which, by_loss in _counts_by_loss(points):
        for loss, values in by_loss.items():
            every, found, false = values.mean(axis=(0, 1)).T
            table = pd.DataFrame({"threshold": thresholds, "false_detections": false})
            table["recall"] = found / np.where(every > 0, every, np.nan)
            tables.append(pd.DataFrame(which | {"loss": loss}, table.index).join(table))
    return pd.concat(tables, ignore_index=True)


def _interval(values: np.ndarray, minus: np.ndarray | None = None) -> dict:
    """The score with its interval, as `wmhlib.evaluation.statistics.interval` gives them; or how far it lies above another loss's."""

    def estimate(rows: np.ndarray, columns: np.ndarray | None = None, axis: int = -1) -> np.ndarray:
        columns = np.zeros((*rows.shape[:-1], 1), int) if columns is None else columns
        place = (rows[..., :, None], columns[..., None, :])
        return score(values[place]) if minus is None else score(values[place]) - score(minus[place])

    return interval([len(values)], values.shape[1], estimate, BATCH)


def _permuted(values: np.ndarray, other: np.ndarray) -> float:
    """p of the difference of two scores, both losses' counts swapped within subjects."""
    both, subjects = np.concatenate([values, other]), np.arange(len(values))
    test = stats.permutation_test(
        (subjects, subjects + len(values)), lambda first, second, axis=-1: score(both[first]) - score(both[second]),
        permutation_type="samples", n_resamples=RESAMPLES, batch=BATCH, rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(test.pvalue)


def scores(points: pd.DataFrame) -> pd.DataFrame:
    """The score of every trained loss with its 95 % interval: `split, lesions, loss, score, low, high`."""
    rows = []
    for which, by_loss in _counts_by_loss(points):
        for loss, values in by_loss.items():
            found = _interval(values)
            rows.append(which | {"loss": loss, "score": found["mean"]} | bounds(found))
    return pd.DataFrame(rows)


def comparisons(points: pd.DataFrame, kinds: dict[str, str], against: str = "siamese") -> pd.DataFrame:
    """Every other loss's score less the Siamese one's (`against`), on the same subjects and seeds.

    Returns
    -------
    DataFrame
        `split, lesions, loss, against, difference, low, high, p` (permutation test that swaps both losses' counts within
        subjects, exact up to 13 of them) and `p_holm`, corrected over the losses compared on the same lesions of one split.
        Variants (entries that `kinds` maps to another name) are left out. Empty where the study did not train `against`.
    """
    tables = []
    for which, by_loss in _counts_by_loss(points):
        rows, rivals = [], {loss: values for loss, values in by_loss.items() if kinds[loss] == loss}
        other = rivals.pop(against, None)
        for loss, own in rivals.items() if other is not None else ():
            found = _interval(own, other)
            p = _permuted(own, other) if np.isfinite(found["low"]) else np.nan
            rows.append(
                which | {"loss": loss, "against": against, "difference": found["mean"], **bounds(found), "p": p}
            )
        if rows:
            tables.append(holm(pd.DataFrame(rows)))
    columns = "split lesions loss against difference low high p p_holm".split()
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
