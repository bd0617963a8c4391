"""Signs that a scan is not what its header says, is incomplete, or does not show a whole head.

Input: a FLAIR from `wmhlib.intake.scans.read_flair`. Output: sentences for the user. Such a scan can still be used, but its
volumes may be wrong by a factor.
"""

import nibabel
import numpy as np

from wmhlib.intake.scans import tissue_level

DIRECTIONS = ("left to right", "back to front", "bottom to top")

EXTENT_MM = ((90, 210), (110, 260), (85, 300))
"""Accepted extent of the visible head along each of `DIRECTIONS`: 116-161, 140-208 and 107-154 mm in 14 real scans with
and without skull; a neck adds up to 100 mm below."""

WIDEST_VOXEL_MM = 2
"""The largest accepted voxel within axial slices: 0.5-1 mm in 14 real scans, 0.45-1.4 mm in the `random` centre."""

BRIGHTEST_AIR = 0.3
"""The highest accepted brightness of the darkest hundredth of a scan, as a fraction of the level of tissue: 0.01 at most in
14 real scans and 12 of the `random` centre."""

CUT_OFF = 0.25
"""The largest accepted share of tissue (of the fullest plane's) next to blank planes: 0.04 at most in the same scans."""

MOST_EQUAL = 0.5
"""The largest accepted fraction of tissue voxels that equal both neighbours; noise makes nearly all differ."""


class ImplausibleWarning(UserWarning):
    """A scan of a cohort is implausible; the text names its file."""


def doubts(flair: nibabel.Nifti1Image) -> list[str]:
    """What is implausible about a FLAIR, one phrase each; empty if nothing is."""
    volume = np.asarray(flair.dataobj)
    level = tissue_level(volume)
    head = volume > level / 2
    found = [_extent(head, nibabel.affines.voxel_sizes(flair.affine)), *_planes(volume, head)]
    found += [_voxels(flair), _air(volume, level), _equal(volume, head)]
    return [text for text in found if text]


def _areas(head: np.ndarray) -> list[np.ndarray]:
    """The number of head voxels in each plane, for the planes of each axis."""
    return [head.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]


def _extent(head: np.ndarray, sides_mm: np.ndarray) -> str:
    """Phrase on a head that is too small or large, or wider than long."""
    shown = [np.flatnonzero(area > area.max() / 10) for area in _areas(head)]
    extent = [(planes[-1] - planes[0] + 1) * side for planes, side in zip(shown, sides_mm, strict=True)]
    measured = " x ".join(f"{length:.0f}" for length in extent)
    if not all(least <= length <= most for length, (least, most) in zip(extent, EXTENT_MM, strict=True)):
        expected = " x ".join(f"{least}-{most}" for least, most in EXTENT_MM)
        return (
            f"The head measures {measured} mm ({', '.join(DIRECTIONS)}), expected {expected}: check the voxel sizes, the "
            "axes, and that the head is whole"
        )
    wider = f"The head is wider than long ({measured} mm, {', '.join(DIRECTIONS)}): the header may name the wrong axes"
    return wider if extent[0] > extent[1] else ""


def _planes(volume: np.ndarray, head: np.ndarray) -> list[str]:
    """Phrases on planes of one value inside the head or at its cut edge, one per axis."""
    found = []
    for axis, (area, direction) in enumerate(zip(_areas(head), DIRECTIONS, strict=True)):
        others = tuple({0, 1, 2} - {axis})
        blank = volume.min(axis=others) == volume.max(axis=others)
        first, last = np.flatnonzero(~blank)[[0, -1]]
        inside = np.flatnonzero(blank[first:last]) + first
        ends = [(first - 1, first), (last + 1, last)]  # a blank plane beside the first or last plane that is not
        cut = [beyond for beyond, end in ends if 0 <= beyond < len(blank) and area[end] > CUT_OFF * area.max()]
        if len(inside) or cut:
            plane = int([*inside, *cut][0]) + 1
            found.append(
                f"Planes are blank within the head ({direction}, such as plane {plane}): is the file complete?"
            )
    return found


def _voxels(flair: nibabel.Nifti1Image) -> str:
    """Phrase on voxels too wide within axial slices, as in sagittal scans with thick slices."""
    widest = max(nibabel.affines.voxel_sizes(flair.affine)[:2])
    text = f"Voxels are up to {widest:.3g} mm wide within axial slices, expected at most {WIDEST_VOXEL_MM}"
    return f"{text}: lesions of thick sagittal or coronal slices are blurred" if widest > WIDEST_VOXEL_MM else ""


def _air(volume: np.ndarray, level: float) -> str:
    """Phrase on air that is not dark."""
    darkest = np.percentile(volume, 1) / level
    text = f"The darkest voxels have {darkest:.2f} of the brightness of tissue, expected {BRIGHTEST_AIR} at most"
    return f"{text}: was an offset added?" if darkest > BRIGHTEST_AIR else ""


def _equal(volume: np.ndarray, head: np.ndarray) -> str:
    """Phrase on voxels that equal their neighbours, as in label maps."""
    same = (volume[1:-1] == volume[:-2]) & (volume[1:-1] == volume[2:])
    equal = same[head[1:-1]].mean() if head[1:-1].any() else 0
    text = f"{equal:.0%} of the voxels equal their neighbours: this may be a label map, not a scan"
    return text if equal > MOST_EQUAL else ""
