"""Convert volumes to preprocessed axial slices in memory-mapped arrays, and slices back to volumes.

Paper 3.2.1: the volume is divided by its maximum, and its axial slices are resampled to a square with scikit-image's
`resize` and its defaults. `Preparation` has alternatives. Input: NIfTI files. Output: `images.npy` (slices, size, size)
float32 in 0-1, `references.npy` of the same shape in uint8 0/1, and `index.csv`, which describes each slice. Each core
processes one subject at a time, so memory use does not grow with the cohort.
"""

import hashlib
import itertools
import os
import shutil
import warnings
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import pandas as pd
from nibabel import orientations
from scipy.ndimage import binary_opening
from skimage.transform import resize

from wmhlib.intake import plausible
from wmhlib.intake.nifti import MOST_VOXELS
from wmhlib.intake.scans import INTENSITIES, canonical_slice_count, check_proportion, read_flair, read_pair
from wmhlib.running.files import PathLike, read_table, writing
from wmhlib.running.parallel import in_threads

TISSUE = 0.05
"""Intensity above which a voxel of a FLAIR from `read_flair` counts as tissue, otherwise as air."""

VIEWS = ("whole", "head", "pad")
"""The part of a slice that is the network's input: the whole slice (paper 3.2.1), the bounding rectangle of the head
(D-021), or this rectangle padded with air to a square in mm, which keeps proportions."""


class Preparation(NamedTuple):
    """The preparation of a scan for a network: one of `VIEWS` and one of `wmhlib.intake.scans.INTENSITIES`."""

    view: str
    intensity: str = "maximum"

    @property
    def name(self) -> str:
        """The name of a folder of slices and of a network's input layer; `head` uses the intensity `maximum`,
        `head_tissue` does not."""
        return self.view if self.intensity == "maximum" else f"{self.view}_{self.intensity}"

    @classmethod
    def named(cls, name: str) -> "Preparation":
        """The preparation with this name; ValueError if there is none."""
        preparations = [cls(view, intensity) for view in VIEWS for intensity in INTENSITIES]
        by_name = {preparation.name: preparation for preparation in preparations}
        if name not in by_name:
            raise ValueError(
                f"There is no preparation {name!r} of scans: the name of a network's input layer must be one of "
                f"{', '.join(by_name)}."
            )
        return by_name[name]


PAPER = Preparation("whole", "maximum")
"""The paper's preparation (3.2.1)."""

Box = tuple[tuple[int, int], ...]
"""Start and stop (exclusive) in voxels along both axes of an axial slice; a box may extend beyond the slice."""


def box_of(flair: nibabel.Nifti1Image, view: str) -> Box:
    """The part of the axial slices that `view` selects, for a FLAIR from `read_flair`: the same for all slices.

    The head is everything brighter than `TISSUE` after an opening of 3x3 voxels, which removes noise in air, with a
    margin of two voxels. If there is no such voxel, the whole slice is used.

    Raises
    ------
    ValueError
        With the square, the volume would have more voxels than `wmhlib.intake.nifti.MOST_VOXELS`.
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
                "slices: correct the scan's voxel sizes, or use the view head."
            )
    return tuple(box)


def cut_out(volume: np.ndarray, box: Box) -> np.ndarray:
    """The part of an array (x, y, ...) in a box; zeros where the box extends beyond the array."""
    inside, beyond = _inside(volume.shape, box)
    return np.pad(volume[inside], [*beyond, *[(0, 0)] * (volume.ndim - 2)])


def _inside(shape: tuple, box: Box) -> tuple[tuple[slice, ...], list[tuple[int, int]]]:
    """The part of a box within a slice of this shape, and the number of voxels beyond it on each side."""
    inside = tuple(slice(max(start, 0), min(stop, side)) for (start, stop), side in zip(box, shape, strict=False))
    beyond = [(max(-start, 0), max(stop - side, 0)) for (start, stop), side in zip(box, shape, strict=False)]
    return inside, beyond


def axial_slices(volume: np.ndarray, size: int) -> np.ndarray:
    """Resample every axial slice of (x, y, slices) to a square: (slices, size, size) of the same kind.

    As in `resize` by default, booleans use the nearest neighbour, and images are smoothed first if they shrink.
    """
    return np.stack([resize(volume[..., k], (size, size)) for k in range(volume.shape[2])])


def volume_of(slices: np.ndarray, scan: nibabel.Nifti1Image, box: Box | None = None) -> np.ndarray:
    """Resample slices (slices, size, size) of a scan back to the scan's own grid: float32 of its shape.

    Inverse of `canonical` followed by `axial_slices` of the part in `box`, up to interpolation; 0 outside the box.
    """
    to_canonical = orientations.io_orientation(scan.affine)
    to_scan = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), to_canonical)
    shape = np.empty(3, dtype=int)
    shape[to_canonical[:, 0].astype(int)] = scan.shape
    volume = np.zeros(shape, dtype=np.float32)
    box = box or tuple((0, side) for side in shape[:2])
    inside, beyond = _inside(volume.shape, box)
    part = volume[inside]  # a view of the volume
    kept = tuple(slice(before, before + side) for (before, _), side in zip(beyond, part.shape, strict=False))
    for k, slice_ in enumerate(slices):
        part[..., k] = resize(slice_, [stop - start for start, stop in box])[kept]
    return orientations.apply_orientation(volume, to_scan)


def round_trip(flair: nibabel.Nifti1Image, reference: nibabel.Nifti1Image, size: int, view: str) -> np.ndarray:
    """A reference resampled to slices of `size` pixels and back: bool of its shape.

    This is the mask of a network that reproduces its reference slices exactly. The images are from `read_flair` and
    `read_reference`.
    """
    box = box_of(flair, view)
    slices = axial_slices(cut_out(np.asarray(reference.dataobj, dtype=bool), box), size)
    return volume_of(slices.astype(np.float32), reference, box) >= 0.5


def ceilings(cohort: pd.DataFrame, size: int, preparation: Preparation) -> pd.DataFrame:
    """The Dice of a network that reproduces its reference slices of `size` pixels exactly, for each subject of a
    cohort.

    This is not a strict limit: smooth probabilities can be resampled slightly better than masks (D-014).

    Returns
    -------
    DataFrame
        `subject, centre, split, dice`, the Dice of a reference and its `round_trip`; NaN if the reference is empty.
    """

    def ceiling(subject) -> tuple[str, str, str, float]:
        flair, reference = read_pair(subject.flair, subject.reference, preparation.intensity)
        voxels, back = np.asarray(reference.dataobj, dtype=bool), round_trip(flair, reference, size, preparation.view)
        both = voxels.sum() + back.sum()
        return subject.subject, subject.centre, subject.split, 2 * (voxels & back).sum() / both if both else np.nan

    rows = in_threads(ceiling, list(cohort.itertuples()), "ceilings", "scan")
    return pd.DataFrame(rows, columns=["subject", "centre", "split", "dice"])


def ceilings_by_centre(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `ceilings` per split and centre: number of scans, and lowest, mean and highest Dice."""
    centres = table.groupby(["split", "centre"], sort=False).dice
    return centres.agg(scans="size", lowest="min", mean="mean", highest="max").round(3)


