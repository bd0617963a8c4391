"""A volume as preprocessed axial slices, kept in memory-mapped arrays, and back to the volume.

Paper 3.2.1: the whole volume is divided by its maximum, axial slices are taken and resampled to a square with
scikit-image's `resize` at its defaults, the grey image is repeated to three channels and preprocessed as VGG19 wants
it. In flow NIfTI files; out flow `images.npy` (slices, size, size) float32 in 0-1, `references.npy` of the same shape
in uint8 0/1, and `index.csv`, which says what each slice is. They are written and read one subject at a time, so
memory does not grow with the cohort.
"""

import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from nibabel import orientations
from scipy.ndimage import binary_opening
from skimage.transform import resize
from tqdm import tqdm

from wmhlib.metrics import GRID_TOLERANCE_MM, LABEL_TOLERANCE
from wmhlib.scans import DAMAGE, MOST_VOXELS, check_grid, open_scan, read_scan
from wmhlib.study import writing

IMAGENET_MEANS = (103.939, 116.779, 123.68)
"""Mean colour of ImageNet, blue-green-red, 0-255: what VGG19 was trained to see subtracted (paper 3.2.1)."""

TISSUE = 0.05
"""What is brighter than this share of the volume's maximum counts as tissue, darker as air."""


VIEWS = ("whole", "head", "pad")
"""What of a slice the network sees: all of it (paper 3.2.1), the rectangle that holds the head (D-021), or that rectangle
padded with air to a square of equal sides in mm, which keeps proportions."""

Box = tuple[tuple[int, int], tuple[int, int]]
"""The first voxel and the one after the last along both sides of an axial slice; it may reach beyond the slice."""


