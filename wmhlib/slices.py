"""A volume as preprocessed axial slices, kept in memory-mapped arrays, and back to the volume.

Paper 3.2.1: the whole volume is divided by its maximum, axial slices are taken and resampled to a square with
scikit-image's `resize` at its defaults. `Preparation` has the other choices. Input: NIfTI files. Output: `images.npy` (slices, size, size) float32 in 0-1,
`references.npy` of the same shape in uint8 0/1, and `index.csv`, which says what each slice is. They are written and read
one subject at a time, so memory does not grow with the cohort.
"""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import pandas as pd
from nibabel import orientations
from scipy.ndimage import binary_opening
from skimage.transform import resize
from tqdm import tqdm

from wmhlib.intake.nifti import MOST_VOXELS
from wmhlib.intake.scans import INTENSITIES, canonical_slice_count, check_proportion, read_pair
from wmhlib.running.files import PathLike, read_table, writing

TISSUE = 0.05
"""What is brighter than this in a FLAIR as `read_flair` gives it counts as tissue, darker as air."""

VIEWS = ("whole", "head", "pad")
"""What of a slice the network sees: all of it (paper 3.2.1), the rectangle that holds the head (D-021), or that rectangle
padded with air to a square of equal sides in mm, which keeps proportions."""


class Preparation(NamedTuple):
    """How a scan is prepared for a network: one of `VIEWS` and one of `wmhlib.intake.scans.INTENSITIES`."""

    view: str
    intensity: str = "maximum"

    @property
    def name(self) -> str:
        """What folders of slices and a network's input layer are called: `head` divides by the maximum, `head_tissue` not."""
        return self.view if self.intensity == "maximum" else f"{self.view}_{self.intensity}"

    @classmethod
    def named(cls, name: str) -> "Preparation":
        """The preparation of this name; ValueError where there is none."""
        every = {one.name: one for one in (cls(view, intensity) for view in VIEWS for intensity in INTENSITIES)}
        if name not in every:
            raise ValueError(f"No scan is prepared as {name!r}; a network's input is called one of {', '.join(every)}.")
        return every[name]


PAPER = Preparation("whole", "maximum")
"""The paper's preparation (3.2.1)."""

Box = tuple[tuple[int, int], ...]
"""The first voxel and the one after the last along both sides of an axial slice; it may reach beyond the slice."""


def box_of(flair: nibabel.Nifti1Image, view: str) -> Box:
    """The part of every axial slice that `view` shows, for a FLAIR as `read_flair` gives it: the same for all its slices.

    The head is what is brighter than `TISSUE` after an opening of 3x3 voxels, which removes the noise of air; two voxels
    of margin stay around it. Where there is no such voxel, the whole slice.

    Raises
    ------
    ValueError
        The square would hold more voxels than `wmhlib.intake.nifti.MOST_VOXELS`.
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
        width, height = (stop - start for start, stop in box)
        if width * height * flair.shape[2] > MOST_VOXELS:
            raise ValueError(
                f"A square around a head of {longest:g} mm would have {width} x {height} voxels on {flair.shape[2]} "
                "slices: correct the scan's voxel sizes, or choose the view head."
            )
    return tuple(box)


def cut_out(volume: np.ndarray, box: Box) -> np.ndarray:
    """The part of (x, y, ...) in a box; zeros where the box reaches beyond."""
    inside, beyond = _inside(volume.shape, box)
    return np.pad(volume[inside], [*beyond, *[(0, 0)] * (volume.ndim - 2)])


def _inside(shape: tuple, box: Box) -> tuple[tuple[slice, ...], list[tuple[int, int]]]:
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


def ceilings(cohort: pd.DataFrame, size: int, preparation: Preparation) -> pd.DataFrame:
    """The Dice of a network that would repeat its reference slices of `size` pixels, on each subject of a cohort.

    No hard limit: probabilities that fall off smoothly can come back a little better than masks do (D-014).

    Returns
    -------
    DataFrame
        `subject, centre, split, dice`: of a reference and its `round_trip`; NaN where the reference is empty.
    """
    rows = []
    for subject in tqdm(cohort.itertuples(), "ceilings", len(cohort), unit="scan"):
        flair, reference = read_pair(subject.flair, subject.reference, preparation.intensity)
        voxels, back = np.asarray(reference.dataobj, dtype=bool), round_trip(flair, reference, size, preparation.view)
        both = voxels.sum() + back.sum()
        rows.append(
            (subject.subject, subject.centre, subject.split, 2 * (voxels & back).sum() / both if both else np.nan)
        )
    return pd.DataFrame(rows, columns=["subject", "centre", "split", "dice"])


def write_slices(cohort: pd.DataFrame, folder: PathLike, size: int, preparation: Preparation = PAPER) -> None:
    """Preprocess every subject of a cohort into `folder`, all or nothing.

    Raises
    ------
    ValueError
        As `read_pair`.
    OSError
        The disk has no room, or the folder cannot be written; as `wmhlib.running.files.writing`.
    """
    folder = Path(folder)
    unfinished, earlier = (folder.with_name(f".{word}-{folder.name}") for word in ("unfinished", "earlier"))
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(earlier, ignore_errors=True)
    with writing(folder):
        try:
            unfinished.mkdir(parents=True)
            _fill(unfinished, cohort, size, preparation)
            if folder.exists():
                folder.rename(earlier)
            unfinished.rename(folder)
        finally:
            if earlier.exists() and not folder.exists():
                earlier.rename(folder)
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.rmtree(earlier, ignore_errors=True)


def _fill(folder: Path, cohort: pd.DataFrame, size: int, preparation: Preparation) -> None:
    counts = [canonical_slice_count(path) for path in cohort.flair]
    shape = (sum(counts), size, size)
    images = _reserved(folder / "images.npy", np.float32, shape)
    references = _reserved(folder / "references.npy", np.uint8, shape)
    index, start = [], 0
    for subject, count in zip(tqdm(cohort.itertuples(), "slices", len(cohort), unit="subject"), counts, strict=True):
        flair, reference = read_pair(subject.flair, subject.reference, preparation.intensity)
        if preparation.intensity == "maximum":
            check_proportion(subject.flair, flair)
        here, box = slice(start, start + count), box_of(flair, preparation.view)
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


def open_slices(folder: PathLike) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """The memory-mapped images and references, and their index, of a preprocessed cohort.

    Raises
    ------
    FileNotFoundError
        Nothing was preprocessed yet; the message says what to run.
    """
    folder = Path(folder)
    if not (folder / "index.csv").is_file():
        raise FileNotFoundError(f"No slices at {folder}: run notebook 02_preprocess of this study first.")
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    references = np.load(folder / "references.npy", mmap_mode="r", allow_pickle=False)
    return images, references, read_table(folder / "index.csv")
