"""Fraction of lesions detected by number of false positives: free-response ROC (FROC) curves.

A loss may detect more lesions only because it marks more voxels. Input: `operating_points.csv` with the lesions
detected by every scan's probabilities at each threshold (`wmhlib.evaluation.lesions.operating_points`). Output: curves
(Bunch et al. 1978, J Appl Photogr Eng 4:166) and one score, the fraction of lesions detected, averaged over fixed
numbers of false positives per scan, as in the LUNA16 challenge (Setio et al. 2017, doi:10.1016/j.media.2017.06.015).
Fractions are computed over the lesions of all subjects together, and scores are averaged over seeds. Intervals resample
subjects and seeds, as everywhere in the study (D-018). D-038 explains why the score is reported in addition to the
threshold 0.5.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from wmhlib.evaluation.lesions import SIZES, SMALL_MM3, THRESHOLDS
from wmhlib.evaluation.names import SPLITS, present
from wmhlib.evaluation.statistics import RESAMPLES, bounds, holm, interval
from wmhlib.running.files import read_table, write_table
from wmhlib.study import Study

RATES = (1, 2, 4, 8, 16)
"""False positives per scan at which the fraction detected is evaluated. They are higher than for lung nodules (LUNA16),
because a scan has dozens of lesions."""

LESIONS = {
    "all": ("all lesions", "lesions", "found"),
    "small": (f"lesions below {SMALL_MM3:g} mm³", "small_lesions", "small_found"),
}
"""Kinds of lesions: in words, and the columns of their number and of those detected in `operating_points.csv`."""

OF_SIZE = {f"{low:g}": (words, f"lesions_{low:g}", f"found_{low:g}") for low, words in SIZES.items()}
"""The classes of lesion volume, as `LESIONS`; the key is the lower edge in mm³."""

BATCH = 100
"""Resamples computed at once: each has all counts of all subjects, seeds and thresholds."""


def write_points(
    study: Study, loss: str, seed: int, subjects: pd.DataFrame, tables: list[pd.DataFrame], name: str = "operating"
) -> None:
    """Write the operating points (`wmhlib.evaluation.lesions.operating_points`) to `<name>_points.csv` next to the
    model.

    `tables` has one table per subject; `name` is `operating` for the unseen scans, or `validation`.
    """
    keys = ["split", "centre", "subject"]
    rows = [
        pd.DataFrame({key: getattr(row, key) for key in keys}, table.index).join(table)
        for row, table in zip(subjects.itertuples(), tables, strict=True)
    ]
    if rows:
        write_table(study.model(loss, seed) / f"{name}_points.csv", pd.concat(rows))


def read_points(study: Study, unseen: pd.DataFrame) -> pd.DataFrame:
    """The operating points of all trainings with `loss` and `seed`, all for the same scans and thresholds.

    Raises
    ------
    FileNotFoundError
        A training has no operating points, or those of other scans; the message says what to run.
    """
    tables, columns = [], {name for _, *names in (LESIONS | OF_SIZE).values() for name in names} | {"overlap_voxels"}
    for loss, seed in study.trainings:
        path = study.model(loss, seed) / "operating_points.csv"
        table = read_table(path) if path.is_file() else None
        complete = table is not None and len(table) == len(THRESHOLDS) * len(unseen) and columns <= set(table)
        if not complete or set(table.subject) != set(unseen.subject):
            what = "No operating points found" if table is None else "Operating points of other scans or columns"
            raise FileNotFoundError(f"{what} at {path}: run notebook 04_train with loss={loss} and seed={seed} first.")
        tables.append(_of(table, loss, seed))
    return pd.concat(tables, ignore_index=True)


def read_validation(study: Study) -> pd.DataFrame:
    """The operating points of the validation subjects of all trainings, as `read_points`; no rows if there are none."""
    paths = {training: study.model(*training) / "validation_points.csv" for training in study.trainings}
    tables = [_of(read_table(path), *training) for training, path in paths.items() if path.is_file()]
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
"""Columns that the table of validation subjects has at least."""


def _of(table: pd.DataFrame, loss: str, seed: int) -> pd.DataFrame:
    """The table with the columns `loss` and `seed` in front."""
    table.insert(0, "loss", loss)
    table.insert(1, "seed", seed)
    return table


def counts(points: pd.DataFrame, lesions: str) -> np.ndarray:
    """Numbers of lesions, of lesions detected and of false positives of one loss and split: (subject, seed, threshold,
    3).

    `lesions` is a key of `LESIONS` or `OF_SIZE`. Subjects, seeds and thresholds are sorted.

    >>> row = {"subject": "a", "seed": 1, "threshold": [0.7, 0.3], "lesions": 4, "found": [1, 3]}
    >>> counts(pd.DataFrame(row | {"false_detections": [1, 4]}), "all").tolist()
    [[[[4.0, 3.0, 4.0], [4.0, 1.0, 1.0]]]]
    """
    rows = points.sort_values(["subject", "seed", "threshold"])
    shape = rows.subject.nunique(), rows.seed.nunique(), rows.threshold.nunique(), 3
    _, total, detected = (LESIONS | OF_SIZE)[lesions]
    return rows[[total, detected, "false_detections"]].to_numpy(dtype=float).reshape(shape)


def _counts_by_loss(
    points: pd.DataFrame, kinds: Iterable[str] = tuple(LESIONS)
) -> Iterator[tuple[dict, dict[str, np.ndarray]]]:
    """For every split and kind of lesions: the keys (`split, lesions`), and the `counts` of each loss."""
    for split, lesions in itertools.product(SPLITS, kinds):
        in_split = points[points.split == split]
        yield (
            {"split": split, "lesions": lesions},
            {loss: counts(in_split[in_split.loss == loss], lesions) for loss in present(in_split)},
        )


def score(drawn: np.ndarray) -> np.ndarray:
    """The FROC score from `counts` (…, subject, seed, threshold, 3): (…,); NaN if there are no lesions.

    score = mean over r in `RATES` of D(r) / L, where L is the number of lesions and D(r) the number detected at r false
    positives per scan (Setio et al. 2017, doi:10.1016/j.media.2017.06.015), averaged over seeds. D is interpolated
    linearly between thresholds and from the origin to the strictest threshold. It does not decrease with r, because a
    stricter threshold can be used instead.

    One scan with 4 lesions: at one threshold 3 are detected with 4 false positives, at a stricter one 1 with 1. At 1,
    2, 4, 8 and 16 false positives, D is 1, 1 + 2/3, 3, 3 and 3; the mean is 7/3, and the score 7/12.

    >>> round(float(score(np.array([[[[4, 3, 4], [4, 1, 1]]]]))), 4)
    0.5833
    >>> float(score(np.array([[[[0, 0, 4], [0, 0, 1]]]])))
    nan
    """
    return _score_of(drawn.mean(axis=-4))


def _score_of(means: np.ndarray) -> np.ndarray:
    """The score from means over subjects of `counts`, (…, seed, threshold, 3): (…,)."""
    lesions, hits, false = np.moveaxis(means, -1, 0)
    order = np.lexsort((hits, false))
    best = np.maximum.accumulate(np.take_along_axis(hits, order, -1), axis=-1)
    at_rates = _interpolated(RATES, _from_origin(np.take_along_axis(false, order, -1)), _from_origin(best))
    total = np.where(lesions[..., 0] > 0, lesions[..., 0], np.nan)
    return (at_rates.mean(axis=-1) / total).mean(axis=-1)


def _from_origin(values: np.ndarray) -> np.ndarray:
    """Values (…, threshold) after a 0."""
    return np.concatenate([np.zeros((*values.shape[:-1], 1)), values], axis=-1)


def _interpolated(new: Sequence[float], old: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`np.interp` along the last axis, for many ascending `old` (…, point) with `values` (…, point) at once: (…, new)."""
    new = np.asarray(new, float)
    last = old.shape[-1] - 1
    below = (old[..., None, :] <= new[:, None]).sum(axis=-1) - 1
    above = np.minimum(below + 1, last)
    x, y, next_x, next_y = (np.take_along_axis(of, at, -1) for at in (below, above) for of in (old, values))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (next_y - y) / (next_x - x) * (new - x) + y
    return np.where((below == last) | (x == new), y, between)


