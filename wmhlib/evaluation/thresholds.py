"""Each loss at a threshold of its own, chosen on the validation subjects, beside one half; and how true its probabilities are.

At one half the losses stand at different places of the same curve (D-038): soft and hard labels, and what a loss charges for a
false positive, move all probabilities. Input: `operating_points.csv` and `validation_points.csv`. No subject that chooses a
threshold is judged by it.
"""

import numpy as np
import pandas as pd

from wmhlib.evaluation.names import present
from wmhlib.evaluation.statistics import bounds, spread, wide


def dice(points: pd.DataFrame) -> pd.Series:
    """Dice of every row of operating points: 2 overlap / (reference + marked); NaN where both masks are empty."""
    sizes = points.reference_voxels + points.marked_voxels
    return 2 * points.overlap_voxels / sizes.where(sizes > 0)


def chosen(validation: pd.DataFrame) -> pd.Series:
    """Of every (loss, seed) the threshold with the highest mean Dice over the validation subjects; of equals, the one nearest to
    one half. Empty where nothing validates."""
    if validation.empty:
        return pd.Series(dtype=float)
    mean = validation.assign(dice=dice(validation)).groupby(["loss", "seed", "threshold"]).dice.mean().reset_index()
    mean["off"] = (mean.threshold - 0.5).abs()
    best = mean.sort_values(["dice", "off"], ascending=[False, True]).drop_duplicates(["loss", "seed"])
    return best.set_index(["loss", "seed"]).threshold


def own_thresholds(points: pd.DataFrame, validation: pd.DataFrame) -> pd.DataFrame:
    """What a loss's own threshold changes on the unseen subjects.

    Returns
    -------
    DataFrame
        A row per split and loss: `threshold` (mean over seeds), `dice_half` and `dice_own`, means over subjects, seeds
        averaged first; `low` and `high`, the 95 % interval of `dice_own` over subjects and seeds; `gain`, own less half. No
        rows where nothing validates.
    """
    own, rows = chosen(validation), []
    columns = ["split", "loss", "threshold", "dice_half", "dice_own", "low", "high", "gain"]
    if own.empty:
        return pd.DataFrame(columns=columns)
    scored = points.assign(dice=dice(points)).join(own.rename("own"), on=["loss", "seed"])
    for split, here in scored.groupby("split", sort=False):
        for loss in present(here):
            some = here[here.loss == loss]
            half = spread(wide(some[np.isclose(some.threshold, 0.5)], "dice"))
            tuned = spread(wide(some[np.isclose(some.threshold, some.own)], "dice"))
            row = {"split": split, "loss": loss, "threshold": own[loss].mean()}
            row |= {"dice_half": half["mean"], "dice_own": tuned["mean"], **bounds(tuned)}
            rows.append(row | {"gain": tuned["mean"] - half["mean"]})
    return pd.DataFrame(rows, columns=columns)


def calibration(points: pd.DataFrame) -> pd.DataFrame:
    """How many of the voxels that were given a probability are lesion.

    Returns
    -------
    DataFrame
        A row per split, loss and range of probability between two thresholds: `predicted`, its middle; `fraction` of its
        voxels, over all subjects and seeds, that are lesion; `voxels`, how many it has. Ranges without a voxel are left out.
    """
    sums = points.groupby(["split", "loss", "threshold"], sort=False)[["marked_voxels", "overlap_voxels"]].sum()
    tables = []
    for (split, loss), here in sums.reset_index().groupby(["split", "loss"], sort=False):
        here = here.sort_values("threshold")
        upper = np.append(here.threshold.to_numpy()[1:], 1.0)
        voxels, lesion = (
            here[name].to_numpy() - np.append(here[name].to_numpy()[1:], 0)
            for name in ("marked_voxels", "overlap_voxels")
        )
        table = pd.DataFrame({"split": split, "loss": loss, "predicted": (here.threshold.to_numpy() + upper) / 2})
        table = table.assign(fraction=lesion / np.where(voxels > 0, voxels, 1), voxels=voxels)
        tables.append(table[voxels > 0])
    return (
        pd.concat(tables, ignore_index=True)
        if tables
        else pd.DataFrame(columns=["split", "loss", "predicted", "fraction", "voxels"])
    )
