"""Check a reference and a result mask (files or images) and bring them to arrays on one grid."""

import warnings
from typing import Literal

import numpy as np
from nibabel.spatialimages import SpatialImage

from wmhlib.intake.grids import Volume, canonical, laid_over, name_of
from wmhlib.intake.nifti import Mended

LABEL_TOLERANCE, SCALE_TOLERANCE = 0.01, 1e-3
"""The largest difference of a label from 1 or 2 (scaling to bytes can turn 1 into 254/255), and the largest that is
accepted without a warning (rounding of a scale factor stored as float32)."""


def read_pair_of_masks(
    reference: Volume, result: Volume, foreground: float | None = None
) -> tuple[np.ndarray, np.ndarray, tuple, np.ndarray]:
    """Two masks in the reference's canonical orientation, without other pathology, cropped to their bounding box.

    Values of the result of at least `foreground` are foreground; the default is that of the challenge's scorer (1 for
    integer, 0.5 for floating-point masks). The box has a margin of one voxel wherever the volume does, so that only the
    volume's own faces cut a mask.

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
    grid, on_grid = masks[0], laid_over(masks[1], masks[0], names)
    labels, values = np.asanyarray(grid.dataobj), np.asanyarray(on_grid.dataobj)
    if foreground is None:
        foreground = 1 if values.dtype.kind in "iub" else 0.5
    detected = values >= foreground
    box = box_around((labels != 0) | detected)
    order: Literal["C", "F"] = (
        "F" if abs(labels.strides[0]) < abs(labels.strides[2]) else "C"
    )  # reordering axes is slow
    labels = np.array(labels[box], np.float32, order=order)
    check_labels(labels, names)
    detected = np.array(detected[box], order=order) & (labels < 1.5)
    return (labels > 0.5) & (labels < 1.5), np.where(detected, values[box], 0), box, grid.affine


def check_labels(labels: np.ndarray, names: str) -> None:
    """Check that a reference has only the labels 0 (background), 1 (WMH) and 2 (other pathology), except for rounding.

    Raises
    ------
    ValueError
        A label differs by more than `LABEL_TOLERANCE` from 1 and 2 and by more than `SCALE_TOLERANCE` from 0, or is
        NaN.
    """
    present = labels[labels != 0].astype(np.float32)
    whole = np.clip(np.rint(present), 0, 2)
    off = np.abs(present - whole)
    unknown = present[~(off <= np.where(whole == 0, SCALE_TOLERANCE, LABEL_TOLERANCE))]  # 1/255 is not background
    if len(unknown):
        raise ValueError(
            f"The reference has labels {np.unique(unknown)[:5].tolist()} other than 0, 1 and 2 for {names}: "
            "relabel it as 0 (background), 1 (WMH) and 2 (other pathology)."
        )
    rounded = present[off > SCALE_TOLERANCE]
    if len(rounded):
        text = f"{names}: labels such as {rounded[0]:.4g} were rounded to whole numbers."
        warnings.warn(text, Mended, stacklevel=2)


def read_mask(mask: Volume) -> SpatialImage:
    """A mask in canonical orientation: values as stored, or floating point if the file has a scale factor.

    Raises FileNotFoundError, PermissionError and ValueError as `canonical`, and ValueError if the mask has NaN.
    """
    image = canonical(mask)
    values = np.asanyarray(image.dataobj)
    if values.dtype.kind == "f" and np.isnan(values.min(initial=0)):  # the minimum is NaN if any value is
        raise ValueError(f"{name_of(mask)} has NaN values: set these voxels to 0.")
    return image


def in_memory(mask: Volume) -> SpatialImage:
    """A mask from `read_mask`, kept in memory for several metrics; messages still name its file."""
    image = read_mask(mask)
    image.file_map["image"].filename = name_of(mask)
    return image


def box_around(mask: np.ndarray) -> tuple[slice, ...]:
    """The bounding box of a mask with a margin of one voxel inside the volume; an empty box for an empty mask."""
    box = [slice(None)] * 3
    for axis in np.argsort(np.abs(mask.strides))[::-1]:  # slowest axis first, to crop before the more costly ones
        inside = np.flatnonzero(mask[tuple(box)].any(axis=tuple({0, 1, 2} - {int(axis)})))
        if not len(inside):
            return (slice(0, 0),) * 3
        box[axis] = slice(max(int(inside[0]) - 1, 0), int(inside[-1]) + 2)
    return tuple(box)
