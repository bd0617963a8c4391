"""FLAIRs and reference masks as the study needs them: 3D, in canonical orientation, checked; and pairs of both on one grid."""

import warnings
from pathlib import Path

import nibabel
import numpy as np

from wmhlib.intake.grids import canonical, laid_over, name_of, refuse_other_than_3d, turned_grid
from wmhlib.intake.masks import check_labels
from wmhlib.intake.nifti import open_scan

INTENSITIES = ("maximum", "tissue")
"""How a volume is brought to 0-1: divided by its maximum (paper 3.2.1), or by its tissue: then the median of tissue is
`TISSUE_GREY`, and what would be above 1 is 1, so that a few bright voxels or bright fat change nothing else."""

TISSUE_GREY = 0.46
"""Where `tissue` puts the median of tissue: about where dividing by the maximum puts it in scans without the skull."""

IN_PROPORTION = (0.4, 0.6)
"""Tissue's level as a share of the maximum where the maximum is a fair scale. Measured: 0.41 to 0.51 in 39 synthetic scans and
0.44 to 0.54 in 7 real ones without skull; 0.20 to 0.33 in 7 with skull and fat. Networks trained at 0.41 to 0.51 keep their
Dice down to 0.40 and lose a quarter to a half of it at 0.35."""


class BrightnessWarning(UserWarning):
    """Dividing a scan by its maximum leaves its tissue darker or brighter than a network expects."""


def read_flair(path: str | Path | nibabel.Nifti1Image, intensity: str = "maximum") -> nibabel.Nifti1Image:
    """A FLAIR in canonical orientation; float32 in 0-1, by one of `INTENSITIES`.

    Bias correction leaves small negative values in some data sets; they are set to zero (D-011).

    Raises ValueError: as `canonical`; also where a voxel is not finite or none is above zero.
    """
    image = canonical(path)
    volume = np.asarray(image.dataobj, dtype=np.float32)
    if bad := (~np.isfinite(volume)).sum():
        raise ValueError(f"{name_of(path)} holds {bad} voxels that are NaN or infinite: correct or leave it out.")
    if volume.max() <= 0 or volume.min() == volume.max():
        raise ValueError(f"{name_of(path)} has no voxel above zero or one value everywhere: this is not a FLAIR.")
    volume = np.maximum(volume, 0)
    white = volume.max() if intensity == "maximum" else tissue_level(volume) / TISSUE_GREY
    return nibabel.Nifti1Image(np.minimum(volume / white, 1), image.affine)


def tissue_level(volume: np.ndarray) -> float:
    """Median of tissue, in the units of a volume without negative values: of what is above a tenth of the 99.9th percentile.

    A few bright voxels move it less than 1e-3. Above zero where any voxel is.
    """
    return float(np.median(volume[volume > np.percentile(volume, 99.9) / 10]))


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
    return nibabel.Nifti1Image(((values > 0.5) & (values < 1.5)).astype(np.uint8), image.affine)


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