def curves(points: pd.DataFrame) -> pd.DataFrame:
    """The FROC curves: `split, lesions, loss, threshold, false_detections` (per scan), `recall`.

    Both are means over subjects and seeds: recall = lesions detected / lesions, NaN without lesions.
    """
    tables, thresholds = [], np.sort(points.threshold.unique())
    for which, by_loss in _counts_by_loss(points):
        for loss, values in by_loss.items():
            total, detected, false = values.mean(axis=(0, 1)).T
            table = pd.DataFrame({"threshold": thresholds, "false_detections": false})
            table["recall"] = detected / np.where(total > 0, total, np.nan)
            tables.append(pd.DataFrame(which | {"loss": loss}, table.index).join(table))
    return pd.concat(tables, ignore_index=True)


def _score_of_drawn(values: np.ndarray, rows: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
    """`score` of `counts` with drawn subjects, `rows` (…, drawn), and drawn seeds, `columns` (…, drawn): (…,).

    A matrix product replaces the copy of every drawn subject's counts. It is exact, because counts are whole numbers.
    """
    times = (rows[..., None] == np.arange(len(values))).sum(axis=-2, dtype=float)  # that each subject was drawn
    means = np.tensordot(times, values, axes=1) / rows.shape[-1]
    return _score_of(means if columns is None else np.take_along_axis(means, columns[..., None, None], axis=-3))


def _interval(values: np.ndarray, minus: np.ndarray | None = None) -> dict:
    """The score, or its difference from that of the counts `minus`, with interval
    (`wmhlib.evaluation.statistics.interval`)."""

    def estimate(rows: np.ndarray, columns: np.ndarray | None = None, axis: int = -1) -> np.ndarray:
        own = _score_of_drawn(values, rows, columns)
        return own if minus is None else own - _score_of_drawn(minus, rows, columns)

    return interval([len(values)], values.shape[1], estimate, BATCH)


def _permuted(values: np.ndarray, other: np.ndarray) -> float:
    """p of the difference of two scores by a permutation test that swaps the losses' counts within subjects."""
    both, subjects = np.concatenate([values, other]), np.arange(len(values))
    test = stats.permutation_test(
        (subjects, subjects + len(values)),
        lambda first, second, axis=-1: _score_of_drawn(both, first) - _score_of_drawn(both, second),
        permutation_type="samples", n_resamples=RESAMPLES, batch=BATCH, rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(test.pvalue)


def scores(points: pd.DataFrame) -> pd.DataFrame:
    """The score of every trained loss with its 95 % interval: `split, lesions, loss, score, low, high`."""
    rows = []
    for which, by_loss in _counts_by_loss(points):
        for loss, values in by_loss.items():
            estimated = _interval(values)
            rows.append(which | {"loss": loss, "score": estimated["mean"]} | bounds(estimated))
    return pd.DataFrame(rows)


def by_size(points: pd.DataFrame) -> pd.DataFrame:
    """The score of every trained loss for each class of lesion volume, in the columns of
    `wmhlib.evaluation.tables.detection_by_size`: `split, loss, size, from_mm3, lesions, detected, low, high`. Classes without
    lesions have no row."""
    rows = []
    for which, by_loss in _counts_by_loss(points, OF_SIZE):
        for loss, values in by_loss.items():
            estimated, lesions = _interval(values), int(values[:, 0, 0, 0].sum())
            row = {"split": which["split"], "loss": loss, "size": OF_SIZE[which["lesions"]][0]}
            row |= {"from_mm3": float(which["lesions"]), "lesions": lesions, "detected": estimated["mean"]}
            rows += [row | bounds(estimated)] * bool(lesions)
    return pd.DataFrame(rows, columns="split loss size from_mm3 lesions detected low high".split())


def comparisons(points: pd.DataFrame, kinds: dict[str, str], against: str = "siamese") -> pd.DataFrame:
    """Every other loss's score minus that of the Siamese loss (`against`), on the same subjects and seeds.

    Returns
    -------
    DataFrame
        `split, lesions, loss, against, difference, low, high, p` (permutation test that swaps the losses' counts within
        subjects, exact up to 13 subjects) and `p_holm`, corrected over the losses compared for the same lesions and
        split. Variants (entries that `kinds` maps to another name) are left out. Empty if the study did not train
        `against`.
    """
    tables = []
    for which, by_loss in _counts_by_loss(points):
        rows, rivals = [], {loss: values for loss, values in by_loss.items() if kinds[loss] == loss}
        other = rivals.pop(against, None)
        for loss, own in rivals.items() if other is not None else ():
            estimated = _interval(own, other)
            p = _permuted(own, other) if np.isfinite(estimated["low"]) else np.nan
            rows.append(
                which | {"loss": loss, "against": against, "difference": estimated["mean"], **bounds(estimated), "p": p}
            )
        if rows:
            tables.append(holm(pd.DataFrame(rows)))
    columns = "split lesions loss against difference low high p p_holm".split()
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
