"""Each loss at its own threshold, chosen on the validation subjects, compared with 0.5; and the calibration of
probabilities.
At the threshold 0.5, losses are at different points of their curves (D-038), because soft or hard labels and a loss's
weight of false positives shift all probabilities. Input: `operating_points.csv` and `validation_points.csv`. The
subjects that choose a threshold are not used to evaluate it.
"""

import numpy as np
import pandas as pd

from wmhlib.evaluation.names import present
from wmhlib.evaluation.statistics import bounds, spread, wide


def dice(points: pd.DataFrame) -> pd.Series:
    """Dice of every row of operating points: 2 |R ∩ S| / (|R| + |S|); NaN if both masks are empty (Dice 1945,
    doi:10.2307/1932409).

    >>> dice(pd.DataFrame({"reference_voxels": [3, 0], "marked_voxels": [2, 0], "overlap_voxels": [1, 0]})).tolist()
    [0.4, nan]
    """
    sizes = points.reference_voxels + points.marked_voxels
    return 2 * points.overlap_voxels / sizes.where(sizes > 0)


def chosen(validation: pd.DataFrame) -> pd.Series:
    """The threshold with the highest mean Dice over the validation subjects, by (loss, seed); of ties, the one nearest
    to 0.5.

    Empty without validation subjects. In the example, Dice is 8/12, 6/8 and 4/6.

    >>> sizes = {"reference_voxels": 4, "marked_voxels": [8, 4, 2], "overlap_voxels": [4, 3, 2]}
    >>> chosen(pd.DataFrame({"loss": "dice", "seed": 1, "threshold": [0.3, 0.5, 0.7]} | sizes)).to_dict()
    {('dice', 1): 0.5}
    """
    if validation.empty:
        return pd.Series(dtype=float)
    mean = validation.assign(dice=dice(validation)).groupby(["loss", "seed", "threshold"]).dice.mean().reset_index()
    mean["off"] = (mean.threshold - 0.5).abs()
    best = mean.sort_values(["dice", "off"], ascending=[False, True]).drop_duplicates(["loss", "seed"])
    return best.set_index(["loss", "seed"]).threshold


def own_thresholds(points: pd.DataFrame, validation: pd.DataFrame) -> pd.DataFrame:
    """The Dice of each loss on the unseen subjects at its own threshold and at 0.5.

    Returns
    -------
    DataFrame
        One row per split and loss: `threshold` (mean over seeds); `dice_half` and `dice_own`, mean Dice at 0.5 and at
        the own threshold over subjects after averaging seeds; `low` and `high`, the 95 % interval of `dice_own` over
        subjects and seeds; `gain`, `dice_own` minus `dice_half`. No rows without validation subjects.
    """
    own, rows = chosen(validation), []
    columns = ["split", "loss", "threshold", "dice_half", "dice_own", "low", "high", "gain"]
    if own.empty:
        return pd.DataFrame(columns=columns)
    scored = points.assign(dice=dice(points)).join(own.rename("own"), on=["loss", "seed"])
    for split, in_split in scored.groupby("split", sort=False):
        for loss in present(in_split):
            of_loss = in_split[in_split.loss == loss]
            half = spread(wide(of_loss[np.isclose(of_loss.threshold, 0.5)], "dice"))
            tuned = spread(wide(of_loss[np.isclose(of_loss.threshold, of_loss.own)], "dice"))
            row = {"split": split, "loss": loss, "threshold": own[loss].mean()}
            row |= {"dice_half": half["mean"], "dice_own": tuned["mean"], **bounds(tuned)}
            rows.append(row | {"gain": tuned["mean"] - half["mean"]})
    return pd.DataFrame(rows, columns=columns)


def calibration(points: pd.DataFrame) -> pd.DataFrame:
    """The fraction of voxels that are lesion by predicted probability, for a reliability diagram.

    After DeGroot and Fienberg 1983, doi:10.2307/2987588.

    Returns
    -------
    DataFrame
        One row per split, loss and range of probability between two thresholds: `predicted`, its centre; `fraction` of
        its voxels that are lesion, over all subjects and seeds; `voxels`, their number. Ranges without voxels are left
        out.

    In the example, 10 - 4 voxels are between 0.3 and 0.7, and 4 - 3 of them are lesion.

    >>> marked = {"threshold": [0.3, 0.7], "marked_voxels": [10, 4], "overlap_voxels": [4, 3]}
    >>> table = calibration(pd.DataFrame({"split": "external", "loss": "dice"} | marked))
    >>> table[["predicted", "fraction", "voxels"]].round(3).values.tolist()
    [[0.5, 0.167, 6.0], [0.85, 0.75, 4.0]]
    """
    sums = points.groupby(["split", "loss", "threshold"], sort=False)[["marked_voxels", "overlap_voxels"]].sum()
    tables = []
    for (split, loss), bins in sums.reset_index().groupby(["split", "loss"], sort=False):
        bins = bins.sort_values("threshold")
        upper = np.append(bins.threshold.to_numpy()[1:], 1.0)
        voxels, lesion = (
            bins[name].to_numpy() - np.append(bins[name].to_numpy()[1:], 0)
            for name in ("marked_voxels", "overlap_voxels")
        )
        table = pd.DataFrame({"split": split, "loss": loss, "predicted": (bins.threshold.to_numpy() + upper) / 2})
        table = table.assign(fraction=lesion / np.where(voxels > 0, voxels, 1), voxels=voxels)
        tables.append(table[voxels > 0])
    return (
        pd.concat(tables, ignore_index=True)
        if tables
        else pd.DataFrame(columns=["split", "loss", "predicted", "fraction", "voxels"])
    )
