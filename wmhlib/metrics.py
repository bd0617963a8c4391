"""The WMH Challenge's five figures, the paper's positive class density, and one record a lesion.

In flow a reference mask and a result, as files or nibabel images on one grid; out flow numbers. Definitions follow the
challenge (Kuijf et al. 2019, doi:10.1109/TMI.2019.2905770):

reference   label 1 is WMH; voxels of label 2, other pathology, are cut out of both masks before anything is measured
result      foreground at 1 and above where it is stored as integers, at 0.5 and above where as floating point
dice        2 |R ∩ S| / (|R| + |S|)
hd95_mm     the larger of the two 95th percentiles of distances between the in-plane boundaries (a mask less its 3x3
            erosion in each axial slice, the third voxel axis), in world millimetres
avd_pct     absolute difference of the volumes, in per cent of the reference's
lesion      a 26-connected component; one voxel of overlap makes it found
"""

from pathlib import Path

import cc3d
import nibabel
import numpy as np
import pandas as pd
from scipy.ndimage import find_objects, minimum_filter
from scipy.spatial import cKDTree

Mask = str | Path | nibabel.Nifti1Image
GRID_TOLERANCE_MM = 1e-3
"""Affines may differ by this much in any entry: what storing them as float32 costs."""


def challenge_metrics(reference: Mask, result: Mask) -> dict[str, float]:
    """The five figures of the WMH Challenge.

    Returns
    -------
    dict
        `dice`, `hd95_mm`, `avd_pct`, `lesion_recall`, `lesion_f1`. Where a mask is empty: `hd95_mm` is NaN; with an
        empty result precision counts as 1 (nothing was falsely detected), so recall and F1 are 0; with an empty
        reference `avd_pct` and `lesion_recall` are NaN and F1 is 0; with both empty, Dice and F1 are NaN too.

    Raises
    ------
    FileNotFoundError, ValueError
        A file is missing or unreadable, the grids differ, a mask is not 3D, holds NaN, or the reference has a label
        other than 0, 1 and 2. Each message names both files.
    """
    lesion, found, image = _masks(reference, result)
    volumes = int(lesion.sum()), int(found.sum())
    box = _box(lesion | found)
    lesion, found = lesion[box], found[box]
    both = int((lesion & found).sum())
    recall = _share_touched(lesion, found)
    precision = _share_touched(found, lesion) if volumes[1] else 1.0
    if volumes[0]:
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    else:
        f1 = 0.0 if volumes[1] else float("nan")
    return {
        "dice": 2 * both / sum(volumes) if sum(volumes) else float("nan"),
        "hd95_mm": _hausdorff95(lesion, found, _axes_mm(image)),
        "avd_pct": abs(volumes[0] - volumes[1]) / volumes[0] * 100 if volumes[0] else float("nan"),
        "lesion_recall": recall,
        "lesion_f1": f1,
    }


def positive_class_density(reference: Mask) -> float:
    """Voxels of label 1 in per cent of all voxels of the volume (paper 3.2.3)."""
    values, _ = _read(reference)
    return float((np.rint(values) == 1).sum() / values.size * 100)


def lesion_records(reference: Mask, result: Mask) -> pd.DataFrame:
    """Every lesion of the reference, and every false detection (a component of the result that touches none).

    Returns
    -------
    DataFrame
        `kind` (`reference` or `false detection`), `i, j, k` (centroid, voxels), `x_mm, y_mm, z_mm` (centroid, world),
        `slice` (the axial index with most of its voxels), `volume_mm3`, `found` and `fraction_covered` (of the lesion's
        voxels; both missing for false detections).

    Raises
    ------
    FileNotFoundError, ValueError
        As `challenge_metrics`.
    """
    lesion, found, image = _masks(reference, result)
    affine = image.affine
    voxel_mm3 = abs(np.linalg.det(affine[:3, :3]))
    rows = []
    for kind, mask, other in (("reference", lesion, found), ("false detection", found, lesion)):
        labels = cc3d.connected_components(mask, connectivity=26)
        for number, box in enumerate(find_objects(labels), start=1):
            own = labels[box] == number
            touched = int((own & other[box]).sum())
            if kind == "false detection" and touched:
                continue
            voxels = np.argwhere(own) + [part.start for part in box]
            centroid = voxels.mean(axis=0)
            slices, counts = np.unique(voxels[:, 2], return_counts=True)
            row = dict(zip("ijk", centroid, strict=True)) | {"kind": kind, "slice": int(slices[counts.argmax()])}
            row |= dict(zip(("x_mm", "y_mm", "z_mm"), nibabel.affines.apply_affine(affine, centroid), strict=True))
            row["volume_mm3"] = len(voxels) * voxel_mm3
            if kind == "reference":
                row |= {"found": touched > 0, "fraction_covered": touched / len(voxels)}
            rows.append(row)
    columns = ["kind", "i", "j", "k", "x_mm", "y_mm", "z_mm", "slice", "volume_mm3", "found", "fraction_covered"]
    return pd.DataFrame(rows, columns=columns).astype({"found": "boolean", "fraction_covered": float})


