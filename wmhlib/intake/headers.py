"""NIfTI headers: plausible grids of a head, and the correction of faults whose meaning is unambiguous.

Each `_mend_…` corrects a stored header in place and returns a phrase with the fault and the value used instead, or None
if there is no fault; `_told_…` only say which of two contradictory values was used.
"""

import nibabel
import numpy as np
from nibabel.orientations import io_orientation

SIDES_MM, MOST_STRETCHED = (0.01, 100), 100
"""The smallest and largest side of a voxel in mm, and the largest ratio of its longest to its shortest side."""

UNITS_MM = {1: ("metres", 1e3), 3: ("micrometres", 1e-3)}
"""Codes of `xyzt_units` for units of length other than mm: name, and length in mm."""

SIDES_TOLERANCE = 0.01
"""The largest accepted difference of voxel sides between sform and `pixdim`, as a fraction."""

QUATERNION_TOLERANCE = 1e-3
"""The most by which a quaternion's squared length may exceed 1: the error of storing it with four digits."""


def check_grid(sides: np.ndarray, affine: np.ndarray) -> None:
    """Refuse a grid that no scan of a head has, from its stored voxel sides in mm and its affine to world mm.

    Raises
    ------
    ValueError
        A side is not within `SIDES_MM`, one is more than `MOST_STRETCHED` times another, or the axes do not span a
        volume.
    """
    for voxel in (sides, nibabel.affines.voxel_sizes(affine)):
        if not _plausible(voxel) or max(voxel) > MOST_STRETCHED * min(voxel):
            raise ValueError(
                f"its header gives voxels of {_shown(voxel)} mm; every side must be a number from {SIDES_MM[0]} to "
                f"{SIDES_MM[1]}, and the longest at most {MOST_STRETCHED} times the shortest"
            )
    if not np.isfinite(affine).all() or np.isnan(io_orientation(affine)).any():
        raise ValueError("its header maps two axes to the same direction or has values that are not finite")


def _plausible(sides: np.ndarray) -> bool:
    return all(SIDES_MM[0] <= side <= SIDES_MM[1] for side in sides)


def _shown(sides: np.ndarray) -> str:
    return " x ".join(f"{side:g}" for side in sides)


def mend(header: nibabel.Nifti1Header) -> list[str]:
    """Correct a stored header in place. Returns one phrase per fault, with the value used instead.

    Raises
    ------
    ValueError
        The header does not define the orientation: its sform is degenerate and there is no qform, or its quaternion is
        invalid.
    """
    return [
        text
        for step in (_mend_axes, _mend_sides, _mend_units, _mend_sform, _mend_quaternion, _told_sides, _told_directions)
        if (text := step(header))
    ]


def _mend_axes(header: nibabel.Nifti1Header) -> str | None:
    """Drop trailing dimensions of length 1 after the third."""
    count = int(header["dim"][0])
    if count <= 3 or (header["dim"][4 : count + 1] != 1).any():
        return None
    header["dim"][0] = 3
    return f"it has {count} dimensions; those after the third have length 1 and were dropped"


def _mend_units(header: nibabel.Nifti1Header) -> str | None:
    """Convert metres and micrometres to mm. If only the numbers in mm are plausible for a head, change only the
    unit."""
    name, factor = UNITS_MM.get(int(header["xyzt_units"]) & 7, ("mm", 1))
    if factor == 1:
        return None
    sides = header["pixdim"][1:4].astype(float)
    header["xyzt_units"] = int(header["xyzt_units"]) & ~7 | 2
    if not _plausible(sides * factor) and _plausible(sides):
        return f"its header gives voxels of {_shown(sides)} {name}, which is implausible for a head; the numbers were taken as mm"
    for field in ("srow_x", "srow_y", "srow_z", "qoffset_x", "qoffset_y", "qoffset_z"):
        header[field] = header[field] * factor
    header["pixdim"][1:4] = sides * factor
    return f"its header gives voxels of {_shown(sides)} {name}; they were converted to mm"


def _mend_sides(header: nibabel.Nifti1Header) -> str | None:
    """Replace voxel sides that are not positive by those of the sform or, without an sform, by their absolute
    values."""
    sides, steps = header["pixdim"][1:4].astype(float), nibabel.affines.voxel_sizes(header.get_sform())
    taken = steps if header["sform_code"] and _plausible(steps) else np.abs(sides)
    if (sides > 0).all() or not _plausible(taken):
        return None
    header["pixdim"][1:4] = taken
    return f"its header gives voxels of {_shown(sides)} mm; {_shown(taken)} was used instead"


def _mend_sform(header: nibabel.Nifti1Header) -> str | None:
    """Use the qform if the sform has an axis of length 0."""
    if not header["sform_code"] or (nibabel.affines.voxel_sizes(header.get_sform()) > 0).all():
        return None
    if not header["qform_code"]:
        raise ValueError("its sform has axes of length 0, and there is no qform to define the orientation")
    header["sform_code"] = 0
    return "its sform has axes of length 0; its qform was used instead"


def _mend_quaternion(header: nibabel.Nifti1Header) -> str | None:
    """Normalise a quaternion that rounding made longer than 1. With an sform, the quaternion is not used."""
    fields = ("quatern_b", "quatern_c", "quatern_d")
    square = sum(float(header[field]) ** 2 for field in fields)
    if not header["qform_code"] or header["sform_code"] or not square - 1 > abs(header.quaternion_threshold):
        return None
    length = f"the quaternion of its qform has the length {np.sqrt(square):.8g} instead of 1"
    if square - 1 > QUATERNION_TOLERANCE:
        raise ValueError(length)
    for field in fields:
        header[field] = float(header[field]) / np.sqrt(square)
    return f"{length}; it was normalised"


def _told_sides(header: nibabel.Nifti1Header) -> str | None:
    """Say which voxel sides were used if those of the sform differ from `pixdim`; nothing is changed."""
    sides, steps = header["pixdim"][1:4].astype(float), nibabel.affines.voxel_sizes(header.get_sform())
    if not header["sform_code"] or (np.abs(sides / steps - 1) <= SIDES_TOLERANCE).all():
        return None
    return (
        f"its header gives voxels of {_shown(steps)} mm in its sform but {_shown(sides)} mm in pixdim; the sform was "
        "used, so volumes are wrong if pixdim is right"
    )


def _told_directions(header: nibabel.Nifti1Header) -> str | None:
    """Say which directions were used if those of sform and qform differ; nothing is changed."""
    if not (header["sform_code"] and header["qform_code"]):
        return None
    try:
        qform, sform = (nibabel.aff2axcodes(form) for form in (header.get_qform(), header.get_sform()))
    except ValueError:  # an invalid quaternion is not used where there is an sform
        return None
    if sform == qform or None in (*sform, *qform):
        return None
    return (
        f"its axes run to {''.join(sform)} in its sform but to {''.join(qform)} in its qform; the sform was used, so "
        "directions are wrong if the qform is right"
    )
