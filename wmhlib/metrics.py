"""The WMH Challenge's five metrics (paper 3.2.3), and positive class density.

Input: a reference mask and a result, as files or nibabel images that cover the same voxels. Output: numbers, which do
not depend on how a file stores its axes: metrics are computed in canonical orientation, whose third axis is axial.
Definitions follow the challenge (Kuijf et al. 2019, doi:10.1109/TMI.2019.2905770), so that results are comparable with
its leaderboard:

    reference   label 1 (values from 0.5 to 1.5) is WMH; voxels of label 2, other pathology, are removed from both masks
                first
    result      foreground is 1 and above in integer files, 0.5 and above in floating-point files and integers with a
                scale factor
    lesion      a 26-connected component; it is detected if at least one voxel overlaps with the other mask

A metric is a function of a `MaskPair` under `@metric`. Defining one, in this file or in a notebook cell, adds it to
every table. In the formulas, R is the foreground of the reference, S that of the result, and |R| the number of voxels
in R. The examples use masks of 7 x 8 x 9 voxels with 1 x 1.5 x 3 mm: R has a lesion of two voxels and one of a single
voxel, and S one component of two voxels.
"""

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Literal

import cc3d
import nibabel
import numpy as np
from scipy.spatial import cKDTree

from wmhlib.intake.grids import Volume
from wmhlib.intake.masks import read_mask, read_pair_of_masks
from wmhlib.running.registry import register

CHALLENGE = ("dice", "hd95_mm", "avd_pct", "lesion_recall", "lesion_f1")
"""The challenge's metrics."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric: its `title`, whether higher is better, the number of `digits` shown, and the function that computes it
    (`of`)."""

    title: str
    higher_is_better: bool
    digits: int
    of: Callable[["MaskPair"], float]


METRICS: dict[str, Metric] = {}
"""Every metric by its column name in the tables, in the order of Table 1."""


def metric(title: str, higher_is_better: bool = True, digits: int = 2) -> Callable:
    """Register a function of a `MaskPair` as a metric, under its own name."""

    def add(function: Callable) -> Callable:
        register(METRICS, function.__name__, Metric(title, higher_is_better, digits, function))
        return function

    return add


class MaskPair:
    """The foregrounds of a reference (`lesion`) and a result (`found`) without other pathology, in canonical
    orientation.

    Both are boolean and cropped to their bounding box, `box` in voxels of the reoriented volume; `affine` is that of
    the volume. Errors as in `wmhlib.intake.masks.read_pair_of_masks`.
    """

    def __init__(self, reference: Volume, result: Volume):
        self.lesion, values, self.box, self.affine = read_pair_of_masks(reference, result)
        self.found = values != 0
        self.volumes = int(np.count_nonzero(self.lesion)), int(np.count_nonzero(self.found))  # voxels

    @cached_property
    def overlap(self) -> np.ndarray:
        return self.lesion & self.found

    @cached_property
    def recall(self) -> float:
        """Lesions of the reference that are detected / all lesions; NaN without lesions."""
        return _fraction_touched(self.lesion, self.overlap)

    @cached_property
    def precision(self) -> float:
        """Components of the result that overlap with a lesion / all components; 1 for an empty result."""
        return _fraction_touched(self.found, self.overlap) if self.volumes[1] else 1.0


@metric("Dice")
def dice(pair: MaskPair) -> float:
    """Dice = 2 |R ∩ S| / (|R| + |S|); 0 if one mask is empty, NaN if both are (Dice 1945, doi:10.2307/1932409).

    In the example, masks of 3 and 2 voxels overlap in one: 2 * 1 / (3 + 2).

    >>> dice(_example([(1, 1, 4), (2, 1, 4), (5, 5, 5)], [(2, 1, 4), (3, 1, 4)]))
    0.4
    >>> dice(_example([(1, 1, 4)], [])), dice(_example([], []))
    (0.0, nan)
    """
    return 2 * int(np.count_nonzero(pair.overlap)) / sum(pair.volumes) if sum(pair.volumes) else np.nan


