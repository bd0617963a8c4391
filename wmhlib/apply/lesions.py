"""The lesions of a mask, one row per lesion: size, position, probability, distance from the ventricles.

A lesion is periventricular if at least half of it is within 10 mm of the ventricles, otherwise deep: the distance rule of
DeCarli et al. 2005, doi:10.1161/01.STR.0000150668.58689.f2, applied to lesions.
"""

import cc3d
import nibabel
import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from wmhlib.metrics import voxel_mm3

COLUMNS = ["lesion", "volume_ml", "x_mm", "y_mm", "z_mm", "mean_probability", "highest_probability"]
COLUMNS += ["ventricle_mm", "region"]
"""Columns of the lesion table. `wmhlib.apply.segment` adds the scan and the network."""

REGIONS = "periventricular", "deep"
"""The regions of a lesion: near the ventricles, or not."""

NEAR_MM = 10.0
"""Voxels within this distance of the ventricles are periventricular."""


def lesions_of(
    likely: nibabel.Nifti1Image, threshold: float, smallest_mm3: float = 0.0, ventricles: np.ndarray | None = None
) -> tuple[np.ndarray, pd.DataFrame]:
    """The mask at a threshold, and its lesions with the largest first.

    A lesion is a 26-connected component of voxels with a probability of at least `threshold`.

    Parameters
    ----------
    likely
        Probabilities (0 to 1) on any grid.
    smallest_mm3
        Smaller lesions are left out of the mask and the table.
    ventricles
        Boolean mask of the ventricles on the same grid.

    Returns
    -------
    mask, table
        Boolean array of the image's shape; a table with `COLUMNS`: volumes in ml, centroids in world mm (of the image's
        affine), smallest distance from the ventricles in mm between centres of voxels. Without ventricles, the distance
        is NaN and the region is empty. An empty mask gives a table without rows.
    """
    values, one_mm3 = np.asarray(likely.dataobj), voxel_mm3(likely.affine)
    labels = cc3d.connected_components(values >= threshold, connectivity=26)
    inside = np.nonzero(labels)
    places = nibabel.affines.apply_affine(likely.affine, np.transpose(inside))
    voxels = pd.DataFrame(places, columns=["x_mm", "y_mm", "z_mm"]).assign(label=labels[inside], likely=values[inside])
    voxels["away"] = distances(places, ventricles, likely.affine)
    voxels["near"] = voxels.away <= NEAR_MM + 1e-6  # whatever the rounding
    lesions = voxels.groupby("label")
    table = (
        lesions[["x_mm", "y_mm", "z_mm"]]
        .mean()
        .assign(
            volume_ml=lesions.size() * (one_mm3 / 1000),
            mean_probability=lesions.likely.mean(),
            highest_probability=lesions.likely.max(),
            ventricle_mm=lesions.away.min(),
            region=np.where(lesions.near.mean() >= 0.5, *REGIONS),
        )
    )
    table.loc[table.ventricle_mm.isna(), "region"] = ""
    table = table[lesions.size() * one_mm3 >= smallest_mm3]
    table = table.sort_values("volume_ml", ascending=False, kind="stable")
    mask = np.zeros(values.shape, bool)
    mask[inside] = voxels.label.isin(table.index)
    return mask, table.assign(lesion=np.arange(1, len(table) + 1))[COLUMNS].reset_index(drop=True)


def distances(places: np.ndarray, ventricles: np.ndarray | None, affine: np.ndarray) -> np.ndarray:
    """The distance of places (n, 3) in world mm from the nearest centre of a ventricle's voxel; NaN without ventricles."""
    if ventricles is None or not ventricles.any():
        return np.full(len(places), np.nan)
    return KDTree(nibabel.affines.apply_affine(affine, np.argwhere(ventricles))).query(places)[0]


def volumes_by_region(table: pd.DataFrame) -> dict[str, float]:
    """The volume of a table's lesions in each region in ml; NaN if the regions of its lesions are unknown."""
    unknown = (table.region == "").any()
    return {f"{region}_ml": np.nan if unknown else table.volume_ml[table.region == region].sum() for region in REGIONS}
