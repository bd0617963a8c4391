"""A reference and a result mask, as files or images, checked and brought to one pair of arrays on one grid."""

import warnings
from typing import Literal

import numpy as np
from nibabel.spatialimages import SpatialImage

from wmhlib.intake.grids import Volume, canonical, laid_over, name_of
from wmhlib.intake.nifti import Mended

LABEL_TOLERANCE, SCALE_TOLERANCE = 0.01, 1e-3
"""A label may differ this much from 0, 1 or 2: a scale to bytes makes 254/255 of a 1. Below the second, which is what a
scale factor stored as float32 costs, no warning is given."""


def read_pair_of_masks(
    reference: Volume, result: Volume, foreground: float | None = None
) -> tuple[np.ndarray, np.ndarray, tuple, np.ndarray]:
    """Two masks in the reference's canonical orientation, without other pathology, cut to the box that holds them.

    The result's foreground begins at `foreground`, by default where it does for the challenge's scorer. The box keeps a voxel of
    margin where the volume has one, so that only the volume's edges are edges.

    Returns
    -------
    tuple
        The reference's foreground; the result's values, 0 below `foreground`; the box; the affine of the whole volume.
    """
    names = f"reference {name_of(reference)} and result {name_of(result)}"
    masks = []
    for which, mask in (("reference", reference), ("result", result)):
        try:
            masks.append(read_mask(mask))
        except (OSError, ValueError) as error:
            raise type(error)(f"The {which} of {names}: {error}") from None
    grid, over = masks[0], laid_over(masks[1], masks[0], names)
    labels, values = np.asanyarray(grid.dataobj), np.asanyarray(over.dataobj)
    if foreground is None:
        foreground = 1 if values.dtype.kind in "iub" else 0.5
    detected = values >= foreground
    box = box_around((labels != 0) | detected)
    order: Literal["C", "F"] = "F" if abs(labels.strides[0]) < abs(labels.strides[2]) else "C"  # turning axes is slow
    labels = np.array(labels[box], np.float32, order=order)
    check_labels(labels, names)
    detected = np.array(detected[box], order=order) & (labels < 1.5)
    return (labels > 0.5) & (labels < 1.5), np.where(detected, values[box], 0), box, grid.affine


def check_labels(labels: np.ndarray, names: str) -> None:
    """Make sure that a reference has only 0 (background), 1 (WMH) and 2 (other pathology), but for rounding.

    Raises ValueError: a label lies further than `LABEL_TOLERANCE` from 1 and 2, and than `SCALE_TOLERANCE` from 0; or is
    NaN.
    """
    present = labels[labels != 0].astype(np.float32)
    whole = np.clip(np.rint(present), 0, 2)
    off = np.abs(present - whole)
    unknown = present[~(off <= np.where(whole == 0, SCALE_TOLERANCE, LABEL_TOLERANCE))]  # 1/255 is no background
    if len(unknown):
        raise ValueError(
            f"The reference has labels {np.unique(unknown)[:5].tolist()} other than 0, 1 and 2 for {names}: "
            "relabel it with 0 background, 1 WMH and 2 other pathology."
        )
    rounded = present[off > SCALE_TOLERANCE]
    if len(rounded):
        text = f"{names}: labels such as {rounded[0]:.4g} were rounded to whole numbers."
        warnings.warn(text, Mended, stacklevel=2)


def read_mask(mask: Volume) -> SpatialImage:
    """A mask in canonical orientation: its values as stored or, where the file has a scale, as floating point.

    Raises FileNotFoundError, PermissionError, ValueError: as `canonical`; also where it holds NaN.
    """
    image = canonical(mask)
    values = np.asanyarray(image.dataobj)
    if values.dtype.kind == "f" and np.isnan(values.min(initial=0)):  # the smallest is NaN where any value is
        raise ValueError(f"{name_of(mask)} holds NaN: set those voxels to 0.")
    return image


def in_memory(mask: Volume) -> SpatialImage:
    """A mask as `read_mask` gives it, read once for several measures; messages still name its file."""
    image = read_mask(mask)
    image.file_map["image"].filename = name_of(mask)
    return image


def box_around(mask: np.ndarray) -> tuple[slice, ...]:
    """The bounds of a mask with one voxel of margin where the volume has one; nothing for an empty mask."""
    box = [slice(None)] * 3
    for axis in np.argsort(np.abs(mask.strides))[::-1]:  # slowest first: little is left for the costlier ones
        inside = np.flatnonzero(mask[tuple(box)].any(axis=tuple({0, 1, 2} - {int(axis)})))
        if not len(inside):
            return (slice(0, 0),) * 3
        box[axis] = slice(max(int(inside[0]) - 1, 0), int(inside[-1]) + 2)
    return tuple(box)