def write_slices(cohort: pd.DataFrame, folder: PathLike, size: int, preparation: Preparation = PAPER) -> None:
    """Preprocess every subject of a cohort into `folder`. If it fails, an earlier folder is kept.

    Raises
    ------
    ValueError
        As `read_pair`, or two subjects of different splits have the same FLAIR.
    OSError
        The disk is full or the folder cannot be written, as in `wmhlib.running.files.writing`.
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

    alike: dict[tuple[str, str], list[tuple[str, str]]] = {}
    """(FLAIR or reference, checksum of its slices): (subject, split) of those that have it."""

    def fill(place: tuple) -> list[tuple]:
        subject, start, count = place
        flair, reference = read_pair(subject.flair, subject.reference, preparation.intensity)
        if preparation.intensity == "maximum":
            check_proportion(subject.flair, flair)
        unclipped = flair if preparation.intensity == "maximum" else read_flair(subject.flair)
        for doubt in plausible.doubts(unclipped):
            warnings.warn(f"{subject.flair}: {doubt}", plausible.ImplausibleWarning, stacklevel=2)
        rows, box = slice(start, start + count), box_of(flair, preparation.view)
        images[rows] = axial_slices(cut_out(flair.get_fdata(dtype=np.float32), box), size)
        references[rows] = axial_slices(cut_out(np.asarray(reference.dataobj, dtype=bool), box), size)
        density = references[rows].mean(axis=(1, 2)) * 100
        tissue = (images[rows] > TISSUE).mean(axis=(1, 2)) * 100
        for which, stack in (("FLAIR", images[rows]), ("reference", references[rows])):
            if stack.any():
                key = which, hashlib.sha256(stack.tobytes()).hexdigest()
                alike.setdefault(key, []).append((subject.subject, subject.split))
        return [(subject.subject, subject.centre, subject.split, k, density[k], tissue[k]) for k in range(count)]

    starts = np.cumsum([0, *counts[:-1]])
    places = list(zip(cohort.itertuples(), starts, counts, strict=True))
    index = itertools.chain.from_iterable(in_threads(fill, places, "slices", "subject"))
    for (which, _), owners in alike.items():
        _tell_copies(which, owners)
    columns = ["subject", "centre", "split", "slice", "lesion_density_pct", "tissue_pct"]
    pd.DataFrame(index, columns=columns).to_csv(folder / "index.csv", index=False)


def _tell_copies(which: str, owners: list[tuple[str, str]]) -> None:
    """Refuse subjects of two splits with the same prepared FLAIR; warn of other equal FLAIRs and of equal references."""
    if len(owners) < 2:
        return
    both = " and ".join(f"{subject} ({split})" for subject, split in sorted(owners))
    text = f"The subjects {both} have the same {which}"
    if which == "FLAIR" and len({split for _, split in owners}) > 1:
        raise ValueError(f"{text} in two splits: remove one of them.")
    warnings.warn(f"{text}: one of the files may be a copy of the wrong subject's.", stacklevel=2)


def _reserved(path: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    """A memory-mapped array whose disk space is allocated at once; with a sparse file, a full disk would kill the
    process."""
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # not available on macOS
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def open_slices(folder: PathLike) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """The memory-mapped images and references of a preprocessed cohort, and their index.

    Raises
    ------
    FileNotFoundError
        There are no slices yet; the message says what to run.
    """
    folder = Path(folder)
    if not (folder / "index.csv").is_file():
        raise FileNotFoundError(f"No slices found in {folder}: run notebook 02_preprocess of this study first.")
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    references = np.load(folder / "references.npy", mmap_mode="r", allow_pickle=False)
    return images, references, read_table(folder / "index.csv")
