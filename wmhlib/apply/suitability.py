"""Whether a network can read a scan: the signs that told failing masks from good ones, and a verdict on each mask.

Two signs are kept. The brightness of tissue, for a network that divides by the maximum: as a share of that, outside what its
training scans had. And disagreement with itself: the mask of the scan mirrored left to right, mirrored back, is another one.
EVIDENCE
"""

import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd

from wmhlib.intake.scans import IN_PROPORTION, read_flair, tissue_level

LEVEL = "median_tissue_intensity"
"""The key of `training_range.json` that holds the lowest and the highest level of tissue, as a share of the maximum."""

TOLERANCE = 0.1
"""How far below or above the training scans' levels, as a share of them, a scan may be: at 0.9 times its level the Dice falls by a
tenth, at 0.8 by a fifth or more."""

AGREEMENT = 0.7
"""The lowest Dice of a mask with that of the mirrored scan that raises no doubt."""

VERDICTS = {
    (True, False): "No lesion was found, in a scan that looks like those the network can read.",
    (True, True): "No lesion was found, but the network may be unable to read this scan: this is not a sign of health.",
    (False, False): "Lesions were found, and nothing speaks against the mask.",
    (False, True): "Lesions were found, but the mask is doubtful.",
}
"""By whether the mask is empty and whether there is a doubt."""


def training_range(cohort: pd.DataFrame) -> dict:
    """Lowest and highest level of tissue, as a share of the maximum, over the FLAIRs of a cohort's rows; and their number.

    Meant for training subjects; what `training_range.json` beside a model holds. Errors as in `read_flair`; ValueError
    for no rows.
    """
    if cohort.empty:
        raise ValueError("No training subject is given: there is no range to tell.")
    levels = [tissue_level(np.asarray(read_flair(path).dataobj)) for path in cohort.flair]
    return {"scans": len(levels), LEVEL: [min(levels), max(levels)]}


def read_range(path: Path) -> dict:
    """What `training_range` gave, from a file; empty where there is none.

    Raises
    ------
    ValueError
        The file does not hold it.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        low, high = found[LEVEL]
        return {"scans": int(found["scans"]), LEVEL: [float(low), float(high)]}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(
            f"{path} does not hold `scans` and two numbers as {LEVEL}: remove it or train again."
        ) from None


def allowed_levels(trained_on: dict) -> tuple[float, float]:
    """The levels of tissue, as shares of the maximum, that raise no doubt; `IN_PROPORTION` where the range is not known."""
    low, high = trained_on.get(LEVEL, IN_PROPORTION)
    return (low * (1 - TOLERANCE), high * (1 + TOLERANCE)) if trained_on else (low, high)


def about_range(trained_on: dict) -> str:
    """What a reader should know of the range before any warning."""
    if not trained_on:
        return (
            "No training_range.json lies beside the model: brightness is compared with what is usual without the skull."
        )
    low, high = trained_on[LEVEL]
    return f"Trained on {trained_on['scans']} scan(s), with tissue at {low:.2f} to {high:.2f} of the maximum."


def brightness_doubt(flair: nibabel.Nifti1Image, trained_on: dict) -> str:
    """A sentence where the tissue of a FLAIR, as `read_flair` gives it by `maximum`, is darker or brighter than in the scans
    that the network was trained on; else empty. Meant for networks that divide by the maximum."""
    level, (low, high) = tissue_level(np.asarray(flair.dataobj)), allowed_levels(trained_on)
    if low <= level <= high:
        return ""
    return f"Tissue is at {level:.2f} of the maximum, expected {low:.2f} to {high:.2f}"


def agreement(mask: np.ndarray, mirrored: np.ndarray) -> float:
    """Dice of the mask of a scan and that of the mirrored scan, mirrored back: boolean, of one shape; NaN where both are empty."""
    both = mask.sum() + mirrored.sum()
    return float(2 * (mask & mirrored).sum() / both) if both else float("nan")


def agreement_doubt(agreed: float) -> str:
    """A sentence where `agreement` is below `AGREEMENT`; else empty."""
    return f"The mirrored scan gives another mask (Dice {agreed:.2f}, expected {AGREEMENT} or more)" * (
        agreed < AGREEMENT
    )


def verdict(empty: bool, doubts: list[str]) -> str:
    """What may be concluded from a mask that is `empty` or not, with these doubts."""
    return VERDICTS[empty, any(doubts)]
