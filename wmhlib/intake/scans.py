"""FLAIRs and reference masks, checked and in canonical orientation, and pairs of both on one grid."""

import warnings
from pathlib import Path

import nibabel
import numpy as np
from skimage.filters import threshold_otsu

from wmhlib.intake.grids import canonical, laid_over, name_of, refuse_other_than_3d, turned_grid
from wmhlib.intake.masks import check_labels
from wmhlib.intake.nifti import Mended, open_scan, read_scan, refuse_derived

INTENSITIES = ("maximum", "tissue")
"""Scaling of a volume to 0-1: `maximum` divides by the maximum (paper 3.2.1). `tissue` sets the median of tissue to
`TISSUE_GREY` and clips values above 1, so that a few bright voxels or bright fat do not affect the rest."""

TISSUE_GREY = 0.46
"""The median of tissue with `tissue` scaling; about its value in skull-stripped scans divided by the maximum."""

IN_PROPORTION = (0.4, 0.6)
"""The level of tissue, as a fraction of the maximum, for which the maximum is a suitable scale. Measured: 0.41 to 0.51
in 39 synthetic scans of the first recipe (0.24 to 0.52 in recipe 5, whose heads have bright fat), 0.44 to
0.54 in 7 real scans without skull, and 0.20 to 0.33 in 7 with skull and fat. Networks trained at 0.41 to 0.51 keep
their Dice down to 0.40 and lose a quarter to a half of it at 0.35."""


NEGATIVE = (0.01, 0.005)
"""At most the second fraction of voxels may be below minus the first times the maximum: bias correction leaves fewer
(D-011)."""

LEAST_BACKGROUND = 0.01
"""The smallest fraction of NaN voxels that is taken as background."""


FEWEST_VALUES = 20
"""Images of more than 10,000 voxels with fewer different values are masks or label maps; the coarsest of 14 real scans has
150."""

WRAPPED = 0.001
"""The smallest fraction of voxels at the top of an unsigned type that suggests an overflow of negative values."""


class BrightnessWarning(UserWarning):
    """After division by the maximum, the tissue of a scan is darker or brighter than a network expects."""


def read_flair(path: str | Path | nibabel.Nifti1Image, intensity: str = "maximum") -> nibabel.Nifti1Image:
    """A FLAIR in canonical orientation; float32 in 0-1, scaled by one of `INTENSITIES`.

    Small negative values, which bias correction leaves in some data sets, are set to zero (D-011). A background of NaN
    is set to zero with a warning.

    Raises
    ------
    ValueError
        As `canonical`. Also if voxels are infinite or single voxels are NaN, too many are negative, all are equal, none
        is positive, unsigned values overflowed, there are fewer than `FEWEST_VALUES` different values, or the header says
        that the image is a map or of this project.
    """
    stored = read_scan(path) if isinstance(path, str | Path) else path
    if isinstance(stored.header, nibabel.Nifti1Header):
        refuse_derived(name_of(path), stored.header)
    image = canonical(stored)
    values = np.asanyarray(image.dataobj)
    with np.errstate(over="ignore"):
        volume = values.astype(np.float32)
    if LEAST_BACKGROUND <= (background := np.isnan(volume)).mean() < 1:
        volume[background] = 0
        warnings.warn(f"{name_of(path)}: {background.sum()} voxels are NaN; they were set to 0", Mended, stacklevel=2)
    if bad := (~np.isfinite(volume)).sum():
        raise ValueError(
            f"{name_of(path)} has {bad} voxels that are NaN, infinite or larger than 3e38: correct or exclude it."
        )
    lowest, highest = volume.min(), volume.max()
    if highest <= 0 or lowest == highest:
        raise ValueError(f"{name_of(path)} has values from {lowest:g} to {highest:g} only: give a FLAIR.")
    fewest = FEWEST_VALUES if volume.size > 10_000 else 3
    few_in_sample = len(np.unique(volume.ravel()[::101])) < fewest  # sorting all voxels takes a second
    if few_in_sample and len(different := np.unique(volume)) < fewest:
        raise ValueError(
            f"{name_of(path)} has only {len(different)} different values from {lowest:g} to {highest:g}, like a mask or "
            "label map: give the FLAIR."
        )
    negative = (
        (volume < -NEGATIVE[0] * highest) & (volume > lowest)
    ).mean()  # a single lowest value may be the background
    if negative > NEGATIVE[1]:
        raise ValueError(
            f"{name_of(path)} has {negative:.1%} of its voxels clearly below zero, down to {lowest:g}. It was "
            "standardised, or large values overflowed: give the original scan."
        )
    volume = np.maximum(volume, 0)
    if values.dtype.kind == "u":
        share = values / np.iinfo(values.dtype).max
        if (wrapped := (share > 0.99).mean()) > max(WRAPPED, 10 * ((share > 0.5) & (share <= 0.99)).mean()):
            raise ValueError(
                f"{name_of(path)} has {wrapped:.1%} of its voxels at the top of {values.dtype} and almost none in the half "
                "below: negative values probably overflowed; give the original scan."
            )
    white = highest if intensity == "maximum" else tissue_level(volume) / TISSUE_GREY
    return nibabel.Nifti1Image(np.minimum(volume / white, 1), image.affine)


