"""The WMH Challenge's five metrics (paper 3.2.3), and positive class density.

Input: a reference mask and a result, as files or nibabel images that cover the same voxels. Output: numbers, which do not
depend on how a file stores its axes: all is measured in canonical orientation, whose third axis is axial. Definitions follow the
challenge (Kuijf et al. 2019, doi:10.1109/TMI.2019.2905770), so that results compare with its leaderboard:

reference   label 1 (0.5 to 1.5) is WMH, stored as integers or as floating point alike; voxels of label 2,
            other pathology, are removed from both masks before anything is measured
result      foreground at 1 and above where stored as integers, at 0.5 and above where stored as floating
            point or as integers with a scale
lesion      a 26-connected component; one voxel of overlap with the other mask makes it detected

A metric is one function of a `MaskPair` under `@metric`; defining it, in this file or in a cell, adds it to every table.
"""

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Literal

import cc3d
import numpy as np
from scipy.spatial import cKDTree

from wmhlib.intake.grids import Volume
from wmhlib.intake.masks import read_mask, read_pair_of_masks
from wmhlib.running.registry import register

CHALLENGE = ("dice", "hd95_mm", "avd_pct", "lesion_recall", "lesion_f1")
"""The challenge's own metrics."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric for readers: `title`, whether higher is better, how many `digits` are shown, and how it is computed."""

    title: str
    higher_is_better: bool
    digits: int
    of: Callable[["MaskPair"], float]


METRICS: dict[str, Metric] = {}
"""Every metric by its column in the tables, in the order of Table 1."""


def metric(title: str, higher_is_better: bool = True, digits: int = 2) -> Callable:
    """Register a function of a `MaskPair` as a metric, under its own name."""

    def add(function: Callable) -> Callable:
        register(METRICS, function.__name__, Metric(title, higher_is_better, digits, function))
        return function

    return add


class MaskPair:
    """The foregrounds of a reference (`lesion`) and a result (`found`) without other pathology, in canonical orientation.

    Both are boolean and cut to the box that holds them, `box` in voxels of the turned volume; `affine` is that volume's.
    Errors as in `wmhlib.intake.masks.read_pair_of_masks`.
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
        """Detected lesions of the reference / all of them; NaN where it has none."""
        return _fraction_touched(self.lesion, self.overlap)

    @cached_property
    def precision(self) -> float:
        """Components of the result that touch a lesion / all of them; 1 where it is empty."""
        return _fraction_touched(self.found, self.overlap) if self.volumes[1] else 1.0


@metric("Dice")
def dice(pair: MaskPair) -> float:
    """2 |R and S| / (|R| + |S|); NaN where both masks are empty."""
    return 2 * int(np.count_nonzero(pair.overlap)) / sum(pair.volumes) if sum(pair.volumes) else np.nan


@metric("HD95 (mm)", higher_is_better=False, digits=1)
def hd95_mm(pair: MaskPair) -> float:
    """The larger of the two 95th percentiles of distances between the in-plane boundaries, in world mm.

    A boundary is a mask less its 3x3 erosion in each axial slice (for oblique scans the nearest to one), and outside the volume counts as
    foreground. NaN where a mask has no boundary: it is empty, or fills whole slices.
    """
    return _hausdorff95(pair.lesion, pair.found, _steps_mm(pair.affine))


@metric("AVD (%)", higher_is_better=False, digits=1)
def avd_pct(pair: MaskPair) -> float:
    """Absolute difference of the volumes, in per cent of the reference's; NaN where that is empty."""
    reference, result = pair.volumes
    return abs(reference - result) / reference * 100 if reference else np.nan


@metric("Lesion recall")
def lesion_recall(pair: MaskPair) -> float:
    """Detected lesions of the reference / all of them; NaN where it has none."""
    return pair.recall


@metric("Lesion F1")
def lesion_f1(pair: MaskPair) -> float:
    """Harmonic mean of lesion recall and precision; 0 where only the reference is empty, NaN where both are."""
    if not pair.volumes[0]:
        return 0.0 if pair.volumes[1] else np.nan
    both = pair.precision + pair.recall
    return 2 * pair.precision * pair.recall / both if both else 0.0


def measured(pair: MaskPair) -> dict[str, float]:
    """Every registered metric of a pair of masks."""
    return {name: entry.of(pair) for name, entry in METRICS.items()}


def challenge_metrics(reference: Volume, result: Volume) -> dict[str, float]:
    """The five metrics of the WMH Challenge.

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
    pair = MaskPair(reference, result)
    return {name: METRICS[name].of(pair) for name in CHALLENGE}


def positive_class_density(reference: Volume) -> float:
    """Voxels of label 1 in per cent of all voxels of the volume (paper 3.2.3); 0 for an empty mask.

    Raises FileNotFoundError or ValueError where the mask is missing, unreadable, not 3D or holds NaN.
    """
    values = np.asanyarray(read_mask(reference).dataobj)
    return int(np.count_nonzero((values > 0.5) & (values < 1.5))) / values.size * 100


def voxel_mm3(affine: np.ndarray) -> float:
    """The volume of a voxel."""
    return abs(np.linalg.det(affine[:3, :3]))


def voxels_of(mask: np.ndarray) -> np.ndarray:
    """The indices of a mask's voxels, (voxel, axis): `np.argwhere` in the order of memory, far faster."""
    order: Literal["C", "F"] = "C" if mask.flags.c_contiguous else "F"
    return np.stack(np.unravel_index(np.flatnonzero(mask.ravel(order)), mask.shape, order), axis=1)


def _fraction_touched(lesions: np.ndarray, touched: np.ndarray) -> float:
    """The fraction of a mask's components that hold a touched voxel; NaN where there is no component."""
    labels, count = cc3d.connected_components(lesions, connectivity=26, return_N=True)
    return len(np.unique(labels[tuple(voxels_of(touched).T)])) / count if count else np.nan


def _steps_mm(affine: np.ndarray) -> np.ndarray:
    """Rows that turn voxel steps into world mm, rounded as in the values this is tested against; (3, 3).

    The scorer reads images with ITK, which keeps the voxel size as float32 and, on writing an image anew,
    turns its axes to the nearest rotation in float32. The tested values came from images written anew; on
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
        away = voxels_of(start & ~goal) @ steps_mm
        if len(away):
            tree = cKDTree(voxels_of(goal) @ steps_mm, balanced_tree=False, compact_nodes=False)
            distances[: len(away)] = tree.query(away)[0]
        percentiles.append(np.percentile(distances, 95))
    return float(max(percentiles))