def canonical(path: str | Path | nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """A scan turned to the axes nearest to right, anterior, superior, so that the third one is axial.

    Raises
    ------
    FileNotFoundError, PermissionError, ValueError
        As `wmhlib.scans.read_scan`; also where it is not three-dimensional.
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


def read_pair(flair: str | Path, reference: str | Path) -> tuple[nibabel.Nifti1Image, nibabel.Nifti1Image]:
    """A FLAIR and its reference as `read_flair` and `read_reference` give them.

    Raises
    ------
    ValueError
        They lie on different grids; and as `read_flair` and `read_reference`.
    """
    image, mask = read_flair(flair), read_reference(reference)
    apart = np.abs(image.affine - mask.affine).max()
    if image.shape != mask.shape or apart > GRID_TOLERANCE_MM:
        raise ValueError(
            f"{flair} has shape {image.shape}, its reference {reference} {mask.shape}, and their affines differ by "
            f"{apart:.3g} mm: both must lie on one grid; resample the reference to the FLAIR."
        )
    return image, mask


def box_of(flair: nibabel.Nifti1Image, view: str) -> Box:
    """The part of every axial slice that `view` shows, for a FLAIR as `read_flair` gives it: the same for all its slices.

    The head is what is brighter than `TISSUE` after an opening of 3x3 voxels, which removes the noise of air; two voxels
    of margin stay around it. Where there is no such voxel, the whole slice.

    Raises
    ------
    ValueError
        The square would hold more voxels than `wmhlib.scans.MOST_VOXELS`.
    """
    whole = tuple((0, side) for side in flair.shape[:2])
    if view == "whole":
        return whole
    head = binary_opening(np.asarray(flair.dataobj) > TISSUE, np.ones((3, 3, 1)))
    sides = [np.flatnonzero(head.any(axis=axes)) for axes in ((1, 2), (0, 2))]
    if not len(sides[0]):
        return whole
    box = [(max(int(at[0]) - 2, 0), min(int(at[-1]) + 3, side)) for at, (_, side) in zip(sides, whole, strict=True)]
    if view == "pad":
        spacing = nibabel.affines.voxel_sizes(flair.affine)[:2]
        longest = max((stop - start) * mm for (start, stop), mm in zip(box, spacing, strict=True))
        missing = [round(longest / mm) - (stop - start) for (start, stop), mm in zip(box, spacing, strict=True)]
        box = [(start - more // 2, stop + more - more // 2) for (start, stop), more in zip(box, missing, strict=True)]
        sides = [stop - start for start, stop in box]
        if sides[0] * sides[1] * flair.shape[2] > MOST_VOXELS:
            raise ValueError(
                f"A square around a head of {longest:g} mm would have {sides[0]} x {sides[1]} voxels on {flair.shape[2]} "
                "slices: correct the scan's voxel sizes, or choose the view head."
            )
    return tuple(box)


def cut_out(volume: np.ndarray, box: Box) -> np.ndarray:
    """The part of (x, y, ...) in a box; zeros where the box reaches beyond."""
    inside, beyond = _inside(volume.shape, box)
    return np.pad(volume[inside], [*beyond, *[(0, 0)] * (volume.ndim - 2)])


def _inside(shape: tuple, box: Box) -> tuple[tuple[slice, slice], list[tuple[int, int]]]:
    """The part of a box within a slice of this shape, and by how much the box reaches beyond it on each side."""
    inside = tuple(slice(max(start, 0), min(stop, side)) for (start, stop), side in zip(box, shape, strict=False))
    beyond = [(max(-start, 0), max(stop - side, 0)) for (start, stop), side in zip(box, shape, strict=False)]
    return inside, beyond


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
    box = box or tuple((0, side) for side in shape[:2])
    inside, beyond = _inside(volume.shape, box)
    part = volume[inside]  # a view: what is written there stands in the volume
    kept = tuple(slice(before, before + side) for (before, _), side in zip(beyond, part.shape, strict=False))
    for k, one in enumerate(slices):
        part[..., k] = resize(one, [stop - start for start, stop in box])[kept]
    return orientations.apply_orientation(volume, to_scan)


def round_trip(flair: nibabel.Nifti1Image, reference: nibabel.Nifti1Image, size: int, view: str) -> np.ndarray:
    """What a network that repeats its reference slices would give: a reference brought to slices of `size` pixels and back; bool of its shape.

    Both images as `read_flair` and `read_reference` give them.
    """
    box = box_of(flair, view)
    there = axial_slices(cut_out(np.asarray(reference.dataobj, dtype=bool), box), size)
    return volume_of(there.astype(np.float32), reference, box) >= 0.5


def ceilings(cohort: pd.DataFrame, size: int, view: str) -> pd.DataFrame:
    """The Dice of a network that would repeat its reference slices of `size` pixels, on each subject of a cohort.

    No hard limit: probabilities that fall off smoothly can come back a little better than masks do (D-014).

    Returns
    -------
    DataFrame
        `subject, centre, split, dice`: of a reference and its `round_trip`; NaN where the reference is empty.
    """
    rows = []
    for subject in tqdm(cohort.itertuples(), "ceilings", len(cohort), unit="scan"):
        flair, reference = read_pair(subject.flair, subject.reference)
        voxels, back = np.asarray(reference.dataobj, dtype=bool), round_trip(flair, reference, size, view)
        both = voxels.sum() + back.sum()
        rows.append(
            (subject.subject, subject.centre, subject.split, 2 * (voxels & back).sum() / both if both else np.nan)
        )
    return pd.DataFrame(rows, columns=["subject", "centre", "split", "dice"])


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
        As `read_pair`.
    OSError
        The disk has no room, or the folder cannot be written; as `wmhlib.study.writing`.
    """
    unfinished, earlier = (folder.with_name(f".{word}-{folder.name}") for word in ("unfinished", "earlier"))
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(earlier, ignore_errors=True)
    with writing(folder):
        try:
            unfinished.mkdir(parents=True)
            _fill(unfinished, cohort, size, view)
            if folder.exists():
                folder.rename(earlier)
            unfinished.rename(folder)
        finally:
            if earlier.exists() and not folder.exists():
                earlier.rename(folder)
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.rmtree(earlier, ignore_errors=True)


def _fill(folder: Path, cohort: pd.DataFrame, size: int, view: str) -> None:
    counts = [canonical_slice_count(path) for path in cohort.flair]
    shape = (sum(counts), size, size)
    images = _reserved(folder / "images.npy", np.float32, shape)
    references = _reserved(folder / "references.npy", np.uint8, shape)
    index, start = [], 0
    for subject, count in zip(tqdm(cohort.itertuples(), "slices", len(cohort), unit="subject"), counts, strict=True):
        flair, reference = read_pair(subject.flair, subject.reference)
        here, box = slice(start, start + count), box_of(flair, view)
        images[here] = axial_slices(cut_out(flair.get_fdata(dtype=np.float32), box), size)
        references[here] = axial_slices(cut_out(np.asarray(reference.dataobj, dtype=bool), box), size)
        density = references[here].mean(axis=(1, 2)) * 100
        tissue = (images[here] > TISSUE).mean(axis=(1, 2)) * 100
        index += [(subject.subject, subject.centre, subject.split, k, density[k], tissue[k]) for k in range(count)]
        start += count
    columns = ["subject", "centre", "split", "slice", "lesion_density_pct", "tissue_pct"]
    pd.DataFrame(index, columns=columns).to_csv(folder / "index.csv", index=False)


def _reserved(path: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    """A memory-mapped array whose space on the disk is taken at once: a full disk would end a sparse one without a word."""
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # macOS has none
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def canonical_slice_count(path: str | Path) -> int:
    """Axial slices of a scan, from its header alone. Errors as in `canonical`."""
    image = open_scan(path)
    _refuse_other_than_3d(path, image)
    return image.shape[int(np.argmax(orientations.io_orientation(image.affine)[:, 0] == 2))]


def read_table(path: Path) -> pd.DataFrame:
    """A table that was saved without losing names: subjects and centres are text, and NA may be one of them."""
    return pd.read_csv(path, dtype={"subject": str, "centre": str}, na_values=[""], keep_default_na=False)


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
    return images, references, read_table(folder / "index.csv")
