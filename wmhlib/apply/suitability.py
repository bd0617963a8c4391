"""Whether a network can read a scan: the signs that separated failing masks from good ones, and a verdict on each mask.

Two signs are kept. Disagreement with itself: the mask of the scan mirrored left to right, mirrored back, is another one. And
the level of tissue, outside what the training scans had: as a share of the maximum for a network that divides by it, as a share
of the 99.9th percentile for one by `tissue`, which a few bright voxels do not move but skull and fat do. An empty mask has no
other sign.

Evidence: 70 masks of ten real scans of four centres, one of them with skull, by seven networks that were trained on synthetic
scans and divide by the maximum. 49 have a Dice below 0.3, on seven of the scans. How well a sign puts these below the others
(area under the ROC; 0.5 tells nothing): agreement with the mirrored scan 1.00, level of tissue 0.76 (1.00 for the scans with skull
alone), highest probability 0.84, volume at 0.7 over that at 0.3 0.81, mean probability 0.69, slice spacing 0.48, in-plane spacing
0.24, height of tissue 0.29, number of lesions 0.50. The ratio of volumes reaches 1.00 within each network, but each loss has
another limit. Of 20 masks by `tissue` (two networks, 12 masks below 0.3): agreement 0.98.

This is thin: ten scans, three of them segmented well, related networks of one size and one training cohort, and no empty mask
that is right. The limits below were set on these same masks, so nothing here says how they do on others. A mask without a doubt can still be wrong, and a doubtful one right.
"""

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd

from wmhlib.intake.scans import IN_PROPORTION, read_flair, tissue_level
from wmhlib.metrics import voxel_mm3
from wmhlib.running.files import PathLike, read_json

RANGES: dict[str, tuple[str, str, tuple[float, float]]] = {
    "maximum": ("median_tissue_intensity", "the maximum", IN_PROPORTION),
    "tissue": ("median_tissue_of_percentile", "the 99.9th percentile", (0.45, 0.8)),
}
"""By a network's intensity: the key of `training_range.json` with the lowest and the highest level of tissue, of what that is a
share, and what raises no doubt where no range is known (measured without skull: 0.50 to 0.73 of the percentile; with: 0.29 to
0.45, and 0.58 in one scan whose fat is dark)."""

TOLERANCE = (0.05, 0.1)
"""How far below and above the training scans' levels, as a share of them, a scan may be. With four voxels at 1.3 times the
maximum, two real scans had their tissue at 0.92 and 0.82 of the lowest training level, and the masks kept 69 and 46 % of
their volume. Scans brighter than the training scans lost less."""

AGREEMENT = 0.67
"""The lowest Dice of a mask with that of the mirrored scan that raises no doubt. Failing masks reached 0.00 to 0.65, masks with a
Dice of 0.4 or more 0.69 to 0.82, and those of nine synthetic external scans 0.77 to 0.89."""

HEAD_LITRES = (0.3, 8)
"""Tissue of a head, stripped, cut off or with the neck (0.9 to 2.7 in 14 real scans): only wrong voxel sizes lie beyond."""

VERDICTS = {
    (True, False): "No lesion was found, in a scan that looks like those the network can read.",
    (True, True): "No lesion was found, but the network may be unable to read this scan: this is not a sign of health.",
    (False, False): "Lesions were found, and nothing speaks against the mask.",
    (False, True): "Lesions were found, but the mask is doubtful.",
}
"""By whether the mask is empty and whether there is a doubt."""


def levels(flair: nibabel.Nifti1Image) -> dict[str, float]:
    """The level of tissue of a FLAIR, as `read_flair` gives it by `maximum`, as the share that each of `RANGES` is of."""
    volume = np.asarray(flair.dataobj)
    level, white = tissue_level(volume), float(np.percentile(volume, 99.9))
    return {"maximum": level, "tissue": level / white if white else 1.0}


