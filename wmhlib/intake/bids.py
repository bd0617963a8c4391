"""BIDS data sets in, BIDS derivatives out (Gorgolewski et al. 2016, doi:10.1038/sdata.2016.44).

Input: a data set with `FLAIR` images and, in its derivatives, lesion masks (`label-WMH` or `label-lesion`, suffix `mask`).
Output: the table of `wmhlib.cohort`. Predictions are written as a derivative of their own, which is never read as references:

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
from wmhlib.intake.nifti import save_image
from wmhlib.intake.participants import Participant, read_participants
from wmhlib.intake.roles import ENTITIES
from wmhlib.running.files import PathLike, read_json, write_json

WITHOUT_SCANS = ("derivatives", "sourcedata", "code", "stimuli", "phenotype", "docs")
"""Folders of a data set in which BIDS has no raw scans."""

EXPECTED = "sub-<label>/[ses-<label>/]anat/sub-<label>[_<entity>-<label>]_FLAIR.nii.gz"
OTHER_LAYOUT = ("training", "test")


def is_bids(root: PathLike) -> bool:
    """Whether a folder is the root of a BIDS data set, or would be if it had a `dataset_description.json`."""
    root = Path(root)
    if os.path.lexists(root / DESCRIPTION):
        return True
    return bool(_subject_folders(root)) and not any((root / part).is_dir() for part in OTHER_LAYOUT)


def read_bids(root: PathLike) -> pd.DataFrame:
    """List every FLAIR of a BIDS data set that has a lesion mask, as `wmhlib.cohort.read_challenge` lists a challenge folder.

    `participants.tsv` may say more of a participant: `centre` (also `center`, `site`; else the data set's name) and `split`
    (`external`: never trained on). A subject is called by its entities, such as `01_ses-2`. `wmhlib.intake.references`
    says which mask is the reference of which FLAIR.

    Returns
    -------
    DataFrame
        `subject, centre, split, flair, reference`; `attrs["notes"]` says what was left out, and why.

    Raises
    ------
    FileNotFoundError
        No FLAIR with a mask, or no `dataset_description.json`; the message names what was expected.
    PermissionError
        A folder may not be read.
    ValueError
        A `dataset_description.json` cannot be read or has no Name, two masks fit one FLAIR equally well, two FLAIRs are one
        subject, or the folder is laid out as the challenge's, too; and as `read_participants`.
    """
    root = Path(root).resolve()
    folders.refuse_closed(root)
    name, subjects = _name(root), _subject_folders(root)
    tree = folders.search(*subjects)
    folders.refuse_twice(tree, set(subjects))
    scans, notes = _scans(root, tree)
    people = read_participants(root, [folder.name.removeprefix("sub-") for folder in subjects])
    for folder in subjects:
        if not any(folder in scan.path.parents for scan in scans):
            notes.append((str(folder), "no FLAIR"))
        if (root / "participants.tsv").is_file() and folder.name.removeprefix("sub-") not in people:
            notes.append((str(folder), "a subject without a row in participants.tsv"))
    pairs = references.pairs(scans, references.lesion_masks(root, notes), notes)
    expected = f"{EXPECTED} and a …_label-WMH_mask.nii.gz of it in derivatives/<name>/"
    return folders.cohort_table(_rows(pairs, people, name), notes, root, expected)


def _subject_folders(root: Path) -> list[Path]:
    return [path for path in sorted(root.glob("sub-*")) if path.is_dir()]


def _name(root: Path) -> str:
    """The data set's name, once it is sure that it has one layout."""
    name = described(root, RAW_EXAMPLE).get("Name")
    if not isinstance(name, str):
        raise ValueError(f"{root / DESCRIPTION} has no Name that is text: add it as BIDS asks.")
    for part in OTHER_LAYOUT:
        if (root / part).is_dir():
            both = f"{part}/, as the challenge's layout, and {DESCRIPTION}, as BIDS"
            raise ValueError(f"{root} has {both}: move one of them (notebook 07's masks need a folder of their own).")
    return name


def _scans(root: Path, tree: Tree) -> tuple[list[BidsFile], Notes]:
    """Every FLAIR where BIDS has it, and notes on whatever else may be meant for a scan or a mask."""
    scans, notes = [], folders.broken_links(tree)
    for path in tree.files:
        image = parsed(path)
        if image and image.is_lesion_mask():
            notes.append((str(path), "a lesion mask among the raw data, expected in derivatives/<name>/"))
        elif image and image.suffix == "FLAIR" and path.parent == _anat(root, image.entities):
            scans.append(image)
        elif folders.may_be_flair(path):
            notes.append((str(path), f"named like a FLAIR, but not at {EXPECTED}"))
    known = [*WITHOUT_SCANS, *(folder.name for folder in _subject_folders(root))]
    return scans, notes + folders.misplaced(root, known, EXPECTED)


def _anat(root: Path, entities: dict[str, str]) -> Path:
    """The folder in which BIDS has a subject's structural images."""
    return root / "/".join([*(f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities), "anat"])


def _rows(pairs: list[tuple[BidsFile, BidsFile]], people: dict[str, Participant], name: str) -> list[tuple]:
    """The cohort's rows. A subject has its session and run in its name, and further entities where two would be the same."""
    rows, short = [], [_subject(scan, ("sub", "ses", "run")) for scan, _ in pairs]
    for called, (scan, mask) in zip(short, pairs, strict=True):
        participant = people.get(scan.entities["sub"], Participant())
        subject = _subject(scan, tuple(scan.entities)) if short.count(called) > 1 else called
        rows.append((subject, participant.centre or name, participant.split, str(scan.path), str(mask.path)))
    return rows


def _subject(scan: BidsFile, entities: tuple[str, ...]) -> str:
    return "_".join(f"{key}-{label}" for key, label in scan.entities.items() if key in entities).removeprefix("sub-")


def _refuse_data_set(root: Path) -> None:
    """Refuse a folder of others' for predicted masks, in which they would pass for a person's or hide the data."""
    if os.path.lexists(root / DESCRIPTION):
        if set(made_by := makers(root)) != {references.OWN_NAME}:
            made = ", ".join(made_by) or "others"
            raise ValueError(f"{root} is made by {made}, says its {DESCRIPTION}: name another folder for masks.")
    elif root.is_dir() and any(not path.name.startswith(".") for path in root.iterdir()):
        raise ValueError(f"{root} holds other files and no {DESCRIPTION}: name an empty folder for predicted masks.")


def write_derivative(
    root: PathLike, subject: str, mask: nibabel.Nifti1Image, source: str, model: str, record: dict | None = None
) -> Path:
    """Write one predicted mask into a BIDS derivative at `root`, which is begun where it is not there yet.

    Parameters
    ----------
    subject
        The participant, with its further entities if any (`01_ses-2_run-1`), all of which stay in the name; what BIDS does
        not allow in a label is left out.
    mask
        uint8 0/1 on the scan's own grid.
    source, model
        What it was made from, in words that name no person: the scan, and the network.
    record
        Checksums of both, `scan_sha256` and `network_sha256`, where they are known.

    Returns
    -------
    Path
        Of the mask; its JSON sidecar is next to it.

    Raises
    ------
    FileExistsError
        The place holds a mask made from something else, by the sidecar: nothing is replaced.
    ValueError
        Nothing of the subject can be in a label; or the folder is a data set of others by its description, or is not empty
        and has none.
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
    if path.exists() and read_json(sidecar_path) != sidecar:
        raise FileExistsError(f"{path} holds the mask of another scan or network: name another folder for these masks.")
    if not (root / DESCRIPTION).is_file():
        made_by = {"Name": references.OWN_NAME, "Version": importlib.metadata.version("wmhlib")}
        description = {"Name": "Predicted white matter hyperintensities", "BIDSVersion": "1.9.0"}
        write_json(root / DESCRIPTION, description | {"DatasetType": "derivative", "GeneratedBy": [made_by]})
    write_json(sidecar_path, sidecar)
    save_image(mask, path)
    return path
