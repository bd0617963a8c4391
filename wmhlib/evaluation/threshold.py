"""A baseline for the networks: one intensity threshold for all scans, tuned on the training subjects.

Input: scans and references. Output: masks, which become the row `global_threshold` of every table.
"""

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd

from wmhlib.intake.nifti import read_scan
from wmhlib.intake.scans import read_pair


def threshold_mask(flair: str | Path, level: float) -> nibabel.Nifti1Image:
    """The mask of all voxels brighter than `level` times the volume's maximum, uint8 0/1."""
    scan = read_scan(flair)
    volume = np.asarray(scan.dataobj, dtype=np.float32)
    return nibabel.Nifti1Image((volume > level * volume.max()).astype(np.uint8), scan.affine)


def tune_threshold(cohort: pd.DataFrame, levels: int = 100) -> tuple[float, float]:
    """The level with the highest mean Dice over the subjects of `cohort`, and that mean Dice.

    `cohort` has the training subjects; `levels` is the number of levels tried between 0 and 1. Errors as in
    `wmhlib.intake.scans.read_pair`; ValueError if no reference has a lesion.
    """
    edges = np.linspace(0, 1, levels + 1)
    scores = np.zeros(levels)
    for subject in cohort.itertuples():
        volume, lesion = (np.asarray(image.dataobj) for image in read_pair(subject.flair, subject.reference))
        lesion = lesion == 1
        above = np.histogram(volume, edges)[0][::-1].cumsum()[::-1]
        hits = np.histogram(volume[lesion], edges)[0][::-1].cumsum()[::-1]
        scores += 2 * hits / (above + lesion.sum()) / len(cohort)
    if not scores.any():
        raise ValueError("No reference of the training subjects has a lesion: check that WMH has the label 1.")
    best = int(scores.argmax())
    return float(edges[best]), float(scores[best])
