"""Real heads as tissue maps at 1 mm: the MNI152 template, or label maps of whole heads.

Input: nothing (the template comes with nilearn), or a folder of label maps with FreeSurfer's numbers, such as those
that `make data OPTIONS=head-label-maps` fetches. Output: one `Head` each, with axes to right, anterior, superior.
MNI152: Fonov et al. 2011, doi:10.1016/j.neuroimage.2010.07.033. It has the brain only, so skull, fat and eyes are
simulated. Label maps: Billot et al. 2023, doi:10.1016/j.media.2023.102789, with brain, skull, fat, muscles and eyes.
"""

import itertools
from enum import IntEnum
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from scipy import ndimage

from wmhlib.intake.fields import resampled
from wmhlib.intake.folders import search
from wmhlib.intake.nifti import read_scan
from wmhlib.running.files import PathLike

Tissue = IntEnum(
    "Tissue",
    "WHITE CORTEX THALAMUS STRIATUM PALLIDUM VENTRICLE CSF CEREBELLAR_WHITE CEREBELLAR_GREY STEM CHOROID VESSEL "
    "BONE MARROW MUSCLE FAT SKIN EYE MUCOSA",
)
"""The tissue of a voxel; 0 is air."""

FREESURFER = {
    Tissue.WHITE: (2, 25, 41, 57, 77, *range(250, 256)),  # lesions count as white matter: new ones are simulated
    Tissue.CORTEX: (3, 17, 18, 42, 53, 54),
    Tissue.THALAMUS: (10, 49),
    Tissue.STRIATUM: (11, 12, 26, 50, 51, 58),
    Tissue.PALLIDUM: (13, 52),
    Tissue.VENTRICLE: (4, 5, 14, 15, 43, 44, 72),
    Tissue.CSF: (24,),
    Tissue.CEREBELLAR_WHITE: (7, 46),
    Tissue.CEREBELLAR_GREY: (8, 47),
    Tissue.STEM: (16, 28, 60, 85, 512),
    Tissue.CHOROID: (31, 63, 136, 137, 163, 164),
    Tissue.VESSEL: (30, 62, 502, 514),
    Tissue.BONE: (515,),
    Tissue.MARROW: (516,),
    Tissue.MUSCLE: (507, 508, 530),
    Tissue.SKIN: (511,),
    Tissue.EYE: (506,),
    Tissue.MUCOSA: (509,),
}
TOUCHING = ((3, 42), Tissue.CORTEX, Tissue.CSF), ((4, 43), Tissue.VENTRICLE, Tissue.WHITE)
"""Labels of the left and the right that touch in the maps, where a head has the interhemispheric fissure or the septum
between them: the two labels, their tissue, and the tissue between them."""
GONE = "remove it from the folder"

NUCLEI = Tissue.THALAMUS, Tissue.STRIATUM, Tissue.PALLIDUM

IN_BRAIN = np.isin(np.arange(256), [*range(1, Tissue.CSF), *range(Tissue.CEREBELLAR_WHITE, Tissue.VESSEL)])
"""For each number of `Tissue`, whether it belongs to the brain, including the ventricles."""


STRUCTURES = {
    "intracranial": IN_BRAIN | (np.arange(256) == Tissue.CSF),
    "ventricles": np.isin(np.arange(256), (Tissue.VENTRICLE, Tissue.CHOROID)),
}
"""For each number of `Tissue`, whether it belongs to a structure: the space inside the skull (brain and fluid, without large
vessels), and all ventricles with their choroid plexus. Around the template, the fluid is a shell of 2.5 mm."""


class Head(NamedTuple):
    """A head at 1 mm with axes to right, anterior, superior."""

    tissue: np.ndarray  # uint8, numbers of `Tissue`
    parts: np.ndarray  # uint8, 255 is 1: fractions of white matter, of all outside the brain, of ventricle in a voxel
    outward: np.ndarray  # on every fourth voxel: displacement (x, y, z) of tissue if the ventricles widen by 1 mm
    centre: np.ndarray  # the voxel at the centre of the brain


def heads(folder: PathLike | None) -> list[Path | None]:
    """The available heads: None for the template, then the label maps of a folder, sorted by name.

    Raises
    ------
    FileNotFoundError
        The folder does not exist or has no NIfTI file.
    """
    if not folder:
        return [None]
    remedy = "fetch them with `make data OPTIONS=head-label-maps`, or leave data.phantom.label_maps out"
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"The folder of label maps {folder} does not exist: {remedy}.")
    maps = sorted(path for path in search(folder).files if path.name.lower().endswith((".nii", ".nii.gz")))
    if not maps:
        raise FileNotFoundError(f"{folder} has no label map (.nii or .nii.gz): {remedy}.")
    return [None, *maps]


@lru_cache(maxsize=24)
def head(path: Path | None) -> Head:
    """The template (None) or a label map.

    Raises
    ------
    FileNotFoundError, PermissionError, ValueError
        As `wmhlib.intake.nifti.read_scan`. Also ValueError if the file has labels that are not FreeSurfer's for a head,
        voxels other than 1 mm, or an incomplete head, and FileNotFoundError if nilearn's installation is incomplete.
    """
    return _template() if path is None else _label_map(path)


