"""A volume as preprocessed axial slices, kept in memory-mapped arrays, and back to the volume.

Paper 3.2.1: the whole volume is divided by its maximum, axial slices are taken and resampled to a square with
scikit-image's `resize` at its defaults, the grey image is repeated to three channels and preprocessed as VGG19 wants
it. In flow NIfTI files; out flow `images.npy` (slices, size, size) float32 in 0-1, `references.npy` of the same shape
in uint8 0/1, and `index.csv`, which says what each slice is. They are written and read one subject at a time, so
memory does not grow with the cohort.
"""

import shutil
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from nibabel import orientations
from scipy.ndimage import binary_opening
from skimage.transform import resize
from tqdm import tqdm

from wmhlib.metrics import GRID_TOLERANCE_MM, LABEL_TOLERANCE

IMAGENET_MEANS = (103.939, 116.779, 123.68)
"""Mean colour of ImageNet, blue-green-red, 0-255: what VGG19 was trained to see subtracted (paper 3.2.1)."""

TISSUE = 0.05
"""What is brighter than this share of the volume's maximum counts as tissue, darker as air."""


VIEWS = ("whole", "head")
"""What of a slice the network sees: all of it (paper 3.2.1), or the rectangle that holds the head (D-021)."""

Box = tuple[slice, slice]


def canonical(path: str | Path | nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """A scan turned to the axes nearest to right, anterior, superior, so that the third one is axial.

    Raises
    ------
    ValueError
        The file is cut short, is not a NIfTI, is not three-dimensional, or its voxels have no size.
    """
    name = path if isinstance(path, str | Path) else (path.get_filename() or "the scan given")
    try:
        image = nibabel.load(path) if isinstance(path, str | Path) else path
        sides = [*_stored_sides(image), *nibabel.affines.voxel_sizes(image.affine)]
        if not (np.isfinite(sides).all() and min(sides) > 0):
            raise ValueError(
                f"its header gives voxels of {' x '.join(f'{side:g}' for side in sides[:3])} mm; every side must be a "
                "number above zero"
            )
        image = nibabel.Nifti1Image(np.asanyarray(image.dataobj), image.affine, image.header)
    except FileNotFoundError:
        raise FileNotFoundError(f"No scan at {name}: check the path.") from None
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"{name} cannot be read as a NIfTI ({error}): fetch or export the file again.") from None
    if image.ndim != 3:
        raise ValueError(f"{name} has {image.ndim} dimensions, shape {image.shape}; one 3D volume is needed.")
    return nibabel.as_closest_canonical(image)


def _stored_sides(image: nibabel.Nifti1Image) -> list[float]:
    """The voxel's sides as the header has them: nibabel turns zeros into ones when it loads a NIfTI."""
    sides = image.header.get_zooms()[:3]
    if isinstance(image, nibabel.Nifti1Pair) and image.get_filename():
        stored = image.file_map.get("header", image.file_map["image"])
        with stored.get_prepare_fileobj("rb") as file:
            sides = type(image.header).from_fileobj(file, check=False)["pixdim"][1 : 1 + len(sides)]
    return [float(side) for side in sides]


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
    labels = np.clip(np.rint(np.nan_to_num(values, nan=-1)), 0, 2)
    unknown = values[~(np.abs(values - labels) <= LABEL_TOLERANCE)]
    if len(unknown):
        raise ValueError(
            f"{path} has labels {np.unique(unknown)[:5].tolist()} beside 0, 1 and 2: relabel it with 0 background, "
            "1 WMH and 2 other pathology."
        )
    return nibabel.Nifti1Image((labels == 1).astype(np.uint8), image.affine)


def box_of(volume: np.ndarray, view: str) -> Box:
    """The part of every axial slice that `view` shows, for a FLAIR (x, y, slices) in 0-1: the same for all its slices.

    The head is what is brighter than `TISSUE` after an opening of 3x3 voxels, which removes the noise of air; two voxels
    of margin stay around it. Where there is no such voxel, the whole slice.
    """
    if view != "head":
        return slice(None), slice(None)
    head = binary_opening(volume > TISSUE, np.ones((3, 3, 1)))
    sides = [np.flatnonzero(head.any(axis=axes)) for axes in ((1, 2), (0, 2))]
    return tuple(slice(max(int(at[0]) - 2, 0), int(at[-1]) + 3) if len(at) else slice(None) for at in sides)


