"""The lesions of a mask, one row each: size, place, how sure the network is of it."""

import cc3d
import nibabel
import numpy as np
import pandas as pd
from scipy import ndimage

from wmhlib.metrics import voxel_mm3

COLUMNS = ["lesion", "volume_ml", "x_mm", "y_mm", "z_mm", "mean_probability", "highest_probability"]
"""Of a lesion, after the scan and the network that it was found by."""


def lesions_of(
    likely: nibabel.Nifti1Image, threshold: float, smallest_mm3: float = 0.0
) -> tuple[np.ndarray, pd.DataFrame]:
    """The mask of a scan's probabilities and its lesions, the largest first.

    A lesion is a 26-connected component of voxels at the threshold or above.

    Parameters
    ----------
    likely
        Probabilities, 0 to 1, on any grid.
    smallest_mm3
        Smaller lesions are left out of both.

    Returns
    -------
    mask, table
        Boolean of the image's shape; a table of `COLUMNS`: volume in ml, centroid in world mm (of the image's affine).
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
