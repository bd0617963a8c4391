"""The WMH Challenge's five figures, the paper's positive class density, and one record a lesion.

Every table of the study rests on these numbers, and they compare with the challenge's leaderboard only if
they mean what its scorer means. In flow a reference mask and a result, as files or nibabel images on one
grid; out flow numbers. Definitions follow the challenge (Kuijf et al. 2019, doi:10.1109/TMI.2019.2905770):

reference   label 1 (0.5 to 1.5) is WMH, stored as integers or as floating point alike; voxels of label 2,
            other pathology, are cut out of both masks before anything is measured
result      foreground at 1 and above where stored as integers, at 0.5 and above where stored as floating
            point or as integers with a scale
dice        2 |R and S| / (|R| + |S|)
hd95_mm     the larger of the two 95th percentiles of distances between the in-plane boundaries, in world
            mm; a boundary is a mask less its 3x3 erosion in each axial slice (the third voxel axis), and
            outside the volume counts as foreground
avd_pct     absolute difference of the volumes, in per cent of the reference's
lesion      a 26-connected component; one voxel of overlap with the other mask makes it found
recall      found lesions of the reference / all of them; precision likewise of the result; F1 joins both

Cut elsewhere than at one half, probabilities give other masks; `operating_points` says what each would find.
"""

from pathlib import Path

import cc3d
import nibabel
import numpy as np
import pandas as pd
from scipy.spatial import cKDTree
from scipy.special import expit

from wmhlib.scans import DAMAGE, read_scan

Mask = str | Path | nibabel.spatialimages.SpatialImage

GRID_TOLERANCE_MM = 1e-3
"""Affines may differ by this much in any entry: what storing them as float32 costs."""
LABEL_TOLERANCE = 1e-3
"""A label may lie this far from 0, 1 or 2: what a scale factor stored as float32 costs."""

SMALL_MM3 = 30.0
"""Lesions below this volume are called small: ten voxels of the challenge's scans, the median lesion of many real ones."""

LOGITS = (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 7, 9, 12, 15)
THRESHOLDS = tuple(float(expit(logit)) for logit in sorted({sign * logit for logit in LOGITS for sign in (-1, 1)}))
"""Where probabilities are cut: even about one half, finest between the soft labels 0.1 and 0.9 (on the scale of logits), and out
to where single precision ends, for networks whose probabilities saturate."""

LEAST_INSIDE = 0.1
"""The share of a detection's voxels that must lie in lesions: a cut so loose that it floods the brain touches every lesion and
has found none (D-038)."""


def challenge_metrics(reference: Mask, result: Mask) -> dict[str, float]:
    """The five figures of the WMH Challenge.

    Returns
    -------
    dict
        `dice`, `hd95_mm`, `avd_pct`, `lesion_recall`, `lesion_f1`; NaN where undefined. An empty result has
        Dice, recall and F1 0, AVD 100, distance NaN (precision counts as 1 where nothing is detected). An
        empty reference has Dice and F1 0, the rest NaN; with both empty all are NaN. The distance is NaN
        too where a mask fills whole slices and so has no boundary.

    Raises
    ------
    FileNotFoundError, ValueError
        A file is missing or unreadable, the grids differ, a mask is not 3D or holds NaN, or the reference has
        a label other than 0, 1 and 2. Each message names both files.
    """
    lesion, found, _, affine = _masks(reference, result)
    both = lesion & found
    volumes = int(np.count_nonzero(lesion)), int(np.count_nonzero(found))
    recall = _share_touched(lesion, both)
    precision = _share_touched(found, both) if volumes[1] else 1.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    if not volumes[0]:
        f1 = 0.0 if volumes[1] else np.nan
    return {
        "dice": 2 * int(np.count_nonzero(both)) / sum(volumes) if sum(volumes) else np.nan,
        "hd95_mm": _hausdorff95(lesion, found, _steps_mm(affine)),
        "avd_pct": abs(volumes[0] - volumes[1]) / volumes[0] * 100 if volumes[0] else np.nan,
        "lesion_recall": recall,
        "lesion_f1": f1,
    }


