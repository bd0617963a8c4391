"""The space inside the skull and the ventricles of a scan, by two small networks that are bundled with the project.

Input: a scan. Output: the masks of both structures on the scan's own grid. They keep lesion masks inside the skull, and
give its volume and the distance of lesions from the ventricles. The networks were trained on synthetic heads, whose
structures are known (`wmhlib.apply.train_structures`, D-061).
"""

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
"""Volume inside the skull of a whole head, generously: a stripped brain of an adult has 800 ml or more."""


class Structures(NamedTuple):
    """Boolean masks on a scan's own grid, and the volume inside the skull.

    If it is below the first of `EXPECTED_ML`, the skull counts as not found, and `intracranial` is True everywhere.
    """

    intracranial: np.ndarray
    ventricles: np.ndarray
    intracranial_ml: float


def file_of(structure: str) -> Path:
    """The bundled network of a structure, a key of `STRUCTURES`."""
    return BUNDLED.with_name(f"{structure}.keras")


@cache
def network_of(structure: str) -> keras.Model:
    """The bundled network of a structure, loaded once."""
    return load_generator(file_of(structure))


def structures_of(flair: Flair | Prepared) -> Structures:
    """The structures of a scan; `flair` may be prepared for a network. Errors as in `wmhlib.inference.probability`."""
    inside, ventricles = (network_of(structure) for structure in STRUCTURES)
    seen = recut(flair, inside) if isinstance(flair, Prepared) else prepared(inside, flair)
    within = largest(predicted(inside, seen) >= 0.5)
    rows = within.any(axis=(1, 2))
    masks = [
        volume_of(slices.astype(np.float32), seen.scan, seen.box) >= 0.5
        for slices in (within, predicted(ventricles, seen, rows=rows) * within >= 0.5)
    ]
    ml = float(masks[0].sum() * voxel_mm3(seen.scan.affine) / 1000)
    return Structures(masks[0] if ml >= EXPECTED_ML[0] else np.ones_like(masks[0]), masks[1], ml)


def largest(slices: np.ndarray) -> np.ndarray:
    """The largest 26-connected component of boolean slices (slices, size, size), without holes within slices."""
    labels = cc3d.largest_k(slices, k=1, connectivity=26)
    return np.stack([ndimage.binary_fill_holes(slice_) for slice_ in labels > 0])


def skull_doubt(structures: Structures) -> str:
    """A warning if the volume inside the skull is implausible; otherwise empty."""
    ml, (least, most) = structures.intracranial_ml, EXPECTED_ML
    if ml < least:
        return f"Only {ml:.0f} ml were found inside the skull (expected {least} to {most}), so its outside was not left out"
    return f"{ml:.0f} ml were found inside the skull, expected {least} to {most}" if ml > most else ""