def _masks(reference: Mask, result: Mask) -> tuple[np.ndarray, np.ndarray, nibabel.Nifti1Image]:
    """Both foregrounds without other pathology, and the reference's image, once they are known to fit together."""
    names = f"reference {_name(reference)} and result {_name(result)}"
    (labels, reference_image), (values, result_image) = _read(reference), _read(result)
    for which, array in (("reference", labels), ("result", values)):
        if array.ndim != 3:
            raise ValueError(f"The {which} has {array.ndim} dimensions, not 3, among {names}: give one 3D volume each.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"The {which} holds NaN or infinite voxels, among {names}: mend the file.")
    if labels.shape != values.shape:
        raise ValueError(
            f"Shapes {labels.shape} and {values.shape} differ for {names}: resample the result to the reference."
        )
    if not np.allclose(reference_image.affine, result_image.affine, rtol=0, atol=GRID_TOLERANCE_MM):
        raise ValueError(
            f"Affines differ by more than {GRID_TOLERANCE_MM} mm for {names}: resample the result to the reference."
        )
    lesion, other = (labels > 0.5) & (labels < 1.5), (labels >= 1.5) & (labels < 2.5)
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= 2.5:
        unknown = sorted({float(value) for value in np.unique(labels)} - {0.0, 1.0, 2.0})
        raise ValueError(f"The reference has labels {unknown[:5]} beside 0, 1 and 2, for {names}: relabel it.")
    found = values >= (1 if values.dtype.kind in "iub" else 0.5)
    return lesion, found & ~other, reference_image


def _read(mask: Mask) -> tuple[np.ndarray, nibabel.Nifti1Image]:
    """A mask's values in their stored type, or scaled where the file has a scale, and its image."""
    try:
        image = nibabel.load(mask) if isinstance(mask, str | Path) else mask
        return np.asanyarray(image.dataobj), image
    except FileNotFoundError:
        raise FileNotFoundError(f"No mask at {mask}: check the path.") from None
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError) as error:
        raise ValueError(f"{_name(mask)} cannot be read as a NIfTI ({error}): make the file again.") from None


def _name(mask: Mask) -> str:
    return str(mask) if isinstance(mask, str | Path) else (mask.get_filename() or "(image in memory)")


def _box(mask: np.ndarray) -> tuple[slice, slice, slice]:
    """The bounds of a mask with one voxel of margin where the volume has one (so that its edge stays its edge)."""
    spans = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(max(span[0] - 1, 0), span[-1] + 2) if len(span) else slice(0, 0) for span in spans)


def _share_touched(lesions: np.ndarray, by: np.ndarray) -> float:
    """The share of a mask's components that another mask touches; NaN where there is no component."""
    labels, count = cc3d.connected_components(lesions, connectivity=26, return_N=True)
    return float(np.count_nonzero(np.unique(labels[by])) / count) if count else float("nan")


def _axes_mm(image: nibabel.Nifti1Image) -> np.ndarray:
    """Rows that turn voxel steps into mm for measuring distances.

    A NIfTI stores its voxel size beside its affine, and the challenge's scorer measures with that; the affine itself
    may be off by its own rounding. Axes at right angles are therefore taken as the voxel size alone, since turning them
    changes no distance; sheared ones as the affine has them.
    """
    axes = image.affine[:3, :3].T
    lengths = np.linalg.norm(axes, axis=1)
    square = np.allclose(axes @ axes.T / np.outer(lengths, lengths), np.eye(3), atol=1e-4)
    return np.diag(np.asarray(image.header.get_zooms()[:3], dtype=float)) if square else axes


def _hausdorff95(first: np.ndarray, second: np.ndarray, axes_mm: np.ndarray) -> float:
    """The 95th-percentile Hausdorff distance of the in-plane boundaries, in mm; NaN where a mask is empty.

    Outside the volume counts as foreground, so a mask that reaches its edge has no boundary there.
    """
    if not first.any() or not second.any():
        return float("nan")
    points = []
    for mask in (first, second):
        inner = minimum_filter(mask, size=(3, 3, 1), mode="nearest")
        points.append(np.argwhere(mask & ~inner) @ axes_mm)
    if not len(points[0]) or not len(points[1]):
        return float("nan")
    trees = [cKDTree(part) for part in points]
    return float(max(np.percentile(trees[1 - a].query(points[a])[0], 95) for a in (0, 1)))
