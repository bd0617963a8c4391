"""Match the lesion masks in a BIDS data set's derivatives with the FLAIRs of which they are the reference.

Input: the data set's FLAIRs. Output: pairs of a FLAIR and its mask, and notes on masks and FLAIRs without a match.
Masks made by this project are never references. A mask fits a scan of the same subject and session that has all
entities in the mask's name, such as `acq-2D`. If several masks fit, manual masks are preferred, then those on the
scan's grid, then those that share more entities.
"""

import os
import re
from pathlib import Path

from wmhlib.intake.bids_files import DESCRIPTION, BidsFile, makers, parsed
from wmhlib.intake.folders import Notes, broken_links, not_fetched, search
from wmhlib.intake.grids import on_one_grid
from wmhlib.intake.roles import without_zeros
from wmhlib.running.files import PathLike

VARIANTS = ("acq", "ce", "rec", "run", "part", "echo", "chunk", "dir")
"""The entities that distinguish scans of one session; a mask without an entity fits any of its values."""

OWN_NAME = "wmhlib"


def lesion_masks(root: PathLike, notes: Notes) -> list[BidsFile]:
    """All lesion masks in a data set's derivatives, except those made by this project.

    Raises
    ------
    FileNotFoundError, ValueError
        A derivative with lesion masks has no `dataset_description.json`, or an invalid one.
    PermissionError
        A folder cannot be read.
    """
    root = Path(root)
    tops = [path for path in root.iterdir() if path.is_dir() and path.name.lower() == "derivatives"]
    tree = search(*tops)
    notes += broken_links(tree)
    masks = []
    for path in tree.files:
        image = parsed(path)
        if image and image.is_lesion_mask():
            if why := _unfit(image, path.relative_to(root)):
                notes.append((str(path), why))
            else:
                masks.append(image)
        elif re.search(r"(wmh|lesion).*_(mask|dseg|roi)\.nii", path.name, re.IGNORECASE):
            notes.append((str(path), "named like a lesion mask, but without label-WMH_mask or label-lesion_mask"))
    notes += [
        (str(folder), "an empty derivative: if it is a DataLad subdataset, run `datalad get` on it")
        for folder in tree.folders
        if folder.parent in tops and not any(folder.iterdir())
    ]
    return _made_by_others(root, masks, notes)


def _unfit(mask: BidsFile, place: Path) -> str:
    """Why a mask can be no reference: it marks one hemisphere, or its `place` is another subject's; otherwise empty."""
    if "hemi" in mask.entities:
        return "a lesion mask of one hemisphere; join both into one mask without hemi-"
    for folder in place.parts[:-1]:
        named = dict(part.split("-", 1) for part in folder.split("_") if re.match("(sub|ses)-", part))
        if any(label != mask.entities.get(key, label) for key, label in named.items()):
            return f"a lesion mask in the folder {folder}, which its name contradicts: correct the name or the folder"
    return ""


def _made_by_others(root: Path, masks: list[BidsFile], notes: Notes) -> list[BidsFile]:
    """The masks without those of this project's derivatives; notes list skipped masks and masks not made by people."""
    by_derivative: dict[Path, list[BidsFile]] = {}
    for mask in masks:
        by_derivative.setdefault(_derivative(root, mask.path), []).append(mask)
    kept = []
    for folder, masks_of in sorted(by_derivative.items()):
        names = makers(folder)
        by_hand, own = (any(name.startswith(maker) for name in names) for maker in ("manual", OWN_NAME))
        if not by_hand:
            made = ", ".join(filter(None, names)) or "an unnamed maker"
            advice = "not used as references" if own else "make sure that people outlined or corrected them"
            notes.append((str(folder), f"{len(masks_of)} mask(s) made by {made}: {advice}"))
        if by_hand or not own:
            kept += [mask._replace(by_hand=by_hand) for mask in masks_of]
    return kept


def _derivative(root: Path, path: Path) -> Path:
    """The derivative of a file: the nearest folder above with a description, otherwise the one that should have it."""
    above = [folder for folder in path.parents if root in folder.parents]
    described = [folder for folder in above if os.path.lexists(folder / DESCRIPTION)]
    undescribed = [
        folder for folder in above if not re.search("/(sub-|ses-|anat$)", folder.relative_to(root).as_posix())
    ]
    return (described or undescribed)[0]


