"""Read BIDS data sets and write BIDS derivatives (Gorgolewski et al. 2016, doi:10.1038/sdata.2016.44).

Input: a data set with `FLAIR` images and, in its derivatives, lesion masks (`label-WMH` or `label-lesion`, suffix
`mask`). Output: the table of `wmhlib.cohort`. Predictions are written to a separate derivative, which is never used as
reference:

    sub-01/anat/sub-01_space-orig_label-WMH_mask.nii.gz     uint8 0/1 on the scan's own grid, with a JSON sidecar
    dataset_description.json                                GeneratedBy wmhlib
"""

import importlib.metadata
import os
import re
from pathlib import Path

import nibabel
import pandas as pd

from wmhlib.intake import folders, references
from wmhlib.intake.bids_files import DESCRIPTION, RAW_EXAMPLE, BidsFile, described, makers, parsed
from wmhlib.intake.folders import Notes, Tree
from wmhlib.intake.nifti import changed_since, save_image
from wmhlib.intake.participants import Participant, read_participants, refuse_split_elsewhere
from wmhlib.intake.roles import ENTITIES
from wmhlib.running.files import PathLike, read_json, sha256, write_json

WITHOUT_SCANS = ("derivatives", "sourcedata", "code", "stimuli", "phenotype", "docs")
"""Folders of a BIDS data set without raw scans."""

EXPECTED = "sub-<label>/[ses-<label>/]anat/sub-<label>[_<entity>-<label>]_FLAIR.nii.gz"
OTHER_LAYOUT = ("training", "test")


def is_bids(root: PathLike) -> bool:
    """Whether a folder is the root of a BIDS data set, or would be if it had a `dataset_description.json`."""
    root = Path(root)
    if os.path.lexists(root / DESCRIPTION):
        return True
    return bool(_subject_folders(root)) and not any((root / part).is_dir() for part in OTHER_LAYOUT)


def read_bids(root: PathLike) -> pd.DataFrame:
    """List the FLAIRs of a BIDS data set that have a lesion mask, in the form of
    `wmhlib.intake.challenge.read_challenge`.

    `participants.tsv` can give a participant's `centre` (also `center` or `site`; default: the data set's name) and
    `split` (`external`: never trained on). A subject is named by its entities, such as `01_ses-2`.
    `wmhlib.intake.references` matches masks and FLAIRs.

    Returns
    -------
    DataFrame
        `subject, centre, split, flair, reference`; `attrs["notes"]` lists what was left out, with the reason.

    Raises
    ------
    FileNotFoundError
        There is no FLAIR with a mask or no `dataset_description.json`; the message says what was expected.
    PermissionError
        A folder cannot be read.
    ValueError
        A `dataset_description.json` is invalid or has no Name, two masks fit one FLAIR equally well, two FLAIRs have
        the same subject, or the folder also has the challenge's layout. Also as `read_participants`.
    """
    root = Path(root).resolve()
    folders.refuse_closed(root)
    name, subjects = _name(root), _subject_folders(root)
    tree = folders.search(*subjects)
    folders.refuse_twice(tree, set(subjects))
    scans, notes = _scans(root, tree)
    refuse_split_elsewhere(path for path in tree.files if path.name.endswith(("_sessions.tsv", "_scans.tsv")))
    people = read_participants(root, [folder.name.removeprefix("sub-") for folder in subjects], notes)
    for folder in subjects:
        if not any(folder in scan.path.parents for scan in scans):
            notes.append((str(folder), "no FLAIR"))
        if (root / "participants.tsv").is_file() and folder.name.removeprefix("sub-") not in people:
            notes.append((str(folder), "a subject without a row in participants.tsv"))
    pairs = references.pairs(scans, references.lesion_masks(root, notes), notes)
    expected = f"{EXPECTED} and its …_label-WMH_mask.nii.gz in derivatives/<name>/"
    return folders.cohort_table(_rows(pairs, people, name), notes, root, expected)


def _subject_folders(root: Path) -> list[Path]:
    return [path for path in sorted(root.glob("sub-*")) if path.is_dir()]


def _name(root: Path) -> str:
    """The data set's name, after checking that its layout is unambiguous."""
    name = described(root, RAW_EXAMPLE).get("Name")
    if not isinstance(name, str):
        raise ValueError(f"{root / DESCRIPTION} has no text as Name, which BIDS requires: add it.")
    for part in OTHER_LAYOUT:
        if (root / part).is_dir():
            both = f"{part}/ of the challenge's layout and {DESCRIPTION} of BIDS"
            raise ValueError(f"{root} has {both}: move one of them (the masks of notebook 07 need a separate folder).")
    return name


