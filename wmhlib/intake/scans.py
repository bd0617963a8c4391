"""FLAIRs and reference masks as the study needs them: 3D, in canonical orientation, checked; and pairs of both on one grid."""

import warnings
from pathlib import Path

import nibabel
import numpy as np
from skimage.filters import threshold_otsu

from wmhlib.intake.grids import canonical, laid_over, name_of, refuse_other_than_3d, turned_grid
from wmhlib.intake.masks import check_labels
from wmhlib.intake.nifti import Mended, open_scan

INTENSITIES = ("maximum", "tissue")
"""How a volume is brought to 0-1: divided by its maximum (paper 3.2.1), or by its tissue: then the median of tissue is
`TISSUE_GREY`, and what would be above 1 is 1, so that a few bright voxels or bright fat change nothing else."""

TISSUE_GREY = 0.46
"""Where `tissue` puts the median of tissue: about where dividing by the maximum puts it in scans without the skull."""

IN_PROPORTION = (0.4, 0.6)
"""Tissue's level as a share of the maximum where the maximum is a fair scale. Measured: 0.41 to 0.51 in 39 synthetic scans of the first recipe (0.28 to 0.65 in the present one, whose heads have bright fat) and
0.44 to 0.54 in 7 real ones without skull; 0.20 to 0.33 in 7 with skull and fat. Networks trained at 0.41 to 0.51 keep their
Dice down to 0.40 and lose a quarter to a half of it at 0.35."""


NEGATIVE = (0.01, 0.005)
"""How far below zero, as a fraction of the maximum, which fraction of voxels may lie: bias correction leaves less (D-011)."""

LEAST_BACKGROUND = 0.01
"""The least fraction of voxels that are NaN where NaN means the background."""


class BrightnessWarning(UserWarning):
    """Dividing a scan by its maximum leaves its tissue darker or brighter than a network expects."""


def read_flair(path: str | Path | nibabel.Nifti1Image, intensity: str = "maximum") -> nibabel.Nifti1Image:
    """A FLAIR in canonical orientation; float32 in 0-1, by one of `INTENSITIES`.

    Bias correction leaves small negative values in some data sets; they are set to zero (D-011), and so is a background
    of NaN, with a warning.

    Raises ValueError: as `canonical`; also where voxels are infinite or a few NaN, more than a few are negative, or there are
    fewer than three values: a mask.
    """
    image = canonical(path)
    volume = np.array(image.dataobj, dtype=np.float32)
    if LEAST_BACKGROUND <= (outside := np.isnan(volume)).mean() < 1:
        volume[outside] = 0
        warnings.warn(f"{name_of(path)}: {outside.sum()} voxels are NaN; they were set to 0", Mended, stacklevel=2)
    if bad := (~np.isfinite(volume)).sum():
        raise ValueError(f"{name_of(path)} holds {bad} voxels that are NaN or infinite: correct or leave it out.")
    lowest, highest = volume.min(), volume.max()
    if highest <= 0 or lowest == highest:
        raise ValueError(f"{name_of(path)} has no voxel above zero or one value everywhere: this is not a FLAIR.")
    if ((volume == lowest) | (volume == highest)).all():
        raise ValueError(f"{name_of(path)} has two values, {lowest:g} and {highest:g}, as a mask has: give the FLAIR.")
    negative = (
        (volume < -NEGATIVE[0] * highest) & (volume > lowest)
    ).mean()  # a background may have one negative value
    if negative > NEGATIVE[1]:
        raise ValueError(
            f"{name_of(path)} has {negative:.1%} of its voxels clearly below zero, down to {lowest:g}: it was standardised, "
            "or large values were stored as negative ones; give the scan as the scanner made it."
        )
    volume = np.maximum(volume, 0)
    white = highest if intensity == "maximum" else tissue_level(volume) / TISSUE_GREY
    return nibabel.Nifti1Image(np.minimum(volume / white, 1), image.affine)


def tissue_level(volume: np.ndarray) -> float:
    """Median of tissue, in the units of a volume without negative values.

    Tissue is what is above a tenth of the 99.9th percentile and above half of Otsu's threshold: air does not enter, however
    noisy (D-044). A few bright voxels move it less than 1e-3. Above zero where any
    voxel is.
    """
    white = np.percentile(volume, 99.9)
    darkest = white / 10
    for _ in range(2 if white else 0):  # the second time without what is bright, which could pass for the tissue
        air = max(darkest, threshold_otsu(np.minimum(volume, white)) / 2)
        white = 2 * np.median(volume[volume > air])
    return float(np.median(volume[volume > (air if white else 0)]))


def check_proportion(name: str | Path, flair: nibabel.Nifti1Image) -> None:
    """Warn where a FLAIR, as `read_flair` gives it by `maximum`, has its tissue outside `IN_PROPORTION`; `name` is its file."""
    level, (low, high) = tissue_level(np.asarray(flair.dataobj)), IN_PROPORTION
    if not low <= level <= high:
        text = f"{name}: tissue is at {level:.2f} of the maximum, expected {low} to {high}"
        why = ": fat or a few bright voxels set the scale; networks trained with `intensity: tissue` are not misled"
        warnings.warn(f"{text}{why * (level < low)}.", BrightnessWarning, stacklevel=2)


def read_reference(path: str | Path) -> nibabel.Nifti1Image:
    """A reference mask in canonical orientation: WMH (label 1) is 1, background and other pathology (2) are 0; uint8.

    Raises ValueError: as `canonical`; also where a voxel is not 0, 1 or 2.
    """
    image = canonical(path)
    values = np.asarray(image.dataobj)
    check_labels(values, str(path))
    lesion = (values > 0.5) & (values < 1.5)
    if not lesion.any() and (values > 0.5).any():
        warnings.warn(f"{path} has other pathology (2) and no WMH (1): check its labels.", stacklevel=2)
    if lesion.mean() > 0.5:
        raise ValueError(f"{path} marks more than half of the volume as WMH: it may be inverted; correct its labels.")
    return nibabel.Nifti1Image(lesion.astype(np.uint8), image.affine)


def read_pair(
    flair: str | Path, reference: str | Path, intensity: str = "maximum"
) -> tuple[nibabel.Nifti1Image, nibabel.Nifti1Image]:
    """A FLAIR and its reference as `read_flair` and `read_reference` give them, the reference turned to the FLAIR's axes.

    Raises ValueError: they do not cover the same voxels (`wmhlib.intake.grids.laid_over`); and as `read_flair` and
    `read_reference`.
    """
    image, mask = read_flair(flair, intensity), read_reference(reference)
    over = laid_over(mask, image, f"the FLAIR {flair} and its reference {reference}")
    return image, nibabel.Nifti1Image(np.asarray(over.dataobj), image.affine)


def canonical_slice_count(path: str | Path) -> int:
    """Axial slices of a scan, from its header alone. Errors as in `canonical`."""
    image = open_scan(path)
    refuse_other_than_3d(path, image.shape)
    return turned_grid(image)[0][2]
