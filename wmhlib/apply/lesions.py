"""The lesions of a mask, one row per lesion: size, position, probability."""

import cc3d
import nibabel
import numpy as np
import pandas as pd
from scipy import ndimage

from wmhlib.metrics import voxel_mm3

COLUMNS = ["lesion", "volume_ml", "x_mm", "y_mm", "z_mm", "mean_probability", "highest_probability"]
"""Columns of the lesion table. `wmhlib.apply.segment` adds the scan and the network."""


def lesions_of(
    likely: nibabel.Nifti1Image, threshold: float, smallest_mm3: float = 0.0
) -> tuple[np.ndarray, pd.DataFrame]:
    """The mask at a threshold, and its lesions with the largest first.

    A lesion is a 26-connected component of voxels with a probability of at least `threshold`.

    Parameters
    ----------
    likely
        Probabilities (0 to 1) on any grid.
    smallest_mm3
        Smaller lesions are left out of the mask and the table.

    Returns
    -------
    mask, table
        Boolean array of the image's shape; a table with `COLUMNS`: volumes in ml, centroids in world mm (of the image's
        affine). An empty mask gives a table without rows.
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
    table = pd.DataFrame(dict(zip(COLUMNS, map(np.asarray, columns), strict=True)))
    return np.isin(labels, kept), table