def axial_slices(volume: np.ndarray, size: int) -> np.ndarray:
    """Resample every axial slice of (x, y, slices) to a square: (slices, size, size), of the same kind.

    Booleans keep to nearest neighbours and images are smoothed first where they shrink, as `resize` does by default.
    """
    return np.stack([resize(volume[..., k], (size, size)) for k in range(volume.shape[2])])


def volume_of(slices: np.ndarray, scan: nibabel.Nifti1Image, box: Box | None = None) -> np.ndarray:
    """Bring slices (slices, size, size) of a scan back onto the scan's own grid: float32 of its shape.

    Inverse of `canonical` followed by `axial_slices` of the part in `box`, up to interpolation; 0 outside the box.
    """
    to_canonical = orientations.io_orientation(scan.affine)
    to_scan = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), to_canonical)
    shape = np.empty(3, dtype=int)
    shape[to_canonical[:, 0].astype(int)] = scan.shape
    volume = np.zeros(shape, dtype=np.float32)
    part = volume[box or (slice(None), slice(None))]  # a view: what is written there stands in the volume
    for k, one in enumerate(slices):
        part[..., k] = resize(one, part.shape[:2])
    return orientations.apply_orientation(volume, to_scan)


def network_input(grey: np.ndarray) -> np.ndarray:
    """Grey images (..., size, size) in 0-1 as VGG19 wants them: (..., size, size, 3), blue-green-red, means taken off.

    Every loss trains on this same input (paper 3.2.1). The image must be brought to 0-255 before the means go:
    left in 0-1 it is a nearly constant -110 and nothing is learnt (D-006).
    """
    return (grey[..., np.newaxis] * 255 - np.asarray(IMAGENET_MEANS)).astype(np.float32)


def write_slices(cohort: pd.DataFrame, folder: Path, size: int, view: str = "whole") -> None:
    """Preprocess every subject of a cohort into `folder`, all or nothing; `view` is one of `VIEWS`.

    Raises
    ------
    ValueError
        A FLAIR and its reference lie on different grids; and as `read_flair` and `read_reference`.
    """
    counts = [canonical_slice_count(path) for path in cohort.flair]
    unfinished = folder.with_name(f".unfinished-{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    shape = (sum(counts), size, size)
    images = np.lib.format.open_memmap(unfinished / "images.npy", "w+", np.float32, shape)
    references = np.lib.format.open_memmap(unfinished / "references.npy", "w+", np.uint8, shape)
    index, start = [], 0
    for subject, count in zip(tqdm(cohort.itertuples(), "slices", len(cohort), unit="subject"), counts, strict=True):
        flair, reference = read_flair(subject.flair), read_reference(subject.reference)
        apart = np.abs(flair.affine - reference.affine).max()
        if flair.shape != reference.shape or apart > GRID_TOLERANCE_MM:
            raise ValueError(
                f"{subject.flair} has shape {flair.shape}, its reference {subject.reference} {reference.shape}, and their "
                f"affines differ by {apart:.3g} mm: both must lie on one grid; resample the reference to the FLAIR."
            )
        here = slice(start, start + count)
        volume = flair.get_fdata(dtype=np.float32)
        box = box_of(volume, view)
        images[here] = axial_slices(volume[box], size)
        references[here] = axial_slices(np.asarray(reference.dataobj, dtype=bool)[box], size)
        density = references[here].mean(axis=(1, 2)) * 100
        tissue = (images[here] > TISSUE).mean(axis=(1, 2)) * 100
        index += [(subject.subject, subject.centre, subject.split, k, density[k], tissue[k]) for k in range(count)]
        start += count
    columns = ["subject", "centre", "split", "slice", "lesion_density_pct", "tissue_pct"]
    pd.DataFrame(index, columns=columns).to_csv(unfinished / "index.csv", index=False)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def canonical_slice_count(path: str | Path) -> int:
    """Axial slices of a scan, from its header alone."""
    try:
        image = nibabel.load(path)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as a NIfTI ({error}): fetch or export the file again.") from None
    return image.shape[int(np.argmax(orientations.io_orientation(image.affine)[:, 0] == 2))]


def open_slices(folder: Path) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """The memory-mapped images and references, and their index, of a preprocessed cohort.

    Raises
    ------
    FileNotFoundError
        Nothing was preprocessed yet; the message says what to run.
    """
    if not (folder / "index.csv").is_file():
        raise FileNotFoundError(f"No slices at {folder}: run notebook 02_preprocess of this study first.")
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    references = np.load(folder / "references.npy", mmap_mode="r", allow_pickle=False)
    return images, references, pd.read_csv(folder / "index.csv", dtype={"subject": str, "centre": str})