def _scans(root: Path, tree: Tree) -> tuple[list[BidsFile], Notes]:
    """All FLAIRs at their place in BIDS, and notes on other files that may be scans or masks."""
    scans, notes = [], folders.broken_links(tree)
    for path in tree.files:
        image = parsed(path)
        if image and image.is_lesion_mask():
            notes.append((str(path), "a lesion mask in the raw data, expected in derivatives/<name>/"))
        elif image and image.suffix == "FLAIR" and path.parent == _anat(root, image.entities):
            if image.entities.get("part", "mag") == "mag":
                scans.append(image)
            else:
                notes.append((str(path), "a phase, real or imaginary image, not the magnitude"))
        elif folders.may_be_flair(path):
            notes.append((str(path), f"named like a FLAIR, but not at {EXPECTED}"))
    known = [*WITHOUT_SCANS, "participants.tsv", *(folder.name for folder in _subject_folders(root))]
    return scans, notes + folders.misplaced(root, known, EXPECTED)


def _anat(root: Path, entities: dict[str, str]) -> Path:
    """The folder of a subject's structural images in BIDS."""
    return root / "/".join([*(f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities), "anat"])


def _rows(pairs: list[tuple[BidsFile, BidsFile]], people: dict[str, Participant], name: str) -> list[tuple]:
    """The cohort's rows. A subject's name has its session and run, and further entities if two would be equal."""
    rows, short = [], [_subject(scan, ("sub", "ses", "run")) for scan, _ in pairs]
    for short_name, (scan, mask) in zip(short, pairs, strict=True):
        participant = people.get(scan.entities["sub"], Participant())
        subject = _subject(scan, tuple(scan.entities)) if short.count(short_name) > 1 else short_name
        rows.append((subject, participant.centre or name, participant.split, str(scan.path), str(mask.path)))
    return rows


def _subject(scan: BidsFile, entities: tuple[str, ...]) -> str:
    return "_".join(f"{key}-{label}" for key, label in scan.entities.items() if key in entities).removeprefix("sub-")


def _refuse_data_set(root: Path) -> None:
    """Refuse to write predicted masks to another data set, where they could be mistaken for manual masks."""
    if os.path.lexists(root / DESCRIPTION):
        if set(made_by := makers(root)) != {references.OWN_NAME}:
            made = ", ".join(made_by) or "others"
            raise ValueError(
                f"{root} was made by {made} according to its {DESCRIPTION}: give another folder for masks."
            )
    elif root.is_dir() and any(not path.name.startswith(".") for path in root.iterdir()):
        raise ValueError(f"{root} has other files and no {DESCRIPTION}: give an empty folder for predicted masks.")


def write_derivative(
    root: PathLike, subject: str, mask: nibabel.Nifti1Image, source: str, model: str, record: dict | None = None
) -> Path:
    """Write one predicted mask to a BIDS derivative at `root`, which is created if needed.

    Parameters
    ----------
    subject
        The participant, with further entities if any (`01_ses-2_run-1`), which are kept in the name. Characters that
        BIDS does not allow in a label are removed.
    mask
        uint8 0/1 on the scan's own grid.
    source, model
        The scan and the network in words, without personal data.
    record
        Checksums of both if known: `scan_sha256` and `network_sha256`.

    Returns
    -------
    Path
        The path of the mask; its JSON sidecar is next to it.

    Raises
    ------
    FileExistsError
        According to the sidecar, the file is a mask of another scan or network, or people changed it. Nothing is
        replaced.
    ValueError
        The subject has no character allowed in a label; or the folder is another data set according to its description,
        or has files but no description.
    """
    root = Path(root)
    name, *others = re.split(rf"_(?=(?:{'|'.join(ENTITIES)})-)", subject)
    pairs = {"sub": name, "space": "orig"} | dict(part.split("-", 1) for part in others) | {"label": "WMH"}
    entities = {key: re.sub(r"[^0-9a-zA-Z]", "", value) for key, value in pairs.items()}
    if not entities["sub"]:
        raise ValueError(f"Subject {subject!r} has no letter or digit for a BIDS label: rename it.")
    _refuse_data_set(root)
    stem = "_".join(f"{key}-{entities[key]}" for key in ("sub", *ENTITIES) if entities.get(key))
    path = _anat(root, entities) / f"{stem}_mask.nii.gz"
    sidecar_path = path.with_name(f"{stem}_mask.json")
    sidecar = {"Type": "Lesion", "Sources": [source], "SpatialReference": source, "Description": f"Made by {model}."}
    sidecar |= {key: value for key, value in (record or {}).items() if key in ("scan_sha256", "network_sha256")}
    earlier = read_json(sidecar_path)
    if path.exists() and {key: earlier[key] for key in earlier if key != "mask_sha256"} != sidecar:
        raise FileExistsError(f"{path} is the mask of another scan or network: give another folder for these masks.")
    if changed_since(path, earlier):
        raise FileExistsError(f"{path} was changed by hand and is kept: give another folder for these masks.")
    if not (root / DESCRIPTION).is_file():
        made_by = {"Name": references.OWN_NAME, "Version": importlib.metadata.version("wmhlib")}
        description = {"Name": "Predicted white matter hyperintensities", "BIDSVersion": "1.9.0"}
        write_json(root / DESCRIPTION, description | {"DatasetType": "derivative", "GeneratedBy": [made_by]})
    write_json(sidecar_path, sidecar)
    save_image(mask, path)
    write_json(sidecar_path, sidecar | {"mask_sha256": sha256(path)})
    return path
