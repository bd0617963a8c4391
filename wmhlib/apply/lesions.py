"""The lesions of a mask, one row per lesion: size, position, probability, distance from the ventricles.

A lesion is periventricular if at least half of it is within 10 mm of the ventricles, otherwise deep: the distance rule of
DeCarli et al. 2005, doi:10.1161/01.STR.0000150668.58689.f2, applied to lesions.
"""

import cc3d
import nibabel
import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import KDTree

from wmhlib.metrics import voxel_mm3

COLUMNS = ["lesion", "volume_ml", "x_mm", "y_mm", "z_mm", "mean_probability", "highest_probability"]
COLUMNS += ["ventricle_mm", "region"]
"""Columns of the lesion table. `wmhlib.apply.segment` adds the scan and the network."""

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
    values = np.asarray(likely.dataobj)
    labels, count = cc3d.connected_components(values >= threshold, connectivity=26, return_N=True)
    numbers = np.arange(1, count + 1)
    voxels, one_mm3 = np.bincount(labels.ravel(order="K"), minlength=count + 1)[1:], voxel_mm3(likely.affine)
    kept = numbers[np.argsort(-voxels, kind="stable")]
    kept = kept[voxels[kept - 1] * one_mm3 >= smallest_mm3]
    middle = np.array(ndimage.center_of_mass(labels > 0, labels, kept)).reshape(-1, 3)
    place = nibabel.affines.apply_affine(likely.affine, middle)
    columns = [np.arange(1, len(kept) + 1), voxels[kept - 1] * (one_mm3 / 1000), *place.T]
    columns += [ndimage.mean(values, labels, kept), ndimage.maximum(values, labels, kept)]
    mask = np.isin(labels, kept)
    columns += near_ventricles(labels, kept, mask, likely.affine, ventricles)
    return mask, pd.DataFrame(dict(zip(COLUMNS, map(np.asarray, columns), strict=True)))


def near_ventricles(
    labels: np.ndarray, kept: np.ndarray, mask: np.ndarray, affine: np.ndarray, ventricles: np.ndarray | None
) -> list[np.ndarray]:
    """For the lesions `kept` of an image of labels, the smallest distance from the ventricles in mm and the region."""
    if ventricles is None or not ventricles.any() or not len(kept):
        return [np.full(len(kept), np.nan), np.full(len(kept), "")]
    places = [nibabel.affines.apply_affine(affine, np.argwhere(part)) for part in (ventricles, mask)]
    away_mm = np.zeros(labels.shape)
    away_mm[mask] = KDTree(places[0]).query(places[1])[0]
    near = ndimage.mean(away_mm <= NEAR_MM + 1e-6, labels, kept) >= 0.5  # whatever the rounding
    return [ndimage.minimum(away_mm, labels, kept), np.where(near, "periventricular", "deep")]


def volumes_by_region(table: pd.DataFrame) -> dict[str, float]:
    """The volume of a table's lesions in each region in ml; NaN if the regions of its lesions are unknown."""
    unknown = (table.region == "").any()
    return {
        f"{region}_ml": np.nan if unknown else table.volume_ml[table.region == region].sum()
        for region in ("periventricular", "deep")
    }
