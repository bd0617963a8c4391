"""Draw the golden pairs and compute their metrics by brute force; README.md has every number written out.

Nothing of wmhlib is used: the masks are boxes of voxels written below, and every metric is calculated in the plainest way
there is. Run `python tests/golden/make.py` to write the pairs and `figures.csv`, and to print the numbers of README.md.
"""

import csv
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
from scipy.ndimage import label

HERE = Path(__file__).parent
METRICS = ("dice", "hd95_mm", "avd_pct", "lesion_recall", "lesion_f1")

ALIGNED = np.array([[-0.5, 0, 0, 3], [0, -1.25, 0, 8], [0, 0, 3.0, -12], [0, 0, 0, 1]])
ABOUT_X = np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])  # the angle of a triangle with sides 3, 4 and 5
ABOUT_Z = np.array([[12, -5, 0], [5, 12, 0], [0, 0, 13]]) / 13  # of one with sides 5, 12 and 13
OBLIQUE = nibabel.affines.from_matvec(ABOUT_Z @ ABOUT_X @ np.diag([0.75, 1.25, 2.5]), [-4, -6, -9])
FLIPPED = np.array([[1.25, 0, 0, -6], [0, 1.5, 0, -8], [0, 0, -4.0, 14], [0, 0, 0, 1]])

# Per pair: shape, affine, the type that each mask is stored as, and boxes in the order they are drawn. A box is its value,
# then the first and the last voxel along each axis, both included.
PAIRS = {
    "aligned": {
        "shape": (12, 14, 9),
        "affine": ALIGNED,
        "reference": (np.float32, [
            (1, (2, 5), (3, 6), (2, 2)),      # lesion A: a square of 4 x 4
            (1, (8, 8), (9, 9), (5, 5)),      # lesion B: two voxels that touch at a corner,
            (1, (9, 9), (10, 10), (6, 6)),    #   in neighbouring slices
            (1, (1, 1), (12, 12), (7, 7)),    # lesion C: a voxel that the result misses
        ]),
        "result": (np.uint8, [
            (1, (3, 6), (3, 6), (2, 2)),      # the square, one voxel along the first axis
            (1, (9, 9), (10, 10), (6, 6)),    # half of lesion B
            (1, (10, 11), (0, 2), (0, 0)),    # a false positive in a corner of the volume
            (1, (5, 5), (5, 5), (7, 7)),      # another, of one voxel
        ]),
    },
    "oblique": {
        "shape": (11, 13, 8),
        "affine": OBLIQUE,
        "reference": (np.float32, [
            (1, (2, 5), (3, 7), (3, 4)),      # lesion A: 4 x 5 voxels in two slices
            (1, (8, 9), (10, 10), (1, 1)),    # lesion B: two voxels that the result misses
        ]),
        "result": (np.uint8, [
            (1, (2, 5), (4, 8), (4, 5)),      # lesion A, one voxel along the second axis and one slice up
        ]),
    },
    "other-pathology": {
        "shape": (13, 10, 7),
        "affine": FLIPPED,
        "reference": (np.float32, [
            (1, (2, 4), (2, 4), (3, 3)),      # lesion A: 3 x 3
            (1, (9, 9), (6, 6), (3, 4)),      # lesion B: a voxel in two slices
            (2, (5, 6), (2, 4), (2, 4)),      # other pathology next to lesion A
        ]),
        "result": (np.float32, [
            (0.25, (1, 11), (1, 8), (3, 3)),  # too low to count
            (1.0, (3, 7), (3, 4), (3, 3)),    # from lesion A through the other pathology to its far side
            (0.5, (9, 10), (6, 6), (4, 4)),   # half of lesion B and its neighbour, at the threshold
        ]),
    },
}  # fmt: skip


def drawn(shape: tuple, dtype: type, boxes: list) -> np.ndarray:
    """Boxes of voxels as a volume."""
    volume = np.zeros(shape, dtype)
    for value, *box in boxes:
        volume[tuple(slice(first, last + 1) for first, last in box)] = value
    return volume


