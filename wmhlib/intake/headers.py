"""NIfTI headers: what a grid of a head can be, and faults that leave no doubt of what was meant.

Each `_mend_…` changes a header as it is stored and gives a sentence on what was wrong and what was taken, or None where
nothing is.
"""

import nibabel
import numpy as np
from nibabel.orientations import io_orientation

SIDES_MM, MOST_STRETCHED = (0.01, 100), 100
"""The shortest and longest side of a voxel, and how many times the shortest the longest may be."""

UNITS_MM = {1: ("metres", 1e3), 3: ("micrometres", 1e-3)}
"""The codes of `xyzt_units` for other units of length than mm: their name, and how many mm they have."""

QUATERNION_TOLERANCE = 1e-3
"""By how much the square of a quaternion's length may exceed 1: what storing it with four digits costs."""


def check_grid(sides: np.ndarray, affine: np.ndarray) -> None:
    """Refuse a grid that no scan of a head has, by its voxel's sides in mm as stored and its affine to world mm.

    Raises ValueError: a side is not within `SIDES_MM`, one is more than `MOST_STRETCHED` times another, or the axes span no
    volume.
    """
    for found in (sides, nibabel.affines.voxel_sizes(affine)):
        if not _plausible(found) or max(found) > MOST_STRETCHED * min(found):
            raise ValueError(
                f"its header gives voxels of {_shown(found)} mm; every side must be a number from {SIDES_MM[0]} to "
                f"{SIDES_MM[1]}, and the longest at most {MOST_STRETCHED} times the shortest"
            )
    if not np.isfinite(affine).all() or np.isnan(io_orientation(affine)).any():
        raise ValueError("its header turns two axes into one or puts the scan nowhere")


def _plausible(sides: np.ndarray) -> bool:
    return all(SIDES_MM[0] <= side <= SIDES_MM[1] for side in sides)


def _shown(sides: np.ndarray) -> str:
    return " x ".join(f"{side:g}" for side in sides)


def mend(header: nibabel.Nifti1Header) -> list[str]:
    """Mend a header as it is stored, in place; what was wrong and what was taken, a sentence's end for each.

    Raises ValueError: it does not say how the head lies: its sform spans nothing and there is no qform, or its
    quaternion is not one.
    """
    return [
        text for step in (_mend_axes, _mend_sides, _mend_units, _mend_sform, _mend_quaternion) if (text := step(header))
    ]


def _mend_axes(header: nibabel.Nifti1Header) -> str | None:
    """(x, y, z, 1, …) is three-dimensional."""
    count = int(header["dim"][0])
    if count <= 3 or (header["dim"][4 : count + 1] != 1).any():
        return None
    header["dim"][0] = 3
    return f"it has {count} dimensions, those after the third of length 1; these were left out"


def _mend_units(header: nibabel.Nifti1Header) -> str | None:
    """Metres and micrometres become mm; where these alone would make voxels of a head, in name only."""
    name, factor = UNITS_MM.get(int(header["xyzt_units"]) & 7, ("mm", 1))
    if factor == 1:
        return None
    sides = header["pixdim"][1:4].astype(float)
    header["xyzt_units"] = int(header["xyzt_units"]) & ~7 | 2
    if not _plausible(sides * factor) and _plausible(sides):
        return f"its header gives voxels of {_shown(sides)} {name}, which no head has; they were taken as mm"
    for field in ("srow_x", "srow_y", "srow_z", "qoffset_x", "qoffset_y", "qoffset_z"):
        header[field] = header[field] * factor
    header["pixdim"][1:4] = sides * factor
    return f"its header gives voxels of {_shown(sides)} {name}; they were converted to mm"


def _mend_sides(header: nibabel.Nifti1Header) -> str | None:
    """Negative sides of a voxel lose their sign; where an sform has the sides, so do those of zero."""
    sides, steps = header["pixdim"][1:4].astype(float), nibabel.affines.voxel_sizes(header.get_sform())
    taken = steps if header["sform_code"] and _plausible(steps) else np.abs(sides)
    if (sides > 0).all() or not _plausible(taken):
        return None
    header["pixdim"][1:4] = taken
    return f"its header gives voxels of {_shown(sides)} mm; {_shown(taken)} were taken"


def _mend_sform(header: nibabel.Nifti1Header) -> str | None:
    """The qform replaces an sform whose axes have no length."""
    if not header["sform_code"] or (nibabel.affines.voxel_sizes(header.get_sform()) > 0).all():
        return None
    if not header["qform_code"]:
        raise ValueError("its sform has axes without a length, and no qform says instead how the head lies")
    header["sform_code"] = 0
    return "its sform has axes without a length; its qform was taken"


def _mend_quaternion(header: nibabel.Nifti1Header) -> str | None:
    """A quaternion that rounding made longer than 1 is shortened. Where an sform says how the head lies, it does not matter."""
    fields = ("quatern_b", "quatern_c", "quatern_d")
    square = sum(float(header[field]) ** 2 for field in fields)
    if not header["qform_code"] or header["sform_code"] or not square - 1 > abs(header.quaternion_threshold):
        return None
    length = f"the quaternion of its qform has the length {np.sqrt(square):.8g} instead of 1"
    if square - 1 > QUATERNION_TOLERANCE:
        raise ValueError(length)
    for field in fields:
        header[field] = float(header[field]) / np.sqrt(square)
    return f"{length}; it was shortened"
