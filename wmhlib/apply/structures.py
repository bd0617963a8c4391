"""The space inside the skull and the ventricles of a scan, by two small networks that are bundled with the project.

Input: a scan. Output: the masks of both structures on the scan's own grid. They keep lesion masks inside the skull, and
give its volume and the distance of lesions from the ventricles. The networks were trained on synthetic heads, whose
structures are known (`wmhlib.apply.train_structures`, D-061).
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cc3d
import keras
import numpy as np
from scipy import ndimage

from wmhlib.inference import BUNDLED, Flair, Prepared, load_generator, predicted, prepared, recut
from wmhlib.intake.anatomy import STRUCTURES
from wmhlib.metrics import voxel_mm3
from wmhlib.slices import volume_of

EXPECTED_ML = (500, 2200)
"""Volume inside the skull of a whole head, generously: a stripped brain of an adult has 800 ml or more, and 2 litres inside the
skull are rare."""

LEAST_VENTRICLES_ML = 4.0
"""Smaller ventricles are taken as not found: the smallest of 16 synthetic and 14 real heads have 10 ml or more."""

LEAST_PART = 0.05
"""Components below this fraction of the largest are left out, such as an orbit (a hundredth); what blank slices or a wrapped
head separate is kept."""


class Structures(NamedTuple):
    """Boolean masks on a scan's own grid, and the volumes of the structures as they were found.

    Below the first of `EXPECTED_ML`, `intracranial` is True everywhere and `ventricles` is empty. Below
    `LEAST_VENTRICLES_ML`, `ventricles` is empty.
    """

    intracranial: np.ndarray
    ventricles: np.ndarray
    intracranial_ml: float
    ventricles_ml: float


def file_of(structure: str) -> Path:
    """The bundled network of a structure, a key of `STRUCTURES`."""
    return BUNDLED.with_name(f"{structure}.keras")


def structures_sha256() -> str:
    """SHA-256 over the files of all structures' networks."""
    return hashlib.sha256(b"".join(file_of(structure).read_bytes() for structure in STRUCTURES)).hexdigest()


@cache
def network_of(structure: str) -> keras.Model:
    """The bundled network of a structure, loaded once."""
    return load_generator(file_of(structure))


def structures_of(flair: Flair | Prepared) -> Structures:
    """The structures of a scan; `flair` may be prepared for a network. Errors as in `wmhlib.inference.probability`."""
    inside, ventricles = network_of("intracranial"), network_of("ventricles")
    seen = recut(flair, inside) if isinstance(flair, Prepared) else prepared(inside, flair)
    within = large_parts(predicted(inside, seen) >= 0.5)
    seen = recut(seen, ventricles)
    likely = predicted(ventricles, seen, rows=within.any(axis=(1, 2)))
    masks = [
        volume_of(slices.astype(np.float32), seen.scan, seen.box) >= 0.5 for slices in (within, likely * within >= 0.5)
    ]
    inside_ml, ventricles_ml = (float(mask.sum() * voxel_mm3(seen.scan.affine) / 1000) for mask in masks)
    if inside_ml < EXPECTED_ML[0]:
        masks[0] = np.ones_like(masks[0])
    if inside_ml < EXPECTED_ML[0] or ventricles_ml < LEAST_VENTRICLES_ML:
        masks[1] = np.zeros_like(masks[1])
    return Structures(*masks, inside_ml, ventricles_ml)


def large_parts(slices: np.ndarray) -> np.ndarray:
    """The large 26-connected components of boolean slices (slices, size, size), see `LEAST_PART`, without holes within
    slices."""
    labels = cc3d.connected_components(slices, connectivity=26)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    large = (sizes >= LEAST_PART * sizes.max()) & (sizes > 0)
    return np.stack([ndimage.binary_fill_holes(slice_) for slice_ in large[labels]])


def structure_doubts(structures: Structures) -> list[str]:
    """Warnings if the volume inside the skull is implausible, or if the ventricles were not found."""
    ml, (least, most) = structures.intracranial_ml, EXPECTED_ML
    doubts = [f"{ml:.0f} ml were found inside the skull, expected {least} to {most}"] * (not least <= ml <= most)
    if ml < least:
        doubts[0] += ", so the mask may reach outside it"
    if not structures.ventricles.any():
        doubts.append(f"The ventricles were not found ({structures.ventricles_ml:.1f} ml), so lesions have no region")
    return doubts
