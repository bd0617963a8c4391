"""FLAIRs and reference masks as the study needs them: 3D, in canonical orientation, checked; and pairs of both on one grid."""

from pathlib import Path

import nibabel
import numpy as np
from nibabel import orientations

from wmhlib.intake.grids import canonical, laid_over, refuse_other_than_3d
from wmhlib.intake.masks import check_labels
from wmhlib.intake.nifti import open_scan


def read_flair(path: str | Path | nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """A FLAIR in canonical orientation, divided by its maximum (paper 3.2.1); float32 in 0-1.

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
    volume = np.maximum(volume, 0) / volume.max()
    return nibabel.Nifti1Image(volume, image.affine)


def read_reference(path: str | Path) -> nibabel.Nifti1Image:
    """A reference mask in canonical orientation: WMH (label 1) is 1, background and other pathology (2) are 0; uint8.

    Raises
    ------
    ValueError
        As `canonical`; also where a voxel is not 0, 1 or 2.
    """
    image = canonical(path)
    values = np.asarray(image.dataobj)
    check_labels(values, str(path))
    return nibabel.Nifti1Image(((values > 0.5) & (values < 1.5)).astype(np.uint8), image.affine)


def read_pair(flair: str | Path, reference: str | Path) -> tuple[nibabel.Nifti1Image, nibabel.Nifti1Image]:
    """A FLAIR and its reference as `read_flair` and `read_reference` give them, the reference turned to the FLAIR's axes.

    Raises
    ------
    ValueError
        They do not cover the same voxels (`wmhlib.intake.grids.laid_over`); and as `read_flair` and `read_reference`.
    """
    image, mask = read_flair(flair), read_reference(reference)
    over = laid_over(mask, image, f"the FLAIR {flair} and its reference {reference}")
    return image, nibabel.Nifti1Image(np.asarray(over.dataobj), image.affine)


def canonical_slice_count(path: str | Path) -> int:
    """Axial slices of a scan, from its header alone. Errors as in `canonical`."""
    image = open_scan(path)
    refuse_other_than_3d(path, image.shape)
    return image.shape[int(np.argmax(orientations.io_orientation(image.affine)[:, 0] == 2))]
