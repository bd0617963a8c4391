"""Whether a scan is like those that a network was trained on: the range of the training scans, and warnings outside it."""

import nibabel
import numpy as np
import pandas as pd

from wmhlib.intake.scans import read_flair
from wmhlib.slices import TISSUE

TOLERANCE = 0.25
"""A scan may lie this share below or above what the training scans span before a warning is given (a convention)."""

MEASURES = {
    "in_plane_spacing_mm": ("In-plane spacing", " mm"),
    "slice_spacing_mm": ("Slice spacing", " mm"),
    "matrix": ("In-plane matrix", " voxels"),
    "median_tissue_intensity": ("Median tissue intensity as a share of the maximum", ""),
    "tissue_coverage_pct": ("Tissue's share of the volume", " %"),
    "tissue_height_mm": ("Height of tissue from the lowest to the highest slice", " mm"),
}
"""What is compared with the training scans: the name a reader sees and its unit."""


def measures(flair: nibabel.Nifti1Image) -> dict[str, tuple[float, float]]:
    """Lowest and highest of each of `MEASURES` in one FLAIR as `read_flair` gives it."""
    volume, spacing = np.asarray(flair.dataobj), nibabel.affines.voxel_sizes(flair.affine)
    tissue = volume > TISSUE
    filled = np.flatnonzero(tissue.mean(axis=(0, 1)) > 0.01)  # a slice with less is noise
    values = {
        "in_plane_spacing_mm": spacing[:2],
        "slice_spacing_mm": spacing[2:],
        "matrix": volume.shape[:2],
        "median_tissue_intensity": [np.median(volume[tissue])],
        "tissue_coverage_pct": [tissue.mean() * 100],
        "tissue_height_mm": [(filled[-1] - filled[0] + 1) * spacing[2] if len(filled) else 0],
    }
    return {name: (float(min(some)), float(max(some))) for name, some in values.items()}


def training_range(cohort: pd.DataFrame) -> dict:
    """Lowest and highest of each of `MEASURES` over the FLAIRs of a cohort's rows, and their number, `scans`.

    Meant for training subjects; what `training_range.json` beside a model holds. Errors as in `read_flair`; ValueError
    for no rows.
    """
    if cohort.empty:
        raise ValueError("No training subject is given: there is no range to tell.")
    every = [measures(read_flair(path)) for path in cohort.flair]
    spans = {name: [min(one[name][0] for one in every), max(one[name][1] for one in every)] for name in MEASURES}
    return {"scans": len(every)} | spans


def about_range(trained_on: dict) -> str:
    """What a reader should know of the range before any warning."""
    if not trained_on:
        return "No training_range.json lies beside the model: no scan is compared with those it was trained on."
    spans = [f"{text.lower()} {_span(*trained_on[name])}{unit}" for name, (text, unit) in MEASURES.items()]
    return f"Trained on {int(trained_on['scans'])} scan(s): {', '.join(spans)}. Beyond by {TOLERANCE:.0%}: a warning."


def _span(low: float, high: float) -> str:
    ends = f"{low:.3g}", f"{high:.3g}"
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def range_warnings(flair: nibabel.Nifti1Image, trained_on: dict) -> list[str]:
    """A sentence for each measure of a FLAIR (as `read_flair` gives it) that lies outside the training scans' range by
    more than `TOLERANCE`; none where the range is empty."""
    found = []
    for name, (low, high) in measures(flair).items() if trained_on else ():
        allowed = trained_on[name][0] * (1 - TOLERANCE), trained_on[name][1] * (1 + TOLERANCE)
        if low < allowed[0] or high > allowed[1]:
            text, unit = MEASURES[name]
            found.append(f"{text} is {_span(low, high)}{unit}, expected {_span(*allowed)}{unit}.")
    return found
