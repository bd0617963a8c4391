"""FLAIRs and reference masks as the study needs them: 3D, in canonical orientation, checked; and pairs of both on one grid."""

import warnings
from pathlib import Path

import nibabel
import numpy as np
from nibabel import orientations

from wmhlib.intake.masks import GRID_TOLERANCE_MM, LABEL_TOLERANCE
from wmhlib.intake.nifti import DAMAGE, check_grid, open_scan, read_scan

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


def canonical(path: str | Path | nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """A scan turned to the axes nearest to right, anterior, superior, so that the third one is axial.

    Raises
    ------
    FileNotFoundError, PermissionError, ValueError
        As `wmhlib.intake.nifti.read_scan`; also where it is not three-dimensional.
    """
    if isinstance(path, str | Path):
        name, image = path, read_scan(path)
    else:
        name, image = path.get_filename() or "the scan given", path
        try:
            check_grid(image.header.get_zooms()[:3], image.affine)
            image = nibabel.Nifti1Image(np.asanyarray(image.dataobj), image.affine, image.header)
        except DAMAGE as error:
            raise ValueError(f"{name} cannot be read as a NIfTI ({error}): fetch or export the file again.") from None
    _refuse_other_than_3d(name, image)
    return nibabel.as_closest_canonical(image)


def _refuse_other_than_3d(name: str | Path, image: nibabel.Nifti1Image) -> None:
    if image.ndim != 3:
        raise ValueError(f"{name} has {image.ndim} dimensions, shape {image.shape}; one 3D volume is needed.")


def read_flair(path: str | Path | nibabel.Nifti1Image, intensity: str = "maximum") -> nibabel.Nifti1Image:
    """A FLAIR in canonical orientation; float32 in 0-1, by one of `INTENSITIES`.

    Bias correction leaves small negative values in some data sets; they are set to zero (D-011).

    Raises
    ------
    ValueError
        As `canonical`; also where a voxel is not finite or none is above zero.
    """
    image = canonical(path)
    name = path if isinstance(path, str | Path) else "the scan given"
    volume = np.asarray(image.dataobj, dtype=np.float32)
    if not np.isfinite(volume).all():
        raise ValueError(
            f"{name} holds {(~np.isfinite(volume)).sum()} voxels that are NaN or infinite: mend or leave it out."
        )
    if volume.max() <= 0:
        raise ValueError(f"{name} has no voxel above zero: this is not a FLAIR image.")
    if volume.min() == volume.max():
        raise ValueError(f"{name} is {volume.max():g} everywhere: this is not a FLAIR image.")
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
        if level < low:
            text += (
                ": fat or a few bright voxels set the scale; a network trained with `intensity: tissue` is not misled"
            )
        warnings.warn(f"{text}.", BrightnessWarning, stacklevel=2)


def read_reference(path: str | Path) -> nibabel.Nifti1Image:
    """A reference mask in canonical orientation: WMH (label 1) is 1, background and other pathology (2) are 0; uint8.

    Raises
    ------
    ValueError
        As `canonical`; also where a voxel is not 0, 1 or 2.
    """
    image = canonical(path)
    values = np.asarray(image.dataobj)
    labels = np.clip(np.rint(np.nan_to_num(values, nan=-1)), 0, 2)
    unknown = values[~(np.abs(values - labels) <= LABEL_TOLERANCE)]
    if len(unknown):
        raise ValueError(
            f"{path} has labels {np.unique(unknown)[:5].tolist()} beside 0, 1 and 2: relabel it with 0 background, "
            "1 WMH and 2 other pathology."
        )
    return nibabel.Nifti1Image((labels == 1).astype(np.uint8), image.affine)


def read_pair(
    flair: str | Path, reference: str | Path, intensity: str = "maximum"
) -> tuple[nibabel.Nifti1Image, nibabel.Nifti1Image]:
    """A FLAIR and its reference as `read_flair` and `read_reference` give them.

    Raises
    ------
    ValueError
        They lie on different grids; and as `read_flair` and `read_reference`.
    """
    image, mask = read_flair(flair, intensity), read_reference(reference)
    apart = np.abs(image.affine - mask.affine).max()
    if image.shape != mask.shape or apart > GRID_TOLERANCE_MM:
        raise ValueError(
            f"{flair} has shape {image.shape}, its reference {reference} {mask.shape}, and their affines differ by "
            f"{apart:.3g} mm: both must lie on one grid; resample the reference to the FLAIR."
        )
    return image, mask


def canonical_slice_count(path: str | Path) -> int:
    """Axial slices of a scan, from its header alone. Errors as in `canonical`."""
    image = open_scan(path)
    _refuse_other_than_3d(path, image)
    return image.shape[int(np.argmax(orientations.io_orientation(image.affine)[:, 0] == 2))]