def foregrounds(reference: np.ndarray, result: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both masks without the voxels of label 2. The lowest value that counts is 1 for integers, 0.5 for floating point."""
    lowest = 1 if result.dtype.kind in "iu" else 0.5
    return reference == 1, (result >= lowest) & (reference != 2)


def boundary(mask: np.ndarray) -> list[tuple[int, int, int]]:
    """Voxels of a mask with background among their eight neighbours in the slice; outside the volume is foreground."""
    voxels = []
    for i, j, k in np.argwhere(mask):
        neighbours = [(i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)]
        inside = [(a, b) for a, b in neighbours if 0 <= a < mask.shape[0] and 0 <= b < mask.shape[1]]
        if not all(mask[a, b, k] for a, b in inside):
            voxels.append((int(i), int(j), int(k)))
    return voxels


def nearest_mm(start: list, goal: list, affine: np.ndarray) -> list[float]:
    """The distance in mm from each boundary voxel of `start` to the nearest of `goal`, in increasing order."""
    # The axes of a scan are at right angles, so that the voxel sizes alone give the distances.
    size = np.linalg.norm(affine[:3, :3], axis=0).astype(np.float32).astype(float)
    distances = []
    for voxel in start:
        steps = (np.array(goal) - voxel) * size
        distances.append(float(np.sqrt((steps**2).sum(axis=1)).min()))
    return sorted(distances)


def lesions(mask: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """How many components a mask has, where voxels that touch by a face, an edge or a corner are one; how many hold a voxel of
    the other mask."""
    labels, count = label(mask, np.ones((3, 3, 3)))
    return count, len(set(labels[mask & other].tolist()))


def calculation(reference: np.ndarray, result: np.ndarray, affine: np.ndarray) -> dict:
    """Every count and distance that the metrics of a pair follow from; neither mask may be empty."""
    first, second = foregrounds(reference, result)
    edges = boundary(first), boundary(second)
    (lesions_reference, detected), (lesions_result, true) = lesions(first, second), lesions(second, first)
    return {
        "reference_voxels": int(first.sum()),
        "result_voxels": int(second.sum()),
        "common_voxels": int((first & second).sum()),
        "lesions": lesions_reference,
        "detected": detected,
        "detections": lesions_result,
        "true_detections": true,
        "to_result_mm": nearest_mm(*edges, affine),
        "to_reference_mm": nearest_mm(*edges[::-1], affine),
    }


def metrics(counts: dict) -> dict[str, float]:
    """The five metrics from what `calculation` gives."""
    recall, precision = counts["detected"] / counts["lesions"], counts["true_detections"] / counts["detections"]
    both = counts["reference_voxels"] + counts["result_voxels"]
    return {
        "dice": 2 * counts["common_voxels"] / both,
        "hd95_mm": float(max(np.percentile(counts[way], 95) for way in ("to_result_mm", "to_reference_mm"))),
        "avd_pct": 100 * abs(counts["reference_voxels"] - counts["result_voxels"]) / counts["reference_voxels"],
        "lesion_recall": recall,
        "lesion_f1": 2 * recall * precision / (recall + precision) if recall + precision else 0.0,
    }


def masks(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The reference and the result of a pair."""
    pair = PAIRS[name]
    return drawn(pair["shape"], *pair["reference"]), drawn(pair["shape"], *pair["result"])


def main() -> None:
    rows = []
    for name, pair in PAIRS.items():
        reference, result = masks(name)
        (HERE / name).mkdir(exist_ok=True)
        for values, file in ((reference, "wmh.nii.gz"), (result, "result.nii.gz")):
            nibabel.save(nibabel.Nifti1Image(values, pair["affine"]), HERE / name / file)
        counts = calculation(reference, result, pair["affine"])
        rows.append({"pair": name} | metrics(counts))
        print(name)
        for key, value in counts.items():
            times = Counter(round(mm, 6) for mm in value) if key.endswith("_mm") else None
            print(f"  {key}: {', '.join(f'{n} x {mm:g}' for mm, n in times.items()) if times else value}")
        print(f"  {rows[-1]}")
    with open(HERE / "figures.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ("pair", *METRICS), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
