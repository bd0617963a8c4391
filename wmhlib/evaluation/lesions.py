"""Lesion by lesion: what of a reference was detected, what was marked falsely, at 0.5 and at every other threshold."""

import cc3d
import nibabel
import numpy as np
import pandas as pd
from scipy.special import expit

from wmhlib.intake.grids import Volume
from wmhlib.intake.masks import read_pair_of_masks
from wmhlib.metrics import MaskPair, voxel_mm3, voxels_of

SMALL_MM3 = 30.0
"""Lesions below this volume are called small: ten voxels of the challenge's scans, the median lesion of many real ones."""

LOGITS = (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 7, 9, 12, 15)
THRESHOLDS = tuple(float(expit(logit)) for logit in sorted({sign * logit for logit in LOGITS for sign in (-1, 1)}))
"""Thresholds of probabilities: even about 0.5, finest between the soft labels 0.1 and 0.9 (on the scale of logits), and out
to where single precision ends, for networks whose probabilities saturate."""

LEAST_INSIDE = 0.1
"""The fraction of a detection's voxels that must lie in lesions: a threshold so low that it floods the brain touches every
lesion and has detected none (D-038)."""


def volumes_ml(pair: MaskPair) -> dict[str, float]:
    """`reference_ml` and `predicted_ml`, both without other pathology."""
    voxel_ml = voxel_mm3(pair.affine) / 1000
    return {"reference_ml": pair.volumes[0] * voxel_ml, "predicted_ml": pair.volumes[1] * voxel_ml}


def lesion_records(pair: MaskPair) -> pd.DataFrame:
    """Every lesion of the reference, and every false positive (a component of the result that touches none).

    Returns
    -------
    DataFrame
        `kind` (`reference` or `false detection`), `lesion` (from 1, by place, so that the same reference
        lesion has one number whatever the result), `i, j, k` (centroid, voxels of the volume turned to right,
        anterior, superior, from 0), `x_mm, y_mm, z_mm`
        (centroid, world), `slice` (axial index with most of its voxels, from 0 at the feet, the lowest of several),
        `volume_mm3`, `found` and `fraction_covered` (of its voxels, 0 to 1), both missing for false
        positives. No rows where both masks are empty.
    """
    tables = [_records(pair, kind) for kind in ("reference", "false detection")]
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def _records(pair: MaskPair, kind: str) -> pd.DataFrame:
    """The records of one kind, in the order of their places."""
    mask, other = (pair.lesion, pair.found) if kind == "reference" else (pair.found, pair.lesion)
    labels, count = cc3d.connected_components(mask, connectivity=26, return_N=True)
    voxels, depth = voxels_of(mask), mask.shape[2]
    owner = labels[tuple(voxels.T)].astype(int) - 1
    touched = np.bincount(owner[other[tuple(voxels.T)]], minlength=count)
    size = np.bincount(owner, minlength=count)
    starts = [part.start for part in pair.box]  # added to whole numbers: a lesion's centroid is the same in every box
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
    """What a scan's probabilities find, and mark falsely, at every cut of `THRESHOLDS`.

    A component of the mask at a cut is a detection of the lesions that it touches where `LEAST_INSIDE` of it lies in
    lesions, a false detection otherwise; the challenge's recall asks for one voxel alone.

    Returns
    -------
    DataFrame
        A row a cut: `threshold`; `lesions` of the reference and how many of them are `found`; `small_lesions` and
        `small_found`, the same of those below `SMALL_MM3`; `false_detections`; and voxels: `reference_voxels`,
        `marked_voxels` and `overlap_voxels`, in both. Errors as in `challenge_metrics`.
    """
    lesion, values, _, affine = read_pair_of_masks(reference, probability, foreground=THRESHOLDS[0])
    lesions, count = cc3d.connected_components(lesion, connectivity=26, return_N=True)
    volumes = np.bincount(lesions[lesion], minlength=count + 1)[1:] * voxel_mm3(affine)
    rows, small = [], int((volumes < SMALL_MM3).sum())
    for threshold in THRESHOLDS:
        mask = values >= threshold
        parts, number = cc3d.connected_components(mask, connectivity=26, return_N=True)
        both = lesion & mask
        inside, size = (np.bincount(parts[where], minlength=number + 1) for where in (both, mask))
        hits = inside >= LEAST_INSIDE * np.maximum(size, 1)
        found = volumes[np.unique(lesions[both][hits[parts[both]]]) - 1]
        rows.append(
            {"threshold": threshold, "lesions": count, "found": len(found)}
            | {"small_lesions": small, "small_found": int((found < SMALL_MM3).sum())}
            | {"false_detections": int(number - hits.sum()), "reference_voxels": int(np.count_nonzero(lesion))}
            | {"marked_voxels": int(np.count_nonzero(mask)), "overlap_voxels": int(np.count_nonzero(both))}
        )
    return pd.DataFrame(rows)