def tissue_level(volume: np.ndarray) -> float:
    """Median of tissue, in the units of a volume without negative values.

    Tissue is everything above a tenth of the 99.9th percentile and above half of Otsu's threshold, which excludes noisy
    air (D-044). A few bright voxels change the level by less than 1e-3. It is positive if any voxel is.
    """
    white = np.percentile(volume, 99.9)
    darkest = white / 10
    for _ in range(2 if white else 0):  # the second pass excludes bright voxels, which could be taken for tissue
        air = max(darkest, threshold_otsu(np.minimum(volume, white).ravel()) / 2)
        white = 2 * np.median(volume[volume > air])
    return float(np.median(volume[volume > (air if white else 0)]))


def check_proportion(name: str | Path, flair: nibabel.Nifti1Image) -> None:
    """Warn if the level of tissue of a FLAIR (from `read_flair` with `maximum`) is outside `IN_PROPORTION`; `name` is
    its file."""
    level, (low, high) = tissue_level(np.asarray(flair.dataobj)), IN_PROPORTION
    if not low <= level <= high:
        text = f"{name}: tissue is at {level:.2f} of the maximum, expected {low} to {high}"
        why = ": fat or a few bright voxels set the scale; networks trained with `intensity: tissue` are not affected"
        warnings.warn(f"{text}{why * (level < low)}.", BrightnessWarning, stacklevel=2)


def read_reference(path: str | Path) -> nibabel.Nifti1Image:
    """A reference mask in canonical orientation, uint8: 1 for WMH (label 1), 0 for background and other pathology
    (label 2).

    Raises
    ------
    ValueError
        As `canonical`. Also if a label is not 0, 1 or 2, or more than half of the volume is WMH.
    """
    image = canonical(path)
    values = np.asarray(image.dataobj)
    check_labels(values, str(path))
    lesion = (values > 0.5) & (values < 1.5)
    if not lesion.any() and (values > 0.5).any():
        warnings.warn(f"{path} has other pathology (label 2) but no WMH (label 1): check its labels.", stacklevel=2)
    if lesion.mean() > 0.5:
        raise ValueError(f"{path} marks more than half of the volume as WMH and may be inverted: correct its labels.")
    return nibabel.Nifti1Image(lesion.astype(np.uint8), image.affine)


def read_pair(
    flair: str | Path, reference: str | Path, intensity: str = "maximum"
) -> tuple[nibabel.Nifti1Image, nibabel.Nifti1Image]:
    """A FLAIR from `read_flair` and its reference from `read_reference`, reoriented to the FLAIR's axes.

    Raises
    ------
    ValueError
        The two do not cover the same voxels (`wmhlib.intake.grids.laid_over`), or as `read_flair` and `read_reference`.
    """
    image, mask = read_flair(flair, intensity), read_reference(reference)
    on_grid = laid_over(mask, image, f"the FLAIR {flair} and its reference {reference}")
    return image, nibabel.Nifti1Image(np.asarray(on_grid.dataobj), image.affine)


def canonical_slice_count(path: str | Path) -> int:
    """The number of axial slices of a scan, from its header alone. Errors as in `canonical`."""
    image = open_scan(path)
    refuse_other_than_3d(path, image.shape)
    return turned_grid(image)[0][2]