def _template() -> Head:
    spec = find_spec("nilearn")  # not imported: every worker process needs only its data
    folder = Path(spec.origin).parent / "datasets" / "data" if spec and spec.origin else Path("nilearn")
    paths = [folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz" for name in ("gm", "wm", "t1")]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path} of nilearn's MNI152 template is missing: run `make setup`.")
    grey, white, t1 = (np.pad(np.asarray(read_scan(path).dataobj), ((8, 8), (8, 20), (30, 10))) for path in paths)
    x, y, z = (axis.astype(np.float32) for axis in np.ogrid[-106:107, -142:119, -102:127])  # mm in MNI152
    brain = t1 > 0
    fluid = np.where(brain, np.maximum(np.int16(255) - grey - white, 0), 255)
    matter = brain & (fluid < 105)
    tissue = brain * np.uint8(Tissue.CSF) - matter * np.uint8(Tissue.CSF - Tissue.CORTEX)
    tissue -= (matter & (white > grey)) * np.uint8(Tissue.CORTEX - Tissue.WHITE)
    fissure = (tissue == Tissue.CORTEX) & (np.abs(x) < 1) & ((z > 35) | (y > 20) | ((y < -60) & (z > 0)))
    tissue[fissure], fluid[fissure] = Tissue.CSF, 200
    _draw_shells(tissue, brain, z)
    _draw_face(tissue[:, 125:236, :80], ~brain[:, 125:236, :80], x, y[:, 125:236], z[:, :, :80])
    inner = (slice(46, 167), slice(30, 191), slice(30, 137))
    _name_parts(tissue[inner], brain[inner], x[46:167], y[:, 30:191], z[:, :, 30:137])
    return _finished(tissue, white * ~np.isin(tissue, NUCLEI), fluid)


def _name_parts(tissue: np.ndarray, brain: np.ndarray, x, y, z) -> None:
    """Label the ventricles, nuclei, cerebellum and brainstem of the template, in place."""
    parts, _ = ndimage.label(
        (tissue == Tissue.CSF) & (((x / 42) ** 2 + ((y + 15) / 62) ** 2 + ((z - 7) / 24) ** 2) < 1)
    )
    tissue[parts == np.bincount(parts[parts > 0]).argmax()] = Tissue.VENTRICLE
    nuclei = (tissue == Tissue.CORTEX) & (((x / 34) ** 2 + ((y + 6) / 31) ** 2 + ((z - 6) / 17) ** 2) < 1)
    behind = y < -3 - np.abs(x) / 3
    tissue[nuclei & behind] = Tissue.THALAMUS
    tissue[nuclei & ~behind] = Tissue.STRIATUM
    below = (y < -34) & (z < -14 + 0.3 * np.maximum(y + 60, 0)) & (np.abs(x) < 60)
    tissue[below & (tissue == Tissue.WHITE)] = Tissue.CEREBELLAR_WHITE
    tissue[below & (tissue == Tissue.CORTEX)] = Tissue.CEREBELLAR_GREY
    stem = (np.abs(x) < 16) & (y > -40) & (y < -8) & (z < -8) & (tissue <= Tissue.CORTEX) & brain
    tissue[stem] = Tissue.STEM


def _draw_shells(tissue: np.ndarray, brain: np.ndarray, z: np.ndarray) -> None:
    """Add CSF, skull, fat and skin around the template's brain, in place, by distance from it in steps of 0.5 mm."""
    full = ndimage.binary_closing(brain[1::3, 1::3, 1::3], iterations=4)
    away = 3 * ndimage.gaussian_filter(ndimage.distance_transform_edt(~full).astype(np.float32), 1)
    axes = [np.arange(count) for count in tissue.shape]
    away = resampled(away, axes, [axis[1::3] for axis in axes]) - 2 + 2 * np.maximum(0, -z / 40 - 0.6)
    shells = ("CSF", 5), ("BONE", 4), ("MARROW", 3), ("BONE", 3), ("FAT", 7), ("SKIN", 4), (None, 500)
    table = np.repeat([Tissue[name] if name else 0 for name, _ in shells], [count for _, count in shells])
    np.copyto(tissue, table.astype(np.uint8)[np.maximum(2 * away, 0).astype(np.int16)], where=~brain)