def pairs(scans: list[BidsFile], masks: list[BidsFile], notes: Notes) -> list[tuple[BidsFile, BidsFile]]:
    """Pairs of scan and mask, each in at most one pair; notes give the reason for all others.

    Raises
    ------
    ValueError
        Two masks fit one scan equally well; the message names them.
    """
    candidates: dict[Path, list[tuple[BidsFile, BidsFile]]] = {}
    known = set()
    for scan in scans:
        sessions = {other.entities.get("ses") for other in scans if other.entities["sub"] == scan.entities["sub"]}
        fitting = [mask for mask in masks if _fits(mask, scan, only_session=len(sessions) == 1)]
        known |= {mask.path for mask in fitting}
        if get := not_fetched(scan.path, *(mask.path for mask in fitting)):
            notes.append((str(scan.path), f"content not fetched: run {get}"))
        elif not (usable := [mask for mask in fitting if not _elsewhere(scan, mask)]):
            why = "a FLAIR without a lesion mask in the derivatives" + ", on its own grid" * bool(fitting)
            notes.append((str(scan.path), why))
        else:
            mask = _best(scan, usable)
            candidates.setdefault(mask.path, []).append((scan, mask))
    chosen = []
    for rivals in candidates.values():
        best, *others = sorted(rivals, key=lambda pair: (not _overlay(*pair), len(pair[0].entities), pair[0].path))
        if "desc" in best[1].entities:
            notes.append((str(best[1].path), "used as reference in spite of its desc-: make sure that it marks WMH"))
        chosen.append(best)
        why = f"a further FLAIR of the session; the mask is used for {best[0].path.name}"
        notes += [(str(scan.path), why) for scan, _ in others]
    for mask in masks:
        if mask.path not in known:
            notes.append((str(mask.path), "a lesion mask without a matching FLAIR"))
        elif mask.path not in candidates:
            notes.append(
                (str(mask.path), "a lesion mask on another grid, or not used because another fits its FLAIR better")
            )
    return chosen


def _fits(mask: BidsFile, scan: BidsFile, only_session: bool) -> bool:
    """Whether a mask is of a scan's subject and session and has no other value for any of `VARIANTS` than the scan.

    The mask need not name the session if it is the `only_session`.
    """
    own, theirs = mask.entities, scan.entities
    if own["sub"] != theirs["sub"] or ("ses" in theirs and "ses" not in own and not only_session):
        return False
    named = [key for key in ("ses", *VARIANTS) if key in own]
    return all(key in theirs and without_zeros(own[key]) == without_zeros(theirs[key]) for key in named)


def _best(scan: BidsFile, fitting: list[BidsFile]) -> BidsFile:
    """The best of the masks that fit a scan: manual, then on its grid, without `desc`, `label-WMH`, with more shared
    entities."""
    if len(fitting) == 1:
        return fitting[0]
    ranks = [
        (
            mask.by_hand,
            _overlay(scan, mask),
            "desc" not in mask.entities,
            mask.entities["label"].lower() == "wmh",
            len({"ses", *VARIANTS} & {*mask.entities}),
        )
        for mask in fitting
    ]
    best = [mask for mask, rank in zip(fitting, ranks, strict=True) if rank == max(ranks)]
    if len(best) > 1:
        advice = ', or mark manual masks in dataset_description.json with {"Name": "Manual"} below GeneratedBy'
        raise ValueError(
            f"{scan.path} has the masks {' and '.join(str(mask.path) for mask in best)}, which fit it equally well: "
            f"keep one, or join them into one{advice * (not best[0].by_hand)}."
        )
    return best[0]


def _elsewhere(scan: BidsFile, mask: BidsFile) -> bool:
    """Whether the names say that a mask is in another space than its scan, and the headers agree."""
    spaces = scan.entities.get("space"), mask.entities.get("space")
    return spaces[1] not in (None, "orig", "FLAIR", spaces[0]) and not _overlay(scan, mask)


def _overlay(scan: BidsFile, mask: BidsFile) -> bool:
    """Whether both headers describe the same voxels in any axis order; False if one cannot be read."""
    try:
        return on_one_grid(scan.path, mask.path)
    except (OSError, ValueError):
        return False