@metric("HD95 (mm)", higher_is_better=False, digits=1)
def hd95_mm(pair: MaskPair) -> float:
    """95th-percentile Hausdorff distance between the in-plane boundaries, in world mm.

    HD95 = max(P95 of d(a, ∂S) over a in ∂R, P95 of d(b, ∂R) over b in ∂S), where d(a, B) is the Euclidean distance to
    the nearest point of B, and P95 the 95th percentile with linear interpolation (Huttenlocher et al. 1993,
    doi:10.1109/34.232073; Kuijf et al. 2019, doi:10.1109/TMI.2019.2905770). The boundary ∂R is R minus its 3x3 erosion
    in each axial slice (in oblique scans, the slices nearest to axial); outside the volume counts as foreground. NaN if
    a mask has no boundary, because it is empty or fills whole slices.

    In the example, the distances from R are 1, 0 and, from (5, 5, 5) to (3, 1, 4), sqrt(2² + (4 * 1.5)² + 3²) = 7 mm.
    Their P95 is 1 + 0.9 * (7 - 1) = 6.4. The distances from S are 0 and 1, with a P95 of 0.95.

    >>> round(hd95_mm(_example([(1, 1, 4), (2, 1, 4), (5, 5, 5)], [(2, 1, 4), (3, 1, 4)])), 6)
    6.4
    >>> hd95_mm(_example([(1, 1, 4)], []))
    nan
    """
    return _hausdorff95(pair.lesion, pair.found, _steps_mm(pair.affine))


@metric("AVD (%)", higher_is_better=False, digits=1)
def avd_pct(pair: MaskPair) -> float:
    """Absolute volume difference: AVD = 100 * ||R| - |S|| / |R|, in per cent of the reference.

    NaN if the reference is empty, 100 if only the result is (Kuijf et al. 2019, doi:10.1109/TMI.2019.2905770). In the
    example, R and S have 3 and 2 voxels: 100 * 1 / 3.

    >>> round(avd_pct(_example([(1, 1, 4), (2, 1, 4), (5, 5, 5)], [(2, 1, 4), (3, 1, 4)])), 2)
    33.33
    >>> avd_pct(_example([(1, 1, 4)], [])), avd_pct(_example([], [(1, 1, 4)]))
    (100.0, nan)
    """
    reference, result = pair.volumes
    return abs(reference - result) / reference * 100 if reference else np.nan


@metric("Lesion recall")
def lesion_recall(pair: MaskPair) -> float:
    """Fraction of lesions detected: recall = |{l in L: l ∩ S ≠ ∅}| / |L|, where L are the lesions of R.

    NaN without lesions, 0 if only the result is empty (Kuijf et al. 2019, doi:10.1109/TMI.2019.2905770). In the
    example, the first of two lesions overlaps with S.

    >>> lesion_recall(_example([(1, 1, 4), (2, 1, 4), (5, 5, 5)], [(2, 1, 4), (3, 1, 4)]))
    0.5
    >>> lesion_recall(_example([(1, 1, 4)], [])), lesion_recall(_example([], [(1, 1, 4)]))
    (0.0, nan)
    """
    return pair.recall


@metric("Lesion F1")
def lesion_f1(pair: MaskPair) -> float:
    """Harmonic mean of lesion recall r and lesion precision P: F1 = 2 P r / (P + r).

    P is the fraction of components of S that overlap with R, and 1 if S is empty. F1 is 0 if one mask is empty, NaN if
    both are (Kuijf et al. 2019, doi:10.1109/TMI.2019.2905770). In the example, r = 1/2, and P = 1 because the only
    component of S overlaps with R: F1 = 1 / 1.5.

    >>> round(lesion_f1(_example([(1, 1, 4), (2, 1, 4), (5, 5, 5)], [(2, 1, 4), (3, 1, 4)])), 4)
    0.6667
    >>> lesion_f1(_example([], [(1, 1, 4)])), lesion_f1(_example([(1, 1, 4)], [])), lesion_f1(_example([], []))
    (0.0, 0.0, nan)
    """
    if not pair.volumes[0]:
        return 0.0 if pair.volumes[1] else np.nan
    both = pair.precision + pair.recall
    return 2 * pair.precision * pair.recall / both if both else 0.0


def _example(reference: list[tuple], result: list[tuple]) -> MaskPair:
    """Masks of 7 x 8 x 9 voxels with 1 x 1.5 x 3 mm, in which these voxels are 1: for the examples in docstrings."""
    masks = np.zeros((2, 7, 8, 9), np.uint8)
    for mask, voxels in zip(masks, (reference, result), strict=True):
        for voxel in voxels:
            mask[voxel] = 1
    return MaskPair(*(nibabel.Nifti1Image(mask, np.diag([1, 1.5, 3, 1])) for mask in masks))


def measured(pair: MaskPair) -> dict[str, float]:
    """The value of every registered metric for a pair of masks."""
    return {name: entry.of(pair) for name, entry in METRICS.items()}