def _draw_face(tissue: np.ndarray, outside: np.ndarray, x, y, z) -> None:
    """Add muscle, nose and eyes below the template's forehead, in place."""
    head = outside & (((x / 62) ** 2 + ((y - 15) / 72) ** 2) < 1) & (z < -22)
    tissue[head & ((np.abs(x) < 18) | (z < -55)) & (tissue != Tissue.BONE)] = Tissue.MUSCLE
    tissue[head & (np.abs(x) < 13) & (y > 20) & (y < 76)] = Tissue.MUCOSA
    for side in (-34, 34):
        cone = np.sqrt((x - side * (1 - (66 - y) / 90)) ** 2 + (z + 35) ** 2) + 0.28 * np.maximum(66 - y, 0)
        tissue[outside & (cone < 19) & (y > 22) & ((y - 40) ** 2 + (x - side) ** 2 < 36**2)] = Tissue.FAT
        tissue[outside & (cone < 4) & (y > 30) & (y < 60)] = Tissue.MUSCLE
        tissue[outside & (((x - side) ** 2 + (y - 64) ** 2 + (z + 37) ** 2) < 144)] = Tissue.EYE


def _label_map(path: Path) -> Head:
    image = nibabel.as_closest_canonical(read_scan(path))
    labels = np.asarray(image.dataobj)
    if labels.ndim != 3 or not np.allclose(image.header.get_zooms(), 1, atol=0.01):
        size = " x ".join(f"{side:g}" for side in image.header.get_zooms())
        raise ValueError(f"{path} has voxels of {size} mm, but a label map needs three axes with 1 mm: {GONE}.")
    if strange := sorted(set(np.unique(labels).tolist()) - {0, *itertools.chain(*FREESURFER.values())}):
        examples = ", ".join(f"{number:g}" for number in strange[:3])
        raise ValueError(f"{path} has the labels {examples}, which are not FreeSurfer's for a head: {GONE}.")
    names = np.zeros(1000, np.uint8)
    for number_of, numbers in FREESURFER.items():
        names[list(numbers)] = number_of
    tissue = names[labels.astype(np.int16)]
    for (left, right), part, between in TOUCHING:
        both = ndimage.binary_dilation(labels == left) & ndimage.binary_dilation(labels == right)
        tissue[both & (tissue == part)] = between
    for part, least_ml in (Tissue.WHITE, 200), (Tissue.CORTEX, 200), (Tissue.VENTRICLE, 2), (Tissue.BONE, 50):
        if (ml := (tissue == part).sum() / 1000) < least_ml:
            raise ValueError(
                f"{path} has {ml:.1f} ml of {part.name.lower()}, but a head has at least {least_ml}: {GONE}."
            )
    brain = np.flatnonzero((tissue == Tissue.WHITE).any((0, 1)))
    tissue = tissue[:, :, max(0, brain[0] - 50) :]
    [occupied] = ndimage.find_objects((tissue > 0).astype(np.uint8))
    tissue = np.pad(tissue[occupied], 2)
    _name_scalp(tissue)
    masks = tissue == Tissue.WHITE, ~IN_BRAIN[tissue]
    return _finished(tissue, *(255 * ndimage.gaussian_filter(mask.astype(np.float32), 0.8) for mask in masks))


def _name_scalp(tissue: np.ndarray) -> None:
    """Label skin, fat and marrow of a label map by their depth, and remove stray pieces, in place."""
    coarse = tissue[::2, ::2, ::2]
    pieces, _ = ndimage.label(coarse)
    main = pieces == np.bincount(pieces[pieces > 0]).argmax()
    eyes = ndimage.binary_dilation(coarse == Tissue.EYE, iterations=7) & ~ndimage.binary_dilation(coarse == Tissue.EYE)
    depth = ndimage.gaussian_filter(2 * ndimage.distance_transform_edt(main).astype(np.float32), 0.7)
    axes = [np.arange(count) for count in tissue.shape]
    parts = (depth, eyes, main)
    depth, orbit, inside = (resampled(p.astype(np.float32), axes, [axis[::2] for axis in axes]) for p in parts)
    scalp = np.isin(tissue, (Tissue.MUSCLE, Tissue.SKIN))
    tissue[scalp & ((depth < 8) | (orbit > 0.5))] = Tissue.FAT
    tissue[scalp & (depth < 2.5)] = Tissue.SKIN
    tissue[(inside < 0.5) & (tissue > Tissue.CHOROID)] = 0
    inner = ndimage.binary_erosion(np.isin(tissue, (Tissue.BONE, Tissue.MARROW)), iterations=2)
    tissue[inner] = Tissue.MARROW


def _finished(tissue: np.ndarray, white: np.ndarray, fluid: np.ndarray) -> Head:
    distance = 4 * ndimage.distance_transform_edt(tissue[::4, ::4, ::4] != Tissue.VENTRICLE)
    distance = ndimage.gaussian_filter(distance, 0.7)
    outward = np.stack(np.gradient(distance, 4.0)) * np.exp(-distance / 14)
    [brain] = ndimage.find_objects(IN_BRAIN[tissue].astype(np.uint8))
    middle = [(side.start + side.stop - 1) / 2 for side in brain]
    ventricle = 255 * ndimage.gaussian_filter((tissue == Tissue.VENTRICLE).astype(np.float32), 0.8)
    parts = np.stack([np.clip(np.rint(part), 0, 255).astype(np.uint8) for part in (white, fluid, ventricle)])
    return Head(np.ascontiguousarray(tissue), parts, outward.astype(np.float32), np.array(middle))