def positive_class_density(reference: Mask) -> float:
    """Voxels of label 1 in per cent of all voxels of the volume (paper 3.2.3); 0 for an empty mask.

    Raises FileNotFoundError or ValueError where the mask is missing, unreadable, not 3D or holds NaN.
    """
    values, _ = _read(reference, "reference", f"reference {_name(reference)}")
    return int(np.count_nonzero((values > 0.5) & (values < 1.5))) / values.size * 100


def in_memory(mask: Mask) -> nibabel.spatialimages.SpatialImage:
    """A mask read once, for several measures; messages still name its file. Errors as in `challenge_metrics`."""
    name = _name(mask)
    image = nibabel.spatialimages.SpatialImage(*_read(mask, "mask", name))
    image.file_map["image"].filename = name
    return image


def volumes_ml(reference: Mask, result: Mask) -> dict[str, float]:
    """`reference_ml` and `predicted_ml`, both without other pathology. Errors as in `challenge_metrics`."""
    lesion, found, _, affine = _masks(reference, result)
    voxel_ml = _voxel_mm3(affine) / 1000
    counts = {"reference_ml": lesion, "predicted_ml": found}
    return {name: int(np.count_nonzero(mask)) * voxel_ml for name, mask in counts.items()}


def lesion_records(reference: Mask, result: Mask) -> pd.DataFrame:
    """Every lesion of the reference, and every false detection (a component of the result that touches none).

    Returns
    -------
    DataFrame
        `kind` (`reference` or `false detection`), `lesion` (from 1, by place, so that the same reference
        lesion has one number whatever the result), `i, j, k` (centroid, voxels), `x_mm, y_mm, z_mm`
        (centroid, world), `slice` (axial index with most of its voxels, the lowest of several),
        `volume_mm3`, `found` and `fraction_covered` (of its voxels, 0 to 1), both missing for false
        detections. No rows where both masks are empty. Errors as in `challenge_metrics`.
    """
    lesion, found, box, affine = _masks(reference, result)
    tables = []
    for kind, mask, other in (("reference", lesion, found), ("false detection", found, lesion)):
        labels, count = cc3d.connected_components(mask, connectivity=26, return_N=True)
        voxels, depth = _voxels(mask), mask.shape[2]
        owner = labels[tuple(voxels.T)].astype(int) - 1
        touched = np.bincount(owner[other[tuple(voxels.T)]], minlength=count)
        size = np.bincount(owner, minlength=count)
        starts = [part.start for part in box]  # added to whole numbers: a lesion's centroid is the same in every box
        sums = [
            np.bincount(owner, weights=axis + start, minlength=count)
            for axis, start in zip(voxels.T, starts, strict=True)
        ]
        centroids = np.stack(sums, axis=1) / size[:, None]  # (lesion, axis)
        in_slice = np.bincount(owner * depth + voxels[:, 2], minlength=count * depth).reshape(count, depth)
        table = pd.DataFrame(centroids, columns=["i", "j", "k"])
        table.insert(0, "kind", kind)
        table[["x_mm", "y_mm", "z_mm"]] = nibabel.affines.apply_affine(affine, centroids)
        table["slice"] = in_slice.argmax(axis=1) + box[2].start if count else np.zeros(0, int)
        table["volume_mm3"] = size * _voxel_mm3(affine)
        table["found"] = pd.array(touched > 0 if kind == "reference" else [None] * count, dtype="boolean")
        table["fraction_covered"] = touched / size if kind == "reference" else np.nan
        table = (table if kind == "reference" else table[touched == 0]).sort_values(["k", "j", "i"])
        table.insert(1, "lesion", np.arange(1, len(table) + 1))
        tables.append(table)
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def operating_points(reference: Mask, probability: nibabel.spatialimages.SpatialImage) -> pd.DataFrame:
    """What a scan's probabilities find, and mark falsely, at every cut of `THRESHOLDS`.

    A component of the mask at a cut is a detection of the lesions that it touches where `LEAST_INSIDE` of it lies in
    lesions, a false detection otherwise; the challenge's recall asks for one voxel alone.

    Returns
    -------
    DataFrame
        A row a cut: `threshold`; `lesions` of the reference and how many of them are `found`; `small_lesions` and
        `small_found`, the same of those below `SMALL_MM3`; `false_detections`. Errors as in `challenge_metrics`.
    """
    lesion, likely, box, affine = _masks(reference, probability, foreground=THRESHOLDS[0])
    values = np.where(likely, np.asarray(probability.dataobj)[box], 0)
    lesions, count = cc3d.connected_components(lesion, connectivity=26, return_N=True)
    volumes = np.bincount(lesions[lesion], minlength=count + 1)[1:] * _voxel_mm3(affine)
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
            | {"false_detections": int(number - hits.sum())}
        )
    return pd.DataFrame(rows)