def challenge_metrics(reference: Volume, result: Volume) -> dict[str, float]:
    """The five metrics of the WMH Challenge.

    Returns
    -------
    dict
        `dice`, `hd95_mm`, `avd_pct`, `lesion_recall`, `lesion_f1`; NaN if undefined. For an empty result, Dice, recall
        and F1 are 0, AVD is 100, and the distance is NaN. For an empty reference, Dice and F1 are 0, the others NaN. If
        both are empty, all are NaN. The distance is also NaN if a mask fills whole slices and has no boundary.

    Raises
    ------
    FileNotFoundError, ValueError
        A file is missing or unreadable, the grids differ, a mask is not 3D or has NaN values, or the reference has a
        label other than 0, 1 and 2. Each message names both files.
    """
    pair = MaskPair(reference, result)
    return {name: METRICS[name].of(pair) for name in CHALLENGE}


def positive_class_density(reference: Volume) -> float:
    """Positive class density: 100 * |R| / number of voxels in the volume, in per cent (paper 3.2.3).

    R are the voxels of label 1; an empty mask gives 0. In the example, R has 2 of 7 * 8 * 9 = 504 voxels.

    >>> values = np.zeros((7, 8, 9), np.uint8)
    >>> values[1:3, 1, 4] = 1
    >>> round(positive_class_density(nibabel.Nifti1Image(values, np.eye(4))), 4)
    0.3968

    Raises
    ------
    FileNotFoundError, ValueError
        The mask is missing, unreadable, not 3D or has NaN values.
    """
    values = np.asanyarray(read_mask(reference).dataobj)
    return int(np.count_nonzero((values > 0.5) & (values < 1.5))) / values.size * 100


def voxel_mm3(affine: np.ndarray) -> float:
    """The volume of a voxel in mm³: |det| of the affine's 3x3 part.

    >>> round(float(voxel_mm3(np.diag([1, 1.5, 3, 1]))), 6)
    4.5
    """
    return abs(np.linalg.det(affine[:3, :3]))


def voxels_of(mask: np.ndarray) -> np.ndarray:
    """The indices of a mask's voxels (voxel, axis), like `np.argwhere` but in memory order, which is much faster."""
    order: Literal["C", "F"] = "C" if mask.flags.c_contiguous else "F"
    return np.stack(np.unravel_index(np.flatnonzero(mask.ravel(order)), mask.shape, order), axis=1)


def _fraction_touched(lesions: np.ndarray, touched: np.ndarray) -> float:
    """The fraction of a mask's components with a voxel in `touched`; NaN without components."""
    labels, count = cc3d.connected_components(lesions, connectivity=26, return_N=True)
    return len(np.unique(labels[tuple(voxels_of(touched).T)])) / count if count else np.nan


def _steps_mm(affine: np.ndarray) -> np.ndarray:
    """The matrix (3, 3) whose rows convert voxel steps to world mm, rounded like the challenge's scorer.

    The scorer reads images with ITK, which stores the voxel size as float32 and, when it rewrites an image, replaces
    its axes by the nearest rotation in float32. The test values come from rewritten images. On oblique grids, this
    rounding changes distances by about 1e-7 mm. Sheared axes are not changed.
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
    """A mask minus its 3x3 erosion in each axial slice; outside the array counts as foreground."""
    rows = mask.copy(order="K")
    rows[1:] &= mask[:-1]
    rows[:-1] &= mask[1:]
    inner = rows.copy(order="K")
    inner[:, 1:] &= rows[:, :-1]
    inner[:, :-1] &= rows[:, 1:]
    return mask & ~inner


def _hausdorff95(first: np.ndarray, second: np.ndarray, steps_mm: np.ndarray) -> float:
    """The 95th-percentile Hausdorff distance of the in-plane boundaries in mm; NaN if a mask has no boundary."""
    boundaries = _boundary(first), _boundary(second)
    if not all(boundary.any() for boundary in boundaries):
        return np.nan
    percentiles = []
    for start, goal in (boundaries, boundaries[::-1]):
        distances = np.zeros(np.count_nonzero(start))  # voxels in both boundaries have distance 0
        away = voxels_of(start & ~goal) @ steps_mm
        if len(away):
            tree = cKDTree(voxels_of(goal) @ steps_mm, balanced_tree=False, compact_nodes=False)
            distances[: len(away)] = tree.query(away)[0]
        percentiles.append(np.percentile(distances, 95))
    return float(max(percentiles))
