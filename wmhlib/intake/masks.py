"""A reference and a result mask, as files or images, checked and brought to one pair of boolean arrays on one grid."""

from pathlib import Path

import nibabel
import numpy as np

from wmhlib.intake.nifti import DAMAGE, read_scan

Mask = str | Path | nibabel.spatialimages.SpatialImage

GRID_TOLERANCE_MM = 1e-3
"""Affines may differ by this much in any entry: what storing them as float32 costs."""

LABEL_TOLERANCE = 1e-3
"""A label may differ this much from 0, 1 or 2: what a scale factor stored as float32 costs."""


def read_pair_of_masks(
    reference: Mask, result: Mask, foreground: float | None = None
) -> tuple[np.ndarray, np.ndarray, tuple, np.ndarray]:
    """Both foregrounds without other pathology, cut to the box that holds them; the box; the affine.

    The result's foreground begins at `foreground`, by default where it does for the challenge's scorer. The box keeps a voxel of
    margin where the volume has one, so that only the volume's edges are edges.
    """
    names = f"reference {name_of(reference)} and result {name_of(result)}"
    labels, affine = read_mask(reference, "reference", names)
    values, result_affine = read_mask(result, "result", names)
    if labels.shape != values.shape:
        raise ValueError(
            f"Shapes {labels.shape} and {values.shape} differ for {names}, which must lie on one grid: "
            "resample the result to the reference."
        )
    apart = np.abs(affine - result_affine).max()
    if not apart <= GRID_TOLERANCE_MM:
        raise ValueError(
            f"Affines differ by {apart:.4g} mm, more than {GRID_TOLERANCE_MM} mm, for {names}, which must "
            "lie on one grid: resample the result to the reference."
        )
    if foreground is None:
        foreground = 1 if values.dtype.kind in "iub" else 0.5
    found = values >= foreground
    box = box_around((labels != 0) | found)
    order = "F" if labels.flags.f_contiguous else "C"  # as stored: turning axes is slow
    labels, found = np.array(labels[box], np.float32, order=order), np.array(found[box], order=order)
    present = labels.ravel(order)
    present = present[present != 0]
    unknown = present[np.abs(present - np.clip(np.rint(present), 0, 2)) > LABEL_TOLERANCE]
    if len(unknown):
        raise ValueError(
            f"The reference has labels {np.unique(unknown)[:5].tolist()} beside 0, 1 and 2 for {names}: "
            "relabel it with 0 background, 1 WMH and 2 other pathology."
        )
    return (labels > 0.5) & (labels < 1.5), found & (labels < 1.5), box, affine


def read_mask(mask: Mask, which: str, names: str) -> tuple[np.ndarray, np.ndarray]:
    """A mask's 3D values, as stored or, where the file has a scale, as floating point; and its affine."""
    if isinstance(mask, str | Path) and not Path(mask).is_file():
        raise FileNotFoundError(f"No {which} mask at {mask} (of {names}): check the path.")
    try:
        image = read_scan(mask) if isinstance(mask, str | Path) else mask
        values = np.asanyarray(image.dataobj)
    except DAMAGE as error:
        raise ValueError(f"The {which} cannot be read ({error}) among {names}: make it again.") from error
    if values.ndim != 3:
        raise ValueError(f"The {which} has {values.ndim} dimensions, not 3, among {names}: give a 3D volume.")
    if values.dtype.kind == "f" and np.isnan(values.min(initial=0)):  # the smallest is NaN where any value is
        raise ValueError(f"The {which} holds NaN, not numbers alone, among {names}: set those voxels to 0.")
    return values, image.affine


def name_of(mask: Mask) -> str:
    return str(mask) if isinstance(mask, str | Path) else (mask.get_filename() or "(image in memory)")


def in_memory(mask: Mask) -> nibabel.spatialimages.SpatialImage:
    """A mask read once, for several measures; messages still name its file. Errors as in `read_mask`."""
    name = name_of(mask)
    image = nibabel.spatialimages.SpatialImage(*read_mask(mask, "mask", name))
    image.file_map["image"].filename = name
    return image


def box_around(mask: np.ndarray) -> tuple[slice, ...]:
    """The bounds of a mask with one voxel of margin where the volume has one; nothing for an empty mask."""
    box = [slice(None)] * 3
    for axis in np.argsort(mask.strides)[::-1]:  # slowest first: little is left for the costlier ones
        inside = np.flatnonzero(mask[tuple(box)].any(axis=tuple({0, 1, 2} - {int(axis)})))
        if not len(inside):
            return (slice(0, 0),) * 3
        box[axis] = slice(max(int(inside[0]) - 1, 0), int(inside[-1]) + 2)
    return tuple(box)