def _masks(
    reference: Mask, result: Mask, foreground: float | None = None
) -> tuple[np.ndarray, np.ndarray, tuple, np.ndarray]:
    """Both foregrounds without other pathology, cut to the box that holds them; the box; the affine.

    The result's foreground begins at `foreground`, by default where it does for the challenge's scorer. The box keeps a voxel of
    margin where the volume has one, so that only the volume's edges are edges.
    """
    names = f"reference {_name(reference)} and result {_name(result)}"
    labels, affine = _read(reference, "reference", names)
    values, result_affine = _read(result, "result", names)
    if labels.shape != values.shape:
        raise ValueError(
            f"Shapes {labels.shape} and {values.shape} differ for {names}, which must lie on one grid: "
            "resample the result to the reference."
        )
    apart = np.abs(affine - result_affine).max()
    if not apart <= GRID_TOLERANCE_MM:
        raise ValueError(
            f"Affines differ by {apart:.4g} mm, more than {GRID_TOLERANCE_MM} mm, for {names}, which must "
            "lie on one grid: resample the result to the reference."
        )
    if foreground is None:
        foreground = 1 if values.dtype.kind in "iub" else 0.5
    found = values >= foreground
    box = box_around((labels != 0) | found)
    order = "F" if labels.flags.f_contiguous else "C"  # as stored: turning axes is slow
    labels, found = np.array(labels[box], np.float32, order=order), np.array(found[box], order=order)
    present = labels.ravel(order)
    present = present[present != 0]
    unknown = present[np.abs(present - np.clip(np.rint(present), 0, 2)) > LABEL_TOLERANCE]
    if len(unknown):
        raise ValueError(
            f"The reference has labels {np.unique(unknown)[:5].tolist()} beside 0, 1 and 2 for {names}: "
            "relabel it with 0 background, 1 WMH and 2 other pathology."
        )
    return (labels > 0.5) & (labels < 1.5), found & (labels < 1.5), box, affine


def _read(mask: Mask, which: str, names: str) -> tuple[np.ndarray, np.ndarray]:
    """A mask's 3D values, as stored or, where the file has a scale, as floating point; and its affine."""
    if isinstance(mask, str | Path) and not Path(mask).is_file():
        raise FileNotFoundError(f"No {which} mask at {mask} (of {names}): check the path.")
    try:
        image = read_scan(mask) if isinstance(mask, str | Path) else mask
        values = np.asanyarray(image.dataobj)
    except DAMAGE as error:
        raise ValueError(f"The {which} cannot be read ({error}) among {names}: make it again.") from error
    if values.ndim != 3:
        raise ValueError(f"The {which} has {values.ndim} dimensions, not 3, among {names}: give a 3D volume.")
    if values.dtype.kind == "f" and np.isnan(values.min(initial=0)):  # the smallest is NaN where any value is
        raise ValueError(f"The {which} holds NaN, not numbers alone, among {names}: set those voxels to 0.")
    return values, image.affine


