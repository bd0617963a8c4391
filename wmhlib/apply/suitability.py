"""Whether a scan is suitable for a network: indicators that separated failed masks from good ones, and a verdict per
mask.
Two indicators are used. The first is agreement with the mirrored scan: the Dice between the mask and the mask of the
left-right mirrored scan, mirrored back. The second is the level of tissue relative to the training scans. For networks
that divide by the maximum, it is a fraction of the maximum; for networks with intensity `tissue`, it is a fraction of
the 99.9th percentile, which skull and fat affect but a few bright voxels do not. For empty masks, only the level of
tissue is available.
Evidence: 70 masks of ten real scans of four centres, one of them with skull, by seven networks that were trained on
synthetic scans and divide by the maximum. 49 masks, of seven scans, have a Dice below 0.3. Area under the ROC curve for
separating these from the others (0.5: uninformative): agreement with the mirrored scan 1.00, level of tissue 0.76 (1.00
for the scans with skull alone), highest probability 0.84, ratio of the volumes at the thresholds 0.7 and 0.3 0.81, mean
probability 0.69, slice spacing 0.48, in-plane spacing 0.24, height of tissue 0.29, number of lesions 0.50. The ratio of
volumes reaches 1.00 within each network, but with a different limit per loss. For 20 masks with intensity `tissue` (two
networks, 12 masks below 0.3): agreement 0.98.
This evidence is weak: ten scans, of which three were segmented well, related networks of one size and one training
cohort, and no correct empty mask. The limits below were set on these same masks, so their performance on other masks is
unknown. A mask without a warning can still be wrong, and a doubtful mask can be right.
"""

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd

from wmhlib.intake.scans import IN_PROPORTION, read_flair, tissue_level
from wmhlib.running.files import PathLike, read_json

RANGES: dict[str, tuple[str, str, tuple[float, float]]] = {
    "maximum": ("median_tissue_intensity", "the maximum", IN_PROPORTION),
    "tissue": ("median_tissue_of_percentile", "the 99.9th percentile", (0.45, 0.8)),
}
"""Per intensity of a network: the key of `training_range.json` with the lowest and highest level of tissue, the
quantity that the level is a fraction of, and the accepted range if the training range is unknown (measured without
skull: 0.50 to 0.73 of the percentile; with skull: 0.29 to 0.45, and 0.58 in one scan with dark fat)."""

TOLERANCE = (0.05, 0.1)
"""Tolerance below and above the range of the training scans, as a fraction of its ends. After four voxels were set to
1.3 times the maximum, the tissue of two real scans was at 0.92 and 0.82 of the lowest training level, and their masks
kept 69 and 46 % of their volume. Scans brighter than the training scans lost less."""

AGREEMENT = 0.67
"""The lowest accepted Dice between a mask and that of the mirrored scan. Failed masks reached 0.00 to 0.65, masks with
a Dice of 0.4 or more reached 0.69 to 0.82, and those of nine synthetic external scans 0.77 to 0.89."""

FOUND = {True: "No lesions were found", False: "Lesions were found"}
"""The verdict's first half, by whether the mask is empty."""

VERDICTS = {
    (True, "doubt"): ", but the scan may be unsuitable for the network: do not take this as a normal finding.",
    (False, "doubt"): ", but the mask is doubtful: see the warnings.",
    (True, "note"): ", but there is a note on the file: see the warnings, and do not take this as a normal finding.",
    (False, "note"): ", but there is a note on the file: see the warnings.",
    (True, ""): ", and the scan resembles those that the network can segment.",
    (False, ""): ", and no check raised a warning.",
}
"""The verdict's second half by (mask is empty, kind of warning): a doubt about the scan or mask, or only a note on the file
or on earlier results."""


def levels(flair: nibabel.Nifti1Image) -> dict[str, float]:
    """The level of tissue of a FLAIR from `read_flair` with `maximum`, as the fraction that each entry of `RANGES`
    uses."""
    volume = np.asarray(flair.dataobj)
    level, white = tissue_level(volume), float(np.percentile(volume, 99.9))
    return {"maximum": level, "tissue": level / white if white else 1.0}


def training_range(cohort: pd.DataFrame) -> dict:
    """The content of `training_range.json`: the number of FLAIRs, and their lowest and highest level of tissue per
    entry of `RANGES`.

    `cohort` has the training subjects. Errors as in `read_flair`; ValueError if there are no rows.
    """
    if cohort.empty:
        raise ValueError("The training range needs at least one training subject, but the cohort has none.")
    all_levels = pd.DataFrame([levels(read_flair(path)) for path in cohort.flair])
    spans = {key: [float(all_levels[name].min()), float(all_levels[name].max())] for name, (key, *_) in RANGES.items()}
    return {"scans": len(all_levels)} | spans


def read_range(path: PathLike) -> dict:
    """A saved training range, and the network's own `threshold` if it has one; empty without a file.

    Older files lack the key of `tissue`.

    Raises
    ------
    ValueError
        The file has no valid training range.
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
        raise ValueError(f"{path} lacks `scans` or the levels of tissue: delete it or train again.") from None


def about_range(trained_on: dict, intensity: str = "maximum") -> str:
    """A sentence on the training range, shown before any warning."""
    key, whole, (low, high) = RANGES[intensity]
    if key not in trained_on:
        return f"No training range is saved with the model: tissue is expected at {low} to {high} of {whole}."
    low, high = trained_on[key]
    return f"Trained on {trained_on['scans']} scan(s), with tissue at {low:.2f} to {high:.2f} of {whole}."


def brightness_doubt(flair: nibabel.Nifti1Image, trained_on: dict, intensity: str = "maximum") -> str:
    """A warning if the tissue of a FLAIR (from `read_flair` with `maximum`) is darker or brighter than in the training
    scans.

    `intensity` is that of the network. Empty if there is nothing to warn of.
    """
    key, whole, (low, high) = RANGES[intensity]
    if key in trained_on:
        low, high = trained_on[key][0] * (1 - TOLERANCE[0]), trained_on[key][1] * (1 + TOLERANCE[1])
    level = levels(flair)[intensity]
    return "" if low <= level <= high else f"Tissue is at {level:.2f} of {whole}, expected {low:.2f} to {high:.2f}"


def agreement(mask: np.ndarray, mirrored: np.ndarray) -> float:
    """Dice between the masks of a scan and of its mirror image, mirrored back: boolean, of one shape; NaN if both are
    empty."""
    both = mask.sum() + mirrored.sum()
    return float(2 * (mask & mirrored).sum() / both) if both else float("nan")


def agreement_doubt(agreed: float) -> str:
    """A warning if `agreed` is below `AGREEMENT`; otherwise empty."""
    text = f"The mirrored scan gives a different mask (Dice {agreed:.2f}, expected {AGREEMENT} or more)"
    return text * (agreed < AGREEMENT)


def verdict(empty: bool, doubts: list[str], notes: list[str]) -> str:
    """The verdict on a mask that is `empty` or not, with these doubts and these notes on its file."""
    return FOUND[empty] + VERDICTS[empty, "doubt" if doubts else "note" * bool(notes)]
