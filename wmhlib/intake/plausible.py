"""Signs that a scan is not what its header says, is incomplete, or does not show a whole head.

Input: a FLAIR from `wmhlib.intake.scans.read_flair` with the intensity `maximum`. Output: sentences for the user. Such
a scan can still be used, but its volumes may be wrong by a factor.
"""

import nibabel
import numpy as np

from wmhlib.intake.scans import tissue_level

DIRECTIONS = ("left to right", "back to front", "bottom to top")

EXTENT_MM = ((90, 210), (110, 260), (85, 300))
"""Accepted extent of the visible head along each of `DIRECTIONS`: 116-161, 140-208 and 107-154 mm in 14 real scans with
and without skull; a neck adds up to 100 mm below."""

WIDTH, HEIGHT = (0.55, 1), (0.55, 1.6)
"""Accepted width and height of the visible head as a fraction of its length: 0.72-0.85 and 0.71-0.84 in 14 real scans, to
0.97 in synthetic ones."""

LITRES = (0.7, 3.6)
"""Accepted volume of the visible head in its upper 150 mm: 0.9-2.7 in 14 real scans, to 3.1 in synthetic ones."""

LARGEST_VOXEL_MM = (2, 2, 10)
"""The largest accepted sides of a voxel: 0.5-1 mm within axial slices and 1-8 mm across in 14 real scans."""

BRIGHTEST_AIR = 0.3
"""The highest accepted brightness of the darkest hundredth of a scan, as a fraction of the level of tissue: 0.01 at most in
14 real scans and 12 of the `random` centre."""

CUT_OFF = 0.6
"""The largest accepted share of tissue (of the fullest plane's) next to blank planes, except below: padded scans whose field
of view cuts the ears or ends at the skull's base are sound."""

MOST_CLIPPED = 0.02
"""The largest accepted fraction of tissue voxels that have the maximum: below 0.00001 in the same scans. Clipping at the 99th
percentile, a usual step of preparation, gives 0.012."""

MOST_EQUAL = 0.5
"""The largest accepted fraction of tissue voxels that equal both neighbours; noise makes nearly all differ."""


class ImplausibleWarning(UserWarning):
    """A scan of a cohort is implausible; the text names its file."""


def doubts(flair: nibabel.Nifti1Image) -> list[str]:
    """What is implausible about a FLAIR, one phrase each; empty if nothing is."""
    volume, sides = np.asarray(flair.dataobj), nibabel.affines.voxel_sizes(flair.affine)
    level = tissue_level(volume)
    head = volume > level / 2
    areas = [head.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    shown = [np.flatnonzero(area > area.max() / 10)[[0, -1]] for area in areas]
    found = [_extent(head, shown, sides), *map(_planes, range(3), [volume] * 3, areas, shown)]
    found += [_voxels(sides), _brightness(volume, head, level), _equal(volume, head)]
    return [text for text in found if text]


def _extent(head: np.ndarray, shown: list[np.ndarray], sides_mm: np.ndarray) -> str:
    """Phrase on a head of impossible size or proportions; `shown` has its first and last plane per axis."""
    extent = [(last - first + 1) * side for (first, last), side in zip(shown, sides_mm, strict=True)]
    lowest = max(int(shown[2][1] - 150 / sides_mm[2]), 0)
    litres = head[..., lowest:].sum() * sides_mm.prod() / 1e6
    ranges = [*EXTENT_MM, LITRES, WIDTH, HEIGHT]
    values = [*extent, litres, extent[0] / extent[1], extent[2] / extent[1]]
    if all(least <= value <= most for value, (least, most) in zip(values, ranges, strict=True)):
        return ""
    return (
        f"The head measures {' x '.join(f'{length:.0f}' for length in extent)} mm ({', '.join(DIRECTIONS)}) and has "
        f"{litres:.2g} litres in its upper 150 mm, which is implausible: check the voxel sizes, the axes, and that the head "
        "is whole"
    )


def _planes(axis: int, volume: np.ndarray, area: np.ndarray, shown: np.ndarray) -> str:
    """Phrase on planes of an axis that are blank or repeated within the head, or blank where the head is cut."""
    planes, others = np.moveaxis(volume, axis, 0), tuple({0, 1, 2} - {axis})
    blank = volume.min(axis=others) == volume.max(axis=others)
    if blank.all():
        return f"Every plane has a single value ({DIRECTIONS[axis]}): this is not a scan"
    (first, last), (start, stop) = shown, np.flatnonzero(~blank)[[0, -1]]
    ends = [(start - 1, start)] * (axis != 2) + [(stop + 1, stop)]  # a blank plane beside one that is not
    cut = [beyond for beyond, end in ends if 0 <= beyond < len(blank) and area[end] > CUT_OFF * area.max()]
    again = [k for k in range(first, last) if not blank[k] and np.array_equal(planes[k], planes[k + 1])]
    faults = [*(np.flatnonzero(blank[first:last]) + first), *cut, *again]
    if not faults:
        return ""
    plane = int(faults[0]) + 1
    return f"Planes are blank or repeated within the head ({DIRECTIONS[axis]}, such as plane {plane}): is the file complete?"


def _voxels(sides_mm: np.ndarray) -> str:
    """Phrase on voxels too large, as in sagittal scans with thick slices."""
    size, most = (" x ".join(f"{side:.3g}" for side in three) for three in (sides_mm, LARGEST_VOXEL_MM))
    text = f"Voxels measure {size} mm ({', '.join(DIRECTIONS)}), expected at most {most}: small lesions are blurred"
    return text if (sides_mm > LARGEST_VOXEL_MM).any() else ""


def _brightness(volume: np.ndarray, head: np.ndarray, level: float) -> str:
    """Phrase on air that is not dark, and on clipped tissue."""
    darkest, clipped = np.percentile(volume, 1) / level, (volume[head] == volume.max()).mean()
    if darkest > BRIGHTEST_AIR:
        text = f"The darkest voxels have {darkest:.2f} of the brightness of tissue, expected {BRIGHTEST_AIR} at most"
        return f"{text}: was an offset added?"
    text = f"{clipped:.1%} of the tissue has the highest value: the brightness was clipped, and lesions may be lost"
    return text if clipped > MOST_CLIPPED else ""


def _equal(volume: np.ndarray, head: np.ndarray) -> str:
    """Phrase on voxels that equal their neighbours, as in label maps."""
    same = (volume[1:-1] == volume[:-2]) & (volume[1:-1] == volume[2:])
    equal = same[head[1:-1]].mean() if head[1:-1].any() else 0
    text = f"{equal:.0%} of the voxels equal their neighbours: this may be a label map, not a scan"
    return text if equal > MOST_EQUAL else ""