def training_range(cohort: pd.DataFrame) -> dict:
    """The number of FLAIRs of a cohort's rows, `scans`, and by the keys of `RANGES` their lowest and highest level of tissue.

    Meant for training subjects; what `training_range.json` next to a model holds. Errors as in `read_flair`; ValueError
    for no rows.
    """
    if cohort.empty:
        raise ValueError("No training subject is given, so there is no range.")
    every = pd.DataFrame([levels(read_flair(path)) for path in cohort.flair])
    spans = {key: [float(every[name].min()), float(every[name].max())] for name, (key, *_) in RANGES.items()}
    return {"scans": len(every)} | spans


def read_range(path: PathLike) -> dict:
    """What `training_range` gave, from a file, and the network's own `threshold` where it has one; empty where there is no file.
    Ranges written earlier lack the key of `tissue`.

    Raises ValueError: the file does not hold it.
    """
    if not Path(path).is_file():
        return {}
    stored = read_json(path)
    try:
        spans = {key: [float(level) for level in stored[key]] for key, *_ in RANGES.values() if key in stored}
        if not spans or {*map(len, spans.values())} != {2}:
            raise ValueError
        own = {"threshold": float(stored["threshold"])} if "threshold" in stored else {}
        return {"scans": int(stored["scans"])} | spans | own
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{path} lacks `scans` or the levels of tissue: remove it or train again.") from None


def about_range(trained_on: dict, intensity: str = "maximum") -> str:
    """What a reader should know of the range before any warning."""
    key, whole, (low, high) = RANGES[intensity]
    if key not in trained_on:
        return f"The training scans' range is not next to the model: tissue is expected at {low} to {high} of {whole}."
    low, high = trained_on[key]
    return f"Trained on {trained_on['scans']} scan(s), with tissue at {low:.2f} to {high:.2f} of {whole}."


def brightness_doubt(flair: nibabel.Nifti1Image, trained_on: dict, intensity: str = "maximum") -> str:
    """A sentence where the tissue of a FLAIR, as `read_flair` gives it by `maximum`, is darker or brighter than in the scans
    that a network of this intensity was trained on; else empty."""
    key, whole, (low, high) = RANGES[intensity]
    if key in trained_on:
        low, high = trained_on[key][0] * (1 - TOLERANCE[0]), trained_on[key][1] * (1 + TOLERANCE[1])
    level = levels(flair)[intensity]
    return "" if low <= level <= high else f"Tissue is at {level:.2f} of {whole}, expected {low:.2f} to {high:.2f}"


def head_litres(flair: nibabel.Nifti1Image) -> float:
    """The volume of tissue in a FLAIR as `read_flair` gives it: of the brain where it is stripped, else of the head in sight."""
    volume = np.asarray(flair.dataobj)
    return float((volume > tissue_level(volume) / 2).sum() * voxel_mm3(flair.affine) / 1e6)


def size_doubt(flair: nibabel.Nifti1Image) -> str:
    """A sentence where the tissue of a FLAIR, as `read_flair` gives it, fills less or more than a head can; else empty."""
    litres, (low, high) = head_litres(flair), HEAD_LITRES
    text = f"Tissue fills {litres:.2g} litres, expected {low} to {high}: are the voxel sizes right?"
    return text * (not low <= litres <= high)


def agreement(mask: np.ndarray, mirrored: np.ndarray) -> float:
    """Dice of the mask of a scan and that of the mirrored scan, mirrored back: boolean, of one shape; NaN where both are empty."""
    both = mask.sum() + mirrored.sum()
    return float(2 * (mask & mirrored).sum() / both) if both else float("nan")


def agreement_doubt(agreed: float) -> str:
    """A sentence where `agreement` is below `AGREEMENT`; else empty."""
    text = f"The mirrored scan gives another mask (Dice {agreed:.2f}, expected {AGREEMENT} or more)"
    return text * (agreed < AGREEMENT)


def verdict(empty: bool, doubts: list[str]) -> str:
    """What may be concluded from a mask that is `empty` or not, with these doubts."""
    return VERDICTS[empty, any(doubts)]