def _name(mask: Mask) -> str:
    return str(mask) if isinstance(mask, str | Path) else (mask.get_filename() or "(image in memory)")


def box_around(mask: np.ndarray) -> tuple[slice, ...]:
    """The bounds of a mask with one voxel of margin where the volume has one; nothing for an empty mask."""
    box = [slice(None)] * 3
    for axis in np.argsort(mask.strides)[::-1]:  # slowest first: little is left for the costlier ones
        inside = np.flatnonzero(mask[tuple(box)].any(axis=tuple({0, 1, 2} - {int(axis)})))
        if not len(inside):
            return (slice(0, 0),) * 3
        box[axis] = slice(max(int(inside[0]) - 1, 0), int(inside[-1]) + 2)
    return tuple(box)


def _voxel_mm3(affine: np.ndarray) -> float:
    return abs(np.linalg.det(affine[:3, :3]))


def _voxels(mask: np.ndarray) -> np.ndarray:
    """The indices of a mask's voxels, (voxel, axis): `np.argwhere` in the order of memory, far faster."""
    order = "C" if mask.flags.c_contiguous else "F"
    return np.stack(np.unravel_index(np.flatnonzero(mask.ravel(order)), mask.shape, order), axis=1)


def _share_touched(lesions: np.ndarray, touched: np.ndarray) -> float:
    """The share of a mask's components that hold a touched voxel; NaN where there is no component."""
    labels, count = cc3d.connected_components(lesions, connectivity=26, return_N=True)
    return len(np.unique(labels[tuple(_voxels(touched).T)])) / count if count else np.nan


def _steps_mm(affine: np.ndarray) -> np.ndarray:
    """Rows that turn voxel steps into world mm, rounded as in the figures this is tested against; (3, 3).

    The scorer reads images with ITK, which keeps the voxel size as float32 and, on writing an image anew,
    turns its axes to the nearest rotation in float32. The tested figures came from images written anew; on
    an oblique grid this rounding moves distances by some 1e-7 mm. Sheared axes stay as they are.
    """
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    turn = affine[:3, :3] / lengths
    if not np.allclose(turn.T @ turn, np.eye(3), rtol=0, atol=1e-4):
        return affine[:3, :3].T
    size = lengths.astype(np.float32)
    # one Newton step of the polar decomposition (Higham 1986, doi:10.1137/0907079), in single precision
    turn = turn.astype(np.float32)
    turn = (turn + np.linalg.inv(turn.astype(float)).T.astype(np.float32)) / 2
    turn = (turn * size).astype(float)
    return (turn / np.linalg.norm(turn, axis=0) * size).T


def _boundary(mask: np.ndarray) -> np.ndarray:
    """A mask less its 3x3 erosion in each axial slice, where outside the array counts as foreground."""
    rows = mask.copy(order="K")
    rows[1:] &= mask[:-1]
    rows[:-1] &= mask[1:]
    inner = rows.copy(order="K")
    inner[:, 1:] &= rows[:, :-1]
    inner[:, :-1] &= rows[:, 1:]
    return mask & ~inner


def _hausdorff95(first: np.ndarray, second: np.ndarray, steps_mm: np.ndarray) -> float:
    """The 95th-percentile Hausdorff distance of the in-plane boundaries, in mm; NaN where one has none."""
    boundaries = _boundary(first), _boundary(second)
    if not all(boundary.any() for boundary in boundaries):
        return np.nan
    percentiles = []
    for start, goal in (boundaries, boundaries[::-1]):
        distances = np.zeros(np.count_nonzero(start))  # voxels of both boundaries are 0 apart
        away = _voxels(start & ~goal) @ steps_mm
        if len(away):
            tree = cKDTree(_voxels(goal) @ steps_mm, balanced_tree=False, compact_nodes=False)
            distances[: len(away)] = tree.query(away)[0]
        percentiles.append(np.percentile(distances, 95))
    return float(max(percentiles))
