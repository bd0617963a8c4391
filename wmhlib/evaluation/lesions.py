"""Detected lesions and false positives of a mask, and of probabilities at every threshold."""

import itertools

import cc3d
import nibabel
import numpy as np
import pandas as pd
from scipy.special import expit

from wmhlib.intake.grids import Volume
from wmhlib.intake.masks import read_pair_of_masks
from wmhlib.metrics import MaskPair, voxel_mm3, voxels_of

SMALL_MM3 = 30.0
"""Lesions below this volume are called small: ten voxels of the challenge's scans, and near the median in many real
scans."""

SIZE_EDGES_MM3 = (0.0, 10.0, SMALL_MM3, 100.0, 300.0, np.inf)
"""Edges of the classes of lesion volume, about half a decade apart. A lesion below 10 mm³ has one to three of the challenge's
voxels (2.8 to 3.0 mm³). The median lesion volume of 32 real scans is between 6 and 118 mm³, so most lesions are in the
middle classes."""

SIZES = {
    low: f"{low:g} mm³ and more" if high == np.inf else f"{low:g} to {high:g} mm³" if low else f"below {high:g} mm³"
    for low, high in itertools.pairwise(SIZE_EDGES_MM3)
}
"""The classes of lesion volume in words, by their lower edge in mm³."""

LOGITS = (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 7, 9, 12, 15)
THRESHOLDS = tuple(float(expit(logit)) for logit in sorted({sign * logit for logit in LOGITS for sign in (-1, 1)}))
"""Probability thresholds: symmetric about 0.5, densest between the soft labels 0.1 and 0.9 (on the logit scale), and
out to the limits of single precision, for networks with saturated probabilities."""

LEAST_INSIDE = 0.1
"""The least fraction of a component's voxels inside lesions for it to count as a detection: at a very low threshold,
one component covers the brain and touches every lesion without detecting any (D-038)."""


def volumes_ml(pair: MaskPair) -> dict[str, float]:
    """The volumes `reference_ml` and `predicted_ml` in ml, both without other pathology."""
    voxel_ml = voxel_mm3(pair.affine) / 1000
    return {"reference_ml": pair.volumes[0] * voxel_ml, "predicted_ml": pair.volumes[1] * voxel_ml}


def lesion_records(pair: MaskPair) -> pd.DataFrame:
    """Every lesion of the reference, and every false positive (a component of the result that touches no lesion).

    Returns
    -------
    DataFrame
        `kind`: `reference` or `false detection`. `lesion`: number from 1 in the order of position, so that a reference
        lesion has the same number for every result. `i, j, k`: centroid in voxels from 0, with axes to right, anterior,
        superior. `x_mm, y_mm, z_mm`: centroid in world mm. `slice`: axial index with most of its voxels, from 0 at the
        feet; the lowest if several tie. `volume_mm3`. `found` (detected) and `fraction_covered` (of its voxels, 0 to
        1), both missing for false positives. No rows if both masks are empty.
    """
    tables = [_records(pair, kind) for kind in ("reference", "false detection")]
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def _records(pair: MaskPair, kind: str) -> pd.DataFrame:
    """The records of one kind, in the order of position."""
    mask, other = (pair.lesion, pair.found) if kind == "reference" else (pair.found, pair.lesion)
    labels, count = cc3d.connected_components(mask, connectivity=26, return_N=True)
    voxels, depth = voxels_of(mask), mask.shape[2]
    owner = labels[tuple(voxels.T)].astype(int) - 1
    touched = np.bincount(owner[other[tuple(voxels.T)]], minlength=count)
    size = np.bincount(owner, minlength=count)
    starts = [part.start for part in pair.box]  # added to integers, so that a centroid does not depend on the box
    places = [axis + start for axis, start in zip(voxels.T, starts, strict=True)]
    sums = [np.bincount(owner, weights=axis, minlength=count) for axis in places]
    centroids = np.stack(sums, axis=1) / size[:, None]  # (lesion, axis)
    in_slice = np.bincount(owner * depth + voxels[:, 2], minlength=count * depth).reshape(count, depth)
    table = pd.DataFrame(centroids, columns=["i", "j", "k"])
    table.insert(0, "kind", kind)
    table[["x_mm", "y_mm", "z_mm"]] = nibabel.affines.apply_affine(pair.affine, centroids)
    table["slice"] = in_slice.argmax(axis=1) + pair.box[2].start if count else np.zeros(0, int)
    table["volume_mm3"] = size * voxel_mm3(pair.affine)
    table["found"] = pd.array(touched > 0 if kind == "reference" else [None] * count, dtype="boolean")
    table["fraction_covered"] = touched / size if kind == "reference" else np.nan
    table = (table if kind == "reference" else table[touched == 0]).sort_values(["k", "j", "i"])
    table.insert(1, "lesion", np.arange(1, len(table) + 1))
    return table


def operating_points(reference: Volume, probability: Volume) -> pd.DataFrame:
    """The lesions that a scan's probabilities detect, and the false positives, at each threshold of `THRESHOLDS`.

    A component of the mask at a threshold detects the lesions that it touches if at least a fraction of `LEAST_INSIDE`
    of its voxels is in lesions; otherwise it is a false positive. The challenge's recall requires only one voxel of
    overlap.

    Returns
    -------
    DataFrame
        One row per threshold: `threshold`; the number of `lesions` in the reference and of those detected (`found`);
        `small_lesions` and `small_found`, the same for lesions below `SMALL_MM3`; `false_detections`; numbers of voxels:
        `reference_voxels`, `marked_voxels` and `overlap_voxels`; and `lesions_<from>` and `found_<from>`, numbers of lesions
        by volume, for each lower edge of `SIZES`. An empty reference has 0 lesions.

    Errors as in `wmhlib.metrics.challenge_metrics`.
    """
    lesion, values, _, affine = read_pair_of_masks(reference, probability, foreground=THRESHOLDS[0])
    lesions, count = cc3d.connected_components(lesion, connectivity=26, return_N=True)
    volumes = np.bincount(lesions[lesion], minlength=count + 1)[1:] * voxel_mm3(affine)
    rows, small = [], int((volumes < SMALL_MM3).sum())

    def by_size(of: np.ndarray, name: str) -> dict[str, int]:
        return {
            f"{name}_{low:g}": int(number)
            for low, number in zip(SIZES, np.histogram(of, SIZE_EDGES_MM3)[0], strict=True)
        }

    for threshold in THRESHOLDS:
        mask = values >= threshold
        parts, number = cc3d.connected_components(mask, connectivity=26, return_N=True)
        both = lesion & mask
        inside, size = (np.bincount(parts[where], minlength=number + 1) for where in (both, mask))
        hits = inside >= LEAST_INSIDE * np.maximum(size, 1)
        detected = volumes[np.unique(lesions[both][hits[parts[both]]]) - 1]
        rows.append(
            {"threshold": threshold, "lesions": count, "found": len(detected)}
            | {"small_lesions": small, "small_found": int((detected < SMALL_MM3).sum())}
            | {"false_detections": int(number - hits.sum()), "reference_voxels": int(np.count_nonzero(lesion))}
            | {"marked_voxels": int(np.count_nonzero(mask)), "overlap_voxels": int(np.count_nonzero(both))}
            | by_size(volumes, "lesions")
            | by_size(detected, "found")
        )
    return pd.DataFrame(rows)
